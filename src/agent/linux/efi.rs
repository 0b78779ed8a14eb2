//! The firmware's boot variables (UEFI specification 2.10, sections 3.1 to 3.3), through efivarfs.
//!
//! The agent adds one entry for the installed disk and sets `BootNext` to it. It leaves `BootOrder` alone: that the network comes
//! first is the operator's decision, and what lets the controller reach the machine again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::super::gpt::{Partition, Table};

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Type of an EFI system partition as it stands on a disk: C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
const ESP: [u8; 16] = [0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B];

/// Our entry's name in the firmware's menu; also how a later install finds and replaces it.
const NAME: &str = "Rackwright";

/// Where a system puts its loader when the firmware knows nothing of it (section 3.5.1.1).
#[cfg(target_arch = "aarch64")]
const LOADER: &str = "\\EFI\\BOOT\\BOOTAA64.EFI";
/// Where a system puts its loader when the firmware knows nothing of it (section 3.5.1.1).
#[cfg(not(target_arch = "aarch64"))]
const LOADER: &str = "\\EFI\\BOOT\\BOOTX64.EFI";

/// Non-volatile, boot service access, runtime access.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// Where efivarfs is mounted.
pub(super) struct Variables(PathBuf);

impl Default for Variables {
    fn default() -> Self {
        Self(Path::new("/sys/firmware/efi/efivars").to_owned())
    }
}

impl Variables {
    fn write(&self, name: &str, value: &[u8]) -> io::Result<()> {
        // One write is one variable: attributes, then the value (Linux, Documentation/filesystems/efivarfs.rst).
        let with = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
        fs::write(self.0.join(format!("{name}-{GLOBAL}")), [&ATTRIBUTES, value].concat()).map_err(with)
    }

    /// The entries that exist, without their attributes.
    fn entries(&self) -> io::Result<Vec<(u16, Vec<u8>)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_prefix("Boot").and_then(|name| name.strip_suffix(GLOBAL)?.strip_suffix('-')) else { continue };
            let Some(number) = (number.len() == 4).then(|| u16::from_str_radix(number, 16).ok()).flatten() else { continue };
            let value = fs::read(entry.path())?;
            entries.push((number, value.get(4..).unwrap_or_default().to_vec()));
        }
        Ok(entries)
    }
}

/// Makes the firmware start once from the EFI system partition of `table`.
pub(super) fn boot_next(variables: &Variables, table: &Table) -> io::Result<()> {
    let esp = table.partitions.iter().find(|partition| partition.kind == ESP);
    let esp = esp.ok_or_else(|| io::Error::other("the disk has no EFI system partition"))?;
    let entries = variables.entries()?;
    let ours = entries.iter().find(|(_, value)| description(value) == Some(utf16(NAME)));
    let free = || (0x0001..=0xFFFF).find(|number| entries.iter().all(|(used, _)| used != number));
    let number = ours.map(|(number, _)| *number).or_else(free).ok_or_else(|| io::Error::other("no boot entry is free"))?;
    let option = load_option(esp, table.sector);
    // NVRAM wears out, and some firmware runs full: an equal entry stays.
    if ours.is_none_or(|(_, value)| *value != option) {
        variables.write(&format!("Boot{number:04X}"), &option)?;
    }
    variables.write("BootNext", &number.to_le_bytes())
}

/// EFI_LOAD_OPTION: attributes, length of the path, name, path.
fn load_option(esp: &Partition, sector: u64) -> Vec<u8> {
    let mut hard_drive = vec![4, 1, 42, 0];
    hard_drive.extend(esp.number.to_le_bytes());
    hard_drive.extend((esp.start / sector).to_le_bytes());
    hard_drive.extend((esp.length / sector).to_le_bytes());
    hard_drive.extend(esp.id);
    // A GUID partition table, and a signature that is a GUID.
    hard_drive.extend([2, 2]);
    let loader = utf16(LOADER);
    let mut path = hard_drive;
    path.extend([4, 4]);
    path.extend((loader.len() as u16 + 4).to_le_bytes());
    path.extend(loader);
    path.extend([0x7F, 0xFF, 4, 0]);
    let mut option = 1u32.to_le_bytes().to_vec();
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(utf16(NAME));
    option.extend(path);
    option
}

/// The name in a load option, with its final zero.
fn description(option: &[u8]) -> Option<Vec<u8>> {
    let text = option.get(6..)?;
    let end = text.chunks_exact(2).position(|unit| unit == [0, 0])?;
    Some(text[..2 * end + 2].to_vec())
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u32) -> Table {
        let esp = Partition { number, kind: ESP, id: [0xAB; 16], name: "ESP".to_owned(), start: 1 << 20, length: 64 << 20 };
        Table { sector: 512, partitions: vec![esp] }
    }

    #[test]
    fn an_entry_is_laid_out_as_the_specification_says() {
        let path = "04012a0001000000000800000000000000000200000000\
                    00abababababababababababababababab0202\
                    040430005c004500460049005c0042004f004f0054005c0042004f004f0054005800360034002e0045004600490000007fff0400";
        let option = load_option(&table(1).partitions[0], 512);
        let name = utf16(NAME);
        assert_eq!(option[..6], [1, 0, 0, 0, 94, 0]);
        assert_eq!(option[6..6 + name.len()], name);
        assert_eq!(hex::encode(&option[6 + name.len()..]), path.replace(' ', ""));
    }

    #[test]
    fn one_entry_is_added_and_then_reused_and_the_order_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let variables = Variables(folder.path().to_owned());
        variables.write("BootOrder", &[0, 0]).unwrap();
        variables.write("Boot0001", &[1, 0, 0, 0, 0, 0, b'x', 0, 0, 0]).unwrap();
        boot_next(&variables, &table(1)).unwrap();
        boot_next(&variables, &table(2)).unwrap();
        let read = |name: &str| fs::read(folder.path().join(format!("{name}-{GLOBAL}"))).unwrap();
        assert_eq!(read("BootNext"), [7, 0, 0, 0, 2, 0]);
        assert_eq!(read("BootOrder"), [7, 0, 0, 0, 0, 0]);
        assert_eq!(read("Boot0002")[4..], load_option(&table(2).partitions[0], 512));
        assert_eq!(variables.entries().unwrap().len(), 2);
    }

    #[test]
    fn a_disk_without_a_system_partition_gets_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let none = Table { sector: 512, partitions: vec![] };
        assert!(boot_next(&Variables(folder.path().to_owned()), &none).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
