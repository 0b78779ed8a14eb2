//! Which transitions were taken, how often. One that never was is a failure of the whole run: what does not happen here is not tested here.

use std::collections::BTreeMap;

use rackwright::model::*;

/// What must have been taken at least once in a long run.
const EXPECTED: &[&str] = &[
    // From rung to rung, one at a time, as docs/reimage.md draws them, and each end.
    "begun → ticket armed",
    "ticket armed → boot set",
    "boot set → power seen",
    "power seen → DHCP seen",
    "DHCP seen → loader fetched",
    "loader fetched → agent up",
    "agent up → writing",
    "writing → written and verified",
    "written and verified → booted from disk",
    "booted from disk → called home",
    "called home → healthy",
    "written and verified → healthy",
    "begun → ended",
    "ticket armed → ended",
    "boot set → ended",
    "power seen → ended",
    "DHCP seen → ended",
    "loader fetched → ended",
    "agent up → ended",
    "writing → ended",
    "written and verified → ended",
    "booted from disk → ended",
    "called home → ended",
    "healthy → ended",
    // How attempts end.
    "end done",
    "end superseded",
    "end boot-not-set",
    "end no-power",
    "end no-dhcp",
    "end no-loader",
    "end no-agent",
    "end no-write",
    "end agent-silent",
    "end no-boot-from-disk",
    "end no-call-home",
    "end wrong-generation",
    "end gate-http",
    "end ticket-expired",
    "end identity",
    "end agent-refused",
    "end restarted-while-writing",
    "end no-disk-matches",
    "end two-disks-match",
    "end disk-kept",
    "end disk-changed",
    "end image-unavailable",
    "end disk-write",
    "end wrong-digest",
    "end network",
    "end broken-in-a-new-way",
    "end verify-failed",
    // What holds machines.
    "held suspended",
    "held unobserved",
    "held identity mismatch",
    "held unclear",
    "held incomplete",
    "held unavailable",
    "held budget",
    "held after",
    "held breaker",
    "held quarantined",
    "held journal lost",
    "held unproved",
    "held damped",
    // Why.
    "reason new machine",
    "reason install on claim",
    "reason generation changed",
    "reason retry",
    "reason decommissioned",
    "reason power drift",
    "reason part of",
    "reason left the fleet",
    "reason same hardware",
    "reason hardware changed",
    "reason replaced",
    "reason next install",
    // What.
    "action claim",
    "action release",
    "action rename",
    "action note hardware",
    "action leave configuration to the next install",
    "action power on",
    "action shut down",
    "action power off",
    "action boot from network",
    "action begin",
    "action witness",
    "action end",
    // What installed systems say of themselves.
    "a check passes",
    "a check fails",
    // What the simulation does to it.
    "a malformed commit is refused",
    "a malformed commit is let through",
    "a write fails on a full disk",
    "a write is refused: another controller wrote since",
    "a second controller is refused by the lock",
    "a decision is refused: something newer is known",
    "an order is refused: something newer is known",
    "leave to write is withheld",
    "death before a write",
    "death after a write",
    "a word arrives late",
    "a word arrives again",
    "an answer is lost",
    "an order comes into effect late",
    "power cut in a write",
    "the journal is lost",
];

#[derive(Debug, Clone, Default)]
pub struct Cover {
    counts: BTreeMap<&'static str, u64>,
    /// What was counted and is not expected: a new code, or a rung that was skipped.
    others: BTreeMap<String, u64>,
    /// The rung of each open attempt.
    rungs: BTreeMap<AttemptId, Option<Rung>>,
}

impl Cover {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn count_text(&mut self, what: &str) {
        match EXPECTED.iter().find(|known| **known == what) {
            Some(known) => self.count(known),
            None => *self.others.entry(what.to_owned()).or_default() += 1,
        }
    }

    pub fn add(&mut self, other: &Cover) {
        other.counts.iter().for_each(|(what, count)| *self.counts.entry(what).or_default() += count);
        other.others.iter().for_each(|(what, count)| *self.others.entry(what.clone()).or_default() += count);
    }

