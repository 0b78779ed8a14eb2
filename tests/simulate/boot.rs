//! The boot server and the witness: what is told to whom, and what is taken from whom. It repeats what `boot/http/agent.rs` and
//! `engine/live.rs` do, on the same values (`Ticket`, `BootTable`, `choose`); the real ones are async and have sockets.

use std::time::Duration;

use rackwright::model::*;

use crate::{
    controller::{Controller, Key},
    journal::Stop,
    repo::index_of,
    site::Site,
};

/// Longest that an order to a BMC may take.
pub const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// What an agent or an installed system says.
#[derive(Debug, Clone)]
pub struct Message {
    pub body: usize,
    pub key: Key,
    pub boot_id: String,
    pub said: Said,
}

#[derive(Debug, Clone)]
pub enum Said {
    Hello { serial: String, uuid: String, disks: Vec<ObservedDisk> },
    Writing(ObservedDisk),
    Progress,
    Written(Digest),
    Wiping(Vec<ObservedDisk>),
    Wiped(Vec<DiskProof>),
    Failed { wrote: bool, code: &'static str },
    Home(Generation),
    Check(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Command(Box<AgentCommand>),
    Taken,
    /// It must not go on.
    No,
    /// Ask again.
    Later,
}

/// What a machine that asks for an address is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Offer {
    Silence,
    Install(Key),
    Disk,
}

impl Controller {
    /// The ticket in force for an attempt, with what was taken since it was published.
    fn ticket(&self, attempt: &AttemptId) -> Option<Ticket> {
        let mut ticket = self.table.as_ref()?.ticket(attempt)?.clone();
        for evidence in self.since.get(attempt).into_iter().flatten() {
            if !ticket.evidence.contains(evidence) {
                ticket.evidence.push(evidence.clone());
            }
        }
        Some(ticket)
    }

    /// A machine asks for an address and what to boot; `fetches` when it already did and asks for the loader.
    pub fn dhcp(&mut self, site: &mut Site, mac: Mac, fetches: bool) -> Result<Offer, Stop> {
        let Some(table) = &self.table else { return Ok(Offer::Silence) };
        if !table.reservations.contains_key(&mac) {
            return Ok(Offer::Silence);
        }
        let Some(ticket) = table.tickets.get(&mac).cloned() else { return Ok(Offer::Disk) };
        let ticket = self.ticket(&ticket.attempt).unwrap_or(ticket);
        if ticket.reached(Rung::Written) {
            self.tell(site, &ticket, Evidence::BootedFromDisk)?;
            return Ok(Offer::Disk);
        }
        if site.now >= ticket.expires {
            return Ok(Offer::Disk);
        }
        self.tell(site, &ticket, if fetches { Evidence::LoaderFetched } else { Evidence::DhcpSeen })?;
        Ok(Offer::Install(Key { epoch: site.journal.epoch, attempt: ticket.attempt }))
    }

    /// Told later: an answer does not wait for it.
    fn tell(&mut self, site: &mut Site, ticket: &Ticket, evidence: Evidence) -> Result<(), Stop> {
        if ticket.reached(evidence.rung()) {
            return Ok(());
        }
        match self.saw(site, &ticket.attempt, evidence) {
            Err(Stop::Died) => Err(Stop::Died),
            Err(Stop::Full | Stop::Fenced) | Ok(_) => Ok(()),
        }
    }

    /// An agent's word. What is answered was journaled before.
    pub fn hears(&mut self, site: &mut Site, message: &Message) -> Result<Answer, Stop> {
        match self.answer(site, message) {
            Err(Stop::Full | Stop::Fenced) => Ok(Answer::Later),
            answer => answer,
        }
    }

