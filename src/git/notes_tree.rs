//! Trees of notes, by hand: libgit2's own writer rewrites all notes for each one.
//!
//! Git looks a note up under `abcd…`, `ab/cd…`, `ab/cd/…` and so on, in any mix, and expects it once (git's notes.c). We write `ab/…`: with
//! 10,000 notes a new one rewrites two small trees. What `git notes` wrote flat is moved there; deeper levels are left as they
//! are but for the notes that we replace. Entries that are no notes are kept, as Git keeps them.

use std::collections::BTreeMap;

use git2::{Error, ObjectType, Oid, Repository, Tree, TreeBuilder};

const BLOB: i32 = 0o100_644;
const TREE: i32 = 0o040_000;

/// Notes of a folder: the rest of the name, the note, and whether it replaces one that is there.
type Group = Vec<(String, Oid, bool)>;

/// `base` with these notes in it, by the hexadecimal id of what they are about. Returns the tree's id.
pub(super) fn with_notes(repository: &Repository, base: Option<&Tree<'_>>, notes: &BTreeMap<String, Oid>) -> Result<Oid, Error> {
    let mut root = repository.treebuilder(base)?;
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for (target, note) in notes {
        let (folder, rest) = target.split_at(2);
        groups.entry(folder).or_default().push((rest.to_owned(), *note, true));
    }
    let flat: Vec<(String, Oid)> = base.into_iter().flat_map(Tree::iter).filter_map(|entry| flat_note(&entry)).collect();
    for (target, note) in &flat {
        root.remove(target)?;
        if !notes.contains_key(target) {
            let (folder, rest) = target.split_at(2);
            groups.entry(folder).or_default().push((rest.to_owned(), *note, false));
        }
    }
    for (folder, group) in groups {
        let tree = with_group(repository, subtree(repository, &root, folder)?.as_ref(), &group)?;
        root.insert(folder, tree, TREE)?;
    }
    root.write()
}

/// The ids of `tree` and of all folders in it.
pub(super) fn folders(repository: &Repository, tree: &Tree<'_>, found: &mut Vec<Oid>) -> Result<(), Error> {
    let mut trees = vec![tree.clone()];
    while let Some(tree) = trees.pop() {
        found.push(tree.id());
        for entry in tree.iter().filter(|entry| entry.kind() == Some(ObjectType::Tree)) {
            trees.push(repository.find_tree(entry.id())?);
        }
    }
    Ok(())
}

fn with_group(repository: &Repository, base: Option<&Tree<'_>>, group: &Group) -> Result<Oid, Error> {
    let mut builder = repository.treebuilder(base)?;
    for (rest, note, replaces) in group {
        if *replaces {
            remove_deeper(repository, &mut builder, rest)?;
            builder.insert(rest, *note, BLOB)?;
        } else if builder.get(rest)?.is_none() && !is_deeper(repository, &builder, rest)? {
            builder.insert(rest, *note, BLOB)?;
        }
    }
    builder.write()
}

/// Removes a note from the folders below, at whatever level it is.
fn remove_deeper(repository: &Repository, builder: &mut TreeBuilder<'_>, name: &str) -> Result<(), Error> {
    let Some((folder, rest)) = name.split_at_checked(2).filter(|(_, rest)| !rest.is_empty()) else { return Ok(()) };
    let Some(tree) = subtree(repository, builder, folder)? else { return Ok(()) };
    let mut inner = repository.treebuilder(Some(&tree))?;
    if inner.get(rest)?.is_some() {
        inner.remove(rest)?;
    }
    remove_deeper(repository, &mut inner, rest)?;
    if inner.is_empty() {
        return builder.remove(folder);
    }
    let written = inner.write()?;
    if written != tree.id() {
        builder.insert(folder, written, TREE)?;
    }
    Ok(())
}

