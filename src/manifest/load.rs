//! The whole of a commit at once.

use std::{collections::HashMap, num::NonZero, sync::Arc, thread};

use super::{
    again::{self, Last},
    cache::{Cache, Resolved},
    fault::{At, Fault, path_to, place_all},
    handoff, machine,
    names::Names,
    parse::{self, Parsed, Role},
    raw::{Kind, Spec},
    unique,
    world::{Source, World},
};
use crate::model::{FileEntry, FileKind, Files, Fleet, Problem};

/// Fewer items than this are quicker done than a thread is started.
pub(crate) const WORTH_A_THREAD: usize = 128;

/// A Fleet, and what is wrong with the files that it was made from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the files say. If one of `problems` is an error, parts are missing: then the last good Fleet stays in force, and
    /// this one is for showing only (a machine that is missing here was not deleted).
    pub fleet: Fleet,
    /// What is wrong, in order of file and line.
    pub problems: Vec<Problem>,
}

impl Loaded {
    /// Whether the commit can be used: warnings are allowed, errors are not.
    pub fn is_usable(&self) -> bool {
        !self.problems.iter().any(Problem::is_error)
    }
}

/// A document, and the id of the blob that it stands in.
pub(crate) type Listed<'a> = (Source<'a>, [u8; 20]);

/// A manifest file of this commit.
struct File<'a> {
    path: &'a str,
    entry: &'a FileEntry,
    parsed: Arc<Parsed>,
}

/// Reads the files of a commit.
///
/// Cannot fail as a whole: what is wrong is told in [`Loaded::problems`], and one bad file hides nothing of the others. The
/// result depends on `files` alone; `cache` only makes it quicker, and has what this load learned when it returns.
pub fn load(files: &Files, cache: &mut Cache) -> Loaded {
    again::load(files, cache).unwrap_or_else(|| whole(files, cache))
}

fn whole(files: &Files, cache: &mut Cache) -> Loaded {
    let mut faults: Vec<(&str, Fault)> = Vec::new();
    for (path, entry) in files {
        faults.extend(parse::unread(path, entry.kind).map(|fault| (path.as_str(), fault)));
    }
    let manifests = parse_all(files, cache);
    for file in &manifests {
        faults.extend(file.parsed.faults.iter().map(|fault| (file.path, fault.clone())));
    }

    let (sources, names) = index(files, &manifests, &mut faults);
    let (machines, others): (Vec<_>, Vec<_>) = sources.into_iter().partition(|(source, _)| source.doc.kind() == Kind::Machine);
    let with_templates = machines.iter().filter(|(source, _)| own_template(source).is_some());
    let all: Vec<Source<'_>> = others.iter().chain(with_templates).map(|(source, _)| *source).collect();
    let world = World::new(files, names, &all, &mut faults);

    forget_if_world_changed(files, &manifests, &world, cache);
    let resolved = resolve_all(files, &machines, &world, cache);
    let mut fleet = Fleet::default();
    let mut declared = Vec::with_capacity(resolved.len());
    for ((source, _), resolved) in machines.iter().zip(&resolved) {
        faults.extend(resolved.faults.iter().map(|fault| (source.file, fault.clone())));
        declared.extend(resolved.machine.as_ref().map(|machine| (machine, source.doc.number)));
    }
    fleet.machines = declared.iter().map(|(machine, _)| (machine.name.clone(), Arc::clone(machine))).collect();
    faults.extend(unique::check(&declared, &fleet.machines, &mut cache.owned));
    fleet.rollouts = world.rollouts.clone();
    faults.extend(handoff::check(files, &machines, &world, &fleet));
    let problems = if faults.is_empty() { Vec::new() } else { place_all(files, faults) };
    fleet.settings = world.settings;
    fleet.networks = world.networks;
    fleet.secrets = world.secrets;
    let loaded = Loaded { fleet, problems };
    cache.last = Last::of(files, &world.templates, &loaded);
    loaded
}

/// Parses the manifests that `cache` doesn't know.
fn parse_all<'a>(files: &'a Files, cache: &mut Cache) -> Vec<File<'a>> {
    let manifest = |(path, entry): &(&String, &FileEntry)| entry.kind == FileKind::Regular && parse::role(path) == Role::Manifest;
    let manifests: Vec<_> = files.iter().filter(manifest).collect();
    let mut unknown: Vec<&FileEntry> =
        manifests.iter().map(|(_, entry)| *entry).filter(|entry| !cache.files.contains_key(&entry.id)).collect();
    unknown.sort_by_key(|entry| entry.id);
    unknown.dedup_by_key(|entry| entry.id);
    let parsed = in_parallel(&unknown, |entry| Arc::new(parse::parse(entry)));
    if cache.is_overgrown(manifests.len()) {
        *cache = Cache::default();
        return parse_all(files, cache);
    }
    cache.files.extend(unknown.iter().map(|entry| entry.id).zip(parsed));
    let file = |(path, entry): (&'a String, &'a FileEntry)| {
        Some(File { path: path.as_str(), entry, parsed: Arc::clone(cache.files.get(&entry.id)?) })
    };
    manifests.into_iter().filter_map(file).collect()
}

