//! Which machines found are new, which the fleet has already, and which can't be told apart.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, Manifest, Verdict, Wanted, facts::Facts, name::name, text};
use crate::{
    manifest::unique::bmc_key,
    model::{Files, Fleet, Machine, is_placeholder_uuid, same_uuid},
};

/// Says for each machine found, in order, what becomes of it in a fleet. `fleet` is what `files` say, without errors.
///
/// A machine whose BMC, serial number or UUID is in the fleet is left as it is there. Two that were found and share something that
/// identifies are one, unless another item contradicts: then what they share identifies nothing, and neither manifest says it.
pub fn adopt(found: &[Found], fleet: &Fleet, files: &Files, wanted: &Wanted) -> Vec<Verdict> {
    let mut all: Vec<Result<Facts, String>> = found.iter().map(Facts::of).collect();
    let ambiguous = ambiguous(&all);
    // What the fleet has is recognised by all that was told: better one too many is taken for known than one is written twice.
    let mut decided: Vec<Option<Verdict>> = found.iter().zip(&mut all).map(|(one, facts)| in_fleet(one, facts, fleet)).collect();
    for (item, owners) in &ambiguous {
        leave_out(&mut all, item, owners, found);
    }
    for (second, why) in same(&all, found) {
        decided[second].get_or_insert(Verdict::Refused(why));
    }
    let mut taken: BTreeSet<String> = fleet.machines.keys().map(ToString::to_string).collect();
    taken.extend(files.keys().filter_map(|path| Some(path.strip_prefix("machines/")?.strip_suffix(".yaml")?.to_owned())));
    // Names that people gave come first: no other machine may get one of them by chance.
    let given: BTreeSet<String> = found.iter().filter_map(|one| one.name.as_ref().map(ToString::to_string)).collect();
    let free_given: BTreeSet<String> = given.difference(&taken).cloned().collect();
    let mut others: BTreeSet<String> = taken.union(&given).cloned().collect();
    let mut ours: BTreeSet<String> = taken.iter().cloned().chain(given.difference(&free_given).cloned()).collect();
    let verdict = |((one, facts), decided): ((&Found, Result<Facts, String>), Option<Verdict>)| match (decided, facts) {
        (Some(verdict), _) => verdict,
        (None, Err(why)) => Verdict::Refused(why),
        (None, Ok(facts)) if !facts.identifies() => unidentified(&facts),
        (None, Ok(facts)) => {
            let taken = if one.name.is_some() { &mut ours } else { &mut others };
            match name(one, &facts, wanted.name_from, taken) {
                Some(machine) => Verdict::New(Box::new(manifest(machine, one, facts, wanted))),
                None => {
                    let given = one.name.as_ref().map(ToString::to_string).unwrap_or_default();
                    Verdict::Refused(format!("the name {given} is taken by another machine or file: give it another one"))
                }
            }
        }
    };
    found.iter().zip(all).zip(decided).map(verdict).collect()
}

fn manifest(machine: crate::model::MachineName, found: &Found, facts: Facts, wanted: &Wanted) -> Manifest {
    let text = text::manifest(&machine, found, &facts, wanted);
    Manifest { path: format!("machines/{machine}.yaml"), machine, text, notes: facts.left_out }
}

fn unidentified(facts: &Facts) -> Verdict {
    let said = facts.left_out.join("; ");
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    Verdict::Refused(format!(
        "it reports neither serial number, UUID nor MAC address{said}: nothing tells it from another machine, so its manifest has to be written \
         by hand"
    ))
}

/// Whether it is, or may be, in the fleet already.
fn in_fleet(found: &Found, facts: &mut Result<Facts, String>, fleet: &Fleet) -> Option<Verdict> {
    let Ok(facts) = facts else { return None };
    for machine in fleet.machines.values() {
        let Some(by) = shared(found, facts, machine) else { continue };
        let place = format!("{}:{}", machine.source.file, machine.source.line);
        match contradiction(facts, machine) {
            None => return Some(Verdict::Known { machine: machine.name.clone(), place, by: by.text }),
            Some(other) if by.strong => {
                return Some(Verdict::Refused(format!(
                    "{} ({place}) has the same {}, but {other}: if its hardware was replaced, change that manifest",
                    machine.name, by.text
                )));
            }
            Some(_) => {
                let theirs: Vec<_> = machine.nics.iter().map(|nic| nic.mac).collect();
                leave_out_macs(facts, |mac| theirs.contains(&mac), &format!("{} in {place} has it", machine.name));
            }
        }
    }
    None
}

/// What a machine found and a machine of the fleet have in common.
struct Shared {
    text: String,
    /// Whether it is more than a network card, which may have moved.
    strong: bool,
}

