//! A world of values: machines that obey (or don't), a journal in memory, and an executor that turns each step into facts. It has no
//! clock; a turn takes a second.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rackwright::{
    model::*,
    plan::{Deadlines, Input, Violation, check, goes_on, hardware, plan},
};

pub fn name(text: &str) -> MachineName {
    MachineName::new(text).unwrap()
}

/// How a BMC takes commands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Obeys {
    Yes,
    /// It says yes and does nothing.
    SaysSo,
    Fails(RetryClass),
}

/// A machine as it stands there.
#[derive(Debug, Clone)]
pub struct Iron {
    /// Which machine it is, whatever anybody calls it.
    pub body: u32,
    /// The serial number that it was built with.
    pub born: Option<String>,
    pub power: PowerState,
    pub gap: Option<Unknown>,
    pub identity_gap: bool,
    pub serial: Option<String>,
    pub macs: Vec<Mac>,
    pub obeys: Obeys,
    /// What its BMC says of its health.
    pub health: Seen<Health>,
    /// Target and how long, such as `Pxe` and `Continuous`.
    pub boot_override: Option<(String, String)>,
    pub firmware: Vec<FirmwareVersion>,
    pub disks: Option<Vec<ObservedDisk>>,
    /// Ignores a graceful shutdown.
    pub stubborn: bool,
}

#[derive(Clone)]
pub struct World {
    pub fleet: Fleet,
    pub former: Fleet,
    /// The commit before, and what it goes on with.
    before: (CommitId, BTreeMap<String, BTreeSet<CommitId>>),
    pub commit: Commit,
    pub problems: Vec<Problem>,
    pub history: History,
    pub iron: BTreeMap<MachineName, Iron>,
    pub alive: BTreeMap<AttemptId, Timestamp>,
    pub probes: Probes,
    pub brake: Brake,
    pub deadlines: Deadlines,
    /// The journal is written as before generations had a basis.
    pub old: bool,
    /// The controller was started again: the former fleet is not at hand.
    pub restarted: bool,
    pub now: Timestamp,
    commits: u8,
    bodies: u32,
}

