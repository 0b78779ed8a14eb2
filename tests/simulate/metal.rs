//! Machines as they stand there: power, disks with bytes on them, BMCs, firmware, and what runs. Nothing here knows of plans.

use rackwright::model::*;

use crate::{
    controller::Key,
    story::{Agent, Iron, Traits},
};

/// What an agent may say that it failed with; those that the simulation makes happen by themselves are not here.
pub const CODES: [&str; 6] = ["image-unavailable", "disk-write", "wrong-digest", "network", "broken-in-a-new-way", "verify-failed"];

/// What is on a disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// What was there before Rackwright.
    Original,
    /// Cut off: it starts nothing.
    Partial,
    /// Zeros, and it starts nothing.
    Wiped(Generation),
    /// All of an image.
    Whole(Generation, Key),
}

#[derive(Debug, Clone)]
pub struct Disk {
    pub seen: ObservedDisk,
    pub content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Power {
    On,
    Off,
    GoingOff,
}

/// What a machine that is on runs.
#[derive(Debug, Clone)]
pub enum Runs {
    /// Firmware; so many times it asked the network for nothing.
    Firmware(u8),
    Loader(Key),
    Agent(Box<Installer>),
    /// The system on its disk; whether it has called home.
    System(bool),
    /// Nothing that could be started.
    Nothing,
}

/// One start of the agent.
#[derive(Debug, Clone)]
pub struct Installer {
    pub key: Key,
    pub boot_id: String,
    pub stage: Stage,
    /// Its word is on its way: it waits for the answer.
    pub waits: bool,
    pub hung: bool,
    pub install: Option<Install>,
    /// The generation of the wipe that it is to do, and the disks beside `disk`.
    pub wipe: Option<(Generation, Vec<usize>)>,
    pub disk: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stage {
    Hello,
    Ask,
    /// So many rounds yet.
    Write(u8),
    Told,
    Fail(&'static str),
    Halted,
}

/// What reaches a machine's power and settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    On,
    Off,
    ShutDown,
    BootNetwork,
}

impl Effect {
    pub fn of(action: &Action) -> Option<Self> {
        match action {
            Action::PowerOn => Some(Effect::On),
            Action::PowerOff { force: true } => Some(Effect::Off),
            Action::PowerOff { force: false } => Some(Effect::ShutDown),
            Action::BootFromNetwork { .. } => Some(Effect::BootNetwork),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Body {
    pub traits: Traits,
    pub serial: String,
    pub uuid: String,
    pub mac: Mac,
    /// The system disk, one to keep, and a spare one.
    pub disks: [Disk; 3],
    /// The disk that it starts from.
    pub starts_from: usize,
    pub power: Power,
    pub runs: Runs,
    pub network_once: bool,
    pub bmc: Iron,
    pub fault: Agent,
    pub no_network: bool,
    /// When its BMC last told its power, and what.
    pub told: Option<(Timestamp, PowerState)>,
    pub starts: u32,
    /// How often the system that runs has told of its check.
    pub checks: u8,
}

impl Body {
    pub fn new(number: usize, traits: Traits) -> Self {
        let disk = |role: &str| Disk {
            seen: ObservedDisk {
                name: format!("/dev/{role}"),
                serial: Some(format!("DISK-{number}-{role}")),
                model: Some("DISK".to_owned()),
                size: Some(1 << 40),
                ..ObservedDisk::default()
            },
            content: Content::Original,
        };
        Self {
            traits,
            serial: format!("SN-{number}"),
            uuid: format!("4c4c4544-0035-3410-8050-c6c04f31{number:04x}"),
            mac: Mac([0x52, 0x54, 0, 0, (number >> 8) as u8, number as u8]),
            disks: [disk("system"), disk("data"), disk("spare")],
            starts_from: 0,
            power: if traits.off { Power::Off } else { Power::On },
            runs: Runs::System(true),
            network_once: false,
            bmc: Iron::Well,
            fault: Agent::Well,
            no_network: false,
            told: None,
            starts: 0,
            checks: 0,
        }
    }

    pub fn writes(&self) -> bool {
        self.power != Power::Off && matches!(&self.runs, Runs::Agent(agent) if matches!(agent.stage, Stage::Write(_)) && !agent.hung)
    }

    /// The disk that it starts from.
    pub fn system(&self) -> &Disk {
        &self.disks[self.starts_from]
    }

    /// The disks as the agent sees them.
    pub fn listed(&self) -> Vec<ObservedDisk> {
        let mut disks: Vec<ObservedDisk> = self.disks.iter().map(|disk| disk.seen.clone()).collect();
        if self.fault == Agent::TwinDisk {
            disks.push(ObservedDisk { name: "/dev/twin".to_owned(), ..disks[0].clone() });
        }
        disks
    }

    /// What its BMC answers; `None`: nothing, and the last answer gets old.
    pub fn observed(&mut self, now: Timestamp, source: &str) -> Option<Observation> {
        let why = match self.bmc {
            Iron::Hangs => return None,
            Iron::Unreachable => Unknown::Unreachable("no route".to_owned()),
            _ => Unknown::NotReported,
        };
        let mut seen = Observation::blank(now, source, &why);
        if self.bmc == Iron::Unreachable {
            return Some(seen);
        }
        let power = match self.power {
            Power::On => PowerState::On,
            Power::Off => PowerState::Off,
            Power::GoingOff => PowerState::PoweringOff,
        };
        self.told = Some((now, power));
        seen.power = Seen::Known(power);
        seen.health = Seen::Known(Health::OK);
        let serial = if self.bmc == Iron::Stranger { "OTHER".to_owned() } else { self.serial.clone() };
        seen.identity = match self.bmc {
            Iron::Anonymous => Seen::Unknown(Unknown::TimedOut("it is slow".to_owned())),
            _ => Seen::Known(ObservedIdentity { serial: Some(serial), uuid: Some(self.uuid.clone()), ..ObservedIdentity::default() }),
        };
        seen.nics = Seen::Known(vec![ObservedNic { name: "nic".to_owned(), mac: self.mac, link_up: None }]);
        Some(seen)
    }

    /// What comes into effect now. True when something changed.
    pub fn takes(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::On if self.power == Power::Off => {
                self.power = Power::On;
                self.runs = Runs::Firmware(0);
            }
            Effect::Off if self.power != Power::Off => self.cut(),
            Effect::ShutDown if self.power == Power::On && matches!(self.runs, Runs::System(_)) && !self.traits.stubborn => {
                self.power = Power::GoingOff;
            }
            // Firmware obeys the button at once; our agent has no ear for it.
            Effect::ShutDown if self.power == Power::On && !matches!(self.runs, Runs::System(_) | Runs::Agent(_)) => self.cut(),
            Effect::BootNetwork if !self.network_once => self.network_once = true,
            Effect::On | Effect::Off | Effect::ShutDown | Effect::BootNetwork => return false,
        }
        true
    }

    /// Its power is gone.
    pub fn cut(&mut self) {
        self.power = Power::Off;
        self.runs = Runs::Nothing;
    }

    /// It starts from its disk, if that holds something that starts.
    pub fn start_disk(&mut self) {
        self.checks = 0;
        let starts = match self.system().content {
            Content::Original => true,
            Content::Partial | Content::Wiped(_) => false,
            Content::Whole(..) => self.fault != Agent::NoStart,
        };
        self.runs = if starts { Runs::System(self.system().content == Content::Original) } else { Runs::Nothing };
    }

    /// All is mended that can be mended without Rackwright.
    pub fn heal(&mut self) {
        self.fault(Agent::Well);
        (self.bmc, self.no_network, self.traits.stubborn) = (Iron::Well, false, false);
    }

    /// Another fault, or none, in the place of the one before.
    pub fn fault(&mut self, fault: Agent) {
        // Whoever mends what kept a system from starting starts it.
        if self.fault == Agent::NoStart && matches!(self.runs, Runs::Nothing) && self.power == Power::On {
            self.runs = Runs::Firmware(0);
        }
        self.fault = fault;
    }
}
