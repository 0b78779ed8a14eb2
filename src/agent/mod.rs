//! What runs in RAM on a machine being installed: hello, choose the disk, write the image, read it back, seed, reboot. Or on one that is
//! taken out of service: choose the disks, wipe them, read them back, switch off.
//!
//! **Scope.** [`run`] is the whole life of one agent start. It speaks the protocol of `model::agent` with the boot server and
//! touches the machine only through [`Host`] and [`Disk`], so that the simulator runs the same code. `linux` is the real machine,
//! [`seed`] the cloud-init seed, `initramfs` the builder of what the machine boots (on the controller's side).
//!
//! **Non-goals.** It decides nothing: what to write, whether, and when is the controller's, and which disk the stated hint means is `model`'s.
//! It keeps nothing: a rebooted agent is another one (`boot_id`).

mod client;
mod download;
mod failure;
mod file;
pub mod gpt;
mod host;
mod image;
#[cfg(feature = "controller")]
pub mod initramfs;
mod install;
#[cfg(target_os = "linux")]
pub mod linux;
mod params;
mod run;
pub mod seed;
mod wipe;
mod wipe_areas;
mod wipe_disk;
mod withheld;
mod write;

pub use failure::{Failure, code};
pub use file::FileDisk;
pub use host::{Barred, Disk, End, Erase, Host, Pace};
pub use params::{Params, ParamsError, StaticAddress};
pub use run::run;