    fn answer(&mut self, site: &mut Site, message: &Message) -> Result<Answer, Stop> {
        let Some(table) = &self.table else { return Ok(Answer::Later) };
        let attempt = &message.key.attempt;
        if message.key.epoch != site.journal.epoch {
            return Ok(Answer::No);
        }
        let Some(ticket) = self.ticket(attempt) else {
            let known = matches!(message.said, Said::Home(_)) && table.installed.contains_key(attempt);
            return Ok(if known { Answer::Taken } else { Answer::No });
        };
        match &message.said {
            Said::Hello { serial, uuid, disks } => self.hello(site, &ticket, &message.boot_id, serial, uuid, disks),
            Said::Progress => {
                let writes = ticket.writing().is_some_and(|(writer, _)| writer == message.boot_id);
                if writes {
                    self.progress.insert(attempt.clone(), site.now);
                }
                Ok(if writes { Answer::Taken } else { Answer::No })
            }
            Said::Writing(disk) => {
                let asked = may_write(&ticket, &message.boot_id, disk, site.now);
                self.leave(site, &ticket, asked)
            }
            Said::Wiping(disks) => {
                let asked = may_wipe(&ticket, &message.boot_id, disks, site.now);
                self.leave(site, &ticket, asked)
            }
            Said::Wiped(proof) => {
                let leave = ticket.writing().filter(|(writer, _)| *writer == message.boot_id).map(|(_, disks)| disks);
                let proved = |disks: &[ObservedDisk]| {
                    disks.len() == proof.len() && proof.iter().zip(disks).all(|(one, disk)| one.gap(disk, WipeMethod::Zero).is_none())
                };
                if !leave.is_some_and(proved) {
                    return Ok(Answer::No);
                }
                self.saw(site, attempt, Evidence::Wiped { proof: proof.clone() })
            }
            Said::Written(digest) => {
                let writes = ticket.writing().is_some_and(|(writer, _)| writer == message.boot_id);
                if !writes || ticket.work.install().is_none_or(|install| *digest != install.image.digest) {
                    return Ok(Answer::No);
                }
                self.saw(site, attempt, Evidence::Written { digest: *digest, bytes: 1 })
            }
            Said::Failed { wrote, code } => self.failed(site, attempt, *wrote || ticket.reached(Rung::Writing), code),
            Said::Check(ok) => self.checked(site, attempt, *ok),
            Said::Home(generation) => {
                if !ticket.reached(Rung::Written) || ticket.work.install().is_none() {
                    return Ok(Answer::No);
                }
                if !ticket.reached(Rung::BootedFromDisk) {
                    self.saw(site, attempt, Evidence::BootedFromDisk)?;
                }
                self.saw(site, attempt, Evidence::CalledHome { generation: *generation, digest: None })
            }
        }
    }

    fn hello(
        &mut self,
        site: &mut Site,
        ticket: &Ticket,
        boot_id: &str,
        serial: &str,
        uuid: &str,
        disks: &[ObservedDisk],
    ) -> Result<Answer, Stop> {
        let (serial, uuid) = (Some(serial.to_owned()), Some(uuid.to_owned()));
        let hello = AgentHello {
            boot_id: boot_id.to_owned(),
            version: String::new(),
            serial: serial.clone(),
            uuid: uuid.clone(),
            disks: disks.to_vec(),
            nics: Vec::new(),
            uefi: true,
        };
        let command = ticket.answer(&hello, site.now, "");
        let refusal = ticket.refusal(boot_id, hello.serial.as_deref(), hello.uuid.as_deref(), site.now);
        let up = Evidence::AgentUp { boot_id: boot_id.to_owned(), serial, uuid, disks: disks.to_vec() };
        let same = |known: &&Evidence| matches!(known, Evidence::AgentUp { boot_id: id, .. } if id == boot_id);
        if ticket.evidence.iter().find(same).is_some_and(|known| *known != up) {
            return Ok(Answer::No);
        }
        match self.saw(site, &ticket.attempt, up)? {
            Answer::Taken => {}
            other => return Ok(other),
        }
        if let Some(code) = refusal.as_ref().and_then(Refusal::code) {
            self.failed(site, &ticket.attempt, ticket.reached(Rung::Writing), code)?;
        }
        Ok(Answer::Command(Box::new(command)))
    }

    /// Leave to write, if `asked` allows it.
    fn leave(&mut self, site: &mut Site, ticket: &Ticket, asked: Result<Evidence, Option<&'static str>>) -> Result<Answer, Stop> {
        match asked {
            Ok(evidence) => self.saw(site, &ticket.attempt, evidence),
            Err(code) => {
                if let Some(code) = code {
                    self.failed(site, &ticket.attempt, ticket.reached(Rung::Writing), code)?;
                }
                Ok(Answer::No)
            }
        }
    }

    /// `Live::saw`.
    fn saw(&mut self, site: &mut Site, attempt: &AttemptId, evidence: Evidence) -> Result<Answer, Stop> {
        let open = self.known.history.machines.get(&attempt.machine).and_then(MachineHistory::open_attempt);
        let Some(open) = open.filter(|open| open.id.number == attempt.number) else { return Ok(Answer::No) };
        for (_, known) in open.evidence.iter().filter(|(_, known)| known.rung() == evidence.rung()) {
            match (known, &evidence) {
                (Evidence::AgentUp { boot_id: known, .. }, Evidence::AgentUp { boot_id, .. }) if known != boot_id => {}
                _ if evidence.leave().is_some() && (*known != evidence || open.reported.is_some()) => {
                    return Ok(Answer::No);
                }
                _ => return Ok(Answer::Taken),
            }
        }
        if open.reported.is_some() {
            return Ok(Answer::No);
        }
        if evidence.leave().is_some() && (self.switches_off(site, attempt) || !self.known.wanted.contains(attempt)) {
            site.cover.count("leave to write is withheld");
            return Ok(Answer::Later);
        }
        let commit = index_of(open.commit);
        self.write(site, commit, vec![Fact::Saw { attempt: attempt.clone(), evidence: evidence.clone() }])?;
        self.since.entry(attempt.clone()).or_default().push(evidence);
        Ok(Answer::Taken)
    }

