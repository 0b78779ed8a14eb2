//! The TFTP server against clients that we did not write.
#![allow(clippy::unwrap_used, missing_docs)]

mod boot_support;

use std::{process::Command, time::Duration};

use boot_support::{Site, has, loopback, loopback_with_ticket, until};
use rackwright::{
    model::{BootTable, Rung},
    wire::tftp::Packet,
};
use tokio::net::UdpSocket;

async fn run(command: &mut Command) -> std::process::Output {
    let command = std::mem::replace(command, Command::new("true"));
    tokio::task::spawn_blocking(move || { command }.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_fetches_each_loader() {
    if !has("curl", "curl") {
        return;
    }
    let site = Site::start(loopback()).await;
    for name in ["undionly.kpxe", "snponly.efi", "ipxe.efi", "localboot.efi"] {
        for block in ["512", "1468", "8192"] {
            let url = format!("tftp://{}/{name}", site.server.addresses().tftp);
            let got = run(Command::new("curl").args(["-sS", "--tftp-blksize", block, &url])).await;
            assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
            assert!(got.stdout == std::fs::read(site.folder.path().join("files").join(name)).unwrap(), "{name} {block}");
        }
    }
    let url = format!("tftp://{}/../state/boot.key", site.server.addresses().tftp);
    assert!(!run(Command::new("curl").args(["-sS", "--path-as-is", &url])).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn atftp_fetches_with_windows_and_the_fetch_is_evidence() {
    if !has("atftp", "atftp") {
        return;
    }
    let site = Site::start(loopback_with_ticket()).await;
    let port = site.server.addresses().tftp.port().to_string();
    for window in ["1", "4", "16", "64"] {
        let to = site.folder.path().join(window);
        let options = ["--option", "blksize 1468", "--option", &format!("windowsize {window}"), "--option", "tsize 0"];
        let mut command = Command::new("atftp");
        command.args(options).args(["-g", "-r", "snponly.efi", "-l"]).arg(&to).args(["127.0.0.1", &port]);
        let got = run(&mut command).await;
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        assert!(std::fs::read(to).unwrap() == std::fs::read(site.folder.path().join("files/snponly.efi")).unwrap(), "window {window}");
    }
    until("the loader is seen", || site.witness.rungs() == [Rung::LoaderFetched]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_at_once_get_whole_files() {
    if !has("curl", "curl") {
        return;
    }
    let site = Site::start(loopback()).await;
    let expected = std::fs::read(site.folder.path().join("files/undionly.kpxe")).unwrap();
    let url = format!("tftp://{}/undionly.kpxe", site.server.addresses().tftp);
    let clients = (0..100).map(|_| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || Command::new("curl").args(["-sS", &url]).output().unwrap())
    });
    for got in futures_util::future::join_all(clients).await {
        assert!(got.unwrap().stdout == expected);
    }
}

/// A client that answers the option acknowledgement with an error, as UEFI does after it learnt the size.
#[tokio::test(flavor = "multi_thread")]
async fn after_the_clients_error_nothing_more_comes() {
    let site = Site::start(loopback()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = [("tsize", "0"), ("timeout", "1")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let request = Packet::Request { write: false, file: "snponly.efi".into(), mode: "octet".into(), options };
    client.send_to(&request.encode(), site.server.addresses().tftp).await.unwrap();
    let mut buffer = [0; 2000];
    let (length, from) = client.recv_from(&mut buffer).await.unwrap();
    let expected = [("tsize", "300000"), ("timeout", "1")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    assert_eq!(Packet::decode(&buffer[..length]).unwrap(), Packet::OptionAck { options: expected });
    client.send_to(&Packet::Error { code: 8, message: "User aborted the transfer".into() }.encode(), from).await.unwrap();
    // More than two of its timeouts.
    let more = tokio::time::timeout(Duration::from_millis(2500), client.recv_from(&mut buffer)).await;
    assert!(more.is_err(), "another packet came: {more:?}");
    // The same client asks again at once, as UEFI does, from the same port.
    client.send_to(&request.encode(), site.server.addresses().tftp).await.unwrap();
    assert!(client.recv_from(&mut buffer).await.is_ok());
}

async fn refused(table: BootTable, request: &Packet<'_>) -> u16 {
    let site = Site::start(table).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&request.encode(), site.server.addresses().tftp).await.unwrap();
    let mut buffer = [0; 2000];
    let length = client.recv(&mut buffer).await.unwrap();
    match Packet::decode(&buffer[..length]).unwrap() {
        Packet::Error { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_boot_file_or_not_our_client_is_refused() {
    let read = |file: &str| Packet::Request { write: false, file: file.into(), mode: "octet".into(), options: Vec::new() };
    for file in ["../state/boot.key", "/etc/passwd", "kernel", "", "snponly.efi/..", "files/snponly.efi"] {
        assert_eq!(refused(loopback(), &read(file)).await, 1, "{file}");
    }
    let write = Packet::Request { write: true, file: "snponly.efi".into(), mode: "octet".into(), options: Vec::new() };
    assert_eq!(refused(loopback(), &write).await, 2);
    assert_eq!(refused(BootTable::default(), &read("snponly.efi")).await, 2);
}
