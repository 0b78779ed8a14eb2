//! Puts an image's blocks on a disk, each once, and reads them back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    mpsc::Receiver,
};

use ring::digest::{Context, SHA256};
use tokio::sync::oneshot;

use super::{
    Disk,
    failure::{Failure, code},
    image::{BLOCK, finish},
    withheld::Withheld,
};
use crate::model::{Digest, Phase, Progress};

/// Most zeros in one request to the device: it must come back often enough to show progress and to be stopped.
pub(super) const MOST_ZEROS: u64 = 8 << 20;

/// What the threads of one install share with the rest of the agent.
#[derive(Debug, Default)]
pub(super) struct Watch {
    stop: AtomicBool,
    wrote: AtomicBool,
    leave: AtomicBool,
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    file_length: AtomicU64,
    /// Bytes of the image file received.
    pub(super) received: Arc<AtomicU64>,
}

impl Watch {
    /// No thread writes any more once it has looked here.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether the disk's old content may be gone.
    pub(super) fn wrote(&self) -> bool {
        self.wrote.load(Ordering::SeqCst)
    }

    /// From now on a disk's old content may be gone.
    pub(super) fn writes(&self) {
        self.wrote.store(true, Ordering::SeqCst);
    }

    /// So many bytes more of the phase are done.
    pub(super) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::SeqCst);
    }

    /// The boot server allowed writing: from now on there is progress to tell. Lengths in bytes of the image on the disk and of its
    /// file; 0 is unknown.
    pub(super) fn grant(&self, raw_length: u64, file_length: u64) {
        self.file_length.store(file_length, Ordering::SeqCst);
        self.begin(Phase::Writing, raw_length);
        self.leave.store(true, Ordering::SeqCst);
    }

    /// Starts a phase of `total` bytes; 0 is unknown.
    pub(super) fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::SeqCst);
        self.total.store(total, Ordering::SeqCst);
        let phase = match phase {
            Phase::Writing => 0,
            Phase::Verifying => 1,
            Phase::Finishing => 2,
        };
        self.phase.store(phase, Ordering::SeqCst);
    }

    /// How far it is, once writing was allowed.
    pub(super) fn progress(&self) -> Option<Progress> {
        if !self.leave.load(Ordering::SeqCst) {
            return None;
        }
        let phase = match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Writing,
            1 => Phase::Verifying,
            _ => Phase::Finishing,
        };
        let known = |total: &AtomicU64| Some(total.load(Ordering::SeqCst)).filter(|total| *total > 0);
        match (known(&self.total), known(&self.file_length)) {
            // A share of the file says more to people than a number of bytes with no end.
            (None, total @ Some(_)) if phase == Phase::Writing => {
                Some(Progress { phase, done: self.received.load(Ordering::SeqCst), total })
            }
            (total, _) => Some(Progress { phase, done: self.done.load(Ordering::SeqCst), total }),
        }
    }
}

/// Stops the threads when the install is cancelled.
pub(super) struct StopOnDrop(pub(super) Arc<Watch>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A disk with an image on it, but for its ends.
pub(super) struct Written {
    /// The disk.
    pub(super) disk: Withheld,
    /// Digest of the image's bytes on it.
    pub(super) raw: Digest,
    /// How many there are.
    pub(super) length: u64,
}

/// Shows the first block to `look`, waits for `go`, and then writes all blocks until there are no more, but the disk's ends. Whether the
/// image was whole is the caller's question.
///
/// Returns `None` when it was not allowed to begin, or was stopped.
///
/// # Errors
/// `disk-write`, and `disk-too-small` before the byte that does not fit.
pub(super) fn write(
    disk: Box<dyn Disk>,
    blocks: &Receiver<Vec<u8>>,
    look: oneshot::Sender<Vec<u8>>,
    go: oneshot::Receiver<()>,
    watch: &Watch,
) -> Result<Option<Written>, Failure> {
    let Ok(first) = blocks.recv() else { return Ok(None) };
    if look.send(first.clone()).is_err() || go.blocking_recv().is_err() {
        return Ok(None);
    }
    if watch.stopped() {
        return Ok(None);
    }
    watch.writes();
    let mut writer = Writer { disk: Withheld::begin(disk)?, watch, at: 0, zeros: 0, hash: Context::new(&SHA256) };
    for block in std::iter::once(first).chain(blocks.iter()) {
        if watch.stopped() {
            return Ok(None);
        }
        writer.put(&block)?;
    }
    // The blocks may have ended because of a stop.
    if watch.stopped() {
        return Ok(None);
    }
    writer.flush()?;
    Ok(Some(Written { raw: finish(writer.hash), length: writer.at, disk: writer.disk }))
}

struct Writer<'a> {
    disk: Withheld,
    watch: &'a Watch,
    /// Bytes taken so far.
    at: u64,
    /// How many of the last of them are zeros that are not on the disk yet.
    zeros: u64,
    hash: Context,
}