    fn switches_off(&self, site: &Site, attempt: &AttemptId) -> bool {
        let Some(machine) = self.known.history.machines.get(&attempt.machine) else { return false };
        let limit = SignedDuration::try_from(ORDER_LIMIT).unwrap();
        let answered = machine.last.as_ref().filter(|(_, _, outcome)| *outcome == Outcome::Done).map(|(at, _, _)| *at);
        let open = |at: Timestamp| site.now.duration_since(at) < limit && answered.is_none_or(|answered| answered <= at);
        machine.unsure_power().any(|(at, step)| matches!(step.action, Action::PowerOff { .. }) && open(at))
    }

    /// `Live::checked`.
    fn checked(&mut self, site: &mut Site, attempt: &AttemptId, ok: bool) -> Result<Answer, Stop> {
        let open = self.known.history.machines.get(&attempt.machine).and_then(MachineHistory::open_attempt);
        let Some(open) = open.filter(|open| open.id == *attempt && open.reached(Rung::CalledHome).is_some()) else { return Ok(Answer::No) };
        if open.checks.get("raid").is_none_or(|known| known.ok != ok) {
            let fact = Fact::Checked { attempt: attempt.clone(), check: "raid".to_owned(), ok, message: String::new() };
            self.write(site, index_of(open.commit), vec![fact])?;
        }
        Ok(Answer::Taken)
    }

    /// `Live::failed`.
    fn failed(&mut self, site: &mut Site, attempt: &AttemptId, wrote: bool, code: &str) -> Result<Answer, Stop> {
        let open = self.known.history.machines.get(&attempt.machine).and_then(MachineHistory::open_attempt);
        let Some(open) = open.filter(|open| open.id.number == attempt.number) else { return Ok(Answer::No) };
        if open.reported.is_none() {
            let commit = index_of(open.commit);
            let why = "as the agent says".to_owned();
            self.write(site, commit, vec![Fact::Reported { attempt: attempt.clone(), wrote, code: code.to_owned(), why }])?;
        }
        Ok(Answer::Taken)
    }
}

/// Leave to write; the error is the code that fails the attempt, if it does.
fn may_write(ticket: &Ticket, boot_id: &str, disk: &ObservedDisk, now: Timestamp) -> Result<Evidence, Option<&'static str>> {
    let Work::Install { system, .. } = &ticket.work else { return Err(None) };
    let disks = allowed(ticket, boot_id, std::slice::from_ref(disk), now)?;
    let chosen = choose(disks, system, &ticket.keep).map_err(|none| Some(none.code()))?;
    if chosen != disk {
        return Err(Some("disk-changed"));
    }
    Ok(Evidence::Writing { boot_id: boot_id.to_owned(), disk: disk.clone() })
}

/// The same for a wipe.
fn may_wipe(ticket: &Ticket, boot_id: &str, asked: &[ObservedDisk], now: Timestamp) -> Result<Evidence, Option<&'static str>> {
    let Work::Wipe(order) = &ticket.work else { return Err(None) };
    let disks = allowed(ticket, boot_id, asked, now)?;
    let chosen = choose_to_wipe(disks, &order.targets, &ticket.keep).map_err(|none| Some(none.code()))?;
    if !chosen.into_iter().eq(asked) {
        return Err(Some("disk-changed"));
    }
    Ok(Evidence::Wiping { boot_id: boot_id.to_owned(), method: order.method, disks: asked.to_vec() })
}

/// The disks that this start said it has, if it may go on with those that it asks for.
fn allowed<'a>(
    ticket: &'a Ticket,
    boot_id: &str,
    asked: &[ObservedDisk],
    now: Timestamp,
) -> Result<&'a [ObservedDisk], Option<&'static str>> {
    let hello = ticket.evidence.iter().find_map(|evidence| match evidence {
        Evidence::AgentUp { boot_id: id, serial, uuid, disks } if id == boot_id => Some((serial, uuid, disks)),
        _ => None,
    });
    let (serial, uuid, disks) = hello.ok_or(None)?;
    let refused = ticket.refusal(boot_id, serial.as_deref(), uuid.as_deref(), now).is_some();
    if refused || ticket.reached(Rung::Written) || ticket.writing().is_some_and(|(_, others)| others != asked) {
        return Err(None);
    }
    Ok(disks)
}
