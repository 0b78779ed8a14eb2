//! A story is told: events happen, machines move, the controller turns. When it is over, all faults stop, and everybody must arrive.

use crate::{
    controller::Controller,
    journal::{Journal, Stop},
    metal::{Power, Runs},
    repo::index_of,
    site::{Break, Site, later},
    story::{Event, Form, Iron, Story},
};
use rackwright::model::*;

/// Rounds in which a fleet must come to rest once faults stopped.
const MOST_ROUNDS: u32 = 4000;
/// The longest pause between two turns while something is awaited. The engine's own is shorter; what a turn would do again and again is
/// the same.
const HEARTBEAT: u32 = 60;
/// Virtual hours in which it must.
const MOST_HOURS: i64 = 72;

pub struct World {
    pub site: Site,
    pub controller: Option<Controller>,
    /// The memory of a controller that is dead, or should be.
    zombie: Option<Controller>,
    stopped: bool,
    stale: bool,
    quiet: Option<u64>,
}

/// How a story ended.
pub struct Told {
    pub broken: Option<Break>,
    pub cover: crate::cover::Cover,
    pub words: Vec<String>,
    pub rounds: u64,
}

/// Tells a story to its end.
pub fn tell(story: &Story, second_reader: bool, words: bool) -> Told {
    let mut world = World::new(story, second_reader);
    world.site.told = words.then(Vec::new);
    for event in &story.events {
        world.site.tell(|| format!("{event:?}"));
        world.event(event);
        if world.site.broken.is_some() {
            break;
        }
    }
    if world.site.broken.is_none() {
        world.site.tell(|| "all faults stop".to_owned());
        world.rest();
    }
    let mut site = world.site;
    site.journal.deaths.iter().zip(["death before a write", "death after a write"]).for_each(|(deaths, what)| {
        (0..*deaths).for_each(|_| site.cover.count(what));
    });
    Told { broken: site.broken, cover: site.cover, words: site.told.unwrap_or_default(), rounds: site.rounds }
}

