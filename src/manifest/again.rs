//! A load after which only machines have changed: the common push, which then costs what it changed and not what the fleet is.
//!
//! It says nothing that the whole load would not say: whatever could touch another file, or is wrong, is left to that.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{
    cache::Cache,
    load::{Loaded, WORTH_A_THREAD},
    machine,
    names::Names,
    parse::{self, Doc, Parsed, Role},
    raw::{Kind, Spec},
    template::Templates,
    world::{Source, World},
};
use crate::model::{FileEntry, FileKind, Files, Fleet, Machine, MachineName, Problem};

/// The last load, if it found no error.
#[derive(Debug)]
pub(crate) struct Last {
    files: BTreeMap<String, ([u8; 20], FileKind)>,
    /// What it gave, but for the machines, which `Cache::owned` has.
    rest: Fleet,
    /// Warnings. Each is about its own file alone.
    warnings: Vec<Problem>,
    /// Whether machines use values of others: whether one may then be installed at all depends on the rest of the fleet.
    hands: bool,
}

impl Last {
    /// What the next load has to know of this one. `None` if a manifest is a template too, and so may be more to others than it says.
    pub(crate) fn of(files: &Files, templates: &Templates<'_>, loaded: &Loaded) -> Option<Self> {
        if !loaded.is_usable() || templates.paths().any(|path| parse::role(path) == Role::Manifest) {
            return None;
        }
        let hands = loaded.fleet.machines.values().any(|machine| !machine.handoffs.uses.is_empty());
        let Fleet { machines: _, settings, networks, rollouts, secrets } = &loaded.fleet;
        let (settings, networks, rollouts, secrets) = (settings.clone(), networks.clone(), rollouts.clone(), secrets.clone());
        Some(Self {
            files: files.iter().map(|(path, entry)| (path.clone(), (entry.id, entry.kind))).collect(),
            rest: Fleet { machines: BTreeMap::new(), settings, networks, rollouts, secrets },
            warnings: loaded.problems.clone(),
            hands,
        })
    }
}

/// A file that is not what it was: what was there, and what is there now.
struct Change<'a> {
    path: String,
    before: Option<Arc<Parsed>>,
    now: Option<(&'a FileEntry, Arc<Parsed>)>,
}

/// Reads the files of a commit, if there was no error in the load before, few files have changed since, they held and hold nothing but
/// machines, and nothing is wrong in them.
pub(crate) fn load(files: &Files, cache: &mut Cache) -> Option<Loaded> {
    let last = cache.last.as_ref().filter(|last| !last.hands && !cache.is_overgrown(files.len()))?;
    let changes = changes(files, last, cache)?;
    let fresh = resolve(files, &changes, cache)?;
    if fresh.iter().any(|machine| !machine.handoffs.uses.is_empty()) {
        return None;
    }
    let (mut machines, mut owned) = cache.owned.take()?;
    for doc in changes.iter().filter_map(|change| change.before.as_ref()).flat_map(|parsed| &parsed.docs) {
        let gone = machines.remove(&MachineName::new(doc.metadata.name.as_str()).ok()?)?;
        owned.release(&gone);
    }
    for machine in fresh {
        if !owned.take(&machine) || machines.insert(machine.name.clone(), Arc::new(machine)).is_some() {
            return None;
        }
    }
    let last = cache.last.as_mut()?;
    for Change { path, now, .. } in changes {
        last.warnings.retain(|problem| problem.file != path);
        match now {
            Some((entry, parsed)) => {
                cache.files.insert(entry.id, parsed);
                last.files.insert(path, (entry.id, entry.kind));
            }
            None => drop(last.files.remove(&path)),
        }
    }
    let fleet = Fleet { machines: machines.clone(), ..last.rest.clone() };
    cache.owned = Some((machines, owned));
    Some(Loaded { fleet, problems: last.warnings.clone() })
}

