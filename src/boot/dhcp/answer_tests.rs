use super::*;
use crate::{
    boot::testing::{self, ADDRESS, MAC, OTHER_NIC, PROXIED},
    model::{Digest, Evidence},
};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 1);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const UUID: [u8; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn ask(kind: Kind, mac: Mac) -> Message {
    Message::request(kind, mac.0, 0x2a)
}

fn with(mut message: Message, options: &[(u8, &[u8])]) -> Message {
    message.options.extend(options.iter().map(|(code, value)| (*code, value.to_vec())));
    message
}

fn uefi(kind: Kind, mac: Mac) -> Message {
    let options: [(u8, &[u8]); 4] =
        [(code::CLASS_ID, b"PXEClient:Arch:00007:UNDI:003001"), (code::ARCHITECTURE, &[0, 7]), (94, &[1, 3, 1]), (code::UUID, &UUID)];
    with(ask(kind, mac), &options)
}

fn bios(kind: Kind, mac: Mac) -> Message {
    with(ask(kind, mac), &[(code::CLASS_ID, b"PXEClient:Arch:00000:UNDI:002001"), (code::ARCHITECTURE, &[0, 0])])
}

fn ipxe(kind: Kind, mac: Mac) -> Message {
    with(bios(kind, mac), &[(code::USER_CLASS, b"iPXE"), (code::IPXE, &[177, 5, 1, 0x1a, 0xf4, 0x10, 0])])
}

fn told(table: &BootTable, message: &Message, via: Via, from: SocketAddrV4) -> Answer {
    // Through the codec, as a packet would come.
    let message = Message::decode(&message.encode()).unwrap();
    answer(table, &DhcpRequest { message: &message, from, via }, &testing::facts(), testing::now())
}

fn tell(table: &BootTable, message: &Message) -> Answer {
    told(table, message, Via::Server, SocketAddrV4::new(ANY, CLIENT_PORT))
}

#[track_caller]
fn reply(answer: Answer) -> (Message, Destination, Option<AttemptId>) {
    match answer {
        Answer::Reply { packet, to, seen } => (*packet, to, seen),
        Answer::Silent { why } => panic!("silent: {why}"),
    }
}

#[track_caller]
fn silent(answer: Answer) -> Silence {
    match answer {
        Answer::Silent { why } => why,
        Answer::Reply { packet, .. } => panic!("answered: {packet:?}"),
    }
}

#[test]
fn an_unknown_mac_gets_silence() {
    let stranger = Mac([2, 0, 0, 0, 0, 1]);
    for kind in [Kind::Discover, Kind::Request, Kind::Inform] {
        assert_eq!(silent(tell(&testing::table_with_ticket(), &uefi(kind, stranger))), Silence::Unknown(stranger));
    }
}

#[test]
fn a_ticket_holder_is_offered_its_address_and_the_loader() {
    let (packet, to, seen) = reply(tell(&testing::table_with_ticket(), &uefi(Kind::Discover, MAC)));
    assert_eq!((packet.kind, packet.yiaddr, packet.siaddr), (Kind::Offer, ADDRESS, OURS));
    assert_eq!(packet.file, b"snponly.efi");
    assert_eq!(packet.text(code::BOOT_FILE), Some("snponly.efi"));
    assert_eq!(packet.text(code::TFTP_SERVER), Some("10.0.4.1"));
    assert_eq!(packet.address(code::SERVER_ID), Some(OURS));
    assert_eq!(packet.address(code::ROUTER), Some(Ipv4Addr::new(10, 0, 4, 254)));
    assert_eq!(packet.option(code::DNS), Some(&[10, 0, 0, 53][..]));
    assert_eq!(packet.option(code::NTP), Some(&[10, 0, 0, 123][..]));
    assert_eq!(packet.option(code::SUBNET_MASK), Some(&[255, 255, 255, 0][..]));
    assert_eq!(packet.option(code::LEASE_TIME), Some(&600u32.to_be_bytes()[..]));
    assert_eq!(packet.option(code::UUID), Some(&UUID[..]));
    // PXEClient here would start the proxyDHCP procedure, and the file would be ignored.
    assert_eq!(packet.option(code::CLASS_ID), None);
    assert_eq!(to, Destination::Broadcast);
    assert_eq!(seen.unwrap().to_string(), "web-01#3");
}

#[test]
fn the_offer_is_these_bytes() {
    // By RFC 2131 figure 1, RFC 2132 and RFC 4578. Do not change this test: firmware reads these bytes.
    let (packet, ..) = reply(tell(&testing::table_with_ticket(), &bios(Kind::Discover, MAC)));
    let bytes = packet.encode();
    let header = "0201060000000 02a00000000 00000000 0a00040c 0a000401 00000000 525400123456".replace(' ', "");
    assert_eq!(hex::encode(&bytes[..34]), header);
    assert_eq!(&bytes[108..122], b"undionly.kpxe\0");
    let options = "63825363 350102 36040a000401 0104ffffff00 03040a0004fe 06040a000035 1c040a0004ff 2a040a00007b 330400000258 \
                   420831302e302e342e31 430d756e64696f6e6c792e6b707865 ff"
        .replace(' ', "");
    assert_eq!(hex::encode(&bytes[236..236 + options.len() / 2]), options);
}

#[test]
fn without_a_ticket_a_machine_boots_its_disk() {
    let table = testing::table();
    let (packet, _, seen) = reply(tell(&table, &uefi(Kind::Discover, MAC)));
    assert_eq!((packet.file.as_slice(), seen), (&b"localboot.efi"[..], None));
    assert_eq!(reply(tell(&table, &bios(Kind::Discover, MAC))).0.file, b"undionly.kpxe");
    assert_eq!(reply(tell(&table, &ipxe(Kind::Discover, MAC))).0.file, b"http://10.0.4.1/ipxe/52:54:00:12:34:56");
}

#[test]
fn an_expired_or_written_ticket_opens_nothing() {
    let mut table = testing::table_with_ticket();
    let ticket = table.tickets.get_mut(&MAC).unwrap();
    ticket.expires = testing::now();
    assert_eq!(reply(tell(&table, &uefi(Kind::Discover, MAC))).0.file, b"localboot.efi");
    let mut table = testing::table_with_ticket();
    let ticket = table.tickets.get_mut(&MAC).unwrap();
    ticket.evidence.push(Evidence::Written { digest: Digest::of(b"image"), bytes: 1 });
    assert_eq!(reply(tell(&table, &uefi(Kind::Discover, MAC))).0.file, b"localboot.efi");
}

#[test]
fn ipxe_is_told_its_script_and_not_to_wait_for_a_proxy() {
    let (packet, _, seen) = reply(tell(&testing::table_with_ticket(), &ipxe(Kind::Discover, MAC)));
    assert_eq!(packet.text(code::BOOT_FILE), Some("http://10.0.4.1/ipxe/52:54:00:12:34:56"));
    assert_eq!(packet.sub_option(code::IPXE, 176), Some(&[1][..]));
    assert!(seen.is_some());
}

#[test]
fn http_boot_gets_a_url_and_its_class_back() {
    let class: [(u8, &[u8]); 2] = [(code::CLASS_ID, b"HTTPClient:Arch:00016:UNDI:003001"), (code::ARCHITECTURE, &[0, 16])];
    let ask = with(ask(Kind::Discover, MAC), &class);
    let (packet, ..) = reply(tell(&testing::table_with_ticket(), &ask));
    assert_eq!(packet.text(code::CLASS_ID), Some("HTTPClient"));
    assert_eq!(packet.text(code::BOOT_FILE), Some("http://10.0.4.1/boot/ipxe.efi"));
    assert_eq!(reply(tell(&testing::table(), &ask)).0.text(code::BOOT_FILE), Some("http://10.0.4.1/boot/localboot.efi"));
}

#[test]
fn another_interface_and_an_installed_system_get_an_address_only() {
    let table = testing::table_with_ticket();
    for (ask, lease) in
        [(uefi(Kind::Discover, OTHER_NIC), 600u32), (ask(Kind::Discover, OTHER_NIC), 43_200), (ask(Kind::Discover, MAC), 600)]
    {
        let (packet, _, seen) = reply(tell(&table, &ask));
        assert!(packet.file.is_empty() && packet.option(code::BOOT_FILE).is_none() && packet.siaddr.is_unspecified());
        assert_eq!(packet.option(code::LEASE_TIME), Some(&lease.to_be_bytes()[..]));
        assert_eq!(seen, None);
    }
}

#[test]
fn a_request_is_acknowledged_or_refused_only_by_the_server_that_was_chosen() {
    let table = testing::table();
    let request = |server: Ipv4Addr, address: Ipv4Addr| {
        with(ask(Kind::Request, MAC), &[(code::SERVER_ID, &server.octets()), (code::REQUESTED_ADDRESS, &address.octets())])
    };
    let (packet, ..) = reply(tell(&table, &request(OURS, ADDRESS)));
    assert_eq!((packet.kind, packet.yiaddr), (Kind::Ack, ADDRESS));
    let wrong = Ipv4Addr::new(10, 0, 4, 99);
    let (packet, to, _) = reply(tell(&table, &request(OURS, wrong)));
    assert_eq!((packet.kind, packet.yiaddr, to), (Kind::Nak, ANY, Destination::Broadcast));
    let other = Ipv4Addr::new(10, 0, 4, 2);
    assert_eq!(silent(tell(&table, &request(other, wrong))), Silence::OtherServer);
    assert_eq!(silent(tell(&table, &request(other, ADDRESS))), Silence::OtherServer);
    let broken = with(request(OURS, ADDRESS), &[(code::SERVER_ID, &[1, 2])]);
    assert_eq!(silent(tell(&table, &broken)), Silence::OtherServer);
}

#[test]
fn a_system_that_renews_or_restarts_keeps_its_address() {
    let table = testing::table();
    let mut renew = ask(Kind::Request, MAC);
    renew.ciaddr = ADDRESS;
    let (packet, to, _) = reply(tell(&table, &renew));
    assert_eq!((packet.kind, packet.ciaddr), (Kind::Ack, ADDRESS));
    assert_eq!(to, Destination::Unicast(SocketAddrV4::new(ADDRESS, 68)));
    let reboot = |address: [u8; 4]| with(ask(Kind::Request, MAC), &[(code::REQUESTED_ADDRESS, &address)]);
    assert_eq!(reply(tell(&table, &reboot(ADDRESS.octets()))).0.kind, Kind::Ack);
    assert_eq!(reply(tell(&table, &reboot([192, 168, 1, 2]))).0.kind, Kind::Nak);
}

#[test]
fn inform_gets_no_address_and_release_and_decline_get_nothing() {
    let table = testing::table();
    let mut inform = ask(Kind::Inform, MAC);
    inform.ciaddr = ADDRESS;
    let (packet, to, _) = reply(tell(&table, &inform));
    assert_eq!((packet.kind, packet.yiaddr, packet.option(code::LEASE_TIME)), (Kind::Ack, ANY, None));
    assert_eq!(to, Destination::Unicast(SocketAddrV4::new(ADDRESS, 68)));
    assert_eq!(silent(tell(&table, &ask(Kind::Release, MAC))), Silence::Nothing);
    assert_eq!(silent(tell(&table, &ask(Kind::Decline, MAC))), Silence::Declined(ADDRESS));
    assert_eq!(silent(tell(&table, &ask(Kind::Offer, MAC))), Silence::NotARequest);
}

#[test]
fn a_relay_gets_the_answer_with_its_option_and_flags_as_they_came() {
    let table = testing::table();
    let circuit = [1u8, 2, b'e', b'0'];
    let mut relayed = with(ask(Kind::Discover, MAC), &[(code::RELAY, &circuit)]);
    (relayed.giaddr, relayed.broadcast, relayed.hops) = (Ipv4Addr::new(10, 0, 4, 250), true, 1);
    let from = SocketAddrV4::new(relayed.giaddr, 40000);
    let (packet, to, _) = reply(told(&table, &relayed, Via::Server, from));
    assert_eq!((packet.giaddr, packet.broadcast, packet.option(code::RELAY)), (relayed.giaddr, true, Some(&circuit[..])));
    assert_eq!(to, Destination::Unicast(SocketAddrV4::new(relayed.giaddr, 67)));
    // RFC 8357: the port that the relayed message came from.
    relayed.options.insert(code::RELAY, vec![19, 0]);
    assert_eq!(reply(told(&table, &relayed, Via::Server, from)).1, Destination::Unicast(from));
    // RFC 5107: the relay stands in for us.
    relayed.options.insert(code::RELAY, vec![11, 4, 10, 0, 4, 250]);
    assert_eq!(reply(told(&table, &relayed, Via::Server, from)).0.address(code::SERVER_ID), Some(relayed.giaddr));
    // RFC 3527: the relay's address is of another subnet than the client's link.
    relayed.giaddr = Ipv4Addr::new(10, 9, 9, 9);
    assert_eq!(silent(told(&table, &relayed, Via::Server, from)), Silence::WrongNetwork { link: relayed.giaddr });
    relayed.options.insert(code::RELAY, vec![5, 4, 10, 0, 4, 0]);
    assert_eq!(reply(told(&table, &relayed, Via::Server, from)).1, Destination::Unicast(SocketAddrV4::new(relayed.giaddr, 67)));
}

#[test]
fn the_client_identifier_comes_back() {
    let (packet, ..) = reply(tell(&testing::table(), &with(ask(Kind::Discover, MAC), &[(code::CLIENT_ID, &[1, 2, 3])])));
    assert_eq!(packet.option(code::CLIENT_ID), Some(&[1, 2, 3][..]));
}

#[test]
fn a_refusal_through_a_relay_asks_it_to_broadcast() {
    let mut request = with(ask(Kind::Request, MAC), &[(code::REQUESTED_ADDRESS, &[10, 0, 4, 99])]);
    request.giaddr = Ipv4Addr::new(10, 0, 4, 250);
    let (packet, to, _) = reply(tell(&testing::table(), &request));
    assert_eq!((packet.kind, packet.broadcast), (Kind::Nak, true));
    assert_eq!(to, Destination::Unicast(SocketAddrV4::new(request.giaddr, 67)));
}

#[test]
fn beside_another_server_bios_is_told_to_boot_the_file_at_once() {
    let (packet, to, _) = reply(tell(&testing::table(), &bios(Kind::Discover, PROXIED)));
    assert_eq!((packet.kind, packet.yiaddr, to), (Kind::Offer, ANY, Destination::Broadcast));
    assert_eq!(packet.text(code::CLASS_ID), Some("PXEClient"));
    assert_eq!(packet.sub_option(code::VENDOR_SPECIFIC, 6), Some(&[8][..]));
    assert_eq!(packet.text(code::BOOT_FILE), Some("undionly.kpxe"));
    for code in [code::LEASE_TIME, code::SUBNET_MASK, code::ROUTER, code::DNS] {
        assert_eq!(packet.option(code), None);
    }
}

#[test]
fn beside_another_server_uefi_is_answered_on_4011_at_the_port_it_asked_from() {
    let table = testing::table();
    let (offer, ..) = reply(tell(&table, &uefi(Kind::Discover, PROXIED)));
    assert_eq!((offer.option(code::VENDOR_SPECIFIC), offer.text(code::CLASS_ID)), (None, Some("PXEClient")));
    // As captured from OVMF: ciaddr filled in, source port 4011, option 57 = 65280.
    let mut request = with(uefi(Kind::Request, PROXIED), &[(57, &[255, 0])]);
    request.ciaddr = Ipv4Addr::new(10, 0, 5, 77);
    let from = SocketAddrV4::new(request.ciaddr, 4011);
    let (packet, to, _) = reply(told(&table, &request, Via::Proxy, from));
    assert_eq!((packet.kind, packet.yiaddr, to), (Kind::Ack, ANY, Destination::Unicast(from)));
    assert_eq!(packet.text(code::BOOT_FILE), Some("localboot.efi"));
    assert_eq!(packet.option(code::UUID), Some(&UUID[..]));
}

#[test]
fn beside_another_server_we_give_no_addresses() {
    let table = testing::table();
    assert_eq!(silent(tell(&table, &ask(Kind::Discover, PROXIED))), Silence::Nothing);
    assert_eq!(silent(tell(&table, &uefi(Kind::Request, PROXIED))), Silence::Nothing);
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 5, 77), 68);
    assert_eq!(silent(told(&table, &ask(Kind::Request, PROXIED), Via::Proxy, from)), Silence::Nothing);
    let arm = with(uefi(Kind::Discover, PROXIED), &[(code::ARCHITECTURE, &[0, 11])]);
    assert_eq!(silent(tell(&table, &arm)), Silence::Architecture);
}

#[test]
fn a_network_that_is_off_is_left_alone() {
    let mut table = testing::table_with_ticket();
    table.networks.values_mut().for_each(|network| network.dhcp = DhcpMode::Off);
    assert_eq!(silent(tell(&table, &uefi(Kind::Discover, MAC))), Silence::NotServed);
    table.networks.clear();
    assert_eq!(silent(tell(&table, &uefi(Kind::Discover, MAC))), Silence::NotServed);
}
