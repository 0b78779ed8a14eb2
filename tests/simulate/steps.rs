//! How machines move: firmware, loader, agent, installed system. What they say goes to the controller as it would over the wire.

use rackwright::model::*;

use crate::{
    boot::{Answer, Message, Offer, Said},
    controller::is_taken,
    journal::Stop,
    metal::{Body, CODES, Content, Installer, Power, Runs, Stage},
    site::later,
    story::Agent,
    world::World,
};

/// So often a firmware asks before it goes on to the disk.
const ASKS: u8 = 3;
/// So many rounds a write takes.
const WRITES: u8 = 3;

impl World {
    /// Every machine moves one step. True when one did.
    pub fn machines(&mut self) -> bool {
        let mut moved = self.overdue();
        for body in 0..self.site.bodies.len() {
            moved |= self.body(body);
        }
        moved
    }

    /// What was late arrives.
    fn overdue(&mut self) -> bool {
        let now = self.site.now;
        let (due, rest) = std::mem::take(&mut self.site.effects).into_iter().partition(|(at, _, _)| *at <= now);
        self.site.effects = rest;
        let due: Vec<_> = due;
        for (_, body, effect) in &due {
            self.site.cover.count("an order comes into effect late");
            self.site.tell(|| format!("  machine {body}: {effect:?} comes into effect late"));
            self.site.take(*body, *effect);
        }
        let (words, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.site.words).into_iter().partition(|(at, _)| *at <= now);
        self.site.words = rest;
        let any = !due.is_empty() || !words.is_empty();
        for (_, message) in words {
            self.site.cover.count("a word arrives late");
            let answer = self.deliver(&message);
            self.answered(message.body, &message.boot_id, answer);
        }
        any
    }

    fn body(&mut self, number: usize) -> bool {
        let body = &mut self.site.bodies[number];
        match body.power {
            Power::Off => return false,
            Power::GoingOff => {
                body.cut();
                return true;
            }
            Power::On => {}
        }
        match body.runs.clone() {
            Runs::Nothing => false,
            Runs::Firmware(asked) => self.firmware(number, asked),
            Runs::Loader(key) => {
                let fetched = self.asks(number, true);
                let body = &mut self.site.bodies[number];
                match fetched {
                    Offer::Install(now) if now == key => {
                        body.starts += 1;
                        let boot_id = format!("{number}.{}", body.starts);
                        let (stage, install, wipe) = (Stage::Hello, None, None);
                        body.runs =
                            Runs::Agent(Box::new(Installer { key, boot_id, stage, waits: false, hung: false, install, wipe, disk: 0 }));
                    }
                    Offer::Install(_) | Offer::Disk => body.start_disk(),
                    Offer::Silence => return false,
                }
                true
            }
            Runs::Agent(agent) => self.agent(number, &agent),
            Runs::System(false) => self.calls_home(number),
            Runs::System(true) => self.tells_check(number),
        }
    }

    fn asks(&mut self, number: usize, fetches: bool) -> Offer {
        let body = &self.site.bodies[number];
        let Some(controller) = self.controller.as_mut().filter(|_| !body.no_network) else { return Offer::Silence };
        let mac = body.mac;
        controller.dhcp(&mut self.site, mac, fetches).unwrap_or_else(|_| {
            self.die();
            Offer::Silence
        })
    }

    fn firmware(&mut self, number: usize, asked: u8) -> bool {
        let body = &mut self.site.bodies[number];
        if !std::mem::take(&mut body.network_once) && !body.traits.network_first && asked == 0 {
            body.start_disk();
            return true;
        }
        let offer = self.asks(number, false);
        let body = &mut self.site.bodies[number];
        match offer {
            Offer::Install(key) => body.runs = Runs::Loader(key),
            Offer::Disk => body.start_disk(),
            Offer::Silence if asked + 1 >= ASKS => body.start_disk(),
            Offer::Silence => body.runs = Runs::Firmware(asked + 1),
        }
        true
    }

    fn calls_home(&mut self, number: usize) -> bool {
        let body = &self.site.bodies[number];
        let Content::Whole(generation, key) = body.system().content.clone() else { return false };
        if body.fault == Agent::Mute || body.no_network {
            return false;
        }
        let generation = if body.fault == Agent::HomeAsAnother { Generation::of(Digest::of(b"another"), None, 0) } else { generation };
        let said = Said::Home(generation);
        let answer = self.deliver(&Message { body: number, key, boot_id: String::new(), said });
        let heard = matches!(answer, Some(Answer::Taken));
        self.site.bodies[number].runs = Runs::System(heard);
        heard
    }

