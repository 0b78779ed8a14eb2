//! Bytes to structs and back: DHCP options, TFTP.
//!
//! **Scope.** What a packet says. Decoders take any bytes and never panic; what they accept encodes to the same meaning.
//!
//! **Non-goals.** No sockets, no clock, and no policy: what to answer is decided in `boot`.

pub mod dhcp;
pub mod tftp;
