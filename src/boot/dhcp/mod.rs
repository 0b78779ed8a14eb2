//! DHCPv4. Answers are decided in [`answer`], which is pure; [`socket`] carries them.

pub mod answer;
pub(super) mod socket;
