//! Builds what a machine boots from the network to be installed: a kernel, and an initramfs whose `/init` is the agent.
//!
//! It needs no root and no external program (but `dpkg-deb` to open a .deb), and gives the same bytes for the same input.
//!
//! **Non-goals.** No shell and no tools in there: what is not in it can't go wrong on 500 machines at night. No firmware files: a
//! card that needs one to work at all is not supported yet.

mod cpio;
mod modules;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use self::{
    cpio::Archive,
    modules::{Closure, Modules, read_module},
};

/// Drivers of the machines that people have: virtio, common Ethernet cards, NVMe, SATA and the two families of RAID controllers.
pub const DRIVERS: [&str; 30] = [
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "tg3",
    "r8169",
    "mlx4_en",
    "mlx5_core",
    "bnxt_en",
    "ena",
    "vmxnet3",
    "hv_netvsc",
    "hv_storvsc",
    "nvme",
    "ahci",
    "sd_mod",
    "megaraid_sas",
    "mpt3sas",
    "smartpqi",
    "hpsa",
    "aacraid",
    "efivarfs",
];

/// Where the kernel and its modules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kernel {
    /// A folder with `boot/vmlinuz-RELEASE` and `lib/modules/RELEASE`: `/` for this host's own, or an extracted package.
    Root {
        /// The folder.
        root: PathBuf,
        /// Which release, when there are several.
        release: Option<String>,
    },
    /// A Debian package `linux-image-….deb`.
    Package(PathBuf),
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The static `rackwright-agent`.
    pub agent: PathBuf,
    /// The kernel.
    pub kernel: Kernel,
    /// Drivers to bring, with all that they need; [`DRIVERS`] is a good list.
    pub drivers: Vec<String>,
    /// Folder where `vmlinuz` and `initramfs.img` are written.
    pub out: PathBuf,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The kernel to boot.
    pub kernel: PathBuf,
    /// The initramfs to boot it with.
    pub initramfs: PathBuf,
    /// Size of the initramfs in bytes.
    pub bytes: u64,
    /// File names of the modules, in the order in which they are loaded.
    pub modules: Vec<String>,
    /// Drivers that are part of the kernel.
    pub built_in: Vec<String>,
    /// Drivers that this kernel does not have.
    pub absent: Vec<String>,
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file can't be read or written.
    #[error("{} can't be {what}", path.display())]
    File {
        /// `read` or `written`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent is no static program.
    #[error("{} is not a static ELF program; scripts/build-agent makes one", .0.display())]
    NotStatic(PathBuf),
    /// There is no kernel, or more than one.
    #[error("{} has {}", root.display(), if found.is_empty() { "no boot/vmlinuz-RELEASE with lib/modules/RELEASE".to_owned() } else { format!("the kernels {}; say which", found.join(", ")) })]
    WhichKernel {
        /// Where.
        root: PathBuf,
        /// Releases there.
        found: Vec<String>,
    },
    /// A package can't be opened.
    #[error("{} can't be opened with dpkg-deb: {text}", package.display())]
    Package {
        /// The package.
        package: PathBuf,
        /// What dpkg-deb said.
        text: String,
    },
}

/// Builds kernel and initramfs into `options.out`, replacing older ones at once and only when both are whole.
///
/// # Errors
/// [`BuildError`]; a driver that the kernel does not have is none, but is in the report.
pub fn build(options: &Options) -> Result<Report, BuildError> {
    let agent = read(&options.agent)?;
    if !is_static(&agent) {
        return Err(BuildError::NotStatic(options.agent.clone()));
    }
    fs::create_dir_all(&options.out).map_err(|source| BuildError::File { what: "written", path: options.out.clone(), source })?;
    let (root, wanted, _scratch) = match &options.kernel {
        Kernel::Root { root, release } => (root.clone(), release.as_deref(), None),
        Kernel::Package(package) => {
            let scratch = unpack(package, &options.out)?;
            (scratch.0.clone(), None, Some(scratch))
        }
    };
    let (release, kernel, folder) = find_kernel(&root, wanted)?;
    let modules = Modules::of(&folder).and_then(|modules| modules.closure(&options.drivers));
    let closure = modules.map_err(|source| BuildError::File { what: "read", path: folder, source })?;
    let (archive, names) = archive(&agent, &closure)?;
    let image = zstd::encode_all(&archive[..], 19);
    let (kernel_out, initramfs) = (options.out.join("vmlinuz"), options.out.join("initramfs.img"));
    let image = image.map_err(|source| BuildError::File { what: "written", path: initramfs.clone(), source })?;
    write(&kernel_out, &read(&kernel)?)?;
    write(&initramfs, &image)?;
    let Closure { built_in, absent, .. } = closure;
    Ok(Report { release, kernel: kernel_out, initramfs, bytes: image.len() as u64, modules: names, built_in, absent })
}

