//! Asking BMCs, several at a time. One that fails hides none of the others.

use std::{io::IsTerminal as _, sync::Arc};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::list::Entry;
use crate::{
    bmc::{self, HostFound, Redfish},
    cli::{out::errln, secrets::OneSecret},
    manifest::{
        adopt::{self, Found},
        bmc_address,
    },
    model::{BmcTarget, Fingerprint, MachineName, Observation, SecretName, Seen, Timestamp, Trust, Unknown},
    ports::{Bmc as _, BmcError, Credential},
};

/// How often a machine is asked until its inventory is read: each question goes on where the one before ran out of time.
const TIMES: u32 = 4;

/// How all of them are asked.
pub(super) struct How {
    pub(super) config: bmc::Config,
    pub(super) credential: Credential,
    /// The secret's name in the manifests.
    pub(super) name: SecretName,
    pub(super) trust: Trusting,
}

/// Whom to trust where the list says no fingerprint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trusting {
    Nobody,
    Seen,
    Ca,
    Anyone,
}

/// What was heard from one BMC of the list.
pub(super) struct Asked {
    pub(super) address: String,
    /// The name that the list gives it.
    pub(super) name: Option<MachineName>,
    pub(super) heard: Heard,
}

pub(super) enum Heard {
    Machines(Vec<Found>),
    /// The certificate that it presents; nothing was sent.
    Untrusted(Fingerprint),
    Failed(String),
}

/// Asks all, at most `jobs` at a time; the answers are in the order of the list.
///
/// # Errors
/// Somebody pressed Ctrl-C. Sessions are given back first.
pub(super) async fn all(entries: Vec<Entry>, how: How, jobs: usize) -> anyhow::Result<Vec<Asked>> {
    let (how, places, stop) = (Arc::new(how), Arc::new(Semaphore::new(jobs)), CancellationToken::new());
    let (total, mut progress) = (entries.len(), Progress::new(entries.len()));
    let mut asking = JoinSet::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let (how, places, stop) = (how.clone(), places.clone(), stop.clone());
        asking.spawn(async move {
            let _place = places.acquire().await;
            let heard = if stop.is_cancelled() { Heard::Failed("not asked".to_owned()) } else { one(&entry, &how, &stop).await };
            (number, Asked { address: entry.address, name: entry.name, heard })
        });
    }
    let mut answers: Vec<Option<Asked>> = (0..total).map(|_| None).collect();
    loop {
        tokio::select! {
            done = asking.join_next() => match done {
                Some(Ok((number, asked))) => {
                    progress.tell(&asked);
                    answers[number] = Some(asked);
                }
                Some(Err(error)) => tracing::error!(%error, "asking a BMC broke off; please report it"),
                None => break,
            },
            _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => {
                errln!("Stopping: sessions are given back.");
                stop.cancel();
            }
        }
    }
    progress.end();
    anyhow::ensure!(!stop.is_cancelled(), "interrupted: nothing was written");
    anyhow::ensure!(answers.iter().all(Option::is_some), "a BMC's answer was lost, so nothing was written; please report it with the log");
    Ok(answers.into_iter().flatten().collect())
}

async fn one(entry: &Entry, how: &How, stop: &CancellationToken) -> Heard {
    if entry.address.starts_with("http://") && how.trust != Trusting::Anyone {
        return Heard::Failed(
            "over plain http it can't prove who it is, and everyone on the way reads the password: write https://, or add --insecure in a \
             laboratory"
                .to_owned(),
        );
    }
    let trust = match (entry.fingerprint, how.trust) {
        (Some(fingerprint), _) => Trust::Pinned(fingerprint),
        (None, Trusting::Ca) => Trust::Ca,
        (None, Trusting::Anyone) => Trust::Insecure,
        (None, Trusting::Nobody | Trusting::Seen) => match bmc::presented(&how.config, &entry.address).await {
            Err(error) => return Heard::Failed(said(&error)),
            Ok(fingerprint) if how.trust == Trusting::Nobody => return Heard::Untrusted(fingerprint),
            Ok(fingerprint) => Trust::Pinned(fingerprint),
        },
    };
    let target = BmcTarget { address: entry.address.clone(), credentials: Some(how.name.clone()), trust };
    let redfish = match Redfish::new(how.config.clone(), Arc::new(OneSecret(how.credential.clone()))) {
        Ok(redfish) => redfish,
        Err(error) => return Heard::Failed(error.to_string()),
    };
    let heard = tokio::select! {
        machines = machines(&redfish, entry, &target) => machines.map_or_else(Heard::Failed, Heard::Machines),
        () = stop.cancelled() => Heard::Failed("interrupted".to_owned()),
    };
    redfish.close().await;
    heard
}

