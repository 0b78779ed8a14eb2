//! A story: a fleet, and what happens to it. Everything that happens is an event with all that it needs, so that any part of a story is
//! a story too; that is what makes shrinking it simple.

use rackwright::model::DriftPolicy;

use crate::rng::Rng;

/// Least number of machines and of events. A history that is smaller is not counted.
pub const MACHINES: usize = 8;
pub const EVENTS: usize = 50;

#[derive(Debug, Clone)]
pub struct Story {
    pub seed: u64,
    pub setup: Setup,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub bodies: Vec<Traits>,
    pub at_once: u32,
    pub destructive: u32,
    pub breaker: u32,
    pub policy: DriftPolicy,
    /// Machines with an even number are in a group that goes first.
    pub grouped: bool,
    pub rack_limit: Option<u32>,
}

/// What a machine is like, from the factory and by its first manifest.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    pub install_on_claim: bool,
    pub off: bool,
    /// Asks the network first at each start, whatever the boot override says.
    pub network_first: bool,
    /// Its operating system ignores a shutdown.
    pub stubborn: bool,
    pub uuid: bool,
    pub serial: bool,
    pub image: u8,
    pub suspended: bool,
}

/// What is pushed in one commit. Machines are told by the place where a person thinks of them, not by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Edit {
    Image(usize, u8),
    /// All machines of a profile.
    Profile(u8, u8),
    Config(usize, u8),
    /// Configuration alone waits for the next install.
    OnConfigChange(usize, bool),
    Rebuild(usize),
    /// 0: back into service; 1: its system disk is wiped; 2: all but the one to keep.
    Decommission(usize, u8),
    Suspend(usize, bool),
    Power(usize, u8),
    OnClaim(usize, bool),
    Remove(usize),
    Restore(usize),
    Rename(usize),
    /// The first gets the name of the second, which gets a new one.
    Chain(usize, usize),
    Swap(usize, usize),
    /// 0: right again; 1: the serial; 2: the MAC; 3: both.
    Mistype(usize, u8),
    /// The BMC's address is that of another machine.
    WrongBmc(usize, usize),
    /// Another server in its place.
    Replace(usize),
    /// The hint for the system disk: 0: right; 1: none; 2: matches nothing; 3: matches two; 4: the disk to keep; 5: the spare one.
    Disk(usize, u8),
    /// maxUnavailable, maxDestructive, breaker.
    Budgets(u32, u32, u32),
    Policy(u8),
}

/// How a malformed commit meets the controller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    Good,
    /// The file of this machine can't be read. The engine refuses the commit.
    Refused(usize),
    /// The same, let through to the planner: its own law must hold.
    LetThrough(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Iron {
    Well,
    Unreachable,
    /// The BMC hangs: its last answer gets old.
    Hangs,
    Anonymous,
    /// It reports the serial number of something else.
    Stranger,
    /// It says yes and does nothing.
    Lies,
    Busy,
    Refuses,
    /// It does what it is told and its answer is lost.
    AnswerLost,
    /// It gives up answering, and does it seconds later.
    Late(u8),
    /// It does what it is told a second time, seconds later.
    Twice(u8),
    PowerCut,
    ButtonOn,
    ButtonOff,
    NoNetwork,
    /// It is reset where it stands.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agent {
    Well,
    Hangs,
    /// It fails with the code of this number; see `metal::CODES`.
    Fails(u8),
    /// The answer to its next word is lost, and it asks again.
    AnswerLost,
    /// Its next word arrives seconds later, even if it is dead by then.
    Late(u8),
    /// A second disk looks like the first.
    TwinDisk,
    /// It reads another serial number on the board than its BMC tells.
    OtherBoard,
    /// The installed system says that it is something else.
    HomeAsAnother,
    /// The installed system is silent.
    Mute,
    /// The installed system does not start.
    NoStart,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// So many rounds of so many seconds: machines move, the controller turns. Ends early when nothing happens.
    Pass(u8, u8),
    /// So many seconds pass at once.
    Wait(u32),
    Commit(Vec<Edit>, Form),
    /// Back to what the repository said so many commits ago.
    Revert(usize),
    Iron(usize, Iron),
    Agent(usize, Agent),
    /// The controller dies at its so-manieth journal write from now; after it (`true`) or before. The dead one's memory may come back.
    Crash(u8, bool),
    Stop,
    Start,
    /// A second controller wants the journal.
    Rival,
    /// A controller that lost the journal to another wakes up and goes on where it was.
    Zombie,
    /// In the next turn the world moves between plan and deed, and a newer commit comes into force.
    Stale,
    /// The journal can't be written, or can again.
    DiskFull(bool),
    /// The journal is lost, and the controller starts on an empty one.
    Lost,
    /// One of the last words of agents arrives again.
    Again(u8),
}

impl Story {
    pub fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let machines = MACHINES + rng.below(3);
        let setup = setup(rng, machines);
        let count = EVENTS + rng.below(20);
        // Some stories are about names, others about failures: a fault of each kind in each story would let nothing ever get far.
        let calm = rng.percent(40);
        // A journal is lost once in a long while; what that leaves unknown would hide much else.
        let may_lose = rng.percent(8);
        let events = (0..count).map(|_| event(rng, machines, calm, may_lose)).collect();
        Self { seed, setup, events }
    }
}

