//! ATA SECURITY ERASE UNIT (ACS-4, sections 4.18 and 7.43 to 7.48), through SCSI's ATA PASS-THROUGH (16) (SAT-4, section 12.2.3) and SG_IO
//! (scsi/sg.h).

use std::{fs::File, io, os::fd::AsRawFd};

use nix::libc;

use super::super::{Failure, code};

/// `sg_io_hdr_t` of scsi/sg.h.
#[repr(C)]
struct Request {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut u8,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: libc::c_int,
    usr_ptr: *mut u8,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration: u32,
    info: u32,
}

mod ioctl {
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, super::Request);
}

/// Directions of scsi/sg.h.
const NONE: libc::c_int = -1;
const OUT: libc::c_int = -2;
const IN: libc::c_int = -3;

const IDENTIFY_DEVICE: u8 = 0xEC;
const SECURITY_SET_PASSWORD: u8 = 0xF1;
const SECURITY_ERASE_PREPARE: u8 = 0xF3;
const SECURITY_ERASE_UNIT: u8 = 0xF4;

/// The user password under which a drive erases itself, and which goes with the erase. A drive that lost its power in between stands with
/// it: `hdparm --user-master u --security-disable rackwright` takes it away.
const PASSWORD: &[u8] = b"rackwright";

/// A large hard disk takes most of a day.
const PATIENCE: u32 = 48 * 3600 * 1000;
/// For all else, in milliseconds.
const SHORT: u32 = 60_000;

type Sector = [u8; 512];

/// How a drive can erase itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Erase {
    /// Also sectors that are not in use any more, with a pattern of the maker's.
    pub(super) enhanced: bool,
    /// A password is set already: ours, if the erase then goes.
    has_password: bool,
}

/// What the drive behind `file` can. Changes nothing.
///
/// # Errors
/// `wipe-unsupported`, `disk-frozen`, `disk-locked`.
pub(super) fn plan(file: &File) -> Result<Erase, Failure> {
    let mut answer = [0; 512];
    let asked = send(file, IDENTIFY_DEVICE, IN, Some(&mut answer), SHORT);
    let text = |error| format!("it is no ATA drive, or does not say so: {error}; nothing was done to it");
    asked.map_err(|error| Failure::new(code::WIPE_UNSUPPORTED, text(error)))?;
    erase_of(&answer)
}

/// The same from what the drive says (ACS-4, section 9.11: words 82 and 128).
fn erase_of(identify: &Sector) -> Result<Erase, Failure> {
    let word = |number: usize| u16::from_le_bytes([identify[2 * number], identify[2 * number + 1]]);
    let bit = |number, bit: u32| word(number) >> bit & 1 == 1;
    let refused = |code, text: &str| Err(Failure::new(code, format!("{text}; nothing was done to it")));
    if !bit(82, 1) || !bit(128, 0) {
        return refused(code::WIPE_UNSUPPORTED, "the drive has no ATA security feature set");
    }
    if bit(128, 3) {
        return refused(
            code::DISK_FROZEN,
            "the drive's security is frozen, as many firmwares do at each start: look for a setting that leaves it open, or plug the drive in \
             while the machine is on",
        );
    }
    if bit(128, 4) {
        return refused(code::DISK_LOCKED, "the drive takes no more passwords until its next power cycle");
    }
    Ok(Erase { enhanced: bit(128, 5), has_password: bit(128, 1) })
}

/// Erases.
///
/// # Errors
/// `disk-locked`, `erase-failed`.
pub(super) fn erase(file: &File, erase: Erase) -> Result<(), Failure> {
    let step = |what: &'static str, code: &'static str| move |error: io::Error| Failure::new(code, format!("{what} failed: {error}"));
    if !erase.has_password {
        send(file, SECURITY_SET_PASSWORD, OUT, Some(&mut words(0)), SHORT).map_err(step("SECURITY SET PASSWORD", code::ERASE_FAILED))?;
    }
    send(file, SECURITY_ERASE_PREPARE, NONE, None, SHORT).map_err(step("SECURITY ERASE PREPARE", code::ERASE_FAILED))?;
    let (what, code) = match erase.has_password {
        true => ("SECURITY ERASE UNIT, under a password that somebody set before,", code::DISK_LOCKED),
        false => ("SECURITY ERASE UNIT", code::ERASE_FAILED),
    };
    send(file, SECURITY_ERASE_UNIT, OUT, Some(&mut words(u16::from(erase.enhanced) << 1)), PATIENCE).map_err(step(what, code))
}

