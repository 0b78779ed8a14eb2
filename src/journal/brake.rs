//! The local brake in a file of the state folder: `rackwright hold` writes it, the controller looks at it.
//!
//! Beside the journal and not in it, so that it works while the journal is damaged, and while no controller runs. Each change replaces
//! the file as a whole (written, synced, renamed, and the folder synced): after a crash it is the old one or the new one.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Brake, Digest, Hold},
    ports::BrakeLever,
};

/// The newest form of the file that this release knows.
const VERSION: u32 = 1;

/// The file's name in the state folder.
const NAME: &str = "hold.json";

/// Why the brake can't be read or moved.
#[derive(Debug, thiserror::Error)]
pub enum BrakeError {
    /// It can't be read.
    #[error("can't read the brake {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The state folder is not there: its disk may not be mounted.
    #[error("the state folder {} is not there: is its disk mounted, and is stateDir right?", path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
    },
    /// What stands in it makes no sense.
    #[error(
        "the brake {} makes no sense ({what}), and while it is there everything is held. Once you know what should be held: remove the \
         file, and hold that again",
        path.display()
    )]
    Nonsense {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// It can't be written; it is as it was.
    #[error("can't write the brake {}, and nothing was changed: run this as root or as the controller's user, and see that there is room on the disk. Stopping the controller stops everything, too", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    holds: Vec<Hold>,
    /// Of the holds as JSON: a flipped bit must not move a hold to another machine.
    sum: String,
}

fn sum(holds: &[Hold]) -> String {
    Digest::of(&serde_json::to_vec(holds).unwrap_or_default()).to_string()
}

/// The brake of one state folder.
#[derive(Debug, Clone)]
pub struct BrakeFile {
    folder: PathBuf,
}

impl BrakeFile {
    /// The brake of the controller with this state folder. Nothing is read yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.to_owned() }
    }

    /// Where it is; there is no file while nothing is held.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// What is held, oldest first.
    ///
    /// # Errors
    /// [`BrakeError`], unless it is known that there is no such file.
    pub fn holds(&self) -> Result<Vec<Hold>, BrakeError> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.folder.is_dir() => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BrakeError::NoFolder { path: self.folder.clone() }),
            Err(source) => return Err(BrakeError::Read { path, source }),
        };
        let nonsense = |what: String| BrakeError::Nonsense { path: path.clone(), what };
        let form: Form = serde_json::from_slice(&text).map_err(|error| nonsense(error.to_string()))?;
        if form.version > VERSION {
            return Err(nonsense(format!("it has form {}, and this release reads up to {VERSION}", form.version)));
        }
        if form.sum != sum(&form.holds) {
            return Err(nonsense("its checksum does not match".to_owned()));
        }
        Ok(form.holds)
    }

    /// Changes what is held, and gives what `change` gives. Durable when it returns; of two commands at a time one waits.
    ///
    /// # Errors
    /// [`BrakeError`]; then nothing was changed.
    pub fn change<T>(&self, change: impl FnOnce(&mut Vec<Hold>) -> T) -> Result<T, BrakeError> {
        let failed = |source| BrakeError::Write { path: self.path(), source };
        let folder = File::open(&self.folder).map_err(failed)?;
        // On the folder itself: a lock file of root's could not be opened by the controller's user.
        folder.lock().map_err(failed)?;
        let before = self.holds()?;
        let mut after = before.clone();
        let given = change(&mut after);
        if after != before {
            self.replace(after).and_then(|()| folder.sync_all()).map_err(failed)?;
        }
        Ok(given)
    }

    fn replace(&self, holds: Vec<Hold>) -> io::Result<()> {
        if holds.is_empty() {
            return fs::remove_file(self.path());
        }
        let new = self.folder.join(format!("{NAME}.new"));
        // What a command that was killed left behind may be another user's.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        // The controller may run as another user than whoever pulls the brake, and must be able to read it whatever the umask is.
        file.set_permissions(Permissions::from_mode(0o644))?;
        let form = Form { version: VERSION, sum: sum(&holds), holds };
        let mut text = serde_json::to_vec_pretty(&form)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, self.path())
    }
}

impl BrakeLever for BrakeFile {
    fn position(&self) -> Brake {
        match self.holds() {
            Ok(holds) => Brake { holds, unreadable: None },
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Brake { holds: Vec::new(), unreadable: Some(format!("{error}{cause}")) }
            }
        }
    }
}