    /// A check of the installed system fails first, and passes then.
    fn tells_check(&mut self, number: usize) -> bool {
        let body = &self.site.bodies[number];
        let Content::Whole(_, key) = body.system().content.clone() else { return false };
        if body.no_network || body.checks >= 2 || number % 4 != 2 {
            return false;
        }
        let said = Said::Check(body.checks == 1);
        let taken = match self.deliver(&Message { body: number, key, boot_id: String::new(), said }) {
            Some(Answer::Taken) => true,
            // Nobody waits for it.
            Some(Answer::No) => true,
            Some(_) | None => false,
        };
        self.site.bodies[number].checks += u8::from(taken);
        taken
    }

    /// Brings a word to the controller. No answer: nobody is there.
    fn deliver(&mut self, message: &Message) -> Option<Answer> {
        self.site.said.insert(0, message.clone());
        self.site.said.truncate(8);
        self.hear(message)
    }

    /// The controller hears a word, wherever it comes from.
    pub fn hear(&mut self, message: &Message) -> Option<Answer> {
        let controller = self.controller.as_mut()?;
        let before = self.site.journal.records.len();
        let answer = controller.hears(&mut self.site, message);
        self.watch_leave(before, message.body);
        match answer {
            Err(Stop::Died) => {
                self.die();
                None
            }
            Err(Stop::Full | Stop::Fenced) => Some(Answer::Later),
            Ok(answer) => Some(answer),
        }
    }

    /// Leave to write became durable.
    fn watch_leave(&mut self, before: usize, body: usize) {
        let new = self.site.journal.records[before..].iter().find_map(|record| match &record.fact {
            Fact::Saw { attempt, evidence } if evidence.leave().is_some() => Some(attempt.clone()),
            _ => None,
        });
        let (Some(attempt), Some(force)) = (new, self.site.journal.in_force) else { return };
        if let Err(found) = self.site.bystander.leave(&attempt, body, &self.site.repo.commits[force]) {
            self.site.breaks(found.law, found.what);
        }
    }

    fn agent(&mut self, number: usize, agent: &Installer) -> bool {
        if agent.hung || agent.waits || agent.stage == Stage::Halted {
            return false;
        }
        let body = &mut self.site.bodies[number];
        let fault = body.fault;
        let Runs::Agent(mine) = &mut body.runs else { return false };
        match fault {
            Agent::Hangs => {
                (mine.hung, body.fault) = (true, Agent::Well);
                return true;
            }
            Agent::Fails(code) => {
                (mine.stage, body.fault) = (Stage::Fail(CODES[usize::from(code)]), Agent::Well);
                return true;
            }
            _ => {}
        }
        if let Stage::Write(left) = mine.stage {
            if left == 0 {
                if let Some((generation, disks)) = &mine.wipe {
                    disks.iter().for_each(|disk| body.disks[*disk].content = Content::Wiped(*generation));
                } else {
                    let Some(install) = &mine.install else { return false };
                    body.starts_from = mine.disk;
                    body.disks[mine.disk].content = Content::Whole(install.generation, mine.key.clone());
                }
                mine.stage = Stage::Told;
            } else {
                mine.stage = Stage::Write(left - 1);
            }
        }
        let Some(said) = self.says(number) else { return false };
        let message = Message { body: number, key: agent.key.clone(), boot_id: agent.boot_id.clone(), said };
        self.say(number, fault, message)
    }

    /// What its agent has to say.
    fn says(&self, number: usize) -> Option<Said> {
        let body = &self.site.bodies[number];
        let Runs::Agent(agent) = &body.runs else { return None };
        Some(match agent.stage {
            Stage::Hello => Said::Hello {
                serial: if body.fault == Agent::OtherBoard { "OTHER".to_owned() } else { body.serial.clone() },
                uuid: body.uuid.clone(),
                disks: body.listed(),
            },
            Stage::Ask if agent.wipe.is_some() => Said::Wiping(wiped(body, agent)),
            Stage::Told if agent.wipe.is_some() => Said::Wiped(wiped(body, agent).into_iter().map(proof).collect()),
            Stage::Ask => Said::Writing(body.disks[agent.disk].seen.clone()),
            Stage::Write(_) => Said::Progress,
            Stage::Told => Said::Written(agent.install.as_ref()?.image.digest),
            Stage::Fail(code) => Said::Failed { wrote: body.disks[agent.disk].content == Content::Partial, code },
            Stage::Halted => return None,
        })
    }

