//! DHCP with clients and relays that we did not write, in network namespaces; and on loopback without any rights.
#![allow(clippy::unwrap_used, missing_docs)]

mod boot_support;

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use boot_support::{
    MAC, Site, has, loopback_with_ticket,
    net::{Kill, Net, serve_if_asked},
    network, table, ticket, until,
};
use rackwright::{
    model::{BootTable, DhcpMode, Mac, Rung},
    wire::dhcp::{Kind, Message, code},
};
use tokio::net::UdpSocket;

#[test]
fn serve_here() {
    serve_if_asked();
}

/// As a simulated machine asks: itself as the relay, at a port of its own.
fn relayed(kind: Kind, mac: Mac, options: &[(u8, &[u8])]) -> Message {
    let mut message = Message::request(kind, mac.0, 0x1234);
    message.giaddr = Ipv4Addr::LOCALHOST;
    message.options.extend(options.iter().map(|(code, value)| (*code, value.to_vec())));
    message.options.insert(code::RELAY, vec![19, 0]);
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_machine_gets_its_lease_on_loopback_without_any_rights() {
    let site = Site::start(loopback_with_ticket()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(site.server.addresses().dhcp.unwrap()).await.unwrap();
    let class: (u8, &[u8]) = (code::CLASS_ID, b"PXEClient:Arch:00007:UNDI:003001");
    let arch: (u8, &[u8]) = (code::ARCHITECTURE, &[0, 7]);
    let mut buffer = [0; 1500];
    client.send(&relayed(Kind::Discover, MAC, &[class, arch]).encode()).await.unwrap();
    let length = client.recv(&mut buffer).await.unwrap();
    let offer = Message::decode(&buffer[..length]).unwrap();
    assert_eq!((offer.kind, offer.yiaddr, offer.xid), (Kind::Offer, Ipv4Addr::LOCALHOST, 0x1234));
    let file = format!("tftp://{}/snponly.efi", site.server.addresses().tftp);
    assert_eq!(offer.text(code::BOOT_FILE), Some(file.as_str()));
    let server = offer.address(code::SERVER_ID).unwrap().octets();
    let chosen = [class, arch, (code::SERVER_ID, &server), (code::REQUESTED_ADDRESS, &[127, 0, 0, 1])];
    client.send(&relayed(Kind::Request, MAC, &chosen).encode()).await.unwrap();
    let length = client.recv(&mut buffer).await.unwrap();
    assert_eq!(Message::decode(&buffer[..length]).unwrap().kind, Kind::Ack);
    until("the firmware is seen", || site.witness.rungs() == [Rung::DhcpSeen]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_strangers_gets_silence_and_a_machine_in_it_its_answer() {
    let site = Site::start(loopback_with_ticket()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(site.server.addresses().dhcp.unwrap()).await.unwrap();
    for number in 0..20_000u32 {
        let [a, b, c, d] = number.to_be_bytes();
        client.send(&relayed(Kind::Discover, Mac([2, 1, a, b, c, d]), &[]).encode()).await.unwrap();
    }
    let mut buffer = [0; 1500];
    let mut answered = None;
    // UDP may drop in a storm; a client asks again.
    for _ in 0..100 {
        client.send(&relayed(Kind::Discover, MAC, &[]).encode()).await.unwrap();
        if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer)).await {
            answered = Some(Message::decode(&buffer[..length]).unwrap());
            break;
        }
    }
    assert_eq!(answered.unwrap().ethernet(), Some(MAC.0));
    let told = site.witness.refused.lock().unwrap().len();
    assert!((1..=4096).contains(&told), "{told} lines");
}

/// Runs busybox's udhcpc once and gives what it was told, by name; `None`: it got no lease.
fn udhcpc(net: &Net, folder: &Path, device: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let (script, told) = (folder.join("told.sh"), folder.join("told"));
    let _ = std::fs::remove_file(&told);
    std::fs::write(&script, format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {}\nexit 0\n", told.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = net.exec("c", "busybox");
    command.args(["udhcpc", "-f", "-n", "-q", "-t", "3", "-T", "1", "-i", device, "-s"]).arg(&script).args(arguments);
    let _ = command.output().unwrap();
    let told = std::fs::read_to_string(told).ok()?;
    Some(told.lines().map(str::to_owned).collect())
}

const FIRMWARE: [&str; 8] = ["-V", "PXEClient:Arch:00007:UNDI:003001", "-x", "93:0007", "-O", "bootfile", "-O", "tftp"];

fn prod(dhcp: DhcpMode) -> BootTable {
    let mut network = network("prod", "10.91.1.0/24", dhcp);
    network.gateway = Some(Ipv4Addr::new(10, 91, 1, 254));
    table(MAC, Some(Ipv4Addr::new(10, 91, 1, 12)), network)
}

#[test]
fn udhcpc_on_the_same_wire_gets_what_the_manifest_says() {
    let Some(net) = has("busybox", "busybox").then(|| Net::new("d", &["s", "c"])).flatten() else { return };
    net.cable(("s", "s0"), ("c", "c0"));
    net.ip("s", "addr add 10.91.1.1/24 dev s0");
    net.ip("c", &format!("link set c0 address {MAC}"));
    let folder = tempfile::tempdir().unwrap();
    let mut table = prod(DhcpMode::Authoritative);
    table.tickets.insert(MAC, ticket(MAC));
    let server = net.serve("s", folder.path(), "s0", Ipv4Addr::new(10, 91, 1, 1), &table);

    let told = udhcpc(&net, folder.path(), "c0", &FIRMWARE).expect("a lease");
    for line in
        ["ip=10.91.1.12", "mask=24", "router=10.91.1.254", "serverid=10.91.1.1", "siaddr=10.91.1.1", "bootfile=snponly.efi", "lease=600"]
    {
        assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
    }
    server.wait_for("saw web-01#3 DhcpSeen");
    // An installed system gets no boot file.
    let told = udhcpc(&net, folder.path(), "c0", &["-O", "bootfile"]).expect("a lease");
    assert!(!told.iter().any(|told| told.starts_with("bootfile=") || told.starts_with("siaddr=")), "{told:#?}");
    // It wants another address: refused, and then it takes the right one.
    let told = udhcpc(&net, folder.path(), "c0", &["-r", "10.91.1.77"]).expect("a lease");
    assert!(told.iter().any(|told| told == "ip=10.91.1.12"), "{told:#?}");
    // A stranger gets silence.
    net.ip("c", "link set c0 address 02:00:00:00:00:01");
    assert_eq!(udhcpc(&net, folder.path(), "c0", &FIRMWARE), None);
    server.wait_for("02:00:00:00:00:01");
    assert_eq!(server.lines().iter().filter(|line| line.contains("02:00:00:00:00:01")).count(), 1);
}

#[test]
fn rdisc6_gets_an_advertisement_that_announces_nothing() {
    let Some(net) = has("rdisc6", "ndisc6").then(|| Net::new("i", &["s", "c"])).flatten() else { return };
    net.cable(("s", "s0"), ("c", "c0"));
    net.ip("s", "addr add 10.91.1.1/24 dev s0");
    let folder = tempfile::tempdir().unwrap();
    let _server = net.serve("s", folder.path(), "s0", Ipv4Addr::new(10, 91, 1, 1), &prod(DhcpMode::Authoritative));
    // Until its link-local address is proven unique, a few seconds, rdisc6 can't ask.
    let ask = || {
        let got = net.exec("c", "rdisc6").args(["-1", "-r", "1", "-w", "1000", "c0"]).output().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        String::from_utf8_lossy(&got.stdout).into_owned()
    };
    let got = (0..50).map(|_| ask()).find(|got| got.contains("Router lifetime")).unwrap_or_default();
    let lifetime = got.lines().find(|line| line.starts_with("Router lifetime"));
    assert!(lifetime.is_some_and(|line| line.contains(" 0 ")), "{got}");
    assert!(!got.contains("Prefix"), "{got}");

    let forward = |value: &str| {
        let command = format!("echo {value} > /proc/sys/net/ipv6/conf/s0/forwarding");
        assert!(net.exec("s", "sh").args(["-c", &command]).status().unwrap().success());
    };
    forward("1");
    assert!(!ask().contains("Router lifetime"), "the host is a router itself");
    forward("0");
    assert!((0..50).any(|_| ask().contains("Router lifetime")), "it is none any more");
    if has("python3", "python3") {
        assert!(net.exec("c", "python3").args(["-c", ROUTER]).status().unwrap().success());
        assert!(!ask().contains("Router lifetime"), "another router is there");
    }
}

/// One advertisement of a default router, to all nodes, with the hop limit that receivers want (RFC 4861 section 6.1.2).
const ROUTER: &str = "
import socket
link = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
link.sendto(bytes([134, 0, 0, 0, 64, 0, 7, 8] + [0] * 8), ('ff02::1', 0, 0, socket.if_nametoindex('c0')))
";

#[test]
fn a_lease_comes_through_the_isc_relay() {
    let there = has("busybox", "busybox") && has("dhcrelay", "isc-dhcp-relay");
    let Some(net) = there.then(|| Net::new("r", &["s", "r", "c"])).flatten() else { return };
    net.cable(("c", "c0"), ("r", "r0"));
    net.cable(("s", "s0"), ("r", "r1"));
    net.ip("c", &format!("link set c0 address {MAC}"));
    for (name, address) in [("r", "10.91.1.1/24 dev r0"), ("r", "10.91.2.1/24 dev r1"), ("s", "10.91.2.2/24 dev s0")] {
        net.ip(name, &format!("addr add {address}"));
    }
    net.ip("s", "route add 10.91.1.0/24 via 10.91.2.1");
    let folder = tempfile::tempdir().unwrap();
    let server = net.serve("s", folder.path(), "s0", Ipv4Addr::new(10, 91, 2, 2), &prod(DhcpMode::Authoritative));
    let relay = |arguments: &[&str]| {
        let mut command = net.exec("r", "dhcrelay");
        command.args(["-4", "-d", "--no-pid", "-a"]).args(arguments).arg("10.91.2.2");
        Kill(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let _relay = relay(&["-iu", "r1", "-id", "r0"]);
    let told = (0..10).find_map(|_| udhcpc(&net, folder.path(), "c0", &FIRMWARE)).expect("a lease");
    for line in ["ip=10.91.1.12", "serverid=10.91.2.2", "siaddr=10.91.2.2", "bootfile=localboot.efi"] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
    }
    server.wait_for("told to boot from disk");
}

/// SeaBIOS with the iPXE of QEMU's network card: takes its address from `dnsmasq` and its script from us.
#[test]
fn ipxe_beside_dnsmasq_takes_its_script_from_us() {
    let there = has("qemu-system-x86_64", "qemu-system-x86 ipxe-qemu") && has("dnsmasq", "dnsmasq-base");
    let Some(net) = there.then(|| Net::new("p", &["s", "d"])).flatten() else { return };
    let folder = tempfile::tempdir().unwrap();
    bridge(&net);
    let _dnsmasq = dnsmasq(&net, folder.path());
    let mut table = prod(DhcpMode::Proxy);
    table.tickets.insert(MAC, ticket(MAC));
    let server = net.serve("s", folder.path(), "br0", Ipv4Addr::new(10, 91, 1, 1), &table);
    let _machine = machine(&net, folder.path());
    server.wait_for("saw web-01#3 DhcpSeen");
    server.wait_for("saw web-01#3 LoaderFetched");
    assert!(std::fs::read_to_string(folder.path().join("leases")).unwrap().contains("10.91.1.1"), "the address is dnsmasq's");
}

/// OVMF's own network stack, then snponly.efi: as real UEFI firmware goes, through port 69 and, beside another server, 4011.
fn ovmf(test: &str, mode: DhcpMode, http: bool) {
    let there = has("qemu-system-x86_64", "qemu-system-x86 ovmf ipxe") && has("dnsmasq", "dnsmasq-base");
    let Some(net) = there.then(|| Net::new(test, &["s", "d"])).flatten() else { return };
    let (code, variables) = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd");
    let name = if http { "ipxe.efi" } else { "snponly.efi" };
    let loader = &format!("/usr/lib/ipxe/{name}");
    if let Some(missing) = [code, variables, loader.as_str()].into_iter().find(|path| !Path::new(path).exists()) {
        return println!("skipped: {missing} is not there (apt-get install ovmf ipxe)");
    }
    let folder = tempfile::tempdir().unwrap();
    bridge(&net);
    let _dnsmasq = (mode == DhcpMode::Proxy).then(|| dnsmasq(&net, folder.path()));
    let mut table = prod(mode);
    table.tickets.insert(MAC, ticket(MAC));
    let server = net.serve("s", folder.path(), "br0", Ipv4Addr::new(10, 91, 1, 1), &table);
    std::fs::copy(loader, folder.path().join("files").join(name)).unwrap();
    std::fs::copy(variables, folder.path().join("vars")).unwrap();
    let mut command = net.exec("s", "qemu-system-x86_64");
    command.args(["-M", "q35", "-m", "512", "-display", "none", "-nodefaults", "-serial"]);
    command.arg(format!("file:{}", folder.path().join("console").display()));
    command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
    command.args(["-drive", &format!("if=pflash,format=raw,file={}", folder.path().join("vars").display())]);
    command.args(["-netdev", "tap,id=n,ifname=t0,script=no,downscript=no"]);
    command.args(["-device", &format!("virtio-net-pci,netdev=n,mac={MAC},romfile=,bootindex=1")]);
    for protocol in ["IPv4PXESupport", "IPv6PXESupport"].into_iter().filter(|_| http) {
        command.args(["-fw_cfg", &format!("name=opt/org.tianocore/{protocol},string=n")]);
    }
    let _machine = Kill(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    server.wait_for("saw web-01#3 DhcpSeen");
    server.wait_for("saw web-01#3 LoaderFetched");
    let console = || String::from_utf8_lossy(&std::fs::read(folder.path().join("console")).unwrap_or_default()).into_owned();
    for _ in 0..1800 {
        if console().contains("this machine will be installed with debian") {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the script did not run: {}", console());
}

#[test]
fn uefi_gets_address_loader_and_script_from_us() {
    ovmf("u", DhcpMode::Authoritative, false);
}

#[test]
fn uefi_http_boot_gets_address_loader_and_script_from_us() {
    ovmf("w", DhcpMode::Authoritative, true);
}

#[test]
fn uefi_beside_dnsmasq_gets_loader_and_script_from_us() {
    ovmf("v", DhcpMode::Proxy, false);
}

/// The same machine, with its address from us, and no ticket.
#[test]
fn ipxe_without_a_ticket_is_told_to_boot_from_disk() {
    let Some(net) = has("qemu-system-x86_64", "qemu-system-x86 ipxe-qemu").then(|| Net::new("q", &["s"])).flatten() else { return };
    let folder = tempfile::tempdir().unwrap();
    bridge(&net);
    let server = net.serve("s", folder.path(), "br0", Ipv4Addr::new(10, 91, 1, 1), &prod(DhcpMode::Authoritative));
    let _machine = machine(&net, folder.path());
    let console = || std::fs::read_to_string(folder.path().join("console")).unwrap_or_default();
    for _ in 0..1800 {
        if console().contains("Booting from SAN device 0x80") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let console = console();
    assert!(console.contains("booting from disk") && console.contains("Booting from SAN device 0x80"), "{console}");
    assert!(!server.lines().iter().any(|line| line.starts_with("saw")), "{:#?}", server.lines());
}

/// Another DHCP server on the same wire, which gives addresses and knows nothing of booting.
fn dnsmasq(net: &Net, folder: &Path) -> Kill {
    net.cable(("s", "s1"), ("d", "d0"));
    net.ip("s", "link set s1 master br0");
    net.ip("d", "addr add 10.91.1.2/24 dev d0");
    let mut dnsmasq = net.exec("d", "dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--interface=d0", "--dhcp-authoritative"]);
    dnsmasq.args(["--dhcp-range=10.91.1.100,10.91.1.120,1h", "--pid-file=", "--user=root"]);
    dnsmasq.arg(format!("--dhcp-leasefile={}", folder.join("leases").display()));
    Kill(dnsmasq.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn bridge(net: &Net) {
    net.ip("s", "link add br0 type bridge");
    net.ip("s", "tuntap add t0 mode tap");
    net.ip("s", "addr add 10.91.1.1/24 dev br0");
    for command in ["link set t0 master br0", "link set br0 up", "link set t0 up"] {
        net.ip("s", command);
    }
}

/// A machine with BIOS that boots from the network; its console goes to the file `console`.
fn machine(net: &Net, folder: &Path) -> Kill {
    let mut command = net.exec("s", "qemu-system-x86_64");
    command.args(["-M", "pc,graphics=off", "-m", "256", "-display", "none", "-nodefaults", "-boot", "n"]);
    command.args(["-chardev", &format!("file,id=c,path={}", folder.join("console").display()), "-serial", "chardev:c"]);
    command.args(["-netdev", "tap,id=n,ifname=t0,script=no,downscript=no", "-device", &format!("virtio-net-pci,netdev=n,mac={MAC}")]);
    let log = std::fs::File::create(folder.join("qemu.log")).unwrap();
    Kill(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}
