//! Which module files a kernel needs for some drivers, in the order in which they must be loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The modules of one kernel.
pub(super) struct Modules {
    /// Module files by normal name.
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    /// What modules.dep says, for files that we can't look into.
    listed: BTreeMap<String, Vec<String>>,
}

/// What loading some drivers takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Closure {
    /// Module files, each after those that it needs.
    pub(super) files: Vec<PathBuf>,
    /// Drivers that are part of the kernel.
    pub(super) built_in: Vec<String>,
    /// Drivers that this kernel does not have.
    pub(super) absent: Vec<String>,
}

impl Modules {
    /// Reads `lib/modules/RELEASE`.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        // Modules of `updates` replace those of the kernel (depmod.d(5)), so they come last.
        for part in ["kernel", "extra", "updates"] {
            collect(&folder.join(part), &mut files)?;
        }
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let built_in = text("modules.builtin").lines().map(normal_name).collect();
        let listed = text("modules.dep");
        let listed = listed.lines().filter_map(|line| line.split_once(':'));
        let listed = listed.map(|(file, needs)| (normal_name(file), needs.split_whitespace().map(normal_name).collect())).collect();
        Ok(Self { files, built_in, listed })
    }

    /// What loading `drivers` takes.
    pub(super) fn closure(&self, drivers: &[String]) -> io::Result<Closure> {
        let mut closure = Closure::default();
        let mut seen = BTreeSet::new();
        for driver in drivers {
            let name = normal_name(driver);
            if self.files.contains_key(&name) {
                self.add(&name, &mut seen, &mut closure.files)?;
            } else if self.built_in.contains(&name) {
                closure.built_in.push(driver.clone());
            } else {
                closure.absent.push(driver.clone());
            }
        }
        Ok(closure)
    }

    fn add(&self, name: &str, seen: &mut BTreeSet<String>, files: &mut Vec<PathBuf>) -> io::Result<()> {
        let Some(file) = self.files.get(name) else { return Ok(()) };
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        for needed in self.needs(name, file)? {
            self.add(&needed, seen, files)?;
        }
        files.push(file.clone());
        Ok(())
    }

    fn needs(&self, name: &str, file: &Path) -> io::Result<Vec<String>> {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        match read_module(file).map_err(at)? {
            Some((_, module)) => needs(&module).ok_or_else(|| at(io::Error::other("is no kernel module"))),
            None => self
                .listed
                .get(name)
                .cloned()
                .ok_or_else(|| at(io::Error::other("is compressed with xz, and modules.dep, which depmod makes, does not name it"))),
        }
    }
}

/// A module's bytes, decompressed, with the name that it then has; `None` when only the kernel can decompress it.
pub(super) fn read_module(file: &Path) -> io::Result<Option<(String, Vec<u8>)>> {
    let bytes = fs::read(file)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut module = Vec::new();
    if let Some(bare) = name.strip_suffix(".zst") {
        zstd::stream::copy_decode(&bytes[..], &mut module)?;
        return Ok(Some((bare.to_owned(), module)));
    }
    if let Some(bare) = name.strip_suffix(".gz") {
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut module)?;
        return Ok(Some((bare.to_owned(), module)));
    }
    Ok((!name.ends_with(".xz")).then_some((name, bytes)))
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            collect(&path, files)?;
        } else if [".ko", ".ko.zst", ".ko.gz", ".ko.xz"].iter().any(|end| name.ends_with(end)) {
            files.insert(normal_name(&name), path);
        }
    }
    Ok(())
}