impl Writer<'_> {
    fn put(&mut self, block: &[u8]) -> Result<(), Failure> {
        let length = block.len() as u64;
        let size = self.disk.size();
        if self.at + length > size {
            let text = format!("the image is larger than the disk, which has {size} bytes; nothing beyond byte {} was written", self.at);
            return Err(Failure::new(code::DISK_TOO_SMALL, text));
        }
        self.hash.update(block);
        if is_zero(block) {
            self.zeros += length;
            self.at += length;
            if self.zeros >= MOST_ZEROS {
                self.flush()?;
            }
            return Ok(());
        }
        self.flush()?;
        if self.watch.stopped() {
            return Ok(());
        }
        self.disk.write_at(self.at, block).map_err(|error| refused("write", self.at, length, &error))?;
        self.at += length;
        self.watch.done.store(self.at, Ordering::SeqCst);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let length = std::mem::take(&mut self.zeros);
        if length > 0 {
            let start = self.at - length;
            self.disk.zero(start, length).map_err(|error| refused("zeroing", start, length, &error))?;
            self.watch.done.store(self.at, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A refused write as a failure.
pub(super) fn refused(what: &str, start: u64, length: u64, error: &std::io::Error) -> Failure {
    Failure::new(code::DISK_WRITE, format!("the disk refuses a {what} of {length} bytes at byte {start}: {error}"))
}

/// Puts everything on the medium, and compares what is there with `raw`; of the ends, which are not there yet, what will be.
///
/// `false`: it was stopped.
///
/// # Errors
/// `disk-write`, `disk-read`, `verify-failed`.
pub(super) fn verify(written: &mut Written, watch: &Watch) -> Result<bool, Failure> {
    let disk = &mut written.disk;
    sync(disk)?;
    watch.begin(Phase::Verifying, written.length);
    let mut hash = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < written.length {
        if watch.stopped() {
            return Ok(false);
        }
        let length = (written.length - at).min(BLOCK as u64);
        let block = &mut block[..length as usize];
        disk.read_at(at, block).map_err(|error| unreadable(at, &error))?;
        hash.update(block);
        at += length;
        watch.done.store(at, Ordering::SeqCst);
    }
    let seen = finish(hash);
    if seen != written.raw {
        let text = format!("the disk holds {seen} where {} was written: it does not keep what it is given", written.raw);
        return Err(Failure::new(code::VERIFY_FAILED, text));
    }
    Ok(true)
}

/// Puts everything on the medium.
///
/// # Errors
/// `disk-write`.
pub(super) fn sync(disk: &mut dyn Disk) -> Result<(), Failure> {
    disk.sync().map_err(|error| Failure::new(code::DISK_WRITE, format!("the disk can't keep what was written: {error}")))
}

/// A refused read as a failure.
pub(super) fn unreadable(at: u64, error: &std::io::Error) -> Failure {
    Failure::new(code::DISK_READ, format!("the disk can't be read at byte {at}: {error}"))
}

fn is_zero(block: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    block.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc::sync_channel};

    use super::*;

    /// A disk on which the install is stopped while it zeroes.
    struct Stopping {
        watch: Arc<Watch>,
        zeroed: Arc<AtomicU64>,
    }

    impl Disk for Stopping {
        fn size(&self) -> u64 {
            1 << 30
        }
        fn sector(&self) -> u64 {
            512
        }
        fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("nothing but zeros is written before the stop")
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
            unreachable!("nothing is read")
        }
        fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
            if (BLOCK as u64..512 << 20).contains(&offset) {
                self.watch.stop();
                self.zeroed.fetch_add(len, Ordering::SeqCst);
            }
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stop_ends_a_long_hole_too() {
        let last_blocks = [vec![vec![0; BLOCK]; 150], [vec![vec![0; BLOCK]; 10], vec![vec![1; BLOCK]]].concat()];
        for image in last_blocks {
            let (watch, zeroed) = (Arc::new(Watch::default()), Arc::default());
            let disk = Box::new(Stopping { watch: watch.clone(), zeroed: Arc::clone(&zeroed) });
            let (blocks, blocks_out) = sync_channel(image.len());
            image.into_iter().for_each(|block| blocks.send(block).unwrap());
            drop(blocks);
            let ((look, _first), (go, may_go)) = (oneshot::channel(), oneshot::channel());
            go.send(()).unwrap();
            assert!(write(disk, &blocks_out, look, may_go, &watch).unwrap().is_none());
            let zeroed = zeroed.load(Ordering::SeqCst);
            assert!(0 < zeroed && zeroed <= MOST_ZEROS, "{zeroed} bytes in all");
        }
    }
}
