//! The TFTP server against clients that we did not write.
#![allow(clippy::unwrap_used, missing_docs)]

mod boot_support;

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use boot_support::{MAC, Site, has, holder_elsewhere, loopback, loopback_with_ticket, until};
use rackwright::{
    model::{BootTable, Rung},
    wire::{
        dhcp::{Kind, Message},
        tftp::{ErrorCode, Packet},
    },
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
    let site = Site::start(loopback_with_ticket()).await;
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
    let site = Site::start(loopback_with_ticket()).await;
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
async fn what_is_not_a_boot_file_is_refused() {
    let read = |file: &str| Packet::Request { write: false, file: file.into(), mode: "octet".into(), options: Vec::new() };
    for file in ["../state/boot.key", "/etc/passwd", "kernel", "", "snponly.efi/..", "files/snponly.efi"] {
        assert_eq!(refused(loopback(), &read(file)).await, 1, "{file}");
    }
    let write = Packet::Request { write: true, file: "snponly.efi".into(), mode: "octet".into(), options: Vec::new() };
    assert_eq!(refused(loopback(), &write).await, 2);
}

/// What a client at 127.0.0.1 gets of each loader: bytes, or the code of an error.
async fn had(site: &Site) -> Vec<(&'static str, Result<(), u16>)> {
    let mut had = Vec::new();
    for file in ["undionly.kpxe", "localboot.efi", "snponly.efi", "ipxe.efi"] {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let request = Packet::Request { write: false, file: file.into(), mode: "octet".into(), options: Vec::new() };
        client.send_to(&request.encode(), site.server.addresses().tftp).await.unwrap();
        let mut buffer = [0; 2000];
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        had.push((
            file,
            match Packet::decode(&buffer[..length]).unwrap() {
                Packet::Data { block: 1, .. } => Ok(()),
                Packet::Error { code, .. } => Err(code),
                other => panic!("{other:?}"),
            },
        ));
        let _ = client.send_to(&Packet::error(ErrorCode::NotDefined, "enough").encode(), from).await;
    }
    had
}

#[tokio::test(flavor = "multi_thread")]
async fn tftp_gives_loaders_to_ticket_holders_and_strangers_nothing() {
    let all = |install, others| [("undionly.kpxe", others), ("localboot.efi", others), ("snponly.efi", install), ("ipxe.efi", install)];
    let holder = Site::start(loopback_with_ticket()).await;
    assert_eq!(had(&holder).await, all(Ok(()), Ok(())));
    assert!(holder.witness.refused.lock().unwrap().is_empty());
    // Declared, and no install is due: what starts its disk.
    let declared = Site::start(loopback()).await;
    assert_eq!(had(&declared).await, all(Err(2), Ok(())));
    let told = declared.witness.refused.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].0.as_ref().is_some_and(|machine| machine.to_string() == "web-01"), "one line for four: {told:?}");
    // A stranger beside a ticket holder, in a network that we serve.
    let stranger = Site::start(holder_elsewhere()).await;
    assert_eq!(had(&stranger).await, all(Err(2), Err(2)));
    assert_eq!(stranger.witness.refused.lock().unwrap().len(), 1);
}

/// What is logged at "info" and above.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On one thread, so that the log of this thread is the server's too.
#[tokio::test]
async fn what_anyone_can_send_does_not_fill_the_log() {
    const TIMES: u32 = 200;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_env_filter("info").with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let site = Site::start(loopback()).await;
    std::fs::remove_file(site.folder.path().join("files/localboot.efi")).unwrap();
    let before = log.0.lock().unwrap().len();

    let addresses = site.server.addresses();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let request = |write, file: &str| Packet::Request { write, file: file.into(), mode: "octet".into(), options: Vec::new() }.encode();
    let mut buffer = [0; 2000];
    let mut decline = Message::request(Kind::Decline, MAC.0, 1);
    decline.giaddr = Ipv4Addr::LOCALHOST;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    for _ in 0..TIMES {
        for packet in [request(true, "x"), request(false, "x"), request(false, "snponly.efi"), request(false, "localboot.efi")] {
            socket.send_to(&packet, addresses.tftp).await.unwrap();
            let length = socket.recv(&mut buffer).await.unwrap();
            assert!(matches!(Packet::decode(&buffer[..length]), Ok(Packet::Error { .. })));
        }
        socket.send_to(&decline.encode(), addresses.dhcp.unwrap()).await.unwrap();
        for path in ["/boot/kernel", "/boot/localboot.efi", "/boot/undionly.kpxe", "/ipxe/52:54:00:12:34:56", "/ipxe/02:00:00:00:00:01"] {
            http.get(site.http(path)).send().await.unwrap();
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap()[before..].to_vec()).unwrap();
    assert!(log.contains("another machine has its address"), "{log}");
    assert!((4..20).contains(&log.lines().count()), "{} lines for {TIMES} of each: {log}", log.lines().count());
}