fn is_deeper(repository: &Repository, builder: &TreeBuilder<'_>, name: &str) -> Result<bool, Error> {
    let Some((folder, rest)) = name.split_at_checked(2).filter(|(_, rest)| !rest.is_empty()) else { return Ok(false) };
    let Some(tree) = subtree(repository, builder, folder)? else { return Ok(false) };
    let inner = repository.treebuilder(Some(&tree))?;
    Ok(inner.get(rest)?.is_some() || is_deeper(repository, &inner, rest)?)
}

fn subtree<'r>(repository: &'r Repository, builder: &TreeBuilder<'_>, folder: &str) -> Result<Option<Tree<'r>>, Error> {
    let id = builder.get(folder)?.filter(|entry| entry.kind() == Some(ObjectType::Tree)).map(|entry| entry.id());
    id.map(|id| repository.find_tree(id)).transpose()
}

fn flat_note(entry: &git2::TreeEntry<'_>) -> Option<(String, Oid)> {
    let name = entry.name().ok()?;
    let hex = name.len() == 40 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex && entry.kind() == Some(ObjectType::Blob)).then(|| (name.to_owned(), entry.id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(repository: &Repository, tree: Oid) -> Vec<String> {
        let mut paths = Vec::new();
        let tree = repository.find_tree(tree).unwrap();
        tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
            if entry.kind() == Some(ObjectType::Blob) {
                let blob = repository.find_blob(entry.id()).unwrap();
                paths.push(format!("{folder}{} {}", entry.name().unwrap(), String::from_utf8_lossy(blob.content())));
            }
            0
        })
        .unwrap();
        paths
    }

    /// Builds a tree with blobs at paths.
    fn tree(repository: &Repository, files: &[(&str, &str)]) -> Oid {
        let mut index = git2::build::TreeUpdateBuilder::new();
        for (path, text) in files {
            index.upsert(*path, repository.blob(text.as_bytes()).unwrap(), git2::FileMode::Blob);
        }
        let empty = repository.find_tree(repository.treebuilder(None).unwrap().write().unwrap()).unwrap();
        index.create_updated(repository, &empty).unwrap()
    }

    #[test]
    fn a_note_is_there_once_whatever_levels_others_used() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let (a, b, c) = ("aabbccddeeff00112233445566778899aabbccdd", "aabb00ddeeff00112233445566778899aabbccdd", "11".repeat(20));
        let other = format!("{}/{}", &c[..2], &c[2..]);
        for was in [a.to_owned(), format!("{}/{}", &a[..2], &a[2..]), format!("{}/{}/{}", &a[..2], &a[2..4], &a[4..])] {
            let neighbour = format!("{}/{}/{}", &b[..2], &b[2..4], &b[4..]);
            let base = tree(&repository, &[(&was, "old"), (&neighbour, "b"), (&other, "c"), ("README", "no note")]);
            let base = repository.find_tree(base).unwrap();
            let note = repository.blob(b"new").unwrap();
            let made = with_notes(&repository, Some(&base), &BTreeMap::from([(a.to_owned(), note)])).unwrap();
            let mut found = paths(&repository, made);
            found.sort();
            let mut expected =
                vec!["README no note".to_owned(), format!("{other} c"), format!("{neighbour} b"), format!("{}/{} new", &a[..2], &a[2..])];
            expected.sort();
            assert_eq!(found, expected, "from {was}");
        }
    }

    #[test]
    fn flat_notes_of_others_are_moved_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let (a, b) = ("aa".repeat(20), "bb".repeat(20));
        let base = tree(&repository, &[(&b, "theirs")]);
        let note = repository.blob(b"ours").unwrap();
        let base = repository.find_tree(base).unwrap();
        let made = with_notes(&repository, Some(&base), &BTreeMap::from([(a.clone(), note)])).unwrap();
        let expected = vec![format!("aa/{} ours", &a[2..]), format!("bb/{} theirs", &b[2..])];
        assert_eq!(paths(&repository, made), expected);
    }
}