    fn say(&mut self, number: usize, fault: Agent, message: Message) -> bool {
        let body = &mut self.site.bodies[number];
        match fault {
            Agent::Late(seconds) => {
                body.fault = Agent::Well;
                if let Runs::Agent(agent) = &mut body.runs {
                    agent.waits = true;
                }
                self.site.words.push((later(self.site.now, seconds.into()), message));
                return true;
            }
            Agent::AnswerLost => {
                body.fault = Agent::Well;
                self.site.cover.count("an answer is lost");
                drop(self.deliver(&message));
                return true;
            }
            _ => {}
        }
        let answer = self.deliver(&message);
        let moves = !matches!(answer, None | Some(Answer::Later));
        self.answered(number, &message.boot_id, answer);
        moves
    }

    /// An answer reaches the agent's start that asked, if it still runs.
    fn answered(&mut self, number: usize, boot_id: &str, answer: Option<Answer>) {
        let body = &mut self.site.bodies[number];
        let disks = body.listed();
        let Runs::Agent(agent) = &mut body.runs else { return };
        if agent.boot_id != boot_id || agent.hung {
            return;
        }
        agent.waits = false;
        let Some(answer) = answer.filter(|answer| !matches!(answer, Answer::Later)) else { return };
        match (agent.stage, &answer) {
            (Stage::Hello, Answer::Command(command)) => match command.as_ref() {
                AgentCommand::Install { install, system, keep, .. } => match choose(&disks, system, keep) {
                    Ok(chosen) => {
                        agent.disk = body.disks.iter().position(|disk| disk.seen.serial == chosen.serial).unwrap_or_default();
                        agent.install = Some((**install).clone());
                        agent.stage = Stage::Ask;
                    }
                    Err(none) => agent.stage = Stage::Fail(none.code()),
                },
                AgentCommand::Wipe { targets, keep, .. } => match choose_to_wipe(&disks, targets, keep) {
                    Ok(chosen) => {
                        let place = |disk: &&ObservedDisk| body.disks.iter().position(|own| own.seen == **disk);
                        let generation = self.site.bystander.generation(&agent.key.attempt);
                        agent.wipe = generation.map(|generation| (generation, chosen.iter().filter_map(place).collect()));
                        agent.stage = Stage::Ask;
                    }
                    Err(none) => agent.stage = Stage::Fail(none.code()),
                },
                AgentCommand::SwitchOff => body.cut(),
                AgentCommand::BootFromDisk => body.runs = Runs::Firmware(0),
                AgentCommand::Refuse { .. } => agent.stage = Stage::Halted,
            },
            (Stage::Ask, Answer::Taken) => self.first_byte(number),
            // Some kernels can't switch their machine off.
            (Stage::Told, Answer::Taken) if agent.wipe.is_some() && body.traits.stubborn => agent.stage = Stage::Halted,
            (Stage::Told, Answer::Taken) if agent.wipe.is_some() => body.cut(),
            (Stage::Told, Answer::Taken) => body.runs = Runs::Firmware(0),
            (Stage::Write(_), Answer::Taken) => {}
            (Stage::Fail(_), _) | (_, Answer::No) => agent.stage = Stage::Halted,
            (_, answer) => debug_assert!(is_taken(answer), "an answer to another question"),
        }
    }

    fn first_byte(&mut self, number: usize) {
        let body = &mut self.site.bodies[number];
        let stands = body.clone();
        let Runs::Agent(agent) = &mut body.runs else { return };
        agent.stage = Stage::Write(WRITES);
        let (attempt, boot_id) = (agent.key.attempt.clone(), agent.boot_id.clone());
        let disks = agent.wipe.as_ref().map_or(vec![agent.disk], |(_, disks)| disks.clone());
        disks.iter().for_each(|disk| body.disks[*disk].content = Content::Partial);
        self.site.tell(|| format!("  machine {number} writes its disk for {attempt}"));
        for disk in disks {
            let commits = &self.site.repo.commits;
            if let Err(found) = self.site.bystander.first_byte(&attempt, number, disk, &boot_id, &stands, commits) {
                self.site.breaks(found.law, found.what);
            }
        }
    }
}

/// The disks that an agent wipes, in the order in which it lists them.
fn wiped(body: &Body, agent: &Installer) -> Vec<ObservedDisk> {
    let disks = agent.wipe.iter().flat_map(|(_, disks)| disks);
    disks.map(|disk| body.disks[*disk].seen.clone()).collect()
}

fn proof(disk: ObservedDisk) -> DiskProof {
    let size = disk.size.unwrap_or(1);
    DiskProof { disk, by: "zeros".to_owned(), places: 1, read: size, zero: size, same: 0, size, digest: Digest::of(b"zeros") }
}
