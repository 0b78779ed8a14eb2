//! What the agent in RAM and the boot server say to each other: JSON over HTTPS, the server's certificate pinned by the
//! fingerprint on the agent's kernel command line, the ticket's token in the `Authorization: Bearer` header.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/hello` | [`AgentHello`] | [`AgentCommand`]; 400 when it is too much; 409 when nothing may be done |
//! | `POST /agent/v1/report` | [`AgentReport`] | 204; 409 when it may not go on |
//! | `GET /images/<path>` | – | the image, ranges allowed |
//!
//! 401 without the token of an open attempt; 413 for a body of more than 1 MiB. A hello that is too much fails its attempt.

use serde::{Deserialize, Serialize};

use super::{AttemptId, Digest, DiskHint, DiskProof, Install, ObservedDisk, ObservedNic, Targets, WipeMethod};

/// The agent's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentHello {
    /// Chosen at random at each start of the agent.
    pub boot_id: String,
    /// The agent's version.
    pub version: String,
    /// Serial number from SMBIOS.
    pub serial: Option<String>,
    /// UUID from SMBIOS, lower-case with dashes.
    pub uuid: Option<String>,
    /// Disks that could hold a system.
    pub disks: Vec<ObservedDisk>,
    /// Network interfaces.
    pub nics: Vec<ObservedNic>,
    /// Whether the machine was started by UEFI.
    pub uefi: bool,
}

impl AgentHello {
    /// Most disks, and most interfaces. A storage node has a thousand: shelves of a hundred disks, with two paths to each. Most bodies of
    /// that many are stopped by their size before.
    pub const MOST: usize = 4096;
    /// Longest text of a field in bytes. SMBIOS and SCSI texts are some dozens.
    pub const LONGEST: usize = 256;

    /// What of it is more than any machine has.
    pub fn excess(&self) -> Option<String> {
        for (what, count) in [("disks", self.disks.len()), ("nics", self.nics.len())] {
            if count > Self::MOST {
                return Some(format!("{what} has {count} entries, at most {} are taken", Self::MOST));
            }
        }
        let own = [("bootId", Some(&self.boot_id)), ("version", Some(&self.version))];
        let identity = [("serial", self.serial.as_ref()), ("uuid", self.uuid.as_ref())];
        let disks = self.disks.iter().flat_map(|disk| {
            let texts = [disk.serial.as_ref(), disk.wwn.as_ref(), disk.model.as_ref(), disk.path.as_ref(), Some(&disk.name)];
            texts.map(|text| ("disks", text))
        });
        let nics = self.nics.iter().map(|nic| ("nics", Some(&nic.name)));
        let mut texts = own.into_iter().chain(identity).chain(disks).chain(nics);
        let (what, _) = texts.find(|(_, text)| text.is_some_and(|text| text.len() > Self::LONGEST))?;
        Some(format!("{what} has a text of more than {} bytes", Self::LONGEST))
    }
}

/// What the agent is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do", rename_all_fields = "camelCase")]
pub enum AgentCommand {
    /// Write this.
    Install {
        /// The attempt.
        attempt: AttemptId,
        /// What to write. `install.image.url` is absolute here.
        install: Box<Install>,
        /// The disk to write: exactly one must match.
        system: DiskHint,
        /// Disks never to write.
        keep: Vec<DiskHint>,
        /// Where the installed system calls home, once: an absolute `http://` URL that holds the attempt's call-home token.
        call_home: String,
        /// Where the installed system may publish values for others, if its manifest says that it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handoff: Option<Box<HandoffPlace>>,
    },
    /// Wipe these, prove it, and switch the machine off.
    Wipe {
        /// The attempt.
        attempt: AttemptId,
        /// How.
        method: WipeMethod,
        /// Which disks.
        targets: Targets,
        /// Disks never to touch.
        keep: Vec<DiskHint>,
    },
    /// The disk is written already: reboot into it.
    BootFromDisk,
    /// The disks are wiped already: switch the machine off.
    SwitchOff,
    /// Do nothing to this machine, say why on the console, and wait.
    Refuse {
        /// Why.
        why: String,
    },
}

/// Where an installed system publishes values: `POST`, a JSON object of names and texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandoffPlace {
    /// An absolute `https://` URL that holds a token of the attempt.
    pub url: String,
    /// The server's certificate as PEM, the only one to be trusted there.
    pub certificate: String,
}

/// What the agent tells while it works. `Writing` and `Wiping` are answered only after it is journaled; the agent waits for that before its
/// first write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentReport {
    /// The same as in [`AgentHello`].
    pub boot_id: String,
    /// What happened.
    pub event: AgentEvent,
}

/// One event of an install or a wipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event", rename_all_fields = "camelCase")]
pub enum AgentEvent {
    /// It chose this disk and asks for leave to write.
    Writing {
        /// The disk.
        disk: ObservedDisk,
    },
    /// So far. Sent at least each second while something moves.
    Progress(Progress),
    /// Written, read back, equal; the digest is the declared one; the seed is in place.
    Written {
        /// Digest of the image file as received.
        digest: Digest,
        /// Bytes on the disk.
        bytes: u64,
    },
    /// It chose these disks, found that they can be wiped as ordered, and asks for leave to begin.
    Wiping {
        /// The disks, in the order in which they are wiped.
        disks: Vec<ObservedDisk>,
    },
    /// All are wiped, and this was read back of them.
    Wiped {
        /// A proof for each disk, in the same order.
        proof: Vec<DiskProof>,
    },
    /// It can't. Nothing more will be written.
    Failed {
        /// Whether the disk's old content may be gone.
        wrote: bool,
        /// A stable name, such as `wrong-digest`, `no-disk-matches`, `two-disks-match`, `disk-changed`, `disk-write`.
        code: String,
        /// For people, with the values.
        message: String,
    },
}

/// How far an install or a wipe is. Of a wipe, all that it has to write and to read back, on all its disks
/// at once, is one phase: *writing*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes of this phase done.
    pub done: u64,
    /// Bytes of this phase in all, where known.
    pub total: Option<u64>,
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Writing the image.
    Writing,
    /// Reading it back.
    Verifying,
    /// Writing the seed and the boot entry.
    Finishing,
}

/// What an installed system says once, when it is up: `POST /callhome/v1/<machine>/<number>/<token>` of its attempt, as JSON, or as the form that
/// cloud-init's `phone_home` sends, whose `instance_id` is the generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallHome {
    /// Generation, as the seed told it.
    pub generation: String,
    /// Image digest, where the system can tell.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Host name.
    #[serde(default)]
    pub hostname: Option<String>,
}