/// Each host behind the BMC.
async fn machines(redfish: &Redfish, entry: &Entry, target: &BmcTarget) -> Result<Vec<Found>, String> {
    let hosts = redfish.hosts(target).await.map_err(|error| said(&error))?;
    for skipped in &hosts.skipped {
        tracing::debug!(bmc = target.address, skipped, "no host");
    }
    let [only] = hosts.found.as_slice() else {
        if let Some(name) = &entry.name {
            let paths: Vec<String> = hosts.found.iter().map(|host| adopt::shown(&host.path)).collect();
            return Err(format!("{name} can't be the name of {} systems; list each with its path: {}", paths.len(), paths.join(", ")));
        }
        let mut found = Vec::new();
        for host in &hosts.found {
            let address = bmc_address(&format!("{}{}", target.address, host.path.trim_end_matches('/')));
            let Some(address) = address else {
                return Err(format!("one of its systems has a path that no manifest can hold: {}", adopt::shown(&host.path)));
            };
            let target = BmcTarget { address, ..target.clone() };
            found.push(observed(redfish, target, host, entry).await);
            // One session at a time: BMCs have few.
            redfish.close().await;
        }
        return Ok(found);
    };
    Ok(vec![observed(redfish, target.clone(), only, entry).await])
}

async fn observed(redfish: &Redfish, target: BmcTarget, host: &HostFound, entry: &Entry) -> Found {
    let mut seen = redfish.observe(&target, Timestamp::now()).await;
    for _ in 1..TIMES {
        if !is_half_read(&seen) {
            break;
        }
        seen = redfish.observe(&target, Timestamp::now()).await;
    }
    Found { target, seen, host_name: host.host_name.clone(), serial_is_sku: host.serial_is_sku, name: entry.name.clone() }
}

fn is_half_read(seen: &Observation) -> bool {
    fn late<T>(part: &Seen<T>) -> bool {
        matches!(part, Seen::Unknown(Unknown::TimedOut(_) | Unknown::Busy(_) | Unknown::NotAsked))
    }
    late(&seen.power) || late(&seen.identity) || late(&seen.nics) || late(&seen.disks)
}

/// Why a BMC could not be asked. "Not reported" alone would not say what.
fn said(error: &BmcError) -> String {
    if error.unknown == Unknown::NotReported { error.message.clone() } else { error.unknown.to_string() }
}

/// A bar on a terminal, lines elsewhere; on standard error.
struct Progress {
    bar: ProgressBar,
    lines: bool,
    done: usize,
    total: usize,
}

impl Progress {
    fn new(total: usize) -> Self {
        let lines = !std::io::stderr().is_terminal();
        let target = if lines { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let style = ProgressStyle::with_template("  [{bar:24.cyan/blue}] {pos} of {len}  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self { bar, lines, done: 0, total }
    }

    fn tell(&mut self, asked: &Asked) {
        self.done += 1;
        let what = match &asked.heard {
            Heard::Machines(found) => found.iter().map(what).collect::<Vec<_>>().join("; "),
            Heard::Untrusted(_) => "not trusted yet".to_owned(),
            Heard::Failed(_) => "failed".to_owned(),
        };
        self.bar.inc(1);
        self.bar.set_message(format!("{}: {what}", asked.address));
        if self.lines {
            errln!("[{}/{}] {}: {what}", self.done, self.total, asked.address);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn what(found: &Found) -> String {
    let Some(identity) = found.seen.identity.known() else { return "says nothing of who it is".to_owned() };
    let serial = identity.serial.as_ref().map(|serial| format!("serial {serial}"));
    let parts = [&identity.manufacturer, &identity.model, &serial].into_iter().flatten().map(|text| adopt::shown(text));
    parts.collect::<Vec<_>>().join(" ")
}