impl World {
    pub fn new() -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut world = Self {
            fleet: Fleet::default(),
            former: Fleet::default(),
            before: (CommitId([0; 20]), BTreeMap::new()),
            commit: Commit {
                id: CommitId([0; 20]),
                subject: String::new(),
                author: "a <a@example>".to_owned(),
                time: now,
                approvals: Vec::new(),
            },
            problems: Vec::new(),
            history: History::default(),
            iron: BTreeMap::new(),
            alive: BTreeMap::new(),
            probes: Probes::new(),
            brake: Brake::default(),
            deadlines: Deadlines::default(),
            old: false,
            restarted: false,
            now,
            commits: 0,
            bodies: 0,
        };
        world.commit("first");
        world
    }

    pub fn commit(&mut self, subject: &str) {
        self.commits = self.commits.wrapping_add(1);
        self.before = (self.commit.id, self.goes_on());
        self.former = self.fleet.clone();
        self.restarted = false;
        self.commit.id = CommitId([self.commits; 20]);
        self.commit.subject = subject.to_owned();
        self.commit.time = self.now;
        self.commit.approvals.clear();
    }

    pub fn tick(&mut self, seconds: u64) {
        self.now = self.now.checked_add(SignedDuration::try_from(Duration::from_secs(seconds)).unwrap()).unwrap();
    }

    /// Adds a machine with hardware of its own, On.
    pub fn add(&mut self, machine: Machine) {
        self.bodies += 1;
        let iron = Iron {
            body: self.bodies,
            born: machine.identity.serial.clone(),
            power: PowerState::On,
            gap: None,
            identity_gap: false,
            serial: machine.identity.serial.clone(),
            macs: machine.nics.iter().map(|nic| nic.mac).collect(),
            obeys: Obeys::Yes,
            health: Seen::Unknown(Unknown::NotReported),
            boot_override: None,
            firmware: Vec::new(),
            disks: None,
            stubborn: false,
        };
        self.iron.entry(machine.name.clone()).or_insert(iron);
        self.fleet.machines.insert(machine.name.clone(), machine.into());
    }

    pub fn seen(&self) -> BTreeMap<MachineName, Observation> {
        let of = |name: &MachineName| {
            let source = format!("https://bmc-{name}");
            let iron = self.iron.get(name)?;
            let mut seen = Observation::blank(self.now, source, iron.gap.as_ref().unwrap_or(&Unknown::NotReported));
            if iron.gap.is_none() {
                seen.power = Seen::Known(iron.power);
                seen.health = iron.health.clone();
                if !iron.identity_gap {
                    seen.identity = Seen::Known(ObservedIdentity { serial: iron.serial.clone(), ..ObservedIdentity::default() });
                }
                let (target, enabled) = iron.boot_override.clone().unwrap_or_else(|| ("None".to_owned(), "Disabled".to_owned()));
                seen.boot_override = Seen::Known(BootOverride { target, enabled, mode: None });
                seen.firmware = Seen::Known(iron.firmware.clone());
                seen.disks = iron.disks.clone().map_or(Seen::Unknown(Unknown::NotReported), Seen::Known);
                let nic = |mac: &Mac| ObservedNic { name: "nic".to_owned(), mac: *mac, link_up: None };
                seen.nics = Seen::Known(iron.macs.iter().map(nic).collect());
            }
            Some((name.clone(), seen))
        };
        self.fleet.machines.keys().filter_map(of).collect()
    }

    /// Fleets are edited after their commit, so this is asked for when it is needed.
    fn goes_on(&self) -> BTreeMap<String, BTreeSet<CommitId>> {
        let history = History { goes_on: self.before.1.clone(), ..self.history.clone() };
        goes_on(self.before.0, &self.former, &history, &self.fleet)
    }

    pub fn with_input<T>(&self, f: impl FnOnce(&Input<'_>) -> T) -> T {
        let seen = self.seen();
        let history = History { goes_on: self.goes_on(), ..self.history.clone() };
        f(&Input {
            commit: &self.commit,
            fleet: &self.fleet,
            problems: &self.problems,
            seen: &seen,
            history: &history,
            former: Some(&self.former).filter(|_| !self.restarted),
            alive: &self.alive,
            probes: &self.probes,
            brake: &self.brake,
            deadlines: self.deadlines,
            now: self.now,
        })
    }

    pub fn plan(&self) -> (Plan, Vec<Violation>) {
        self.with_input(|input| {
            let made = plan(input);
            let violations = check(&made, input);
            (made, violations)
        })
    }

    /// Plans and executes one turn. With `crash`, intentions are journaled and carried out, and no outcome is.
    pub fn turn(&mut self, crash: bool) -> (Plan, Vec<Violation>) {
        let (made, violations) = self.plan();
        for step in made.steps() {
            self.execute(step, crash);
        }
        self.tick(1);
        (made, violations)
    }

    pub fn append(&mut self, fact: Fact) -> u64 {
        let seq = self.history.seq + 1;
        self.history.apply(&Record { seq, at: self.now, commit: self.commit.id, fact });
        seq
    }

    fn execute(&mut self, step: &Step, crash: bool) {
        let machine = step.machine.clone();
        let fact = match &step.action {
            Action::Claim { installed } => {
                let hardware = hardware(&self.fleet.machines[&machine]);
                if step.reason == Reason::Replaced && !crash {
                    self.append(Fact::Released { machine: machine.clone() });
                }
                let basis = installed.and_then(|installed| self.basis(&machine, installed));
                Fact::Claimed { machine, installed: *installed, hardware, basis }
            }
            Action::Release => Fact::Released { machine },
            Action::NoteHardware { hardware } => Fact::HardwareChanged { machine, hardware: hardware.clone() },
            Action::NoteConfiguration { installed, basis, deferred } => {
                Fact::ConfigurationNoted { machine, installed: *installed, basis: *basis, deferred: *deferred }
            }
            Action::Rename { from } => Fact::Renamed { from: from.clone(), to: machine },
            Action::BeginAttempt { attempt, generation } => {
                let basis = self.basis(&machine, *generation);
                Fact::Began { attempt: attempt.clone(), generation: *generation, basis }
            }
            Action::Witness { attempt, rung } => Fact::Saw { attempt: attempt.clone(), evidence: plain_evidence(*rung) },
            Action::EndAttempt { attempt, end } => Fact::Concluded { attempt: attempt.clone(), end: end.clone() },
            Action::PowerOn | Action::PowerOff { .. } | Action::BootFromNetwork { .. } | Action::ClearBootOverride => {
                let intention = self.append(Fact::Intended { step: step.clone() });
                let outcome = self.command(step);
                if !crash {
                    self.append(Fact::Ended { machine, intention, outcome });
                }
                return;
            }
        };
        // A fact of its own is intention and outcome in one: a crash before it is as if the turn had not been.
        if !crash {
            self.append(fact);
        }
    }

    /// What a release before that of bases does not write.
    fn basis(&self, machine: &MachineName, generation: Generation) -> Option<Basis> {
        let install = self.fleet.machines.get(machine)?.install.as_ref()?;
        (install.generation == generation && !self.old).then(|| install.basis())
    }

    fn command(&mut self, step: &Step) -> Outcome {
        let iron = self.iron.get_mut(&step.machine).unwrap();
        match iron.obeys {
            Obeys::SaysSo => return Outcome::Done,
            Obeys::Fails(class) => return Outcome::Failed { why: "409 Conflict".to_owned(), class },
            Obeys::Yes => {}
        }
        match step.action {
            Action::PowerOn => iron.power = PowerState::On,
            Action::ClearBootOverride => iron.boot_override = None,
            Action::PowerOff { force } if force || !iron.stubborn => iron.power = PowerState::Off,
            _ => {}
        }
        Outcome::Done
    }

    pub fn open(&self, name: &MachineName) -> Option<&Attempt> {
        self.history.machines.get(name)?.open_attempt()
    }

    /// The boot server's evidence for an open attempt, as if this rung was just seen.
    pub fn saw(&mut self, name: &MachineName, rung: Rung) {
        let Some(attempt) = self.open(name) else { return };
        let (id, generation) = (attempt.id.clone(), attempt.generation);
        let hint = self.fleet.machines.get(name).and_then(|machine| machine.disks.system.as_ref());
        let serial = hint.and_then(|hint| hint.serial.clone());
        let disk = ObservedDisk { name: "/dev/sda".to_owned(), serial, ..ObservedDisk::default() };
        let evidence = match rung {
            rung if generation.is_wipe() && rung >= Rung::Writing => return self.wiped(name, id, rung, disk),
            Rung::AgentUp => Evidence::AgentUp { boot_id: "b".to_owned(), serial: None, uuid: None, disks: vec![] },
            Rung::Writing => Evidence::Writing { boot_id: "b".to_owned(), disk },
            Rung::Written => Evidence::Written { digest: Digest::of(b"image"), bytes: 1 },
            Rung::CalledHome => Evidence::CalledHome { generation, digest: None },
            rung => plain_evidence(rung),
        };
        self.append(Fact::Saw { attempt: id, evidence });
    }

    /// The same of a wipe, at whose end the agent switches the machine off.
    fn wiped(&mut self, name: &MachineName, attempt: AttemptId, rung: Rung, disk: ObservedDisk) {
        let evidence = match rung {
            Rung::Writing => Evidence::Wiping { boot_id: "b".to_owned(), method: WipeMethod::Zero, disks: vec![disk] },
            Rung::Written => {
                let (by, digest) = ("zeros over all of it".to_owned(), Digest::of(b"zeros"));
                let proof = DiskProof { disk, by, places: 1, read: 512, zero: 512, same: 0, size: 512, digest };
                Evidence::Wiped { proof: vec![proof] }
            }
            Rung::BootedFromDisk => Evidence::BootedFromDisk,
            // There is no system that could say anything.
            _ => return,
        };
        self.append(Fact::Saw { attempt, evidence });
        if let (Rung::Written, Some(iron)) = (rung, self.iron.get_mut(name).filter(|iron| !iron.stubborn)) {
            iron.power = PowerState::Off;
        }
    }

    /// All evidence from where the attempt is up to this rung.
    pub fn reach(&mut self, name: &MachineName, rung: Rung) {
        for next in RUNGS.into_iter().filter(|next| (Rung::DhcpSeen..=rung).contains(next)) {
            if self.open(name).is_some_and(|attempt| attempt.reached(next).is_none()) {
                self.saw(name, next);
            }
        }
    }

    /// A probe of a web page of a machine, asked now.
    pub fn probe(&mut self, name: &MachineName, url: &str, answer: ProbeAnswer, wanted: u16) {
        let probes = self.probes.entry(name.clone()).or_default();
        let before = probes.get(url).and_then(|before| before.passed);
        let passed = if answer == ProbeAnswer::Status(wanted) { Some(self.now) } else { before };
        probes.insert(url.to_owned(), Probed { at: self.now, answer, passed });
    }

    pub fn checked(&mut self, name: &MachineName, check: &str, ok: bool, message: &str) {
        let Some(attempt) = self.open(name).map(|attempt| attempt.id.clone()) else { return };
        self.append(Fact::Checked { attempt, check: check.to_owned(), ok, message: message.to_owned() });
    }

    /// The system on a machine's disk publishes a value, as the engine would take it.
    pub fn publish(&mut self, name: &MachineName, value: &str) {
        let life = self.history.machines.get(name).and_then(|known| known.life()).map(|life| life.id.clone());
        let may = self.fleet.machines.get(name).is_some_and(|machine| machine.handoffs.publishes.iter().any(|own| own.as_str() == value));
        if let Some(attempt) = life.filter(|_| may) {
            self.append(Fact::Published { machine: name.clone(), attempt, names: [value.parse().unwrap()].into() });
        }
    }

    /// The controller finds that it has a value no more.
    pub fn lose(&mut self, name: &MachineName, value: &str) {
        let known = self.history.machines.get(name).and_then(|known| known.published.iter().find(|(own, _)| own.as_str() == value));
        if let Some(attempt) = known.map(|(_, said)| said.attempt.clone()) {
            self.append(Fact::ValuesLost { machine: name.clone(), attempt, names: [value.parse().unwrap()].into() });
        }
    }

    pub fn report(&mut self, name: &MachineName, code: &str, wrote: bool) {
        let Some(attempt) = self.open(name).map(|attempt| attempt.id.clone()) else { return };
        self.append(Fact::Reported { attempt, wrote, code: code.to_owned(), why: "as reported by the agent".to_owned() });
    }
}

