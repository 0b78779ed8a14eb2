//! Any datagram on the DHCP ports: what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rackwright::wire::dhcp::{Message, sub_options};

fuzz_target!(|bytes: &[u8]| {
    let _ = sub_options(bytes).count();
    let Ok(message) = Message::decode(bytes) else { return };
    for code in 0..=255 {
        let _ = (message.option(code), message.address(code), message.text(code), message.sub_option(code, 19));
    }
    let _ = (message.ethernet(), message.is_ipxe(), message.architectures().count());
    let again = Message::decode(&message.encode()).expect("what we write is read");
    assert_eq!(again, message);
});