/// The data of a command that takes a password: a word of control, then the password (ACS-4, tables 146 and 148). Control 0 is the user
/// password; of an erase, bit 1 is the enhanced mode.
fn words(control: u16) -> Sector {
    let mut words = [0; 512];
    words[..2].copy_from_slice(&control.to_le_bytes());
    words[2..2 + PASSWORD.len()].copy_from_slice(PASSWORD);
    words
}

/// ATA PASS-THROUGH (16): the protocol in byte 1, the direction and what the length means in byte 2.
fn pass_through(command: u8, direction: libc::c_int) -> [u8; 16] {
    let mut block = [0; 16];
    block[0] = 0x85;
    (block[1], block[2], block[6]) = match direction {
        IN => (4 << 1, 0x0E, 1),
        OUT => (5 << 1, 0x06, 1),
        _ => (3 << 1, 0, 0),
    };
    block[14] = command;
    block
}

fn send(file: &File, command: u8, direction: libc::c_int, data: Option<&mut Sector>, timeout: u32) -> io::Result<()> {
    let block = pass_through(command, direction);
    let mut sense = [0_u8; 32];
    let (dxferp, dxfer_len) = data.map_or((std::ptr::null_mut(), 0), |data| (data.as_mut_ptr(), data.len() as u32));
    let mut request = Request {
        interface_id: libc::c_int::from(b'S'),
        dxfer_direction: direction,
        cmd_len: block.len() as u8,
        mx_sb_len: sense.len() as u8,
        iovec_count: 0,
        dxfer_len,
        dxferp,
        cmdp: block.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout,
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the kernel reads 16 bytes at `cmdp`, moves at most `dxfer_len` bytes at `dxferp`, and writes at most `mx_sb_len` at `sbp`; all
    // are alive during the call.
    unsafe { ioctl::sg_io(file.as_raw_fd(), &mut request) }?;
    // Bit 3 of the driver's status only says that there is sense data.
    if request.status != 0 || request.host_status != 0 || request.driver_status & 0x7 != 0 {
        let (status, host, key) = (request.status, request.host_status, sense[1] & 0xF);
        return Err(io::Error::other(format!("the drive answers with status {status:#x}, host {host:#x}, sense key {key:#x}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(word_82: u16, word_128: u16) -> Sector {
        let mut answer = [0; 512];
        answer[164..166].copy_from_slice(&word_82.to_le_bytes());
        answer[256..258].copy_from_slice(&word_128.to_le_bytes());
        answer
    }

    #[test]
    fn a_drive_is_erased_as_far_as_it_says_that_it_can() {
        let of = |word_82, word_128| erase_of(&identify(word_82, word_128)).map_err(|failure| failure.code);
        assert_eq!(of(0, 0), Err(code::WIPE_UNSUPPORTED));
        assert_eq!(of(0b10, 0), Err(code::WIPE_UNSUPPORTED));
        assert_eq!(of(0b10, 0b1), Ok(Erase { enhanced: false, has_password: false }));
        assert_eq!(of(0b10, 0b10_0001), Ok(Erase { enhanced: true, has_password: false }));
        assert_eq!(of(0b10, 0b10_0111), Ok(Erase { enhanced: true, has_password: true }));
        assert_eq!(of(0b10, 0b10_1001), Err(code::DISK_FROZEN));
        assert_eq!(of(0b10, 0b11_0001), Err(code::DISK_LOCKED));
    }

    #[test]
    fn commands_are_laid_out_as_the_standards_say() {
        assert_eq!(hex::encode(pass_through(IDENTIFY_DEVICE, IN)), "85080e0000000100000000000000ec00");
        assert_eq!(hex::encode(pass_through(SECURITY_ERASE_UNIT, OUT)), "850a060000000100000000000000f400");
        assert_eq!(hex::encode(pass_through(SECURITY_ERASE_PREPARE, NONE)), "85060000000000000000000000 00f300".replace(' ', ""));
        assert_eq!(hex::encode(&words(2)[..14]), "02007261636b777269676874 0000".replace(' ', ""));
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn the_request_has_the_size_that_the_kernel_has() {
        assert_eq!(std::mem::size_of::<Request>(), 88);
    }
}
