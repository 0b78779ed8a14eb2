//! NVMe Format with secure erase (NVM Express Base Specification 2.0c, section 5.14; identify data in section 5.17.2). Numbers of the
//! ioctl are those of linux/nvme_ioctl.h.

use std::{fs::File, io, os::fd::AsRawFd};

use super::super::{Failure, code};

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
pub struct Command {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

mod ioctl {
    nix::ioctl_none_bad!(id, nix::request_code_none!(b'N', 0x40));
    nix::ioctl_readwrite!(admin, b'N', 0x41, super::Command);
}

const IDENTIFY: u8 = 0x06;
const FORMAT: u8 = 0x80;
/// Length of all identify data.
const PAGE: usize = 4096;
/// What is identified: a namespace, the controller, the active namespaces (section 5.17.1).
const NAMESPACE: u32 = 0;
const CONTROLLER: u32 = 1;
const ACTIVE: u32 = 2;
/// A large drive that overwrites itself takes hours; this is a day.
const PATIENCE: u32 = 24 * 3600 * 1000;

/// A format that erases all user data of one namespace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Format {
    nsid: u32,
    /// Command dword 10.
    word: u32,
}

/// What a format of the drive behind `file` would be. Changes nothing.
///
/// # Errors
/// `wipe-unsupported`, `wipe-shared`.
pub(super) fn plan(file: &File) -> Result<Format, Failure> {
    let unknown =
        |error: io::Error| Failure::new(code::WIPE_UNSUPPORTED, format!("it does not say what it can: {error}; nothing was done to it"));
    // SAFETY: the call has no argument.
    let nsid = unsafe { ioctl::id(file.as_raw_fd()) }.map_err(|error| unknown(error.into()))?;
    let nsid = u32::try_from(nsid).map_err(|error| unknown(io::Error::other(error)))?;
    let read = |what, nsid| identify(file, what, nsid).map_err(unknown);
    let (controller, namespace, active) = (read(CONTROLLER, 0)?, read(NAMESPACE, nsid)?, read(ACTIVE, 0)?);
    format_of(nsid, &controller, &namespace, &active)
}

/// The same from what the drive says.
fn format_of(nsid: u32, controller: &[u8; PAGE], namespace: &[u8; PAGE], active: &[u8; PAGE]) -> Result<Format, Failure> {
    // OACS bit 1: Format NVM is supported.
    if controller[256] & 0b10 == 0 {
        return Err(Failure::new(code::WIPE_UNSUPPORTED, "the drive knows no Format NVM; nothing was done to it"));
    }
    // FNA bit 0: a format, bit 1: an erase, is of all namespaces.
    let others = active.chunks_exact(4).filter(|id| ![0, nsid].contains(&u32::from_le_bytes([id[0], id[1], id[2], id[3]]))).count();
    if controller[524] & 0b11 != 0 && others > 0 {
        let text = format!("its Format NVM erases all namespaces of the drive, and {others} others are there; nothing was done to it");
        return Err(Failure::new(code::WIPE_SHARED, text));
    }
    // As it is formatted now: FLBAS bits 3:0 and 6:5 say which LBA format, bit 4 where metadata is; DPS bits 2:0 and 3 the protection.
    let (flbas, dps) = (u32::from(namespace[26]), u32::from(namespace[29]));
    let lba_format = (flbas & 0xF) | ((flbas >> 5 & 0b11) << 12);
    let user_data_erase = 1 << 9;
    let word = lba_format | (flbas >> 4 & 1) << 4 | (dps & 0b111) << 5 | (dps >> 3 & 1) << 8 | user_data_erase;
    Ok(Format { nsid, word })
}

/// Formats.
///
/// # Errors
/// `erase-failed`.
pub(super) fn format(file: &File, format: &Format) -> Result<(), Failure> {
    let mut command = Command { opcode: FORMAT, nsid: format.nsid, cdw10: format.word, timeout_ms: PATIENCE, ..Command::default() };
    send(file, &mut command).map_err(|error| Failure::new(code::ERASE_FAILED, format!("Format NVM failed: {error}")))
}

fn identify(file: &File, what: u32, nsid: u32) -> io::Result<Box<[u8; PAGE]>> {
    let mut page = Box::new([0; PAGE]);
    let mut command = Command { opcode: IDENTIFY, nsid, data_len: PAGE as u32, cdw10: what, ..Command::default() };
    command.addr = page.as_mut_ptr() as u64;
    send(file, &mut command)?;
    Ok(page)
}

fn send(file: &File, command: &mut Command) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one Command, and at most `data_len` bytes at `addr`; both are alive during the call.
    match unsafe { ioctl::admin(file.as_raw_fd(), command) }? {
        0 => Ok(()),
        status => Err(io::Error::other(format!("the drive answers with status {status:#x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(oacs: u8, fna: u8) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        (page[256], page[524]) = (oacs, fna);
        page
    }

    fn active(ids: &[u32]) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page.chunks_exact_mut(4).zip(ids).for_each(|(place, id)| place.copy_from_slice(&id.to_le_bytes()));
        page
    }

    #[test]
    fn the_command_has_the_size_that_the_kernel_has() {
        assert_eq!(std::mem::size_of::<Command>(), 72);
    }

    #[test]
    fn a_format_keeps_the_layout_and_erases_user_data() {
        let mut namespace = [0; PAGE];
        assert_eq!(format_of(1, &controller(2, 0), &namespace, &active(&[1])).unwrap(), Format { nsid: 1, word: 0x200 });
        (namespace[26], namespace[29]) = (0b0101_0011, 0b1001);
        assert_eq!(
            format_of(7, &controller(2, 0), &namespace, &active(&[7])).unwrap().word,
            0x200 | 3 | 0b10 << 12 | 1 << 4 | 1 << 5 | 1 << 8
        );
    }

    #[test]
    fn a_drive_that_would_erase_more_or_can_not_is_left_alone() {
        let namespace = [0; PAGE];
        let refused = |controller, ids: &[u32]| format_of(1, &controller, &namespace, &active(ids)).unwrap_err().code;
        assert_eq!(refused(controller(0, 0), &[1]), code::WIPE_UNSUPPORTED);
        assert_eq!(refused(controller(2, 0b10), &[1, 2]), code::WIPE_SHARED);
        assert_eq!(refused(controller(2, 0b01), &[2, 1]), code::WIPE_SHARED);
        assert!(format_of(1, &controller(2, 0b11), &namespace, &active(&[1])).is_ok(), "there is only this one");
        assert!(format_of(1, &controller(2, 0b100), &namespace, &active(&[1, 2])).is_ok());
    }
}
