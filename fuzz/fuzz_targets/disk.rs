//! The first megabyte of an image that somebody else made: its GPT and the seed volume in it.
#![no_main]

use std::{io, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use rackwright::{
    agent::{
        Disk, gpt,
        seed::{CIDATA, Seed, read_seed, write_seed},
    },
    model::{Digest, Generation},
};

/// Where the seed's partition begins, in bytes, and its length.
const VOLUME: usize = 64 << 10;
const ROOM: usize = 128 << 10;

struct Memory {
    bytes: Vec<u8>,
    writable: bool,
}

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector(&self) -> u64 {
        512
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(self.writable, "reading a seed writes nothing");
        self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.bytes.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn zero(&mut self, _: u64, _: u64) -> io::Result<()> {
        panic!("reading a seed writes nothing")
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// CRC-32 of IEEE 802.3, as in a GPT.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())))
}

/// A header and entries with the right checksums around the fuzzer's bytes: without it nothing behind them would ever be reached.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 64 << 10];
    let length = bytes.len().min(disk.len() - 512);
    disk[512..512 + length].copy_from_slice(&bytes[..length]);
    disk[512..524].copy_from_slice(b"EFI PART\0\0\x01\0");
    disk[524..528].copy_from_slice(&92u32.to_le_bytes());
    disk[536..544].copy_from_slice(&1u64.to_le_bytes());
    let entries = crc32(&disk[1024..1024 + 4 * 128]);
    disk[584..592].copy_from_slice(&2u64.to_le_bytes());
    disk[592..596].copy_from_slice(&4u32.to_le_bytes());
    disk[596..600].copy_from_slice(&128u32.to_le_bytes());
    disk[600..604].copy_from_slice(&entries.to_le_bytes());
    disk[528..532].fill(0);
    let header = crc32(&disk[512..604]);
    disk[528..532].copy_from_slice(&header.to_le_bytes());
    disk
}

/// A disk with a seed as we write it.
static SEEDED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut entry = [0; 128];
    entry[..16].fill(1);
    entry[32..40].copy_from_slice(&(VOLUME as u64 / 512).to_le_bytes());
    entry[40..48].copy_from_slice(&((VOLUME + ROOM) as u64 / 512 - 1).to_le_bytes());
    CIDATA.encode_utf16().enumerate().for_each(|(at, unit)| entry[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes()));
    let mut bytes = sealed(&[&[0; 512], &entry[..]].concat());
    bytes.resize(VOLUME + ROOM, 0);
    let digest = Digest::of(b"image");
    let seed = Seed {
        call_home: "http://10.0.0.1/callhome/v1/web-01/3/abc".to_owned(),
        generation: Generation::of(digest, None, 0),
        digest,
        machine: "web-01".parse().expect("a good name"),
        user_data: Some("#cloud-config\n".repeat(1000)),
    };
    let mut disk = Memory { bytes, writable: true };
    write_seed(&mut disk, &seed).expect("it fits");
    assert_eq!(read_seed(&mut disk), Some(seed));
    disk.bytes
});

fn read(bytes: Vec<u8>) {
    let _ = read_seed(&mut Memory { bytes, writable: false });
}

fuzz_target!(|bytes: &[u8]| {
    let _ = gpt::parse(bytes, 512).map(|table| table.end());
    read(bytes.to_vec());
    let disk = sealed(bytes);
    let _ = gpt::parse(&disk, 512).map(|table| table.end());
    read(disk);
    // A good seed, damaged: three bytes are a place in its volume and what to put there.
    let mut disk = SEEDED.clone();
    for damage in bytes.chunks_exact(3) {
        disk[VOLUME + usize::from(u16::from_le_bytes([damage[0], damage[1]]))] = damage[2];
    }
    read(disk);
});
