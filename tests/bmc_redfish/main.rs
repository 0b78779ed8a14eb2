//! The Redfish client against peers: small misbehaving servers, recorded answers of real BMCs, and sushy-tools.
#![allow(clippy::unwrap_used, missing_docs)]

mod adopt;
mod faults;
mod ladders;
mod limits;
mod peer;
mod recorded;
mod schema;
mod simulator;
mod sushy;
