//! A read-only TFTP server for boot files (RFC 1350, 2347, 2348, 2349, 7440).
//!
//! [`transfer`] decides, and is pure; [`server`] has the sockets.

pub mod server;
mod transfer;
