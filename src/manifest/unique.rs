//! What no two machines may share: MAC addresses, IP addresses, BMCs, serial numbers, UUIDs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::{
    cache::IdHasher,
    fault::{At, Fault, Path, path_to},
};
use crate::model::{Machine, MachineName};

/// A machine and the number of its document in its file.
pub(crate) type Declared<'a> = (&'a Arc<Machine>, usize);

type Machines = BTreeMap<MachineName, Arc<Machine>>;

/// What belongs to the machines of a fleet in which nothing belongs to two. By hash: two things with one hash only cost a second,
/// exact look.
#[derive(Debug, Default)]
pub(crate) struct Owned(HashSet<u64, BuildHasherDefault<IdHasher>>);

impl Owned {
    /// False if something of `machine` may be taken already.
    pub(crate) fn take(&mut self, machine: &Machine) -> bool {
        // Whether the BMC is shared as a whole is more than a hash can tell.
        let (_, system) = bmc_key(&machine.bmc.address);
        system.is_empty() && belongings(machine).all(|hash| self.0.insert(hash))
    }

    /// What belonged to `machine` is free again.
    pub(crate) fn release(&mut self, machine: &Machine) {
        belongings(machine).for_each(|hash| {
            self.0.remove(&hash);
        });
    }
}

fn belongings(machine: &Machine) -> impl Iterator<Item = u64> + '_ {
    fn hash(what: u8, value: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (what, value).hash(&mut hasher);
        hasher.finish()
    }
    let nics = machine.nics.iter().flat_map(|nic| [Some(hash(0, nic.mac)), nic.address.map(|address| hash(1, address))]);
    let identity =
        [machine.identity.serial.as_ref().map(|serial| hash(2, serial)), machine.identity.uuid.as_ref().map(|uuid| hash(3, uuid))];
    nics.chain(identity).flatten().chain([hash(4, bmc_key(&machine.bmc.address))])
}

/// Faults of machines that claim what an earlier one, in order of path, already has. `known` is about the load before; the cost
/// follows what changed since.
pub(crate) fn check<'a>(declared: &[Declared<'a>], machines: &Machines, known: &mut Option<(Machines, Owned)>) -> Vec<(&'a str, Fault)> {
    let (before, mut owned) = known.take().unwrap_or_default();
    without(&before, machines).for_each(|machine| owned.release(machine));
    if without(machines, &before).all(|machine| owned.take(machine)) {
        *known = Some((machines.clone(), owned));
        return Vec::new();
    }
    twins(declared)
}

/// The machines of `these` that are not, unchanged, in `those`.
fn without<'a>(these: &'a Machines, those: &'a Machines) -> impl Iterator<Item = &'a Machine> {
    let mut those = those.iter().peekable();
    let changed = move |name: &MachineName, machine: &Arc<Machine>| {
        while those.next_if(|(other, same)| !Arc::ptr_eq(same, machine) && *other < name).is_some() {}
        those.next_if(|(_, same)| Arc::ptr_eq(same, machine)).is_none()
    };
    let mut changed = changed;
    these.iter().filter(move |(name, machine)| changed(name, machine)).map(|(_, machine)| machine.as_ref())
}

fn twins<'a>(machines: &[Declared<'a>]) -> Vec<(&'a str, Fault)> {
    let mut faults = Vec::new();
    let mut macs = Taken::new(machines.len(), "duplicate-mac", "the MAC address");
    let mut addresses = Taken::new(machines.len(), "duplicate-address", "the IP address");
    let mut bmcs = Taken::new(machines.len(), "duplicate-bmc", "the BMC");
    let mut shared = HashMap::new();
    let mut serials = Taken::new(machines.len(), "duplicate-serial", "the serial number");
    let mut uuids = Taken::new(machines.len(), "duplicate-uuid", "the UUID");
    for &(machine, number) in machines {
        let owner = (machine, number);
        for (n, nic) in machine.nics.iter().enumerate() {
            faults.extend(macs.claim(nic.mac, owner, || path_to!["spec", "nics", n, "mac"]));
            if let Some(address) = nic.address {
                faults.extend(addresses.claim(address, owner, || path_to!["spec", "nics", n, "address"]));
            }
        }
        let (host, system) = bmc_key(&machine.bmc.address);
        // One that names no system of a BMC means all of it.
        let (own, whole) = (format!("{host}{system}"), system.is_empty());
        let (first, first_whole) = shared.entry(host).or_insert_with(|| (own.clone(), whole));
        let key = if *first_whole == whole { own } else { first.clone() };
        faults.extend(bmcs.claim(key, owner, || path_to!["spec", "bmc", "address"]));
        if let Some(serial) = &machine.identity.serial {
            faults.extend(serials.claim(serial.as_str(), owner, || path_to!["spec", "identity", "serial"]));
        }
        if let Some(uuid) = &machine.identity.uuid {
            faults.extend(uuids.claim(uuid.as_str(), owner, || path_to!["spec", "identity", "uuid"]));
        }
    }
    faults
}

/// A BMC, and which of its systems if the address says it. Two addresses with the same key are the same.
pub(super) fn bmc_key(address: &str) -> (&str, &str) {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let (host, system) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let usual = if scheme == "http" { ":80" } else { ":443" };
    (host.strip_suffix(usual).unwrap_or(host), system)
}

/// Who has what of one kind.
struct Taken<'a, K> {
    owners: HashMap<K, Declared<'a>>,
    code: &'static str,
    what: &'static str,
}

impl<'a, K: Hash + Eq + std::fmt::Display> Taken<'a, K> {
    fn new(capacity: usize, code: &'static str, what: &'static str) -> Self {
        Self { owners: HashMap::with_capacity(capacity), code, what }
    }

    fn claim(&mut self, key: K, owner: Declared<'a>, at: impl Fn() -> Path) -> Option<(&'a str, Fault)> {
        let text = self.owners.contains_key(&key).then(|| key.to_string());
        let (first, _) = *self.owners.entry(key).or_insert(owner);
        let key = text?;
        let (machine, number) = owner;
        let whose = if Arc::ptr_eq(first, machine) { "this machine".to_owned() } else { format!("`{}`", first.name) };
        let fault = Fault::error(self.code, At::Value(number, at()), format!("{} {key} already belongs to {whose}", self.what));
        let hint = format!("see {} line {}", first.source.file, first.source.line);
        Some((&machine.source.file, fault.hint(hint)))
    }
}