impl World {
    fn new(story: &Story, second_reader: bool) -> Self {
        let site = Site::new(story, second_reader);
        Self { site, controller: None, zombie: None, stopped: false, stale: false, quiet: None }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Pass(rounds, seconds) => {
                self.quiet = None;
                for _ in 0..*rounds {
                    if !self.round(u64::from(*seconds)) || self.site.broken.is_some() {
                        break;
                    }
                }
            }
            Event::Wait(seconds) => {
                let step = (seconds / 10).max(HEARTBEAT);
                for _ in 0..seconds.div_ceil(step) {
                    self.round(u64::from(step.min(*seconds)));
                }
            }
            Event::Commit(edits, form) => {
                if matches!(form, Form::LetThrough(_)) {
                    self.site.cover.count("a malformed commit is let through");
                }
                self.site.repo.commit(edits, *form, &mut self.site.bodies, self.site.now);
            }
            Event::Revert(back) => self.site.repo.revert(*back, self.site.now),
            Event::Iron(slot, iron) => self.iron(self.site.repo.body(*slot), *iron),
            Event::Agent(slot, agent) => {
                let body = self.site.repo.body(*slot);
                self.site.bodies[body].fault(*agent);
            }
            Event::Crash(at, after) => self.site.journal.death = Some((*at, *after)),
            Event::Stop => {
                self.die();
                self.stopped = true;
            }
            Event::Start => self.stopped = false,
            Event::Rival => self.rival(),
            Event::Zombie => self.wake_zombie(),
            Event::Stale => self.stale = true,
            Event::DiskFull(full) => {
                self.site.journal.full = *full;
                self.site.bystander.was_full |= *full;
            }
            Event::Lost => self.lose(),
            Event::Again(which) => self.again(usize::from(*which)),
        }
    }

    fn iron(&mut self, body: usize, iron: Iron) {
        let body = &mut self.site.bodies[body];
        match iron {
            Iron::PowerCut => {
                if body.writes() {
                    self.site.cover.count("power cut in a write");
                }
                body.cut();
            }
            Iron::ButtonOff => body.cut(),
            Iron::ButtonOn => drop(body.takes(crate::metal::Effect::On)),
            Iron::Reset if body.power == Power::On => body.runs = Runs::Firmware(0),
            Iron::Reset => {}
            Iron::NoNetwork => body.no_network = true,
            Iron::Well => body.heal(),
            fault => body.bmc = fault,
        }
    }

    /// The lock decides: as long as one holds it, another does not begin.
    fn rival(&mut self) {
        if self.site.journal.held {
            self.site.cover.count("a second controller is refused by the lock");
        } else if !self.stopped {
            self.start();
        }
    }

    fn start(&mut self) {
        self.site.journal.held = true;
        self.controller = Some(Controller::start(&self.site));
    }

    /// The process ends; the kernel releases its lock.
    pub fn die(&mut self) {
        if let Some(dead) = self.controller.take() {
            self.zombie = Some(dead);
        }
        self.site.journal.held = false;
    }

    /// A controller that lost the journal without knowing it takes a turn on what it remembers. The store must refuse all that it writes.
    fn wake_zombie(&mut self) {
        let Some(mut zombie) = self.zombie.take() else { return };
        let before = self.site.journal.records.len();
        if zombie.known.history.seq == before as u64 || self.site.journal.in_force != zombie.known.in_force {
            return;
        }
        if let Ok(Some((decided, plan))) = zombie.decide(&mut self.site, true) {
            let done = zombie.act(&mut self.site, decided, &plan);
            if self.site.journal.records.len() != before || done == Ok(true) {
                self.site.breaks(10, "a controller that lost its journal still does something".to_owned());
            }
        }
    }

    fn lose(&mut self) {
        self.die();
        self.zombie = None;
        let (epoch, deaths) = (self.site.journal.epoch + 1, self.site.journal.deaths);
        self.site.journal = Journal { lost: true, epoch, deaths, ..Journal::default() };
        self.site.bystander.forget();
        self.site.cover.count("the journal is lost");
    }

    /// A word that was said arrives again.
    fn again(&mut self, which: usize) {
        let Some(message) = self.site.said.get(which).cloned() else { return };
        self.site.cover.count("a word arrives again");
        drop(self.hear(&message));
    }

    /// Some seconds: machines move, then the controller turns. False when nothing happened.
    pub fn round(&mut self, seconds: u64) -> bool {
        self.site.rounds += 1;
        self.site.now = later(self.site.now, seconds);
        let mut moved = self.machines();
        if self.controller.is_none() && !self.stopped {
            self.start();
            moved = true;
        }
        let before = self.site.journal.records.len();
        if let Some(controller) = &mut self.controller {
            let decided = controller.decide(&mut self.site, self.stale);
            if self.stale && matches!(decided, Ok(Some(_))) {
                self.stale = false;
                self.machines();
            }
            if self.turn_ends(decided) == Err(Stop::Died) {
                self.die();
                moved = true;
            }
        }
        self.check();
        moved || self.site.journal.records.len() != before
    }

    fn turn_ends(&mut self, decided: Result<crate::controller::Decision, Stop>) -> Result<(), Stop> {
        let Some((decided, plan)) = decided? else { return Ok(()) };
        let Some(controller) = &mut self.controller else { return Ok(()) };
        // A newer commit may have come while the plan was made.
        match controller.adopt(&mut self.site) {
            Err(Stop::Died) => return Err(Stop::Died),
            Err(Stop::Full | Stop::Fenced) | Ok(()) => {}
        }
        match controller.act(&mut self.site, decided, &plan) {
            Err(Stop::Died) => Err(Stop::Died),
            Err(Stop::Full | Stop::Fenced) | Ok(_) => Ok(()),
        }
    }

    /// What anybody can see who looks at the machines.
    fn check(&mut self) {
        let touched = self.site.bodies.iter().position(|body| body.disks[1].content != crate::metal::Content::Original);
        if let Some(body) = touched {
            self.site.breaks(6, format!("the disk to keep of machine {body} was written"));
        }
    }

    /// All faults stop. The fleet must come to rest, and then each machine is as declared or something says what holds it.
    fn rest(&mut self) {
        self.site.bodies.iter_mut().for_each(crate::metal::Body::heal);
        (self.site.journal.full, self.site.journal.death, self.stopped, self.stale) = (false, None, false, false);
        let end = later(self.site.now, (MOST_HOURS * 3600) as u64);
        let mut rounds = 0;
        loop {
            rounds += 1;
            if rounds > MOST_ROUNDS || self.site.now > end {
                let what = format!("the fleet does not come to rest in {rounds} rounds");
                return self.site.breaks(0, what);
            }
            let moved = self.round(5) | self.person();
            if self.site.broken.is_some() {
                return;
            }
            if !moved && !self.skip() {
                break;
            }
        }
        crate::arrived::check(self);
    }

    /// A person restarts machines in which our agent stands still and of which nobody knows: nobody else does (docs/known-faults.md).
    /// True when there was one.
    fn person(&mut self) -> bool {
        let bystander = &self.site.bystander;
        let stands = |number: &usize| {
            let halted =
                matches!(&self.site.bodies[*number].runs, Runs::Agent(agent) if agent.hung || agent.stage == crate::metal::Stage::Halted);
            halted && bystander.is_forgotten(*number) && !bystander.is_open(*number)
        };
        let Some(body) = (0..self.site.bodies.len()).find(stands) else { return false };
        self.site.cover.count("a person restarts a machine that our agent stands in");
        self.site.bodies[body].runs = Runs::Firmware(0);
        true
    }

    /// Nothing happens: on to when something is due. False when nothing is.
    fn skip(&mut self) -> bool {
        let now = self.site.now;
        let due = self.controller.as_ref().and_then(Controller::due);
        let soon = self.site.effects.iter().map(|(at, _, _)| *at).chain(self.site.words.iter().map(|(at, _)| *at)).min();
        let Some(next) = due.into_iter().chain(soon).filter(|at| *at > now).min() else { return false };
        self.site.now = next.min(later(now, HEARTBEAT.into()));
        true
    }

    /// What the commit in force says.
    pub fn force(&self) -> Option<&crate::repo::Pushed> {
        let index = self.controller.as_ref()?.commit()?;
        let force = &self.site.repo.commits[index];
        debug_assert_eq!(index_of(force.commit.id), index);
        Some(force)
    }
}

impl World {
    pub fn plan_of(&self, name: &MachineName) -> Option<&MachinePlan> {
        self.controller.as_ref()?.plan.as_ref()?.machines.get(name)
    }
}
