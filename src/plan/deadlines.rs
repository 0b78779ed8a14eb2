//! How long each wait may take. Each value carries its argument; all can be replaced together, for a simulator that is faster
//! than iron.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::model::{SignedDuration, Timestamp};

/// How long an operating system may take to shut down after it was asked, before the power is cut.
///
/// The system disk is about to be overwritten, but other disks (`keep`) deserve a clean unmount. Databases and hypervisors
/// are commonly given 90 s by systemd (`DefaultTimeoutStopSec`); 2 minutes covers one full round of it.
pub const SHUTDOWN: Duration = Duration::from_secs(2 * 60);

/// How long a power command may take to be seen, before it is given again.
///
/// BMCs report the old state for up to 11 s after a command, and some refuse a command right after another (HARDWARE rows 29,
/// 31, 32). A minute is five times that, and giving the command again is harmless.
pub const POWER_LAG: Duration = Duration::from_secs(60);

/// The least time between two corrections of power drift.
///
/// A graceful shutdown, a firmware that switches itself off once to apply settings (HARDWARE row 36), or a person working on
/// the machine must not meet a controller that flips the switch back each minute.
pub const POWER_SETTLE: Duration = Duration::from_secs(5 * 60);

/// How long it may take from an armed ticket until the machine is off and its next boot is set.
///
/// One shutdown, one forced power-off, and a BMC that refuses changes during POST (HARDWARE row 45, up to 9 minutes).
pub const BOOT_SET: Duration = Duration::from_secs(15 * 60);

/// How long a machine may take from the set boot until it is seen On. Covers five times [`POWER_LAG`].
pub const POWER_ON: Duration = Duration::from_secs(5 * 60);

/// How long a machine may stay silent between "power seen" and its first DHCP packet.
///
/// Server firmware trains memory for 2 to 9 minutes after a cold start, and a switch port may be blocked for another 3 by
/// spanning tree or LACP (PXE row 24). A machine given up too early is power-cycled in the middle of that and never arrives.
pub const FIRST_PACKET: Duration = Duration::from_secs(15 * 60);

/// How long from the first DHCP packet until a boot loader or script was fetched.
///
/// TFTP of a 1 MB loader takes seconds; a client that tries other interfaces first or waits for a proxyDHCP answer takes a minute.
pub const LOADER: Duration = Duration::from_secs(5 * 60);

/// How long from the loader until the agent speaks: some 100 MB of kernel and initramfs over a 1 Gbit/s link, and drivers that
/// take a minute each to find their disks.
pub const AGENT: Duration = Duration::from_secs(10 * 60);

/// How long from the agent's first word until it asks for leave to write: it only looks at disks.
pub const FIRST_WRITE: Duration = Duration::from_secs(5 * 60);

/// How long an agent that writes may be silent. It reports each second; 5 minutes let it sit out a switch that reboots.
pub const SILENCE: Duration = Duration::from_secs(5 * 60);

/// How long from "written" until the machine is seen to boot from its disk: one more POST, as for [`FIRST_PACKET`]. A machine
/// that does not network-boot on the way is first heard of when it calls home, so its first boot is in here too.
pub const FROM_DISK: Duration = Duration::from_secs(30 * 60);

/// How long from the boot from disk until the installed system calls home: cloud-init on a slow disk, packages and all.
pub const CALL_HOME: Duration = Duration::from_secs(30 * 60);

/// The longest life of a ticket. No single install of a 100 GB image on a slow link takes longer than 6 hours; an abandoned ticket
/// must not outlive a working day.
pub const TICKET: Duration = Duration::from_secs(6 * 60 * 60);

/// The longest life of a wipe's ticket. Zeros over a disk of 24 TB, and reading them back, take 5 days at 120 MB/s; an agent that falls
/// silent ends the attempt long before.
pub const WIPE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The wait before the second try; it doubles with each further one. Long enough for a server or switch to come back.
pub const BACK_OFF: Duration = Duration::from_secs(5 * 60);

/// The wait after a command that failed in a way that passes by itself (busy, refused right after another).
pub const COMMAND_RETRY: Duration = Duration::from_secs(30);

/// The wait after a command that needs a person. Looked at again, but not hammered: BMCs lock accounts after a few bad logins.
pub const STALLED_RETRY: Duration = Duration::from_secs(10 * 60);

/// The oldest observation that something disruptive may rest on.
///
/// Every machine is asked each turn; two minutes is a turn over a large fleet with several BMCs that hang. Older is not known.
pub const FRESH: Duration = Duration::from_secs(2 * 60);

/// How often one generation is tried on one machine before a person has to look. The third failure of the same bytes on the same
/// machine is not chance.
pub const MAX_TRIES: u32 = 3;

/// All of them as a value. [`Default`] gives the constants of this module; each field is described at its constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Deadlines {
    #[serde(deserialize_with = "span")]
    pub shutdown: Duration,
    #[serde(deserialize_with = "span")]
    pub power_lag: Duration,
    #[serde(deserialize_with = "span")]
    pub power_settle: Duration,
    #[serde(deserialize_with = "span")]
    pub boot_set: Duration,
    #[serde(deserialize_with = "span")]
    pub power_on: Duration,
    #[serde(deserialize_with = "span")]
    pub first_packet: Duration,
    #[serde(deserialize_with = "span")]
    pub loader: Duration,
    #[serde(deserialize_with = "span")]
    pub agent: Duration,
    #[serde(deserialize_with = "span")]
    pub first_write: Duration,
    #[serde(deserialize_with = "span")]
    pub silence: Duration,
    #[serde(deserialize_with = "span")]
    pub from_disk: Duration,
    #[serde(deserialize_with = "span")]
    pub call_home: Duration,
    #[serde(deserialize_with = "span")]
    pub ticket: Duration,
    #[serde(deserialize_with = "span")]
    pub wipe: Duration,
    #[serde(deserialize_with = "span")]
    pub back_off: Duration,
    #[serde(deserialize_with = "span")]
    pub command_retry: Duration,
    #[serde(deserialize_with = "span")]
    pub stalled_retry: Duration,
    #[serde(deserialize_with = "span")]
    pub fresh: Duration,
    pub max_tries: u32,
}

/// A span as people write it, such as `15m` or `90s`.
fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let span = SignedDuration::deserialize(deserializer)?;
    span.try_into().map_err(|_| D::Error::custom("a deadline can't be negative"))
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            shutdown: SHUTDOWN,
            power_lag: POWER_LAG,
            power_settle: POWER_SETTLE,
            boot_set: BOOT_SET,
            power_on: POWER_ON,
            first_packet: FIRST_PACKET,
            loader: LOADER,
            agent: AGENT,
            first_write: FIRST_WRITE,
            silence: SILENCE,
            from_disk: FROM_DISK,
            call_home: CALL_HOME,
            ticket: TICKET,
            wipe: WIPE,
            back_off: BACK_OFF,
            command_retry: COMMAND_RETRY,
            stalled_retry: STALLED_RETRY,
            fresh: FRESH,
            max_tries: MAX_TRIES,
        }
    }
}

impl Deadlines {
    /// The wait before try number `failures + 1`: [`BACK_OFF`], doubled for each failure after the first.
    pub fn back_off(&self, failures: u32) -> Duration {
        self.back_off.saturating_mul(1 << failures.saturating_sub(1).min(10))
    }
}

/// `at` and a wait later; the end of time when that does not fit.
pub(super) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| at.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}
