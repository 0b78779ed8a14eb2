//! Which boot file a client gets: one table by architecture.

/// iPXE for BIOS; uses the network driver of the card's ROM.
pub const UNDIONLY: &str = "undionly.kpxe";
/// iPXE for UEFI; uses the firmware's network driver, so that it works wherever the firmware's own boot did.
pub const SNPONLY: &str = "snponly.efi";
/// iPXE for UEFI with its own drivers; for UEFI HTTP boot, where the firmware's simple-network interface may be closed.
pub const IPXE_EFI: &str = "ipxe.efi";
/// GRUB that chain-loads `/EFI/BOOT/BOOTX64.EFI` from a disk.
pub const LOCALBOOT: &str = "localboot.efi";
/// The agent's kernel, by HTTP only.
pub const KERNEL: &str = "kernel";
/// The agent's initial RAM file system, by HTTP only.
pub const INITRAMFS: &str = "initramfs";

/// Files that firmware or iPXE may fetch by TFTP. None holds a secret.
pub const LOADERS: [&str; 4] = [UNDIONLY, SNPONLY, IPXE_EFI, LOCALBOOT];
/// Files of an install: for machines with an open ticket. The others start what is on a machine's disk; under BIOS iPXE does both.
pub const INSTALL: [&str; 4] = [SNPONLY, IPXE_EFI, KERNEL, INITRAMFS];

/// How a client takes its boot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A file name, by TFTP.
    Tftp,
    /// A URL (UEFI HTTP boot).
    Http,
}

/// What a kind of client boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// Code of option 93 (IANA "Processor Architecture Types").
    pub code: u16,
    /// How it takes its file.
    pub transport: Transport,
    /// What it boots to be installed.
    pub install: &'static str,
    /// What it boots to go on to its disk. BIOS has no file for that: iPXE's script does it.
    pub local: &'static str,
}

const fn row(code: u16, transport: Transport, install: &'static str, local: &'static str) -> Architecture {
    Architecture { code, transport, install, local }
}

/// The table. Real x86-64 firmware sends 7 or 9 (and 16 or 17 for HTTP boot): handling one of a pair is a boot loop.
pub const ARCHITECTURES: [Architecture; 5] = [
    row(0, Transport::Tftp, UNDIONLY, UNDIONLY),
    row(7, Transport::Tftp, SNPONLY, LOCALBOOT),
    row(9, Transport::Tftp, SNPONLY, LOCALBOOT),
    row(16, Transport::Http, IPXE_EFI, LOCALBOOT),
    row(17, Transport::Http, IPXE_EFI, LOCALBOOT),
];

/// The first of the client's architectures that we can serve; a client that names none is BIOS (PXE 2.1 ROMs before RFC 4578).
pub fn architecture(mut codes: impl Iterator<Item = u16>) -> Option<Architecture> {
    let find = |code: u16| ARCHITECTURES.into_iter().find(|row| row.code == code);
    match codes.next() {
        None => find(0),
        Some(first) => find(first).or_else(|| codes.find_map(find)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_and_nine_are_the_same_and_the_first_known_code_counts() {
        let install = |codes: &[u16]| architecture(codes.iter().copied()).map(|row| row.install);
        assert_eq!(install(&[7]), install(&[9]));
        assert_eq!(install(&[]), Some(UNDIONLY));
        assert_eq!(install(&[11, 7]), Some(SNPONLY));
        assert_eq!(install(&[11]), None);
        assert_eq!(install(&[16]), Some(IPXE_EFI));
    }
}