/// Every file that is not what it was. `None` if one of them holds, or held, anything but machines, or there are many.
fn changes<'a>(files: &'a Files, last: &Last, cache: &Cache) -> Option<Vec<Change<'a>>> {
    let mut found = Vec::new();
    let (mut before, mut now) = (last.files.iter().peekable(), files.iter().peekable());
    loop {
        let order = match (before.peek(), now.peek()) {
            (Some((was, _)), Some((is, _))) => was.cmp(is),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Some(found),
        };
        let was = if order.is_le() { before.next() } else { None };
        let is = if order.is_ge() { now.next() } else { None };
        if was.map(|(_, file)| *file) == is.map(|(_, entry)| (entry.id, entry.kind)) {
            continue;
        }
        let path = was.map(|(path, _)| path).or(is.map(|(path, _)| path))?;
        if parse::role(path) == Role::Other || found.len() == WORTH_A_THREAD {
            return None;
        }
        let before = match was {
            Some((_, (id, kind))) => Some(cache.files.get(id).filter(|parsed| is_plain(*kind, parsed))?.clone()),
            None => None,
        };
        let now = match is {
            Some((_, entry)) => {
                let parsed = cache.files.get(&entry.id).cloned().unwrap_or_else(|| Arc::new(parse::parse(entry)));
                Some((entry, is_plain(entry.kind, &parsed).then_some(parsed)?))
            }
            None => None,
        };
        found.push(Change { path: path.clone(), before, now });
    }
}

/// Whether a manifest holds nothing but machines, none of which has a template of its own.
fn is_plain(kind: FileKind, parsed: &Parsed) -> bool {
    let plain = |doc: &Doc| matches!(&doc.spec, Spec::Machine(spec) if spec.stated().user_data().is_none());
    kind == FileKind::Regular && parsed.is_only_machines() && parsed.docs.iter().all(plain)
}

