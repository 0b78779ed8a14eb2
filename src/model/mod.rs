//! The nine nouns as values: Commit, Fleet, Observation, Drift, Plan, Step, Outcome, Status, Evidence.
//!
//! **Scope.** Every type that more than one module speaks about. They serialise, compare and print.
//!
//! **Non-goals.** No I/O, no clock, no randomness, no parsing of files: `manifest` makes a [`Fleet`], `bmc` makes an
//! [`Observation`], `plan` makes a [`Plan`].

mod after;
mod agent;
mod brake;
mod choose;
mod choose_wipe;
mod commit;
mod drift;
mod evidence;
mod fleet;
mod fold;
mod gate;
mod handoff;
mod held;
mod history;
mod ident;
mod machine;
mod name;
mod observation;
mod outcome;
mod plan;
mod policy;
mod problem;
mod shift;
mod signatures;
mod status;
mod step;
mod ticket;
mod window;
mod wipe;

pub use after::*;
pub use agent::*;
pub use brake::*;
pub use choose::{NoChoice, choose, surely};
pub use choose_wipe::*;
pub use commit::*;
pub use drift::*;
pub use evidence::*;
pub use fleet::*;
pub use gate::*;
pub use handoff::*;
pub use held::*;
pub use history::*;
pub use ident::*;
pub use machine::*;
pub use name::*;
pub use observation::*;
pub use outcome::*;
pub use plan::*;
pub use policy::*;
pub use problem::*;
pub use shift::*;
pub use signatures::*;
pub use status::*;
pub use step::*;
pub use ticket::*;
pub use window::*;
pub use wipe::*;

pub use jiff::{SignedDuration, Timestamp};
