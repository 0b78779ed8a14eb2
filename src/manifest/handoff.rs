//! Values that machines hand to each other: who may publish what, whether whoever is asked publishes it, and whether all can ever begin.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fault::{At, Fault, Path},
    load::Listed,
    merged::circle,
    raw::{Kind, Spec},
    template::range_place,
    text::nearest,
    world::World,
};
use crate::model::{Files, Fleet, HandoffName, HandoffUse, MachineName, RolloutName};

/// Names that a machine or profile says it publishes; those that are none are told.
pub(crate) fn published(stated: &[String], number: usize, at: &Path, faults: &mut Vec<Fault>) -> BTreeSet<HandoffName> {
    let mut names = BTreeSet::new();
    for (n, text) in stated.iter().enumerate() {
        match HandoffName::new(text.as_str()) {
            Ok(name) => drop(names.insert(name)),
            Err(bad) => faults.push(Fault::error("bad-name", At::Value(number, at.then(n)), bad.to_string())),
        }
    }
    names
}

/// Faults of values that nobody publishes, and of machines that would wait for each other for ever.
pub(crate) fn check<'a>(files: &Files, machines: &[Listed<'a>], world: &World<'_>, fleet: &Fleet) -> Vec<(&'a str, Fault)> {
    let mut faults = Vec::new();
    if fleet.machines.values().all(|machine| machine.handoffs.uses.is_empty()) {
        return faults;
    }
    let circle = Waits::of(fleet).circle();
    for (source, _) in machines {
        let Some(machine) = MachineName::new(source.name()).ok().and_then(|name| fleet.machines.get(&name)) else { continue };
        let Spec::Machine(spec) = &source.doc.spec else { continue };
        let profile = || world.profiles.get(spec.profile.as_deref()?)?.user_data;
        let Some(template) = spec.stated().user_data().or_else(profile) else { continue };
        for wanted in &machine.handoffs.uses {
            let wrong = unpublished(world, fleet, wanted).or_else(|| waits_for_itself(&machine.name, wanted, circle.as_ref()));
            faults.extend(wrong.map(|fault| (source.file, placed(files, template, wanted, &machine.name, fault))));
        }
    }
    faults
}

/// The same fault where the template asks.
fn placed(files: &Files, template: &str, wanted: &HandoffUse, machine: &MachineName, fault: Fault) -> Fault {
    let source = files.get(template).and_then(|entry| std::str::from_utf8(&entry.bytes).ok()).unwrap_or_default();
    let (start, end) = call(source, wanted);
    let (file, machine) = (Some(template.to_owned()), Some(machine.to_string()));
    Fault { file, machine, at: At::Place(range_place(source, start, end)), ..fault }
}

/// Where `source` asks for a value: where its name and that of its publisher are written out, else where it first asks for any.
fn call(source: &str, wanted: &HandoffUse) -> (usize, usize) {
    let asks = |at: usize| {
        let rest = &source[at..];
        let end = rest.find("}}").or_else(|| rest.find("%}")).unwrap_or(rest.len());
        let quoted = |name: &str| ["\"", "'"].iter().any(|quote| rest[..end].contains(&format!("{quote}{name}{quote}")));
        quoted(wanted.from.as_str()) && quoted(wanted.name.as_str())
    };
    let mut words = source.match_indices(FUNCTION).map(|(at, _)| at);
    let at = words.clone().find(|at| asks(*at)).or_else(|| words.next()).unwrap_or_default();
    (at, at + FUNCTION.len())
}

/// What templates call.
pub(crate) const FUNCTION: &str = "handoff";

fn unpublished(world: &World<'_>, fleet: &Fleet, wanted: &HandoffUse) -> Option<Fault> {
    let Some(publisher) = fleet.machines.get(&wanted.from) else {
        // Of one that can't be read nobody can tell what it publishes; it has its own fault.
        if world.names.has(Kind::Machine, wanted.from.as_str()) {
            return None;
        }
        let near = nearest(wanted.from.as_str(), fleet.machines.keys().map(MachineName::as_str));
        let fault = Fault::error("dangling-handoff", super::fault::TOP, format!("there is no machine named `{}`", wanted.from));
        return Some(fault.maybe_hint(near.map(|near| format!("did you mean `{near}`?"))));
    };
    let publishes = &publisher.handoffs.publishes;
    if publishes.contains(&wanted.name) {
        return None;
    }
    let near = nearest(wanted.name.as_str(), publishes.iter().map(HandoffName::as_str)).map(|near| format!("did you mean `{near}`?"));
    let message = format!("`{}` does not publish `{}`", wanted.from, wanted.name);
    let hint = format!("state `publishes: [{}]` in its manifest or its profile", wanted.name);
    Some(Fault::error("dangling-handoff", super::fault::TOP, message).hint(hint).maybe_hint(near))
}

