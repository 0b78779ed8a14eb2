use super::*;
use dhcproto::{Decodable, Decoder, v4};
use proptest::prelude::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

fn with(mut message: Message, options: &[(u8, &[u8])]) -> Message {
    message.options.extend(options.iter().map(|(code, value)| (*code, value.to_vec())));
    message
}

#[test]
fn a_short_message_is_padded_to_300_bytes() {
    let bytes = Message::request(Kind::Discover, MAC, 7).encode();
    assert_eq!(bytes.len(), 300);
    assert_eq!(bytes[236..244], [99, 130, 83, 99, 53, 1, 1, 255]);
}

#[test]
fn options_in_file_and_sname_are_read() {
    let mut bytes = Message::request(Kind::Discover, MAC, 7).encode();
    bytes[FILE][..6].copy_from_slice(&[60, 3, b'P', b'X', b'E', 255]);
    bytes[SNAME][..4].copy_from_slice(&[93, 2, 0, 7]);
    bytes.truncate(243);
    bytes.extend([52, 1, 3, 255]);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.text(code::CLASS_ID), Some("PXE"));
    assert_eq!(message.architectures().collect::<Vec<_>>(), [7]);
    assert!(message.file.is_empty() && message.sname.is_empty());
}

#[test]
fn hostile_shapes_are_refused() {
    let good = Message::request(Kind::Discover, MAC, 7).encode();
    assert_eq!(Message::decode(&good[..239]), Err(BadMessage::Short(239)));
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Message::decode(&bytes)
    };
    assert_eq!(change(236, 0), Err(BadMessage::Cookie));
    assert_eq!(change(0, 3), Err(BadMessage::Op(3)));
    assert_eq!(change(2, 17), Err(BadMessage::HardwareLength(17)));
    assert_eq!(change(242, 99), Err(BadMessage::Kind));
    let mut cut = good[..243].to_vec();
    cut.extend([60, 200, 1, 2]);
    assert_eq!(Message::decode(&cut), Err(BadMessage::Truncated(60)));
    cut.truncate(244);
    assert_eq!(Message::decode(&cut), Err(BadMessage::Truncated(60)));
}

#[test]
fn wrong_lengths_of_one_option_cost_only_that_option() {
    let message = with(
        Message::request(Kind::Request, MAC, 7),
        &[(code::SERVER_ID, &[1, 2]), (code::ARCHITECTURE, &[0, 7, 0]), (code::REQUESTED_ADDRESS, &[10, 0, 0, 1])],
    );
    let message = Message::decode(&message.encode()).unwrap();
    assert_eq!(message.address(code::SERVER_ID), None);
    assert_eq!(message.architectures().collect::<Vec<_>>(), [7]);
    assert_eq!(message.address(code::REQUESTED_ADDRESS), Some(Ipv4Addr::new(10, 0, 0, 1)));
}

#[test]
fn sub_options_are_read_up_to_a_cut() {
    let message = with(Message::request(Kind::Discover, MAC, 7), &[(code::RELAY, &[1, 2, b'e', b'0', 19, 0, 5, 9, 1])]);
    assert_eq!(message.sub_option(code::RELAY, 1), Some(&b"e0"[..]));
    assert_eq!(message.sub_option(code::RELAY, relay::SOURCE_PORT), Some(&[][..]));
    assert_eq!(message.sub_option(code::RELAY, relay::LINK), None);
}

#[test]
fn ipxe_is_known_by_its_user_class_in_both_forms_and_by_option_175() {
    let plain = Message::request(Kind::Discover, MAC, 7);
    assert!(!plain.is_ipxe());
    for (code, value) in [(77, &b"iPXE"[..]), (77, b"\x04iPXE"), (175, &[177, 1, 1])] {
        assert!(with(plain.clone(), &[(code, value)]).is_ipxe());
    }
}