pub const RUNGS: [Rung; 11] = [
    Rung::TicketArmed,
    Rung::BootSet,
    Rung::PowerSeen,
    Rung::DhcpSeen,
    Rung::LoaderFetched,
    Rung::AgentUp,
    Rung::Writing,
    Rung::Written,
    Rung::BootedFromDisk,
    Rung::CalledHome,
    Rung::Healthy,
];

pub fn plain_evidence(rung: Rung) -> Evidence {
    match rung {
        Rung::TicketArmed => Evidence::TicketArmed,
        Rung::BootSet => Evidence::BootSet,
        Rung::PowerSeen => Evidence::PowerSeen,
        Rung::DhcpSeen => Evidence::DhcpSeen,
        Rung::LoaderFetched => Evidence::LoaderFetched,
        Rung::BootedFromDisk => Evidence::BootedFromDisk,
        Rung::Healthy => Evidence::Healthy,
        rung => panic!("{rung} has content"),
    }
}

/// What an image name, a configuration and a counter put on a disk.
pub fn install(image: &str, user_data: Option<&str>, rebuild: u64) -> Install {
    let digest = Digest::of(image.as_bytes());
    Install {
        generation: Generation::of(digest, user_data, rebuild),
        image: Image { name: ImageName::new(image).unwrap(), digest, format: ImageFormat::Raw, url: format!("{image}.raw"), size: None },
        user_data: user_data.map(str::to_owned),
        rebuild,
    }
}

