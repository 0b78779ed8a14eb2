//! What earlier loads learned.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use super::{again::Last, fault::Fault, parse::Parsed, unique::Owned};
use crate::model::{Machine, MachineName};

/// What earlier loads learned, so that the next one costs only what changed. Throwing it away changes no result.
#[derive(Debug, Default)]
pub struct Cache {
    /// Files by blob id.
    pub(crate) files: ById<[u8; 20], Arc<Parsed>>,
    /// Machines by blob id and number of the document, as resolved against `world`.
    pub(crate) machines: ById<([u8; 20], usize), Arc<Resolved>>,
    /// Path and blob id of each file that machines may depend on.
    pub(crate) world: Vec<(String, [u8; 20])>,
    /// The machines of the last load, and what belongs to them, if nothing belongs to two.
    pub(crate) owned: Option<(BTreeMap<MachineName, Arc<Machine>>, Owned)>,
    /// What else the last load gave.
    pub(crate) last: Option<Last>,
}

impl Cache {
    /// Whether it holds far more than `files` manifests need. Two branches are often compared in turn; what neither has used for a
    /// while goes.
    pub(crate) fn is_overgrown(&self, files: usize) -> bool {
        self.files.len() > 4 * files + 1024
    }
}

/// A machine, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The same blob at another path is another machine's source.
    pub(crate) file: String,
    pub(crate) machine: Option<Arc<Machine>>,
    pub(crate) faults: Vec<Fault>,
    /// The template that was rendered for it, if it names one of its own.
    pub(crate) template: Option<(String, Option<[u8; 20]>)>,
}

/// A map by blob id.
pub(crate) type ById<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Blob ids are hashes already, so eight of their bytes do.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*bytes);
        }
    }

    fn write_usize(&mut self, number: usize) {
        self.0 = self.0.rotate_left(7) ^ number as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