fn waits_for_itself(machine: &MachineName, wanted: &HandoffUse, circle: Option<&Circle>) -> Option<Fault> {
    let found = circle?;
    (found.first == *machine && found.next == wanted.from).then(|| {
        let message = format!("installs would wait for each other for ever: {}", found.text);
        Fault::error("handoff-cycle", super::fault::TOP, message).hint("a machine is installed after those whose values it uses")
    })
}

/// What an install waits for, or is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node<'a> {
    /// A machine is done.
    Machine(&'a MachineName),
    /// All machines of a group are done.
    Group(&'a RolloutName),
}

/// Who waits for whom: for values, and by `after` of its rollout.
struct Waits<'a>(BTreeMap<Node<'a>, BTreeSet<Node<'a>>>);

/// Installs that wait for each other.
struct Circle {
    /// A machine of it that asks for a value of `next`.
    first: MachineName,
    next: MachineName,
    text: String,
}

impl<'a> Waits<'a> {
    fn of(fleet: &'a Fleet) -> Self {
        let mut waits: BTreeMap<Node<'a>, BTreeSet<Node<'a>>> = BTreeMap::new();
        for (name, machine) in &fleet.machines {
            let chosen = |(key, value): (&String, &String)| machine.labels.get(key) == Some(value);
            let rollout = fleet.rollouts.values().find(|rollout| rollout.selector.iter().all(chosen));
            let own = waits.entry(Node::Machine(name)).or_default();
            own.extend(machine.handoffs.uses.iter().map(|wanted| Node::Machine(&wanted.from)));
            if let Some(rollout) = rollout {
                // Where a share of it is enough, whoever waits may be among the rest.
                own.extend(rollout.after.iter().filter(|after| after.share.is_none()).map(|after| Node::Group(&after.rollout)));
                waits.entry(Node::Group(&rollout.name)).or_default().insert(Node::Machine(name));
            }
        }
        Self(waits)
    }

    /// One circle in which somebody waits for a value. One by `after` alone is told elsewhere.
    fn circle(&self) -> Option<Circle> {
        let nobody = BTreeSet::new();
        let others = |node: &Node<'a>| self.0.get(node).unwrap_or(&nobody).iter();
        let mut done = BTreeSet::new();
        for start in self.0.keys() {
            let mut places = BTreeMap::from([(*start, 0)]);
            let mut trail = vec![(*start, others(start))];
            while let Some((node, rest)) = trail.last_mut() {
                match rest.next() {
                    Some(next) if done.contains(next) => {}
                    Some(next) => match places.get(next) {
                        Some(begin) => {
                            let around: Vec<Node<'a>> = trail[*begin..].iter().map(|(node, _)| *node).collect();
                            if let Some(found) = Circle::of(&around) {
                                return Some(found);
                            }
                        }
                        None => {
                            places.insert(*next, trail.len());
                            trail.push((*next, others(next)));
                        }
                    },
                    None => {
                        places.remove(node);
                        done.insert(*node);
                        trail.pop();
                    }
                }
            }
        }
        None
    }
}

impl Circle {
    /// What there is to say of nodes of which each waits for the next, and the last for the first; `None` if no value is waited for.
    fn of(around: &[Node<'_>]) -> Option<Self> {
        let mut pairs = around.iter().zip(around.iter().cycle().skip(1));
        let (first, next) = pairs.find_map(|(one, other)| match (one, other) {
            (Node::Machine(one), Node::Machine(other)) => Some((*one, *other)),
            _ => None,
        })?;
        let names: Vec<String> = around
            .iter()
            .map(|node| match node {
                Node::Machine(name) => name.to_string(),
                Node::Group(name) => format!("rollout {name}"),
            })
            .collect();
        let text = circle(&names.iter().map(String::as_str).collect::<Vec<_>>());
        Some(Circle { first: first.clone(), next: next.clone(), text })
    }
}