/// The archive, and the names of its modules in order.
fn archive(agent: &[u8], closure: &Closure) -> Result<(Vec<u8>, Vec<String>), BuildError> {
    let mut modules = Vec::new();
    for file in &closure.files {
        let failed = |source| BuildError::File { what: "read", path: file.clone(), source };
        let packed = || Ok((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), fs::read(file)?));
        modules.push(read_module(file).and_then(|module| module.map_or_else(packed, Ok)).map_err(failed)?);
    }
    let order: String = modules.iter().map(|(name, _)| format!("/modules/{name}\n")).collect();
    let fill = || {
        let mut archive = Archive::new(Vec::new());
        archive.folder(".")?;
        archive.folder("dev")?;
        // The kernel opens it for PID 1 before anything is mounted.
        archive.device("dev/console", 0o600, (5, 1))?;
        archive.file("init", 0o755, agent)?;
        archive.folder("modules")?;
        for (name, module) in &modules {
            archive.file(&format!("modules/{name}"), 0o644, module)?;
        }
        archive.file("modules.order", 0o644, order.as_bytes())?;
        for name in ["proc", "run", "sys", "tmp"] {
            archive.folder(name)?;
        }
        archive.finish()
    };
    let archive = fill().map_err(|source| BuildError::File { what: "written", path: "initramfs.img".into(), source })?;
    Ok((archive, modules.into_iter().map(|(name, _)| name).collect()))
}

/// Release, kernel and module folder.
fn find_kernel(root: &Path, wanted: Option<&str>) -> Result<(String, PathBuf, PathBuf), BuildError> {
    let modules = ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder));
    let mut found: Vec<(String, PathBuf, PathBuf)> = Vec::new();
    for entry in modules.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let release = entry.file_name().to_string_lossy().into_owned();
        let kernels = [root.join(format!("boot/vmlinuz-{release}")), entry.path().join("vmlinuz")];
        let kernel = kernels.into_iter().find(|kernel| kernel.is_file());
        if let Some(kernel) = kernel.filter(|_| wanted.is_none_or(|wanted| wanted == release)) {
            found.push((release, kernel, entry.path()));
        }
    }
    // On systems where /lib is a link to /usr/lib each is there twice.
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    if found.len() == 1 {
        return Ok(found.remove(0));
    }
    Err(BuildError::WhichKernel { root: root.to_owned(), found: found.into_iter().map(|(release, ..)| release).collect() })
}

/// A folder that goes when this goes.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is only disk space, and the next build of this process number removes it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unpack(package: &Path, out: &Path) -> Result<Scratch, BuildError> {
    let failed = |text: String| BuildError::Package { package: package.to_owned(), text };
    let scratch = Scratch(out.join(format!(".kernel-{}", std::process::id())));
    let _ = fs::remove_dir_all(&scratch.0);
    let output = Command::new("dpkg-deb").arg("-x").arg(package).arg(&scratch.0).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(scratch)
}

/// Whether this is an ELF program that asks for no loader: one that does finds none in the initramfs, and the kernel panics.
pub fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte)))
    };
    let headers = || {
        let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        (0..count).map(|index| number(table.checked_add(index * size)?, 4)).collect::<Option<Vec<_>>>()
    };
    program.starts_with(b"\x7fELF\x02\x01") && headers().is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&(INTERPRETER as usize)))
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|source| BuildError::File { what: "read", path: path.to_owned(), source })
}

/// A machine that boots meanwhile gets the old file or the new one, never a part.
fn write(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let new = path.with_extension("new");
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, path));
    written.map_err(|source| BuildError::File { what: "written", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(releases: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("boot")).unwrap();
        for release in releases {
            fs::create_dir_all(root.path().join("usr/lib/modules").join(release)).unwrap();
            fs::write(root.path().join(format!("boot/vmlinuz-{release}")), "kernel").unwrap();
        }
        root
    }

    #[test]
    fn the_kernel_is_the_only_one_or_the_one_that_is_named() {
        let one = root(&["6.1.0-56"]);
        std::os::unix::fs::symlink("usr/lib", one.path().join("lib")).unwrap();
        assert_eq!(find_kernel(one.path(), None).unwrap().0, "6.1.0-56");
        let two = root(&["6.1.0-56", "6.12.1"]);
        assert_eq!(find_kernel(two.path(), Some("6.12.1")).unwrap().1, two.path().join("boot/vmlinuz-6.12.1"));
        let error = find_kernel(two.path(), None).unwrap_err().to_string();
        assert!(error.ends_with("has the kernels 6.1.0-56, 6.12.1; say which"), "{error}");
        assert!(matches!(find_kernel(root(&[]).path(), None), Err(BuildError::WhichKernel { found, .. }) if found.is_empty()));
    }

    #[test]
    fn a_program_that_needs_a_loader_is_refused() {
        let folder = root(&["6.1.0-56"]);
        for agent in [std::env::current_exe().unwrap(), folder.path().join("boot/vmlinuz-6.1.0-56")] {
            let kernel = Kernel::Root { root: folder.path().to_owned(), release: None };
            let options = Options { agent, kernel, drivers: vec![], out: folder.path().join("out") };
            assert!(matches!(build(&options), Err(BuildError::NotStatic(_))));
            assert!(!options.out.exists());
        }
    }
}
