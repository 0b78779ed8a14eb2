//! The first megabyte of an image that somebody else made: its GPT and the seed volume in it.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use rackwright::agent::{Disk, gpt, seed::read_seed};

struct Memory(Vec<u8>);

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("reading a seed writes nothing")
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.0.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
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

fuzz_target!(|bytes: &[u8]| {
    let _ = gpt::parse(bytes).map(|table| table.end());
    let _ = read_seed(&mut Memory(bytes.to_vec()));
    let disk = sealed(bytes);
    let _ = gpt::parse(&disk).map(|table| table.end());
    let _ = read_seed(&mut Memory(disk));
});