fn shared(found: &Found, facts: &Facts, machine: &Machine) -> Option<Shared> {
    let ((host, system), (their_host, their_system)) = (bmc_key(&found.target.address), bmc_key(&machine.bmc.address));
    // One that names no system of a BMC means all of it.
    if host == their_host && (system == their_system || system.is_empty() || their_system.is_empty()) {
        return Some(Shared { text: format!("BMC {}", machine.bmc.address), strong: true });
    }
    if let (Some(serial), Some(theirs)) = (&facts.serial, &machine.identity.serial)
        && serial.eq_ignore_ascii_case(theirs)
    {
        return Some(Shared { text: format!("serial number {}", super::shown(serial)), strong: true });
    }
    if let (Some(uuid), Some(theirs)) = (&facts.uuid, &machine.identity.uuid)
        && same_uuid(uuid, theirs)
    {
        return Some(Shared { text: format!("UUID {uuid}"), strong: true });
    }
    let mac = facts.nics.iter().map(|nic| nic.mac).find(|mac| machine.nics.iter().any(|nic| nic.mac == *mac))?;
    Some(Shared { text: format!("MAC address {mac}"), strong: false })
}

/// What shows that they are two machines.
fn contradiction(facts: &Facts, machine: &Machine) -> Option<String> {
    if let (Some(serial), Some(theirs)) = (&facts.serial, &machine.identity.serial)
        && !serial.eq_ignore_ascii_case(theirs)
    {
        return Some(format!("its serial number is {theirs}, and this one's is {}", super::shown(serial)));
    }
    let theirs = machine.identity.uuid.as_ref().filter(|uuid| !is_placeholder_uuid(uuid));
    match (&facts.uuid, theirs) {
        (Some(uuid), Some(theirs)) if !same_uuid(uuid, theirs) => Some(format!("its UUID is {theirs}, and this one's is {uuid}")),
        _ => None,
    }
}

/// Items that two machines have which are shown to be two: they identify nothing, whoever else has them.
fn ambiguous(all: &[Result<Facts, String>]) -> Vec<(String, Vec<usize>)> {
    let contradicted = |owners: &[usize]| {
        let facts: Vec<&Facts> = owners.iter().filter_map(|n| all[*n].as_ref().ok()).collect();
        facts.iter().enumerate().any(|(n, one)| facts[..n].iter().any(|other| are_two(one, other)))
    };
    owners(all).into_iter().filter(|(_, owners)| contradicted(owners)).collect()
}

/// Which are the same machine as an earlier one, and how that is told.
fn same(all: &[Result<Facts, String>], found: &[Found]) -> BTreeMap<usize, String> {
    let mut same = BTreeMap::new();
    for (item, owners) in owners(all) {
        let first = &found[owners[0]].target.address;
        let why = format!("{first} leads to the same machine ({}): keep one of the two addresses", spoken(&item));
        owners[1..].iter().for_each(|second| {
            same.entry(*second).or_insert_with(|| why.clone());
        });
    }
    same
}

/// Who has each item that two or more have, in order.
fn owners(all: &[Result<Facts, String>]) -> BTreeMap<String, Vec<usize>> {
    let mut owners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (n, facts) in all.iter().enumerate() {
        for item in facts.iter().flat_map(items) {
            owners.entry(item).or_default().push(n);
        }
    }
    owners.retain(|_, those| those.len() > 1);
    owners
}

fn items(facts: &Facts) -> impl Iterator<Item = String> + '_ {
    let serial = facts.serial.iter().map(|serial| format!("serial:{}", serial.to_ascii_lowercase()));
    let uuid = facts.uuid.iter().map(|uuid| format!("uuid:{uuid}"));
    serial.chain(uuid).chain(facts.nics.iter().map(|nic| format!("mac:{}", nic.mac)))
}

fn spoken(item: &str) -> String {
    let (kind, value) = item.split_once(':').unwrap_or(("", item));
    let kind = match kind {
        "serial" => "serial number",
        "uuid" => "UUID",
        _ => "MAC address",
    };
    format!("{kind} {}", super::shown(value))
}

/// Whether serial number or UUID show that they are two machines.
fn are_two(a: &Facts, b: &Facts) -> bool {
    let serials = a.serial.as_ref().zip(b.serial.as_ref()).is_some_and(|(a, b)| !a.eq_ignore_ascii_case(b));
    let uuids = a.uuid.as_ref().zip(b.uuid.as_ref()).is_some_and(|(a, b)| !same_uuid(a, b));
    serials || uuids
}

fn leave_out(all: &mut [Result<Facts, String>], item: &str, owners: &[usize], found: &[Found]) {
    let (kind, value) = item.split_once(':').unwrap_or(("", item));
    for (place, n) in owners.iter().enumerate() {
        let Ok(facts) = &mut all[*n] else { continue };
        // Of the others who have it, one will do.
        let other = &found[owners[usize::from(place == 0)]].target.address;
        let why = format!("the machine behind {other} reports it, too");
        match kind {
            "serial" => {
                let serial = facts.serial.take().unwrap_or_default();
                facts.left_out.push(format!("serial number {}: {why}", super::shown(&serial)));
            }
            "uuid" => {
                facts.uuid = None;
                facts.left_out.push(format!("UUID {value}: {why}"));
            }
            _ => leave_out_macs(facts, |mac| mac.to_string() == value, &why),
        }
    }
}

fn leave_out_macs(facts: &mut Facts, is_theirs: impl Fn(crate::model::Mac) -> bool, why: &str) {
    let (gone, kept) = std::mem::take(&mut facts.nics).into_iter().partition(|nic| is_theirs(nic.mac));
    facts.nics = kept;
    let gone: Vec<super::facts::Nic> = gone;
    facts.left_out.extend(gone.iter().map(|nic| format!("MAC address {}: {why}", nic.mac)));
}