/// The machines that the changed files hold now, if nothing is wrong with them.
fn resolve(files: &Files, changes: &[Change<'_>], cache: &Cache) -> Option<Vec<Machine>> {
    let shared = cache.world.iter().filter(|(path, _)| parse::role(path) == Role::Manifest);
    let parsed = shared.map(|(path, id)| Some((path.as_str(), cache.files.get(id)?.as_ref())));
    let parsed: Vec<(&str, &Parsed)> = parsed.collect::<Option<_>>()?;
    let sources = parsed.iter().flat_map(|(file, parsed)| parsed.docs.iter().map(|doc| Source { file, doc }));
    let sources: Vec<Source<'_>> = sources.filter(|source| source.doc.kind() != Kind::Machine).collect();
    let mut names = Names::new(files);
    sources.iter().for_each(|source| names.add(source.doc.kind(), source.name()));
    let mut faults = Vec::new();
    let world = &World::new(files, names, &sources, &mut faults);
    let now = changes.iter().filter_map(|change| Some((change.path.as_str(), &change.now.as_ref()?.1)));
    let docs = now.flat_map(|(path, parsed)| parsed.docs.iter().map(move |doc| machine::resolve(path, doc, world)));
    let machines = docs.map(|(machine, wrong)| machine.filter(|_| wrong.is_empty())).collect::<Option<Vec<_>>>()?;
    faults.is_empty().then_some(machines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest, model::Digest};

    const MACHINE: &str = "apiVersion: rackwright.dev/v1alpha1
kind: Machine
metadata: {name: NAME}
spec:
  profile: base
  identity: {serial: S-NAME}
  bmc: {address: https://NAME.example}
  nics: [{name: lan, mac: \"52:54:00:00:00:MAC\"}]
";
    const PROFILE: &str = "apiVersion: rackwright.dev/v1alpha1\nkind: Profile\nmetadata: {name: base}\nspec: {power: On}\n";

    fn machine(name: &str, mac: u8) -> String {
        MACHINE.replace("NAME", name).replace("MAC", &format!("{mac:02}"))
    }

    fn entry(text: &str) -> FileEntry {
        let mut id = [0; 20];
        id.copy_from_slice(&Digest::of(text.as_bytes()).0[..20]);
        FileEntry { id, kind: FileKind::Regular, bytes: text.as_bytes().into() }
    }

    fn put(files: &mut Files, path: &str, text: &str) {
        files.insert(path.to_owned(), entry(text));
    }

    fn begin() -> Files {
        let mut files = Files::new();
        put(&mut files, "profiles/base.yaml", PROFILE);
        put(&mut files, "README.md", "read me");
        put(&mut files, "templates/own.yaml", "#cloud-config\n");
        put(&mut files, "machines/nobody.yaml", &machine("nobody", 90).replace("  identity: {serial: S-nobody}\n", ""));
        (1..10).for_each(|n| put(&mut files, &format!("machines/m{n}.yaml"), &machine(&format!("m{n}"), n)));
        files
    }

    /// What one commit changes, and whether that is machines and nothing else.
    type Case = (&'static str, bool, fn(&mut Files));

    const CASES: [Case; 17] = [
        ("nothing", true, |_| {}),
        ("a machine says something else", true, |files| put(files, "machines/m1.yaml", &(machine("m1", 1) + "  power: Off\n"))),
        ("a machine has another name", true, |files| put(files, "machines/m1.yaml", &machine("other", 1))),
        ("a machine comes", true, |files| put(files, "machines/new.yaml", &machine("new", 60))),
        ("a machine goes", true, |files| drop(files.remove("machines/m2.yaml"))),
        ("a machine with a warning goes", true, |files| drop(files.remove("machines/nobody.yaml"))),
        ("a file moves", true, |files| {
            let moved = files.remove("machines/m3.yaml").unwrap();
            files.insert("machines/a.yaml".to_owned(), moved);
        }),
        ("two machines change places", true, |files| {
            put(files, "machines/m4.yaml", &machine("m5", 5));
            put(files, "machines/m5.yaml", &machine("m4", 4));
        }),
        ("two machines in a file", true, |files| {
            put(files, "machines/m1.yaml", &format!("{}---\n{}", machine("m1", 1), machine("new", 60)));
        }),
        ("a name twice", false, |files| put(files, "machines/new.yaml", &machine("m1", 60))),
        ("an address twice", false, |files| put(files, "machines/new.yaml", &machine("new", 1))),
        ("a machine with a slip", false, |files| put(files, "machines/m1.yaml", "kind: Machine\n")),
        ("a machine that follows nobody", false, |files| {
            put(files, "machines/m1.yaml", &machine("m1", 1).replace("profile: base", "profile: bas"));
        }),
        ("a machine with a template of its own", false, |files| {
            let own = "  configuration: {cloudInit: {userData: templates/own.yaml}}\n";
            put(files, "machines/m1.yaml", &(machine("m1", 1) + own));
        }),
        ("a profile", false, |files| put(files, "profiles/base.yaml", &PROFILE.replace("On", "Off"))),
        ("another file", false, |files| put(files, "README.md", "read me again")),
        ("a link", false, |files| files.get_mut("machines/m1.yaml").unwrap().kind = FileKind::Symlink),
    ];

    #[test]
    fn a_commit_that_changes_only_machines_gives_what_a_fresh_start_gives() {
        for (what, expected, change) in CASES {
            let mut cache = Cache::default();
            let mut changed = begin();
            change(&mut changed);
            assert_eq!(manifest::load(&begin(), &mut cache).problems.len(), 1, "the warning of `nobody`");
            let mut agrees = |files: &Files| {
                let quick = load(files, &mut cache);
                let was_quick = quick.is_some();
                let loaded = quick.unwrap_or_else(|| manifest::load(files, &mut cache));
                let fresh = manifest::load(files, &mut Cache::default());
                assert_eq!((loaded.fleet, loaded.problems), (fresh.fleet, fresh.problems), "{what}");
                was_quick
            };
            // There, back, and there again: what is kept has to be right after each.
            assert_eq!(agrees(&changed), expected, "{what}");
            agrees(&begin());
            assert_eq!(agrees(&changed), expected, "{what}");
        }
    }
}
