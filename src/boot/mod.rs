//! The boot server: DHCP, TFTP, HTTP, tickets.
//!
//! **Scope.** Tells machines that boot from the network what to do, from one table that the engine replaces each turn, and
//! tells the engine what it saw. Each DHCP answer and each script is a pure function of table, request, our addresses and the
//! time; no lease database. Machines with an open ticket get the agent, other declared machines boot their disk, all others
//! get silence (law 9).
//!
//! **Non-goals.** No decision about who is installed: `plan` opens tickets. No address pools. No building of boot files.

mod config;
pub mod dhcp;
mod facts;
mod files;
mod http;
mod router;
mod script;
mod server;
mod state;
#[cfg(test)]
mod testing;
mod tftp;
mod tokens;

/// Reads `bytes` as the body of a call-home, for `fuzz/`.
#[cfg(fuzzing)]
pub fn fuzz_call_home(bytes: &[u8]) {
    http::callhome::fuzz(bytes);
}

pub use config::Config;
pub use facts::ServerFacts;
pub use server::{Addresses, BootServerError, Server};