fn setup(rng: &mut Rng, machines: usize) -> Setup {
    let traits = |rng: &mut Rng| Traits {
        install_on_claim: rng.percent(25),
        off: rng.percent(10),
        network_first: rng.percent(30),
        stubborn: rng.percent(15),
        uuid: rng.percent(30),
        serial: rng.percent(92),
        image: 1 + rng.below(2) as u8,
        suspended: rng.percent(3),
    };
    Setup {
        bodies: (0..machines).map(|_| traits(rng)).collect(),
        at_once: 1 + rng.below(4) as u32,
        destructive: 1 + rng.below(12) as u32,
        breaker: 1 + rng.below(4) as u32,
        policy: rng.pick(&[DriftPolicy::Correct, DriftPolicy::Correct, DriftPolicy::Correct, DriftPolicy::Observe, DriftPolicy::Alert]),
        grouped: rng.percent(30),
        rack_limit: rng.percent(20).then(|| 1 + rng.below(2) as u32),
    }
}

fn event(rng: &mut Rng, machines: usize, calm: bool, may_lose: bool) -> Event {
    let which = rng.below(machines);
    match rng.below(if calm { 70 } else { 100 }) {
        0..32 => Event::Pass(2 + rng.below(16) as u8, rng.pick(&[1, 2, 5, 20])),
        32..40 => Event::Wait(rng.pick(&[10, 35, 65, 125, 310, 310, 610, 950, 1900, 3700, 22000])),
        40..56 => commit(rng, machines),
        56..58 => Event::Revert(1 + rng.below(3)),
        58..62 => Event::Crash(rng.below(6) as u8, rng.percent(50)),
        62 => Event::Stop,
        63..65 => Event::Start,
        65 => Event::Rival,
        66 => Event::Zombie,
        67..69 => Event::Stale,
        69 => Event::Again(rng.below(8) as u8),
        70..84 => Event::Iron(which, iron(rng)),
        84..96 => Event::Agent(which, agent(rng)),
        96..98 => Event::DiskFull(rng.percent(40)),
        98 if may_lose => Event::Lost,
        _ => Event::Again(rng.below(8) as u8),
    }
}

fn iron(rng: &mut Rng) -> Iron {
    let seconds = 1 + rng.below(28) as u8;
    match rng.below(22) {
        0..4 => Iron::Well,
        4 => Iron::Unreachable,
        5 => Iron::Hangs,
        6 => Iron::Anonymous,
        7 => Iron::Stranger,
        8 => Iron::Lies,
        9 => Iron::Busy,
        10 => Iron::Refuses,
        11 | 12 => Iron::AnswerLost,
        13 | 14 => Iron::Late(seconds),
        15 => Iron::Twice(seconds),
        16 | 17 => Iron::PowerCut,
        18 => Iron::ButtonOn,
        19 => Iron::ButtonOff,
        20 => Iron::NoNetwork,
        _ => Iron::Reset,
    }
}

fn agent(rng: &mut Rng) -> Agent {
    match rng.below(15) {
        0 | 1 => Agent::Well,
        2 | 3 => Agent::Hangs,
        4..6 => Agent::Fails(rng.below(6) as u8),
        6 | 7 => Agent::AnswerLost,
        8 | 9 => Agent::Late(1 + rng.below(60) as u8),
        10 => Agent::TwinDisk,
        11 => Agent::HomeAsAnother,
        12 => Agent::Mute,
        13 => Agent::OtherBoard,
        _ => Agent::NoStart,
    }
}

fn commit(rng: &mut Rng, machines: usize) -> Event {
    let edits = if rng.percent(75) { 1 } else { 2 + rng.below(2) };
    let edits = (0..edits).map(|_| edit(rng, machines)).collect();
    let which = rng.below(machines);
    let form = match rng.below(14) {
        0 => Form::Refused(which),
        1 => Form::LetThrough(which),
        _ => Form::Good,
    };
    Event::Commit(edits, form)
}

fn edit(rng: &mut Rng, machines: usize) -> Edit {
    let (one, other) = (rng.below(machines), rng.below(machines));
    match rng.below(44) {
        0..8 => Edit::Image(one, 1 + rng.below(3) as u8),
        8..12 => Edit::Profile(rng.below(2) as u8, 1 + rng.below(3) as u8),
        12..14 => Edit::Config(one, rng.below(3) as u8),
        14..17 => Edit::Rebuild(one),
        17 => Edit::Suspend(one, rng.percent(40)),
        18 => Edit::Decommission(one, rng.below(3) as u8),
        19 | 20 => Edit::Power(one, rng.below(3) as u8),
        21 => Edit::OnClaim(one, rng.percent(50)),
        22 => Edit::Remove(one),
        23 | 24 => Edit::Restore(one),
        25 | 26 => Edit::Rename(one),
        27 => Edit::Chain(one, other),
        28 => Edit::Swap(one, other),
        29 => Edit::Mistype(one, 1 + rng.below(3) as u8),
        30..32 => Edit::Mistype(one, 0),
        32 => Edit::WrongBmc(one, other),
        33 => Edit::Replace(one),
        34 => Edit::Disk(one, rng.below(6) as u8),
        35 => Edit::Disk(one, rng.pick(&[0, 5])),
        36 | 37 => Edit::Budgets(1 + rng.below(4) as u32, 1 + rng.below(12) as u32, 1 + rng.below(4) as u32),
        38 => Edit::Policy(rng.below(4) as u8),
        40 | 41 => Edit::OnConfigChange(one, rng.percent(70)),
        42 | 43 => Edit::Config(one, rng.below(3) as u8),
        _ => Edit::Image(one, 1 + rng.below(3) as u8),
    }
}