/// `kernel/fs/nls/nls-cp437.ko.xz` is the module `nls_cp437`.
fn normal_name(file: &str) -> String {
    let name = file.trim().rsplit('/').next().unwrap_or_default();
    name.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// What a module's `.modinfo` section says that it needs: `depends`, and what should be there before it (`softdep`).
fn needs(module: &[u8]) -> Option<Vec<String>> {
    let info = section(module, b".modinfo")?;
    let mut needs = Vec::new();
    for line in info.split(|byte| *byte == 0) {
        let line = String::from_utf8_lossy(line);
        if let Some(names) = line.strip_prefix("depends=") {
            needs.extend(names.split(',').filter(|name| !name.is_empty()).map(normal_name));
        }
        if let Some(words) = line.strip_prefix("softdep=") {
            let before = words.split_whitespace().skip_while(|word| *word != "pre:").skip(1).take_while(|word| !word.ends_with(':'));
            needs.extend(before.map(normal_name));
        }
    }
    Some(needs)
}

/// A section of a little-endian 64-bit ELF file (ELF-64 object file format, version 1.5).
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let number = |at: usize, length: usize| {
        elf.get(at..at + length)?.iter().rev().try_fold(0usize, |n, byte| n.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) = (number(0x28, 8)?, number(0x3A, 2)?, number(0x3C, 2)?, number(0x3E, 2)?);
    let header = |index: usize| {
        let at = table.checked_add(index.checked_mul(size)?)?;
        let (start, length) = (number(at.checked_add(0x18)?, 8)?, number(at.checked_add(0x20)?, 8)?);
        Some((number(at, 4)?, elf.get(start..start.checked_add(length)?)))
    };
    let (_, names) = header(names)?;
    let names = names?;
    let is_it = |at: usize| names.get(at..).is_some_and(|rest| rest.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0)));
    (0..count).filter_map(header).find(|(at, _)| is_it(*at))?.1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least ELF file that has a `.modinfo`.
    pub(in crate::agent::initramfs) fn module(info: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (info_at, names_at) = (64, 64 + info.len());
        let table = names_at + names.len();
        elf.extend(info.as_bytes());
        elf.extend(names);
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3A] = 64;
        elf[0x3C] = 3;
        elf[0x3E] = 2;
        for (name, at, length) in [(0, 0, 0), (1, info_at, info.len()), (10, names_at, names.len())] {
            let mut header = vec![0; 64];
            header[0] = name;
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            elf.extend(header);
        }
        elf
    }

    #[test]
    fn modules_come_after_what_they_need_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel/drivers");
        fs::create_dir_all(&kernel).unwrap();
        let put = |name: &str, info: &str| fs::write(kernel.join(name), module(info)).unwrap();
        put("virtio_net.ko", "license=GPL\0depends=virtio,net-failover\0");
        put("net_failover.ko", "depends=failover\0");
        put("failover.ko", "depends=\0softdep=pre: crc32c post: other\0");
        put("virtio.ko", "depends=\0");
        put("crc32c.ko", "depends=failover\0");
        fs::write(kernel.join("virtio_blk.ko.zst"), zstd::encode_all(&module("depends=virtio\0")[..], 1).unwrap()).unwrap();
        fs::write(kernel.join("packed.ko.xz"), "xz").unwrap();
        fs::write(folder.path().join("modules.builtin"), "kernel/drivers/nvme/host/nvme-core.ko\nkernel/drivers/nvme/host/nvme.ko\n")
            .unwrap();
        fs::write(folder.path().join("modules.dep"), "kernel/drivers/packed.ko.xz: kernel/drivers/virtio.ko\n").unwrap();
        let modules = Modules::of(folder.path()).unwrap();
        let drivers = ["virtio-net", "virtio_blk", "nvme", "mlx5_core", "packed"].map(str::to_owned);
        let closure = modules.closure(&drivers).unwrap();
        let names: Vec<_> = closure.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["virtio.ko", "crc32c.ko", "failover.ko", "net_failover.ko", "virtio_net.ko", "virtio_blk.ko.zst", "packed.ko.xz"]
        );
        assert_eq!((closure.built_in, closure.absent), (vec!["nvme".to_owned()], vec!["mlx5_core".to_owned()]));
    }

    #[test]
    fn what_is_no_module_is_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kernel")).unwrap();
        fs::write(folder.path().join("kernel/x.ko"), "no ELF").unwrap();
        let error = Modules::of(folder.path()).unwrap().closure(&["x".to_owned()]).unwrap_err();
        assert!(error.to_string().ends_with("x.ko: is no kernel module"), "{error}");
        let whole = module("depends=a\0");
        for length in 0..whole.len() {
            let _ = needs(&whole[..length]);
        }
    }
}
