//! One disk: wiped, and read back.

use std::ops::Range;

use ring::digest::{Context, SHA256, digest};

use super::{
    Disk, Erase,
    failure::{Failure, code},
    image::{BLOCK, finish},
    wipe_areas::areas,
    write::{MOST_ZEROS, Watch, refused, sync, unreadable},
};
use crate::model::{DiskProof, ObservedDisk, WipeMethod};

/// Places that are read of a disk that erased itself, beside its ends: one per cent that was left out stays unseen once in 30,000 disks.
const SAMPLES: u64 = 1024;
/// Bytes of each.
const SAMPLE: u64 = 64 << 10;
/// Bytes of each end.
const END: u64 = 1 << 20;

/// A disk that was looked at and not touched, with all that is to be done to it.
pub(super) struct Ready {
    disk: Box<dyn Disk>,
    seen: ObservedDisk,
    method: WipeMethod,
    /// What the drive will be told.
    by: String,
    /// What is read back.
    places: Vec<Range<u64>>,
}

impl Ready {
    /// Looks whether the disk can be wiped so. Nothing is changed.
    ///
    /// # Errors
    /// `disk-size`, `disk-read`, or what [`Disk::can_erase`] says.
    pub(super) fn new(mut disk: Box<dyn Disk>, seen: &ObservedDisk, method: WipeMethod, boot_id: &str) -> Result<Self, Failure> {
        let size = disk.size();
        if size == 0 || seen.size.is_some_and(|seen| seen != size) {
            let text = format!("{} has {size} bytes, and had {:?} when it was listed; nothing was done to it", seen.name, seen.size);
            return Err(Failure::new(code::DISK_SIZE, text));
        }
        let named = |failure: Failure| Failure::new(failure.code, format!("{}: {}", seen.name, failure.message));
        let by = match method {
            WipeMethod::Signatures => "zeros over its partition tables and both ends of each partition".to_owned(),
            WipeMethod::Zero => "zeros over all of it".to_owned(),
            WipeMethod::Discard => disk.can_erase(Erase::Discard).map_err(named)?,
            WipeMethod::SecureErase => disk.can_erase(Erase::Secure).map_err(named)?,
        };
        let places = match method {
            WipeMethod::Signatures => areas(disk.as_mut()).map_err(|error| named(unreadable(0, &error)))?,
            WipeMethod::Zero => std::iter::once(0..size).collect(),
            WipeMethod::Discard | WipeMethod::SecureErase => samples(boot_id, &seen.name, size),
        };
        Ok(Self { disk, seen: seen.clone(), method, by, places })
    }

    /// Bytes that are written and read in all.
    pub(super) fn total(&self) -> u64 {
        let read: u64 = self.places.iter().map(length).sum();
        if self.method == WipeMethod::Signatures || self.method == WipeMethod::Zero { 2 * read } else { read }
    }

    /// Wipes it and reads it back. `None`: it was stopped.
    ///
    /// # Errors
    /// `disk-write`, `disk-read`, `erase-failed`, `not-wiped`; the name of the disk is in the text.
    pub(super) fn wipe(mut self, watch: &Watch) -> Result<Option<DiskProof>, Failure> {
        let named = |failure: Failure| Failure::new(failure.code, format!("{}: {}", self.seen.name, failure.message));
        let disk = self.disk.as_mut();
        let mut before = Vec::new();
        match self.method {
            WipeMethod::Signatures => {
                // Both ends of the disk go last: whoever begins anew after a power cut still finds by the tables where the rest is.
                let inside = self.places.get(1..self.places.len().saturating_sub(1)).unwrap_or_default();
                let ends = self.places.iter().skip(1).last().into_iter().chain(self.places.first());
                for place in inside.iter().chain(ends) {
                    if !zero(disk, place, watch).map_err(named)? {
                        return Ok(None);
                    }
                }
            }
            WipeMethod::Zero => {
                // Both ends go first: from here on nothing starts from it, whatever becomes of the rest.
                let size = disk.size();
                for (at, length) in [(0, size.min(END)), (size.saturating_sub(END), size.min(END))] {
                    disk.zero(at, length).map_err(|error| named(refused("zeroing", at, length, &error)))?;
                }
                if !zero(disk, &(0..size), watch).map_err(named)? {
                    return Ok(None);
                }
            }
            WipeMethod::Discard => disk.erase(Erase::Discard).map_err(named)?,
            WipeMethod::SecureErase => {
                for place in &self.places {
                    before.push(read(disk, place).map_err(named)?.fingerprint());
                }
                disk.erase(Erase::Secure).map_err(named)?;
            }
        }
        sync(disk).map_err(named)?;
        let Some(proof) = read_back(disk, &self.places, &before, watch).map_err(named)? else { return Ok(None) };
        let proof = DiskProof { disk: self.seen.clone(), by: self.by.clone(), ..proof };
        match proof.gap(&self.seen, self.method) {
            Some(gap) => {
                let (read, zero) = (proof.read, proof.zero);
                let text = format!("{gap} ({zero} of {read} bytes that were read back are zero)");
                Err(named(Failure::new(code::NOT_WIPED, text)))
            }
            None => Ok(Some(proof)),
        }
    }
}

