//! Whether a machine is the one that its manifest means (laws 4 and 8), and whether enough is known to touch it (law 2).

use crate::model::{
    Held, Mac, Machine, Observation, ObservedIdentity, PowerState, Seen, Timestamp, Unknown, is_placeholder_uuid, same_uuid,
};

use super::deadlines::{Deadlines, after};

/// The hardware of a machine as its manifest states it, in the form that the journal keeps: `serial:…`, `uuid:…`, `mac:…`.
pub fn hardware(machine: &Machine) -> Vec<String> {
    let serial = machine.identity.serial.iter().map(|serial| format!("serial:{}", plain(serial)));
    let uuid = machine.identity.uuid.iter().map(|uuid| format!("uuid:{}", plain(uuid)));
    serial.chain(uuid).chain(machine.nics.iter().map(|nic| format!("mac:{}", nic.mac))).collect()
}

/// Whether `items` is what [`hardware`] gives for this machine, in any order. It allocates nothing where the order is the same.
pub(super) fn is_recorded(machine: &Machine, items: &[String]) -> bool {
    let mut rest = items.iter();
    let mut next = |kind: &str, is: &dyn Fn(&str) -> bool| rest.next().and_then(|item| item.strip_prefix(kind)).is_some_and(is);
    let in_order = machine.identity.serial.iter().all(|own| next("serial:", &|item| item.eq_ignore_ascii_case(own.trim())))
        && machine.identity.uuid.iter().all(|own| next("uuid:", &|item| item.eq_ignore_ascii_case(own.trim())))
        && machine.nics.iter().all(|nic| next("mac:", &|item| is_mac(item, nic.mac)))
        && rest.next().is_none();
    in_order || {
        let sorted = |mut items: Vec<String>| {
            items.sort_unstable();
            items
        };
        sorted(hardware(machine)) == sorted(items.to_vec())
    }
}

fn is_mac(item: &str, mac: Mac) -> bool {
    let mut bytes = item.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
    mac.0.iter().all(|byte| bytes.next() == Some(Some(*byte))) && bytes.next().is_none()
}

/// Whether an item of one of these kinds that identifies is in both.
pub(super) fn shares(one: &[String], other: &[String], kinds: &[&str]) -> bool {
    let of_kind = |item: &&String| kinds.iter().any(|kind| item.starts_with(kind)) && identifies(item);
    one.iter().filter(of_kind).any(|item| other.contains(item))
}

/// Whether both state a serial number, or both a UUID, and not the same.
pub(super) fn differs_in_kind(one: &[String], other: &[String]) -> bool {
    let of = |all: &[String], kind: &str| all.iter().find(|item| item.starts_with(kind) && identifies(item)).cloned();
    let same_uuid = |a: &str, b: &str| a.strip_prefix("uuid:").zip(b.strip_prefix("uuid:")).is_some_and(|(a, b)| same_uuid(a, b));
    ["serial:", "uuid:"].iter().any(|kind| matches!((of(one, kind), of(other, kind)), (Some(a), Some(b)) if a != b && !same_uuid(&a, &b)))
}

/// Serial numbers that firmware shows when nobody set one. They identify nothing.
const JUNK: [&str; 9] = [
    "serial:",
    "serial:0",
    "serial:none",
    "serial:n/a",
    "serial:0123456789",
    "serial:1234567890",
    "serial:default string",
    "serial:system serial number",
    "serial:to be filled by o.e.m.",
];

/// Whether two machines are one: something that identifies is equal, and neither serial nor UUID contradicts it (a network card
/// may have moved to another machine).
pub(super) fn same_hardware(one: &[String], other: &[String]) -> bool {
    !differs_in_kind(one, other) && shares(one, other, &["serial:", "uuid:", "mac:"])
}

/// Whether an item of hardware can be used to tell machines apart.
pub(super) fn identifies(item: &str) -> bool {
    !JUNK.contains(&item) && !item.strip_prefix("uuid:").is_some_and(is_placeholder_uuid)
}

