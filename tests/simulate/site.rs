//! The place: machines, repository, journal, what is on its way, and the bystander. Everything but the controller's memory.

use std::time::Duration;

use rackwright::model::*;

use crate::{
    boot::Message,
    bystander::Bystander,
    cover::Cover,
    journal::Journal,
    metal::{Body, Effect},
    repo::Repo,
    story::{Iron, Story},
};

/// A break of the law that was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Break {
    pub law: u8,
    pub what: String,
}

pub struct Site {
    pub now: Timestamp,
    pub bodies: Vec<Body>,
    pub repo: Repo,
    pub journal: Journal,
    pub bystander: Bystander,
    pub cover: Cover,
    pub broken: Option<Break>,
    /// Whether plans are read a second time. Without it the bystander is alone.
    pub second_reader: bool,
    /// Words that arrive later, and whether the one who said them still waits.
    pub words: Vec<(Timestamp, Message)>,
    /// The last words, which may arrive again.
    pub said: Vec<Message>,
    /// What BMCs do later.
    pub effects: Vec<(Timestamp, usize, Effect)>,
    /// What happened, in words, where somebody wants to read it.
    pub told: Option<Vec<String>>,
    pub rounds: u64,
}

pub fn later(at: Timestamp, seconds: u64) -> Timestamp {
    at.checked_add(SignedDuration::try_from(Duration::from_secs(seconds)).unwrap()).unwrap()
}

impl Site {
    pub fn new(story: &Story, second_reader: bool) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let bodies: Vec<Body> = story.setup.bodies.iter().enumerate().map(|(number, traits)| Body::new(number, *traits)).collect();
        let repo = Repo::new(&story.setup, &bodies, now);
        Self {
            now,
            bodies,
            repo,
            journal: Journal::default(),
            bystander: Bystander::default(),
            cover: Cover::default(),
            broken: None,
            second_reader,
            words: Vec::new(),
            said: Vec::new(),
            effects: Vec::new(),
            told: None,
            rounds: 0,
        }
    }

    pub fn breaks(&mut self, law: u8, what: String) {
        self.broken.get_or_insert(Break { law, what });
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(what());
        }
    }

    /// The bystander sees what became durable.
    pub fn look(&mut self) {
        while self.bystander.read < self.journal.records.len() {
            let record = self.journal.records[self.bystander.read].clone();
            self.bystander.read += 1;
            self.cover.record(&record);
            self.tell(|| format!("  journal {}: {}", record.seq, crate::report::fact(&record.fact)));
            let commit = &self.repo.commits[crate::repo::index_of(record.commit)];
            if let Err(found) = self.bystander.fact(self.now, &record, commit, &self.bodies) {
                self.breaks(found.law, found.what);
            }
        }
    }

    pub fn in_force(&mut self, index: usize) {
        self.bystander.in_force = index;
        self.tell(|| format!("  commit {} is in force", index + 1));
    }

    /// An order reaches a BMC.
    pub fn order(&mut self, body: usize, step: &Step, commit: usize) -> Outcome {
        let effect = Effect::of(&step.action).expect("only orders reach a BMC");
        let pushed = &self.repo.commits[commit];
        if let Err(found) = self.bystander.order(self.now, body, step, pushed, &self.bodies[body]) {
            self.breaks(found.law, found.what);
        }
        // A BMC takes one order after another: that it takes this one shows that the one before is over.
        let (before, rest) = std::mem::take(&mut self.effects).into_iter().partition(|(_, other, _)| *other == body);
        self.effects = rest;
        let before: Vec<_> = before;
        for (_, _, effect) in before {
            self.take(body, effect);
        }
        let iron = self.bodies[body].bmc;
        self.tell(|| format!("  machine {body} is told: {} ({iron:?})", step.action));
        let failed = |class| Outcome::Failed { why: "as the BMC says".to_owned(), class };
        match iron {
            Iron::Unreachable | Iron::Busy => return failed(RetryClass::Wait),
            Iron::Lies => return Outcome::Done,
            Iron::Refuses => return Outcome::Blocked { why: "401".to_owned(), hint: "look at it".to_owned() },
            Iron::Late(seconds) => {
                self.effects.push((later(self.now, seconds.into()), body, effect));
                self.bodies[body].bmc = Iron::Well;
                return failed(RetryClass::Wait);
            }
            // A BMC that does later what it said it had done would be worse than any that is known.
            Iron::Twice(seconds) if matches!(effect, Effect::On | Effect::BootNetwork) => {
                self.effects.push((later(self.now, seconds.into()), body, effect));
                self.bodies[body].bmc = Iron::Well;
            }
            _ => {}
        }
        self.take(body, effect);
        if iron == Iron::AnswerLost {
            self.bodies[body].bmc = Iron::Well;
            return failed(RetryClass::Wait);
        }
        Outcome::Done
    }

    /// An order comes into effect.
    pub fn take(&mut self, body: usize, effect: Effect) -> bool {
        let writes = self.bodies[body].writes();
        if writes && matches!(effect, Effect::Off | Effect::ShutDown) {
            self.breaks(10, format!("machine {body} is switched off by us in the middle of a write"));
        }
        self.bodies[body].takes(effect)
    }
}
