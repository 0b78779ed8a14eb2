//! A fetch from a repository on this machine, by reading it. libgit2's own goes through every folder of the commit before; this goes
//! only where something is new.

use std::{collections::HashSet, path::Path};

use git2::{Error, ObjectType, OdbLookupFlags, Oid, Repository};

use super::housekeeping;

/// Brings commit `tip` of the repository at `theirs` into `ours`, with all that it refers to and `ours` has not.
///
/// What is there is not gone through again: no object comes into our clone without all that it refers to.
pub(super) fn bring(theirs: &Path, ours: &Repository, tip: Oid) -> Result<(), Error> {
    let theirs = Repository::open(theirs)?;
    let odb = ours.odb()?;
    odb.refresh()?;
    let (mut new, mut open) = (HashSet::new(), vec![(tip, ObjectType::Commit)]);
    while let Some((id, kind)) = open.pop() {
        if odb.exists_ext(id, OdbLookupFlags::NO_REFRESH) || !new.insert(id) {
            continue;
        }
        match kind {
            ObjectType::Commit => {
                let commit = theirs.find_commit(id)?;
                open.push((commit.tree_id(), ObjectType::Tree));
                open.extend(commit.parent_ids().map(|parent| (parent, ObjectType::Commit)));
            }
            ObjectType::Tree => {
                let tree = theirs.find_tree(id)?;
                let here = tree.iter().filter_map(|entry| Some((entry.id(), entry.kind()?)));
                // A commit in a tree is a submodule, whose objects are elsewhere.
                open.extend(here.filter(|(_, kind)| matches!(kind, ObjectType::Tree | ObjectType::Blob)));
            }
            _ => {}
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    housekeeping::keep(&theirs, ours, &new.into_iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{FileMode, Signature, build::TreeUpdateBuilder};

    /// A commit on top of `parent` in which these files are changed.
    fn commit(repository: &Repository, parent: Option<Oid>, files: &[(&str, &str)]) -> Oid {
        let parent = parent.map(|id| repository.find_commit(id).unwrap());
        let empty = repository.treebuilder(None).unwrap().write().unwrap();
        let base = parent.as_ref().map_or_else(|| repository.find_tree(empty).unwrap(), |parent| parent.tree().unwrap());
        let mut update = TreeUpdateBuilder::new();
        for (path, text) in files {
            update.upsert(*path, repository.blob(text.as_bytes()).unwrap(), FileMode::Blob);
        }
        let tree = repository.find_tree(update.create_updated(repository, &base).unwrap()).unwrap();
        let ada = Signature::now("Ada", "ada@example.com").unwrap();
        repository.commit(None, &ada, &ada, "commit", &tree, &parent.iter().collect::<Vec<_>>()).unwrap()
    }

    fn objects(repository: &Repository) -> usize {
        let mut count = 0;
        let each = |_: &Oid| {
            count += 1;
            true
        };
        repository.odb().unwrap().foreach(each).unwrap();
        count
    }

    #[test]
    fn only_what_is_new_is_read_and_all_of_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = Repository::init_bare(folder.path().join("theirs")).unwrap();
        let ours = Repository::init_bare(folder.path().join("ours")).unwrap();
        let first = commit(&theirs, None, &[("a/x", "1"), ("a/y", "2"), ("b/c/z", "3"), ("top", "4")]);
        bring(theirs.path(), &ours, first).unwrap();
        assert_eq!(objects(&ours), 9, "a commit, four folders, four files");

        // What did not change could be gone: it is not looked at.
        let unchanged = theirs.find_commit(first).unwrap().tree().unwrap().get_path(Path::new("b/c")).unwrap().id().to_string();
        std::fs::remove_file(theirs.path().join("objects").join(&unchanged[..2]).join(&unchanged[2..])).unwrap();
        let second = commit(&theirs, Some(first), &[("a/x", "5")]);
        let third = commit(&theirs, Some(second), &[("a/x", "6")]);
        bring(theirs.path(), &ours, third).unwrap();
        assert_eq!(objects(&ours), 9 + 2 * 4, "of each commit: itself, two folders, a file");
        let tree = ours.find_commit(third).unwrap().tree().unwrap();
        let text = |path: &str| ours.find_blob(tree.get_path(Path::new(path)).unwrap().id()).unwrap().content().to_vec();
        assert_eq!((text("a/x"), text("b/c/z")), (b"6".to_vec(), b"3".to_vec()));

        bring(theirs.path(), &ours, third).unwrap();
        assert_eq!(objects(&ours), 9 + 2 * 4, "nothing is new");
        let incomplete = commit(&theirs, None, &[("b", "7")]);
        let lost = theirs.find_commit(incomplete).unwrap().tree_id().to_string();
        std::fs::remove_file(theirs.path().join("objects").join(&lost[..2]).join(&lost[2..])).unwrap();
        assert!(bring(&folder.path().join("theirs"), &ours, incomplete).is_err());
        assert_eq!(objects(&ours), 9 + 2 * 4, "nothing comes without all that it refers to");
    }
}
