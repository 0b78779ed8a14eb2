//! New files, whole or not at all, and never over one that is there.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::{Context as _, bail};

/// Writes `text` to `path` below `folder`. Whoever looks finds no file there, or the whole text.
///
/// # Errors
/// Something is there already, or it can't be written.
pub(super) fn new_file(folder: &Path, path: &str, text: &str) -> anyhow::Result<()> {
    let target = folder.join(path);
    let parent = target.parent().context("a manifest is in a folder")?;
    if parent.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        bail!("{} is a symbolic link, which Rackwright does not follow in a fleet", parent.display());
    }
    fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
    // Hidden, so that no reader takes it for a manifest.
    let name = format!(".{}.{}.new", target.file_name().unwrap_or_default().to_string_lossy(), std::process::id());
    let draft = parent.join(name);
    let done = write_and_link(&draft, &target, text);
    let _ = fs::remove_file(&draft);
    done?;
    // The file is there; that its name survives a power cut is more than a commit needs.
    let _ = File::open(parent).and_then(|parent| parent.sync_all());
    Ok(())
}

fn write_and_link(draft: &Path, target: &Path, text: &str) -> anyhow::Result<()> {
    let _ = fs::remove_file(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match fs::hard_link(draft, target) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!("something is there already, and nothing is overwritten"),
        // Not every file system has links.
        Err(_) if target.symlink_metadata().is_err() => Ok(fs::rename(draft, target)?),
        Err(_) => bail!("something is there already, and nothing is overwritten"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        new_file(folder.path(), "machines/a.yaml", "one").unwrap();
        let error = new_file(folder.path(), "machines/a.yaml", "two").unwrap_err().to_string();
        assert!(error.contains("nothing is overwritten"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("machines/a.yaml")).unwrap(), "one");
        assert_eq!(fs::read_dir(folder.path().join("machines")).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_is_a_link_is_neither_followed_nor_replaced() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("machines")).unwrap();
        assert!(new_file(folder.path(), "machines/a.yaml", "one").is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        fs::remove_file(folder.path().join("machines")).unwrap();
        fs::create_dir(folder.path().join("machines")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("machines/b.yaml")).unwrap();
        assert!(new_file(folder.path(), "machines/b.yaml", "one").is_err());
    }
}