fn length(place: &Range<u64>) -> u64 {
    place.end - place.start
}

/// Zeroes a place in pieces. `false`: it was stopped.
fn zero(disk: &mut dyn Disk, place: &Range<u64>, watch: &Watch) -> Result<bool, Failure> {
    let mut at = place.start;
    while at < place.end {
        if watch.stopped() {
            return Ok(false);
        }
        let length = (place.end - at).min(MOST_ZEROS);
        disk.zero(at, length).map_err(|error| refused("zeroing", at, length, &error))?;
        watch.advance(length);
        at += length;
    }
    Ok(true)
}

/// What was read at one place.
struct Seen {
    digest: [u8; 32],
    uniform: bool,
}

impl Seen {
    /// What tells it from other content; `None` of one byte repeated, which says nothing.
    fn fingerprint(&self) -> Option<[u8; 32]> {
        (!self.uniform).then_some(self.digest)
    }
}

fn read(disk: &mut dyn Disk, place: &Range<u64>) -> Result<Seen, Failure> {
    let mut bytes = vec![0; length(place) as usize];
    disk.read_at(place.start, &mut bytes).map_err(|error| unreadable(place.start, &error))?;
    Ok(seen(&bytes))
}

fn seen(bytes: &[u8]) -> Seen {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Seen { digest: hash, uniform: bytes.windows(2).all(|pair| pair[0] == pair[1]) }
}

/// Reads all places; compares with what was there `before`, where that was asked for. `None`: it was stopped.
fn read_back(disk: &mut dyn Disk, places: &[Range<u64>], before: &[Option<[u8; 32]>], watch: &Watch) -> Result<Option<DiskProof>, Failure> {
    let mut hash = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    let (mut bytes, mut zero, mut same) = (0, 0, 0);
    for (number, place) in places.iter().enumerate() {
        let mut at = place.start;
        while at < place.end {
            if watch.stopped() {
                return Ok(None);
            }
            let block = &mut block[..(place.end - at).min(BLOCK as u64) as usize];
            disk.read_at(at, block).map_err(|error| unreadable(at, &error))?;
            hash.update(block);
            zero += block.iter().map(|byte| u64::from(*byte == 0)).sum::<u64>();
            bytes += block.len() as u64;
            if let Some(Some(old)) = before.get(number) {
                same += u64::from(seen(block).fingerprint() == Some(*old));
            }
            at += block.len() as u64;
            watch.advance(block.len() as u64);
        }
    }
    Ok(Some(DiskProof {
        disk: ObservedDisk::default(),
        by: String::new(),
        places: places.len() as u64,
        read: bytes,
        zero,
        same,
        size: disk.size(),
        digest: finish(hash),
    }))
}

/// Both ends, and places that follow from the agent's start and the disk: nobody can know them before the wipe, and anybody after it.
fn samples(boot_id: &str, name: &str, size: u64) -> Vec<Range<u64>> {
    let mut places = vec![0..size.min(END), size.saturating_sub(END)..size];
    for number in 0..SAMPLES {
        let text = format!("rackwright wipe sample 1\n{boot_id}\n{name}\n{number}");
        let hash = digest(&SHA256, text.as_bytes());
        let mut eight = [0; 8];
        eight.copy_from_slice(&hash.as_ref()[..8]);
        let start = u64::from_be_bytes(eight) % size.div_ceil(SAMPLE) * SAMPLE;
        places.push(start..size.min(start + SAMPLE));
    }
    // Of a small disk many places are the same, and none counts twice.
    places.sort_by_key(|place| (place.start, place.end));
    let mut apart: Vec<Range<u64>> = Vec::new();
    for place in places {
        let start = apart.last().map_or(place.start, |last| place.start.max(last.end));
        if start < place.end {
            apart.push(start..place.end);
        }
    }
    apart
}

#[cfg(test)]
mod tests;
