//! An image file's bytes, in as they are served, out as they belong on the disk; both hashed on the way.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
};

use bytes::{Buf, Bytes};
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc::Receiver;

use super::failure::{Failure, code};
use crate::model::{Digest, ImageFormat};

/// Size of one write. Large enough that a disk's own latency doesn't count, small enough that a few of them are nothing in RAM.
pub(super) const BLOCK: usize = 1 << 20;

/// A piece of the file, or its end. A channel that closes without `End` means: stop.
#[derive(Debug)]
pub(super) enum Piece {
    /// The next bytes.
    Data(Bytes),
    /// There are no more.
    End,
}

/// What the decoder found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Digest of the file as received.
    pub(super) file: Digest,
    /// Its length in bytes.
    pub(super) file_length: u64,
}

/// Reads pieces to their end, decompresses them, and sends blocks of [`BLOCK`] bytes (the last may be shorter).
///
/// Returns `None` when either side stopped.
///
/// # Errors
/// `truncated` and `image-corrupt`.
pub(super) fn decode(
    pieces: Receiver<Piece>,
    format: ImageFormat,
    blocks: &SyncSender<Vec<u8>>,
    received: Arc<AtomicU64>,
) -> Result<Option<Decoded>, Failure> {
    let mut file = File { pieces, current: Bytes::new(), hash: Context::new(&SHA256), received, state: State::Open };
    let sent = match format {
        ImageFormat::Raw => send(&mut file, blocks),
        ImageFormat::RawZst => zstd::stream::read::Decoder::new(&mut file).and_then(|mut decoder| send(&mut decoder, blocks)),
        ImageFormat::RawGz => send(&mut flate2::read::MultiGzDecoder::new(&mut file), blocks),
    };
    // What a decompressor left unread belongs to the file too.
    let drained = if sent.is_ok() { io::copy(&mut file, &mut io::sink()).map(|_| ()) } else { Ok(()) };
    let at = file.received.load(Ordering::Relaxed);
    match (sent, drained, file.state) {
        (_, _, State::Stopped) | (Ok(false), _, _) => Ok(None),
        (Ok(true), Ok(()), _) => Ok(Some(Decoded { file: finish(file.hash), file_length: at })),
        (Err(error), _, State::Ended) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Failure::new(code::TRUNCATED, format!("the image ends after {at} bytes, in the middle of its compressed data")))
        }
        (Err(error), _, _) | (_, Err(error), _) => {
            Err(Failure::new(code::IMAGE_CORRUPT, format!("the image can't be decompressed near byte {at} of the file: {error}")))
        }
    }
}

/// The digest that a hash has come to.
pub(super) fn finish(hash: Context) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Digest(digest)
}

/// Cuts a stream into blocks. `false`: the receiver went away.
fn send(stream: &mut impl Read, blocks: &SyncSender<Vec<u8>>) -> io::Result<bool> {
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let length = stream.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if length > 0 && blocks.send(block).is_err() {
            return Ok(false);
        }
        if length < BLOCK {
            return Ok(true);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Stopped,
}

/// The file as a blocking reader.
struct File {
    pieces: Receiver<Piece>,
    current: Bytes,
    hash: Context,
    received: Arc<AtomicU64>,
    state: State,
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && self.state == State::Open {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => {
                    self.hash.update(&bytes);
                    self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.current = bytes;
                }
                Some(Piece::End) => self.state = State::Ended,
                None => self.state = State::Stopped,
            }
        }
        if self.state == State::Stopped {
            return Err(io::Error::other("stopped"));
        }
        let length = self.current.len().min(buf.len());
        self.current.copy_to_slice(&mut buf[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::mpsc::sync_channel};

    use super::*;

    fn run(format: ImageFormat, file: &[u8], end: bool) -> (Result<Option<Decoded>, Failure>, Vec<u8>) {
        let (pieces, rx) = tokio::sync::mpsc::channel(10_000);
        for piece in file.chunks(1000) {
            pieces.try_send(Piece::Data(Bytes::copy_from_slice(piece))).unwrap();
        }
        if end {
            pieces.try_send(Piece::End).unwrap();
        }
        drop(pieces);
        let (blocks, out) = sync_channel(100);
        let result = decode(rx, format, &blocks, Arc::default());
        drop(blocks);
        (result, out.iter().flatten().collect())
    }

    fn raw() -> Vec<u8> {
        (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_format_gives_the_same_bytes_and_the_digest_of_its_file() {
        let raw = raw();
        // Two members, two frames: tools that compress in parallel make such files.
        let gz = [gzip(&raw[..1_000_000]), gzip(&raw[1_000_000..])].concat();
        let zst = [zstd::encode_all(&raw[..7], 1).unwrap(), zstd::encode_all(&raw[7..], 1).unwrap()].concat();
        for (format, file) in [(ImageFormat::Raw, raw.clone()), (ImageFormat::RawGz, gz), (ImageFormat::RawZst, zst)] {
            let (result, out) = run(format, &file, true);
            assert_eq!(result.unwrap(), Some(Decoded { file: Digest::of(&file), file_length: file.len() as u64 }));
            assert!(out == raw, "{format:?}");
        }
    }

    #[test]
    fn a_file_that_ends_early_is_truncated_and_garbage_is_corrupt() {
        let raw = raw();
        for (format, file) in [(ImageFormat::RawGz, gzip(&raw)), (ImageFormat::RawZst, zstd::encode_all(&raw[..], 1).unwrap())] {
            assert_eq!(run(format, &file[..file.len() / 2], true).0.unwrap_err().code, "truncated", "{format:?}");
            assert_eq!(run(format, &raw, true).0.unwrap_err().code, "image-corrupt", "{format:?}");
        }
    }

    #[test]
    fn a_stop_is_no_failure() {
        assert_eq!(run(ImageFormat::Raw, &raw(), false).0, Ok(None));
        assert_eq!(run(ImageFormat::RawZst, &[], false).0, Ok(None));
    }
}