/// What the manifest layer makes of `decommission`.
pub fn decommission(machine: &mut Machine, method: WipeMethod, disks: WipeDisks, rebuild: u64) {
    (machine.install, machine.power) = (None, PowerIntent::Off);
    machine.decommission = Some(Wipe::new(method, disks, rebuild));
}

/// A complete machine: a serial number, an interface with an address, a system disk, no image.
pub fn machine(text: &str, number: u8) -> Machine {
    let network = Some(NetworkName::new("prod").unwrap());
    let address = Some([10, 0, 0, number].into());
    Machine {
        name: name(text),
        labels: BTreeMap::new(),
        source: SourceRef { file: format!("machines/{text}.yaml"), line: 1 },
        identity: Identity { serial: Some(format!("SN-{text}")), uuid: None },
        place: Place::default(),
        bmc: BmcTarget { address: format!("https://bmc-{text}"), credentials: None, trust: Trust::Ca },
        nics: vec![Nic { name: "lan0".to_owned(), mac: Mac([0x52, 0x54, 0, 0, 0, number]), network, address, boot: true }],
        disks: Disks { system: Some(DiskHint { serial: Some(format!("DISK-{text}")), ..DiskHint::default() }), keep: vec![] },
        power: PowerIntent::On,
        profile: None,
        install: None,
        decommission: None,
        boot: BootSettings::default(),
        on_claim: OnClaim::Adopt,
        suspend: false,
        gates: vec![],
        handoffs: Handoffs::default(),
        upkeep: Upkeep::default(),
    }
}
