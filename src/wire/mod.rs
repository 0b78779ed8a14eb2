//! Bytes to structs and back: DHCP options, TFTP. And what a TLS server's certificate proves.
//!
//! **Scope.** What a packet says. Decoders take any bytes and never panic; what they accept encodes to the same meaning.
//!
//! **Non-goals.** No sockets, no clock, and no policy: what to answer is decided in `boot`.

#[cfg(feature = "controller")]
pub mod dhcp;
#[cfg(feature = "controller")]
pub mod tftp;
pub mod tls;
