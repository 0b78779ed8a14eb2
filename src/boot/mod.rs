//! The boot server: DHCP, TFTP, HTTP, tickets.
//!
//! **Scope.** Tells machines that boot from the network what to do, from one table that the engine replaces each turn, and
//! tells the engine what it saw. Each DHCP answer is a pure function of table, request, our addresses and the time; no lease
//! database. What HTTP tells a machine or its agent also follows from what was journaled since the table was made.
//!
//! Who gets what (law 9): a machine with an open ticket gets all that installs it; a declared one without gets an address and
//! what starts its disk; others get no DHCP answer, and by HTTP a script that goes on to the disk and the loader that does so.
//!
//! | what | over | to whom |
//! |---|---|---|
//! | address and name of a boot file | DHCP | the MAC of a reservation, on the network that it declares |
//! | loaders, kernel, initramfs | TFTP (loaders alone), HTTP | the address of a reservation (`admission.rs`) |
//! | `localboot.efi` | HTTP | all |
//! | script with the agent's token | HTTP | the address of the ticket's reservation |
//! | orders and images | HTTPS | the bearer of the token |
//! | 204 for a call-home | HTTP | the bearer of the token in its URL |
//! | 204 for published values | HTTPS | the bearer of the token in its URL, of the system that is on the disk |
//! | values that others published | HTTPS | the bearer of a ticket whose configuration uses them |
//!
//! **Non-goals.** No decision about who is installed: `plan` opens tickets. No address pools. No building of boot files.

mod admission;
mod config;
pub mod dhcp;
mod facts;
mod files;
mod handoff;
mod http;
mod places;
mod router;
mod script;
mod seldom;
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
