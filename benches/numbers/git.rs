//! What crosses Git: a push becomes a plan, statuses become notes. The remote is a bare repository on disk.

use std::{path::Path, time::Duration};

use git2::{FileMode, Repository, RepositoryInitOptions, Signature, build::TreeUpdateBuilder};
use rackwright::{
    git::{Config, GitNotes, GitSource, RemoteUrl},
    manifest::{Cache, load},
    model::{CommitId, SiteName},
    plan::plan,
    ports::{Notes, Source},
};

use crate::{
    Goal, Size,
    fleet::{self, Bmcs},
    load::Quiet,
    measure, median, show,
};

/// From a commit that is in the remote to the plan that it means.
pub fn push(size: &Size) {
    let folder = tempfile::tempdir().unwrap();
    let bare = make_repository(&folder.path().join("fleet.git"));
    commit(&bare, &fleet::repository(size.large, &Bmcs::Nowhere));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config::new(bare.path().to_str().unwrap().parse::<RemoteUrl>().unwrap());
    let source = GitSource::open(config, &folder.path().join("clone.git")).unwrap();

    let (mut cache, number) = (Cache::default(), size.large / 2);
    let (first, cost) = measure(|| runtime.block_on(source.latest(None, false)).unwrap());
    show(&format!("first fetch of {} files", first.files.len()), cost, &Goal::None);
    let mut in_force = (first.commit.id, load(&first.files, &mut cache).fleet);
    let quiet = Quiet::new(&in_force.1);
    let mut parts = Vec::new();
    let whole = median(size.runs, |run| {
        commit(&bare, &[(fleet::path(number), fleet::machine(number, &Bmcs::Nowhere, run + 1))]);
        let (snapshot, fetched) = measure(|| runtime.block_on(source.latest(Some(in_force.0), false)).unwrap());
        let (loaded, read) = measure(|| load(&snapshot.files, &mut cache));
        let (made, planned) = measure(|| quiet.with_former(&loaded.fleet, Some(&in_force.1), plan));
        assert_eq!(made.machines.values().filter(|machine| machine.reimage.is_some()).count(), 1);
        in_force = (snapshot.commit.id, loaded.fleet);
        parts.push([fetched, read, planned]);
        let sum = |of: fn(&crate::Cost) -> Duration| [fetched, read, planned].iter().map(of).sum();
        crate::Cost { wall: sum(|cost| cost.wall), cpu: sum(|cost| cost.cpu) }
    });
    show(&format!("one changed file of {}: from the push to the plan", size.large), whole, &Goal::Wall(Duration::from_millis(10)));
    for (part, what) in ["fetch and tree", "manifests", "plan"].iter().enumerate() {
        show(&format!("  of that: {what}"), median(size.runs, |run| parts[run][part]), &Goal::None);
    }
}

/// Statuses of very many commits as one commit on the notes ref, pushed.
pub fn notes(size: &Size) {
    let folder = tempfile::tempdir().unwrap();
    let bare = make_repository(&folder.path().join("fleet.git"));
    commit(&bare, &[("fleet.yaml".to_owned(), String::new())]);
    let config = Config::new(bare.path().to_str().unwrap().parse::<RemoteUrl>().unwrap());
    let notes = GitNotes::open(config, &folder.path().join("clone.git"), SiteName::new("bench").unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let id = |number: usize| {
        let hash = fleet::entry(&number.to_string()).id;
        CommitId(hash)
    };
    let written = median(size.runs.min(5), |run| {
        let text = |number: usize| {
            format!("{} of 1000 machines are ready\n\nRackwright-State: Reconciling\nRackwright-Run: {run}\n", number % 1000)
        };
        let batch: Vec<_> = (0..size.large).map(|number| (id(number), text(number))).collect();
        let (written, cost) = measure(|| runtime.block_on(notes.write(batch)));
        written.unwrap();
        cost
    });
    show(&format!("{} statuses changed in one notes commit, pushed", size.large), written, &Goal::Wall(Duration::from_millis(500)));
}

pub fn make_repository(path: &Path) -> Repository {
    let mut options = RepositoryInitOptions::new();
    Repository::init_opts(path, options.bare(true).initial_head("main")).unwrap()
}

/// What a push leaves behind: the objects, and the branch moved.
pub fn commit(bare: &Repository, files: &[(String, String)]) {
    let parent = bare.refname_to_id("refs/heads/main").ok().map(|id| bare.find_commit(id).unwrap());
    let empty = bare.treebuilder(None).unwrap().write().unwrap();
    let base = parent.as_ref().map_or_else(|| bare.find_tree(empty).unwrap(), |parent| parent.tree().unwrap());
    let mut update = TreeUpdateBuilder::new();
    for (path, text) in files {
        update.upsert(path.as_str(), bare.blob(text.as_bytes()).unwrap(), FileMode::Blob);
    }
    let tree = bare.find_tree(update.create_updated(bare, &base).unwrap()).unwrap();
    let author = Signature::now("bench", "bench@example.org").unwrap();
    bare.commit(Some("refs/heads/main"), &author, &author, "bench", &tree, &parent.iter().collect::<Vec<_>>()).unwrap();
}