/// One document for each kind and name, in order of path, and all names; tells those that are there twice.
fn index<'a>(files: &'a Files, manifests: &'a [File<'a>], faults: &mut Vec<(&'a str, Fault)>) -> (Vec<Listed<'a>>, Names<'a>) {
    let mut names = Names::new(files);
    let mut first: HashMap<(Kind, &str), Source<'_>> = HashMap::with_capacity(manifests.len());
    let mut sources = Vec::with_capacity(manifests.len());
    for file in manifests {
        for (kind, name) in &file.parsed.broken {
            names.add(*kind, name);
        }
        for doc in &file.parsed.docs {
            let source = Source { file: file.path, doc };
            let kind = doc.kind();
            // There is one Fleet, whatever its name; and nothing refers to machines.
            let key = if kind == Kind::Fleet { "" } else { source.name() };
            if let Some(earlier) = first.get(&(kind, key)) {
                faults.push((file.path, twice(&source, earlier)));
                continue;
            }
            first.insert((kind, key), source);
            if kind != Kind::Machine {
                names.add(kind, source.name());
            }
            sources.push((source, file.entry.id));
        }
    }
    (sources, names)
}

fn twice(source: &Source<'_>, earlier: &Source<'_>) -> Fault {
    let (kind, hint) = (source.doc.kind(), format!("the other one is in {} line {}", earlier.file, earlier.doc.line));
    let at = At::Value(source.doc.number, path_to!["metadata", "name"]);
    match kind {
        Kind::Fleet => Fault::error("duplicate-fleet", at, "a repository has one document of kind Fleet").hint(hint),
        _ => Fault::error("duplicate-name", at, format!("there are two {}s named `{}`", kind.noun(), source.name())).hint(hint),
    }
}

/// Machines resolved against another world say nothing about this one.
fn forget_if_world_changed(files: &Files, manifests: &[File<'_>], world: &World<'_>, cache: &mut Cache) {
    let shared = manifests.iter().filter(|file| !file.parsed.is_only_machines()).map(|file| (file.path, file.entry.id));
    let templates = world.profiles.values().filter_map(|profile| profile.user_data);
    let templates = templates.filter_map(|path| Some((path, template_id(files, path)?)));
    let now: Vec<(&str, [u8; 20])> = shared.chain(templates).collect();
    if !now.iter().copied().eq(cache.world.iter().map(|(path, id)| (path.as_str(), *id))) {
        cache.machines.clear();
        cache.world = now.into_iter().map(|(path, id)| (path.to_owned(), id)).collect();
    }
}

fn resolve_all(files: &Files, machines: &[Listed<'_>], world: &World<'_>, cache: &mut Cache) -> Vec<Arc<Resolved>> {
    let template = |source: &Source<'_>| own_template(source).map(|path| (path.to_owned(), template_id(files, path)));
    let known: Vec<Option<Arc<Resolved>>> = machines
        .iter()
        .map(|(source, id)| {
            let known = cache.machines.get(&(*id, source.doc.number))?;
            (known.file == source.file && known.template == template(source)).then(|| Arc::clone(known))
        })
        .collect();
    let wanted: Vec<&Listed<'_>> = machines.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(m, _)| m).collect();
    let fresh = in_parallel(&wanted, |(source, _)| {
        let (machine, faults) = machine::resolve(source.file, source.doc, world);
        Arc::new(Resolved { file: source.file.to_owned(), machine: machine.map(Arc::new), faults, template: template(source) })
    });
    // Which template was probably meant depends on what else there is.
    let lasting = |resolved: &Resolved| resolved.faults.iter().all(|fault| fault.code != "dangling-template");
    for ((source, id), resolved) in wanted.iter().zip(&fresh).filter(|(_, resolved)| lasting(resolved)) {
        cache.machines.insert((*id, source.doc.number), Arc::clone(resolved));
    }
    let mut fresh = fresh.into_iter();
    known.into_iter().filter_map(|known| known.or_else(|| fresh.next())).collect()
}

/// The template that a machine names itself.
fn own_template<'a>(source: &Source<'a>) -> Option<&'a str> {
    match &source.doc.spec {
        Spec::Machine(spec) => spec.stated().user_data(),
        _ => None,
    }
}

/// The blob of the template at `path`. A link is none, although it may have the id that the file in its place had.
fn template_id(files: &Files, path: &str) -> Option<[u8; 20]> {
    files.get(path).filter(|entry| entry.kind == FileKind::Regular).map(|entry| entry.id)
}

/// Applies `f` to each item, on several threads if there are many; the results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len() / WORTH_A_THREAD + 1);
    if threads == 1 {
        return items.iter().map(f).collect();
    }
    let chunk = items.len().div_ceil(threads);
    thread::scope(|scope| {
        let f = &f;
        let workers: Vec<_> = items.chunks(chunk).map(|items| scope.spawn(move || items.iter().map(f).collect::<Vec<R>>())).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
