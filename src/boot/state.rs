//! What DHCP, TFTP and HTTP share: the table in force, our addresses, and who is told what was seen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;

use super::{
    Config,
    facts::ServerFacts,
    files::{self, INITRAMFS, KERNEL, LOCALBOOT},
    handoff::Store,
    seldom::{Lines, Who},
    tokens::Tokens,
};
use crate::{
    model::{
        AttemptId, BootTable, DhcpMode, Evidence, HandoffName, HandoffPlace, HandoffUse, Mac, MachineName, NetworkName, Progress,
        Reservation, Rung, Ticket,
    },
    ports::{Witness, WitnessError},
};

/// What was taken for an attempt since the table was published. Its lock is held over a decision and its journaling, so that
/// two agents can't both be given leave to write.
pub type Since = Arc<tokio::sync::Mutex<Vec<Evidence>>>;

/// An agent that was not heard for so long may have a link that its download fills: it tells progress each second.
const SILENT: Duration = Duration::from_secs(2);

/// A table, and what is looked up in it by address.
pub struct Published {
    /// The table.
    pub table: Arc<BootTable>,
    by_address: HashMap<Ipv4Addr, Mac>,
    /// Networks of machines that boot from the network, where another server gives out the addresses.
    proxied: Vec<Ipv4Net>,
}

impl Published {
    pub(super) fn new(table: Arc<BootTable>) -> Self {
        let address = |reservation: &Reservation| reservation.address.map(|address| (address, reservation.mac));
        let by_address = table.reservations.values().filter_map(address).collect();
        let booting = table.reservations.values().filter(|reservation| reservation.boot);
        let booted: HashSet<&NetworkName> = booting.filter_map(|reservation| reservation.network.as_ref()).collect();
        let proxied = table.networks.iter().filter(|(name, network)| network.dhcp == DhcpMode::Proxy && booted.contains(name));
        let proxied = proxied.map(|(_, network)| network.subnet).collect();
        Self { table, by_address, proxied }
    }

    /// The interface that `address` is reserved for.
    pub fn reservation(&self, address: IpAddr) -> Option<&Reservation> {
        let IpAddr::V4(address) = address.to_canonical() else { return None };
        self.table.reservations.get(self.by_address.get(&address)?)
    }

    /// Whether a client at `address` may be one of several machines that boot from the network: another server gives out the addresses there.
    pub fn may_be_any(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address.to_canonical() else { return false };
        self.proxied.iter().any(|subnet| subnet.contains(&address))
    }

    /// Whether a client at `address` may be the owner of `reservation`: it has the reserved address, or another server gives
    /// out addresses and it is in that network.
    pub fn may_be(&self, address: IpAddr, reservation: &Reservation) -> bool {
        let IpAddr::V4(address) = address.to_canonical() else { return false };
        match (self.table.served_network(reservation), reservation.address) {
            (None, _) => false,
            (Some(network), _) if network.dhcp == DhcpMode::Proxy => network.subnet.contains(&address),
            (Some(_), reserved) => reserved == Some(address),
        }
    }
}

/// What DHCP, TFTP and HTTP share.
pub struct State {
    /// Where clients reach us.
    pub facts: ServerFacts,
    /// Tokens of attempts.
    pub tokens: Tokens,
    /// Whom we tell.
    pub witness: Arc<dyn Witness>,
    /// Where boot files are.
    pub paths: BTreeMap<&'static str, PathBuf>,
    /// Folder of images.
    pub images: Option<PathBuf>,
    published: RwLock<Arc<Published>>,
    ready: AtomicBool,
    since: Mutex<BTreeMap<AttemptId, Since>>,
    told: Mutex<HashSet<(AttemptId, Rung)>>,
    heard: Mutex<HashMap<AttemptId, Instant>>,
    /// What installed systems published.
    pub handoffs: Store,
    /// Our certificate as PEM, for systems that publish.
    pub certificate: String,
    /// What was logged lately of what anyone on the network can cause.
    pub lines: Lines,
}