#[test]
fn an_independent_decoder_reads_what_we_write() {
    let long = vec![7; 300];
    let mut message = with(
        Message::request(Kind::Discover, MAC, 0x0102_0304).answer(Kind::Offer),
        &[(code::SERVER_ID, &[10, 0, 0, 1]), (code::BOOT_FILE, b"snponly.efi"), (code::RELAY, &[1, 2, b'e', b'0']), (224, &long)],
    );
    message.yiaddr = Ipv4Addr::new(10, 0, 0, 9);
    message.file = b"snponly.efi".to_vec();
    let read = v4::Message::decode(&mut Decoder::new(&message.encode())).unwrap();
    assert_eq!(read.xid(), 0x0102_0304);
    assert_eq!(read.yiaddr(), message.yiaddr);
    assert_eq!(read.chaddr(), MAC);
    assert_eq!(read.opts().msg_type(), Some(v4::MessageType::Offer));
    assert_eq!(read.opts().get(v4::OptionCode::ServerIdentifier), Some(&v4::DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 0, 1))));
    assert_eq!(read.opts().get(v4::OptionCode::BootfileName), Some(&v4::DhcpOption::BootfileName(b"snponly.efi".to_vec())));
    assert!(matches!(read.opts().get(v4::OptionCode::Unknown(224)),
        Some(v4::DhcpOption::Unknown(option)) if option.data() == long));
}

/// Found by fuzzing: a field that is full to its last byte was read as one byte more than can be written.
#[test]
fn a_name_that_fills_its_field_is_read_as_it_is_written() {
    let mut bytes = Message::request(Kind::Discover, MAC, 7).encode();
    bytes[SNAME].fill(b's');
    bytes[FILE].fill(b'f');
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.sname.len(), message.file.len()), (63, 127));
    assert_eq!(Message::decode(&message.encode()).unwrap(), message);
}

/// Found by fuzzing: an overload option inside of an overloaded field stayed among the options, and was not written again.
#[test]
fn an_overload_within_an_overload_means_nothing() {
    let mut bytes = Message::request(Kind::Discover, MAC, 7).encode();
    bytes[FILE][..4].copy_from_slice(&[52, 1, 2, 255]);
    bytes[SNAME][..3].copy_from_slice(&[60, 1, b'x']);
    bytes.truncate(243);
    bytes.extend([52, 1, 1, 255]);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.option(code::OVERLOAD), message.option(code::CLASS_ID)), (None, None));
    assert_eq!(Message::decode(&message.encode()).unwrap(), message);
}

fn any_message() -> impl Strategy<Value = Message> {
    let options = proptest::collection::btree_map(1u8..=254, proptest::collection::vec(any::<u8>(), 0..400), 0..8);
    (any::<[u32; 4]>(), any::<[u8; 16]>(), 0u8..=16, any::<bool>(), options, "[a-z]{0,40}").prop_map(
        |(addresses, chaddr, hlen, flag, options, file)| {
            let mut message = Message::request(Kind::Request, MAC, addresses[0]);
            (message.ciaddr, message.giaddr) = (addresses[1].into(), addresses[2].into());
            (message.yiaddr, message.siaddr) = (addresses[3].into(), addresses[0].into());
            (message.chaddr, message.hlen, message.broadcast, message.reply) = (chaddr, hlen, flag, !flag);
            (message.file, message.options) = (file.into_bytes(), options);
            message.options.retain(|code, _| ![code::OVERLOAD, code::MESSAGE_TYPE].contains(code));
            message
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(message in any_message()) {
        prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }

    #[test]
    fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Message::decode(&bytes);
        let _ = sub_options(&bytes).count();
    }

    #[test]
    fn mutated_messages_are_taken_without_panic(
        message in any_message(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message.encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        if let Ok(message) = Message::decode(&bytes) {
            let _ = (message.is_ipxe(), message.architectures().count(), message.text(60), message.ethernet());
            let _ = message.sub_option(82, 19);
            let _ = message.answer(Kind::Ack).encode();
        }
    }
}
