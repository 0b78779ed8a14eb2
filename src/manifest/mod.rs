//! Files of a commit → [`Fleet`] and [`Problem`]s.
//!
//! **Scope.** Which files are manifests, what each says, how profiles and machines are merged, what templates make of it, and
//! everything that can be wrong, with file, line, column and what to write instead.
//!
//! **How.** Three layers of types: `raw` (as written; also generates the JSON Schemas) → `merged` (profiles by `extends`, then
//! the machine's own) → [`Fleet`]. Faults name values by path; only when there is a fault, `spans` reads the file a second time
//! to find the line.
//!
//! **Non-goals.** Reading Git or a disk ([`Files`] come as values), resolving secrets, judging whether a change is wise.
//!
//! **Invariant.** What a file says depends on its bytes alone, so documents are kept by blob id, and a push costs what it changed.

pub mod adopt;
mod after;
mod again;
mod budgets;
mod cache;
mod decommission;
mod drift;
mod edit;
mod explain;
mod fault;
mod gates;
mod handoff;
mod load;
mod machine;
mod merged;
mod names;
mod parse;
mod plain;
mod raw;
mod raw_rollout;
mod render;
mod scalars;
mod schema;
mod signatures;
mod spans;
mod starter;
mod template;
mod text;
mod unique;
mod windows;
mod world;
mod yaml;

pub use cache::Cache;
pub use edit::{Edit, EditError, edit};
pub use load::{Loaded, load};
pub use machine::bmc_address;
pub use render::render;
pub use schema::schemas;
pub use signatures::{FleetSettings, signers_at};
pub use starter::starter;

#[cfg(doc)]
use crate::model::{Files, Fleet, Problem};