impl State {
    /// With an empty table: everyone gets silence until the first one is published.
    pub fn new(config: &Config, facts: ServerFacts, tokens: Tokens, witness: Arc<dyn Witness>) -> Self {
        Self {
            facts,
            tokens,
            witness,
            paths: paths(config),
            images: config.images.clone(),
            published: RwLock::new(Arc::new(Published::new(Arc::default()))),
            ready: AtomicBool::new(false),
            since: Mutex::default(),
            told: Mutex::default(),
            heard: Mutex::default(),
            handoffs: Store::default(),
            certificate: String::new(),
            lines: Lines::default(),
        }
    }

    /// The table in force.
    pub fn published(&self) -> Arc<Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a table was published yet. Before that nobody may be told that they have no ticket: right after a restart an
    /// agent in the middle of its work would take that for the end, and a machine to be installed would boot its old disk.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Puts a table in force.
    pub fn publish(self: &Arc<Self>, table: Arc<BootTable>) {
        self.sweep(&table);
        let open: HashSet<AttemptId> = table.tickets.values().map(|ticket| ticket.attempt.clone()).collect();
        lock(&self.since).retain(|attempt, _| open.contains(attempt));
        lock(&self.told).retain(|(attempt, _)| open.contains(attempt));
        lock(&self.heard).retain(|attempt, _| open.contains(attempt));
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Published::new(table));
        self.ready.store(true, Ordering::Release);
    }

    /// Forgets values of systems that are gone, and tells which of those are gone that should be there.
    fn sweep(self: &Arc<Self>, table: &BootTable) {
        self.handoffs.retain(|attempt| table.handoffs.publishers.contains_key(attempt));
        for (attempt, publisher) in &table.handoffs.publishers {
            let lost: BTreeSet<HandoffName> =
                publisher.published.iter().filter(|name| !self.handoffs.has(attempt, name)).cloned().collect();
            if lost.is_empty() {
                continue;
            }
            tracing::error!(%attempt, ?lost, "published values are lost; whoever uses them waits until they are published again");
            let (state, machine, attempt) = (self.clone(), publisher.machine.clone(), attempt.clone());
            tokio::spawn(async move {
                if let Err(error) = state.witness.values_lost(&machine, &attempt, &lost).await {
                    tracing::warn!(%attempt, %error, "that values are lost could not be noted");
                }
            });
        }
    }

    /// `user_data` for the agent of `attempt`, with the values that it may be given.
    ///
    /// # Errors
    /// One of them is not there: its agent has to wait.
    pub fn given(&self, attempt: &AttemptId, user_data: Option<&str>) -> Result<Option<String>, &'static str> {
        let Some(text) = user_data else { return Ok(None) };
        let published = self.published();
        let released = published.table.handoffs.released.get(attempt);
        let of = |wanted: &HandoffUse| Some((wanted.clone(), self.handoffs.get(released?.get(wanted)?, &wanted.name)?));
        let missing = "since a value that its configuration uses is not there";
        let values: BTreeMap<_, _> = HandoffUse::all_in(text).map_err(|_| missing)?.iter().filter_map(of).collect();
        HandoffUse::fill(text, |wanted| values.get(wanted).map(|value| value.expose())).map(Some).map_err(|_| missing)
    }

    /// Where the system that `attempt` installs may publish values, if its manifest says that it does.
    pub fn handoff_place(&self, attempt: &AttemptId) -> Option<HandoffPlace> {
        let url = || self.facts.handoff_url(attempt, &self.tokens.handoff(attempt));
        let publishes = self.published().table.handoffs.publishing.contains(attempt);
        publishes.then(|| HandoffPlace { url: url(), certificate: self.certificate.clone() })
    }

    /// What was taken for `attempt` since its table was published.
    pub fn since(&self, attempt: &AttemptId) -> Since {
        lock(&self.since).entry(attempt.clone()).or_default().clone()
    }

    /// The ticket of `attempt` in the table that is in force now, with what was taken since. To be asked while the lock of `since` is
    /// held: what was looked up before a request's body had arrived may be revoked or changed.
    ///
    /// # Errors
    /// [`WitnessError::NotOpen`].
    pub fn ticket(&self, attempt: &AttemptId, since: &[Evidence]) -> Result<Ticket, WitnessError> {
        let published = self.published();
        let ticket = published.table.ticket(attempt).ok_or_else(|| WitnessError::NotOpen { attempt: attempt.clone() })?;
        Ok(with_since(ticket, since))
    }

    /// Tells the witness, and keeps what it took: the table in force may be older than the journal.
    ///
    /// # Errors
    /// As [`Witness::saw`]; nothing was kept then, and the caller must not act.
    pub async fn saw(&self, attempt: &AttemptId, evidence: Evidence, since: &mut Vec<Evidence>) -> Result<(), WitnessError> {
        self.witness.saw(attempt, evidence.clone()).await?;
        if !since.contains(&evidence) {
            since.push(evidence);
        }
        Ok(())
    }

    /// Tells the witness how far an install is, which is a sign of life.
    pub fn progress(&self, attempt: &AttemptId, progress: Progress, now: Instant) {
        lock(&self.heard).insert(attempt.clone(), now);
        self.witness.progress(attempt, progress);
    }

    /// Takes note that bytes of an image go out to the agent of `attempt`: a sign of life as well, if it writes and does not tell so itself.
    pub fn downloads(&self, attempt: &AttemptId, progress: Progress, now: Instant) {
        if lock(&self.heard).get(attempt).is_some_and(|heard| now.duration_since(*heard) < SILENT) {
            return;
        }
        let since = self.since(attempt);
        // Where its word is just being taken, it is alive anyway.
        let Ok(since) = since.try_lock() else { return };
        let is_writing = |ticket: Ticket| ticket.reached(Rung::Writing) && !ticket.reached(Rung::Written);
        if self.ticket(attempt, &since).is_ok_and(is_writing) {
            self.progress(attempt, progress, now);
        }
    }

    /// Takes note that a client fetched a boot file. Only fetches that say something about an attempt are told on.
    pub fn fetched(self: &Arc<Self>, client: IpAddr, name: &str) {
        let published = self.published();
        let reservation = published.reservation(client).filter(|reservation| reservation.boot);
        let Some(ticket) = reservation.and_then(|reservation| published.table.tickets.get(&reservation.mac)) else { return };
        match (name == LOCALBOOT, ticket.reached(Rung::Written)) {
            (true, true) => self.told_later(ticket, Evidence::BootedFromDisk),
            (false, false) if files::LOADERS.contains(&name) => self.told_later(ticket, Evidence::LoaderFetched),
            _ => {}
        }
    }

    /// Logs and tells that somebody without a ticket asked (law 9), once in a while for each.
    pub fn refused(&self, who: impl Into<Who>, machine: Option<&MachineName>, why: &str) {
        let who = who.into();
        if self.lines.refusal(who, machine.is_some()) {
            tracing::info!(%who, machine = machine.map(tracing::field::display), why, "refused");
            self.witness.refused(machine, &format!("{who}: {why}"));
        }
    }

    /// Tells the witness of a rung without content, once, and does not wait for it: DHCP and TFTP answers must not be late
    /// because a disk is.
    pub fn told_later(self: &Arc<Self>, ticket: &Ticket, evidence: Evidence) {
        let (attempt, rung) = (ticket.attempt.clone(), evidence.rung());
        if ticket.reached(rung) || !lock(&self.told).insert((attempt.clone(), rung)) {
            return;
        }
        let (state, mac) = (self.clone(), ticket.mac);
        tokio::spawn(async move {
            if let Err(error) = state.witness.saw(&attempt, evidence).await {
                if state.lines.line(mac, "a sighting was not taken") {
                    tracing::warn!(%attempt, %rung, %error, "a sighting was not taken");
                }
                lock(&state.told).remove(&(attempt, rung));
            }
        });
    }
}

/// The ticket with what was taken since its table was published.
pub fn with_since(ticket: &Ticket, since: &[Evidence]) -> Ticket {
    let mut ticket = ticket.clone();
    let new: Vec<_> = since.iter().filter(|evidence| !ticket.evidence.contains(evidence)).cloned().collect();
    ticket.evidence.extend(new);
    ticket
}

fn paths(config: &Config) -> BTreeMap<&'static str, PathBuf> {
    let mut paths: BTreeMap<_, _> = files::LOADERS.into_iter().map(|name| (name, config.files.join(name))).collect();
    let more = [(LOCALBOOT, &config.localboot), (KERNEL, &config.kernel), (INITRAMFS, &config.initramfs)];
    paths.extend(more.into_iter().filter_map(|(name, path)| Some((name, path.clone()?))));
    paths
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