/// Why nothing disruptive may be done to a machine, whatever is wanted. Empty: it may.
pub(super) fn obstacles(machine: &Machine, seen: Option<&Observation>, now: Timestamp, deadlines: &Deadlines) -> Vec<Held> {
    let mut held = Vec::new();
    if machine.suspend {
        held.push(Held::Suspended);
    }
    held.extend(mismatch(machine, seen));
    if let Err(why) = power(seen, None, now, deadlines) {
        held.push(Held::Unobserved { field: "power".to_owned(), why });
    } else {
        held.extend(seen.and_then(|seen| unproven(machine, seen)));
    }
    held
}

/// The power state, where it is known, fresh, and newer than `since`.
pub(super) fn power(
    seen: Option<&Observation>,
    since: Option<Timestamp>,
    now: Timestamp,
    deadlines: &Deadlines,
) -> Result<PowerState, Unknown> {
    let seen = seen.ok_or(Unknown::NotAsked)?;
    let power = match &seen.power {
        Seen::Known(power) => *power,
        Seen::Unknown(why) => return Err(why.clone()),
    };
    if now >= after(seen.at, deadlines.fresh) {
        return Err(Unknown::TimedOut(format!("its last answer is from {:.0}", seen.at)));
    }
    if since.is_some_and(|since| seen.at <= since) {
        return Err(Unknown::NotAsked);
    }
    Ok(power)
}

/// What a machine is known to be instead of what its manifest says (law 8). Not reported is not a mismatch.
pub(super) fn mismatch(machine: &Machine, seen: Option<&Observation>) -> Option<Held> {
    let seen = seen?;
    let held = |field: &str, declared: String, observed: String| Held::IdentityMismatch { field: field.to_owned(), declared, observed };
    if let Seen::Known(identity) = &seen.identity {
        if let (Some(declared), Some(observed)) = (&machine.identity.serial, &identity.serial)
            && !declared.trim().eq_ignore_ascii_case(observed.trim())
        {
            return Some(held("serial", declared.clone(), observed.clone()));
        }
        if let (Some(declared), Some(observed)) = (&machine.identity.uuid, &identity.uuid)
            && !is_placeholder_uuid(observed)
            && !same_uuid(declared, observed)
        {
            return Some(held("uuid", declared.clone(), observed.clone()));
        }
    }
    let reported = seen.nics.known().filter(|nics| !nics.is_empty())?;
    let declared = &machine.nics;
    if declared.is_empty() || declared.iter().any(|nic| reported.iter().any(|seen| seen.mac == nic.mac)) {
        return None;
    }
    let join = |macs: Vec<String>| macs.join(", ");
    let observed = join(reported.iter().map(|nic| nic.mac.to_string()).collect());
    Some(held("mac", join(declared.iter().map(|nic| nic.mac.to_string()).collect()), observed))
}

/// What of the declared identity nobody has confirmed.
fn unproven(machine: &Machine, seen: &Observation) -> Option<Held> {
    let declared = &machine.identity;
    let gap = |field: &str, why: Unknown| Some(Held::Unobserved { field: field.to_owned(), why });
    if declared.serial.is_none() && declared.uuid.is_none() {
        return None;
    }
    let none = ObservedIdentity::default();
    let observed = match &seen.identity {
        Seen::Known(observed) => observed,
        Seen::Unknown(Unknown::NotReported) => &none,
        Seen::Unknown(why) => return gap("identity", why.clone()),
    };
    if declared.serial.is_some() && observed.serial.is_none() {
        return gap("serial", Unknown::NotReported);
    }
    if declared.uuid.is_some() && observed.uuid.as_deref().is_none_or(is_placeholder_uuid) {
        return gap("uuid", Unknown::NotReported);
    }
    None
}

fn plain(text: &str) -> String {
    text.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_the_same_by_one_item_that_nothing_contradicts() {
        let of = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let old = of(&["serial:a", "mac:52:54:00:00:00:01"]);
        assert!(same_hardware(&old, &of(&["serial:a"])));
        assert!(same_hardware(&old, &of(&["mac:52:54:00:00:00:01"])));
        assert!(!same_hardware(&old, &of(&["serial:b", "mac:52:54:00:00:00:01"])), "a card that moved");
        assert!(!same_hardware(&of(&["serial:0123456789"]), &of(&["serial:0123456789"])), "junk identifies nothing");
        let unset = of(&["uuid:00020003-0004-0005-0006-000700080009"]);
        assert!(!same_hardware(&unset, &unset), "a placeholder in the other byte order");
        assert!(!same_hardware(&[], &[]));
    }
}
