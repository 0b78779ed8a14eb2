//! Any datagram on the TFTP ports: what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rackwright::wire::tftp::Packet;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::decode(bytes) else { return };
    let encoded = packet.encode();
    assert_eq!(Packet::decode(&encoded).expect("what we write is read"), packet);
});