    pub fn missing(&self) -> Vec<&'static str> {
        EXPECTED.iter().filter(|what| !self.counts.contains_key(*what)).copied().collect()
    }

    pub fn lines(&self) -> Vec<String> {
        let expected = EXPECTED.iter().map(|what| format!("{:>12}  {what}", self.counts.get(what).copied().unwrap_or(0)));
        let also =
            self.counts.iter().filter(|(what, _)| !EXPECTED.contains(what)).map(|(what, count)| format!("{count:>12}  {what} (also)"));
        expected.chain(also).chain(self.others.iter().map(|(what, count)| format!("{count:>12}  {what} (also)"))).collect()
    }

    pub fn plan(&mut self, plan: &Plan) {
        for part in plan.machines.values() {
            part.held.iter().for_each(|held| self.count(kind(held)));
            for step in &part.steps {
                self.count(reason(&step.reason));
                self.count(action(&step.action));
            }
        }
    }

    pub fn record(&mut self, record: &Record) {
        match &record.fact {
            Fact::Began { attempt, .. } => drop(self.rungs.insert(attempt.clone(), None)),
            Fact::Saw { attempt, evidence } => {
                let rung = evidence.rung();
                let Some(before) = self.rungs.get_mut(attempt).filter(|before| **before < Some(rung)) else { return };
                let text = format!("{} → {rung}", from(*before));
                *before = Some(rung);
                self.count_text(&text);
            }
            Fact::Concluded { attempt, end } => {
                let before = self.rungs.remove(attempt).flatten();
                self.count_text(&format!("{} → ended", from(before)));
                self.count_text(&match end {
                    AttemptEnd::Done => "end done".to_owned(),
                    AttemptEnd::Superseded => "end superseded".to_owned(),
                    AttemptEnd::Failed { code, .. } => format!("end {code}"),
                });
            }
            Fact::Checked { ok, .. } => self.count(if *ok { "a check passes" } else { "a check fails" }),
            _ => {}
        }
    }
}

fn from(rung: Option<Rung>) -> String {
    rung.map_or_else(|| "begun".to_owned(), |rung| rung.to_string())
}

fn kind(held: &Held) -> &'static str {
    match held {
        Held::Suspended => "held suspended",
        Held::Unobserved { .. } => "held unobserved",
        Held::IdentityMismatch { .. } => "held identity mismatch",
        Held::Unclear { .. } => "held unclear",
        Held::Incomplete { .. } => "held incomplete",
        Held::Unavailable { .. } => "held unavailable",
        Held::Budget { .. } => "held budget",
        Held::After { .. } => "held after",
        Held::Breaker { .. } => "held breaker",
        Held::Handoff { .. } => "held: handoff",
        Held::Quarantined { .. } => "held quarantined",
        Held::Unproved => "held unproved",
        Held::JournalLost => "held journal lost",
        Held::OnHold { .. } => "held by hand",
        Held::BrakeUnreadable { .. } => "held: brake unreadable",
        Held::Window { .. } => "held: outside the windows",
        Held::Frozen { .. } => "held: frozen",
        Held::Paused { .. } => "held: paused",
        Held::Wave { .. } => "held: wave",
        Held::Unlawful { .. } => "held: unlawful",
        Held::Damped { .. } => "held damped",
        // Only where an earlier release kept the journal.
        Held::ConfigurationUnclear { .. } => "held: configuration unclear",
    }
}

fn reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::NewMachine => "reason new machine",
        Reason::InstallOnClaim => "reason install on claim",
        Reason::GenerationChanged { .. } => "reason generation changed",
        Reason::Decommissioned => "reason decommissioned",
        Reason::Retry { .. } => "reason retry",
        Reason::PowerDrift { .. } => "reason power drift",
        Reason::PartOf { .. } => "reason part of",
        Reason::LeftTheFleet => "reason left the fleet",
        Reason::SameHardware => "reason same hardware",
        Reason::HardwareChanged => "reason hardware changed",
        Reason::Replaced => "reason replaced",
        // No boot override of another is in these histories.
        Reason::BootDrift { .. } => "reason boot drift",
        Reason::NextInstall => "reason next install",
    }
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Claim { .. } => "action claim",
        Action::Release => "action release",
        Action::Rename { .. } => "action rename",
        Action::NoteHardware { .. } => "action note hardware",
        Action::NoteConfiguration { deferred: Some(_), .. } => "action leave configuration to the next install",
        Action::NoteConfiguration { deferred: None, .. } => "action note configuration",
        Action::ClearBootOverride => "action take back boot override",
        Action::PowerOn => "action power on",
        Action::PowerOff { force: false } => "action shut down",
        Action::PowerOff { force: true } => "action power off",
        Action::BootFromNetwork { .. } => "action boot from network",
        Action::BeginAttempt { .. } => "action begin",
        Action::Witness { .. } => "action witness",
        Action::EndAttempt { .. } => "action end",
    }
}
