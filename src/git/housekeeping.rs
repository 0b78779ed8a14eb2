//! Our clone lives for years and gets a few small files for each note. Here they become packs.
//!
//! **Rule.** When about [`LOOSE`] objects lie loose, they are packed, and those that the pack holds are removed. Nothing else is ever
//! removed, so a reader of the same clone finds everything at any time, and a crash in between leaves objects twice, which is harmless.

use std::{fs, io, io::Write as _, path::PathBuf};

use git2::{Error, Oid, Repository};

/// From this many loose objects on they are packed: some 250 notes, a few MiB. Git itself waits for 6,700, on disks that people watch.
pub(super) const LOOSE: usize = 1000;

/// Packs loose objects if there are many. Returns how many were packed.
pub(super) fn pack_loose(repository: &Repository) -> Result<usize, Error> {
    let objects = repository.path().join("objects");
    // Ids are evenly spread, so one folder of the 256 tells enough (as `git gc --auto` does).
    let sample = fs::read_dir(objects.join("17")).map_or(0, Iterator::count);
    if sample * 256 < LOOSE {
        return Ok(0);
    }
    let loose = loose(repository).map_err(wrong)?;
    let ids: Vec<Oid> = loose.iter().map(|(id, _)| *id).collect();
    keep(repository, repository, &ids)?;
    for (_, path) in &loose {
        // One that can't be removed is tried again the next time.
        if let Err(error) = fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "a packed object stays loose");
        }
    }
    Ok(loose.len())
}

/// Writes `objects`, which `from` has, into `to` as one pack. Durable when it returns, as far as the clone's configuration asks for it.
pub(super) fn keep(from: &Repository, to: &Repository, objects: &[Oid]) -> Result<(), Error> {
    let mut pack = from.packbuilder()?;
    pack.set_threads(0);
    for id in objects {
        pack.insert_object(*id, None)?;
    }
    let odb = to.odb()?;
    let mut writer = odb.packwriter()?;
    let mut failed = None;
    pack.foreach(|bytes| {
        failed = writer.write_all(bytes).err();
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(wrong(error));
    }
    writer.commit().map(|_| ())
}

fn loose(repository: &Repository) -> io::Result<Vec<(Oid, PathBuf)>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(repository.path().join("objects"))? {
        let folder = folder?;
        let name = folder.file_name().to_string_lossy().into_owned();
        if name.len() != 2 || !folder.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder.path())? {
            let file = file?;
            // Files that are being written have other names.
            let id = format!("{name}{}", file.file_name().to_string_lossy());
            if id.len() == 40
                && let Ok(id) = Oid::from_str(&id)
            {
                found.push((id, file.path()));
            }
        }
    }
    Ok(found)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn wrong(error: io::Error) -> Error {
    Error::from_str(&error.to_string())
}
