//! GitOps for bare metal: a fleet repository says what every machine should be; Rackwright makes it true.
//!
//! ARCHITECTURE.md is the map. The direction in which modules may name each other is a table there, and a test reads it.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "controller")]
pub mod api;
#[cfg(feature = "controller")]
pub mod bmc;
#[cfg(feature = "controller")]
pub mod boot;
#[cfg(feature = "controller")]
pub mod cli;
#[cfg(feature = "controller")]
pub mod engine;
#[cfg(feature = "controller")]
pub mod git;
#[cfg(feature = "controller")]
pub mod journal;
#[cfg(feature = "controller")]
pub mod manifest;
pub mod model;
pub mod plan;
#[cfg(feature = "controller")]
pub mod ports;
#[cfg(feature = "controller")]
pub mod probe;
#[cfg(feature = "controller")]
pub mod sim;
#[cfg(feature = "controller")]
pub mod trust;
pub mod wire;
