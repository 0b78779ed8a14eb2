//! `rackwright agent`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use clap::{Args as ClapArgs, Subcommand};
use indicatif::ProgressBar;

use super::{Done, out::out};
use crate::agent::initramfs::{self, DRIVERS, Kernel, Options, Report};

/// What installs a machine: a small program that runs in its memory.
#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    BuildInitramfs(Build),
}

/// Build what a machine boots from the network to be installed: a kernel, and an initramfs that holds the agent and drivers.
///
/// Needs no root. Name both files in rackwright.yaml, as `boot.kernel` and `boot.initramfs`. Machines that boot meanwhile get the old
/// files or the new ones, never a part. The same input gives the same bytes.
#[derive(ClapArgs)]
#[command(after_help = EXAMPLES)]
struct Build {
    /// Folder to write `vmlinuz` and `initramfs.img` into.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Take the kernel from this Debian package, linux-image-….deb.
    #[arg(long, value_name = "FILE.deb", conflicts_with_all = ["kernel_root", "release"])]
    kernel_package: Option<PathBuf>,
    /// Take the kernel from this folder, which holds boot/vmlinuz-RELEASE and lib/modules/RELEASE. Otherwise from this host.
    #[arg(long, value_name = "DIR")]
    kernel_root: Option<PathBuf>,
    /// Which kernel, if there are several, such as 6.1.0-56-amd64.
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    /// The static rackwright-agent. Otherwise the one beside this program, or the one that scripts/build-agent made.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// A driver to bring besides the usual ones, by its module's name; what it needs comes along. May be given more than once.
    #[arg(long, value_name = "NAME")]
    driver: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  rackwright agent build-initramfs --out /srv/rackwright/boot
  rackwright agent build-initramfs --out boot --kernel-package linux-image-6.1.0-56-amd64.deb --driver qede";

pub(super) fn run(args: &Args) -> anyhow::Result<Done> {
    let What::BuildInitramfs(args) = &args.what;
    let options = options(args)?;
    let spinner = ProgressBar::new_spinner().with_message(format!("packing drivers and {}", options.agent.display()));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let report = initramfs::build(&options);
    spinner.finish_and_clear();
    out!("{}", tell(&report?, &args.driver))?;
    Ok(Done::Ok)
}

fn options(args: &Build) -> anyhow::Result<Options> {
    let kernel = match (&args.kernel_package, &args.kernel_root) {
        (Some(package), _) => Kernel::Package(package.clone()),
        (None, Some(root)) => Kernel::Root { root: root.clone(), release: args.release.clone() },
        (None, None) => Kernel::Root { root: PathBuf::from("/"), release: args.release.clone().or_else(running_release) },
    };
    let mut drivers: Vec<String> = DRIVERS.map(str::to_owned).to_vec();
    drivers.extend(args.driver.iter().filter(|driver| !DRIVERS.contains(&driver.as_str())).cloned());
    let agent = match &args.agent {
        Some(agent) => agent.clone(),
        None => find_agent(&std::env::current_exe()?)?,
    };
    Ok(Options { agent, kernel, drivers, out: args.out.clone() })
}

/// The release of the kernel that runs, if its modules are here; in a container they are not.
fn running_release() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_owned();
    Path::new("/lib/modules").join(&release).exists().then_some(release)
}

/// The static agent that belongs to `program`.
fn find_agent(program: &Path) -> anyhow::Result<PathBuf> {
    let folder = program.parent().unwrap_or(Path::new("."));
    let built = format!("../{}-unknown-linux-gnu/agent/rackwright-agent", std::env::consts::ARCH);
    let places = [folder.join("rackwright-agent"), folder.join(built)];
    // Cargo puts an agent that is not static beside a `rackwright` of its own, and that one can't be what is wanted.
    let found = places.iter().find(|place| fs::read(place).is_ok_and(|program| initramfs::is_static(&program)));
    match found {
        Some(agent) => Ok(agent.clone()),
        None => bail!("no static rackwright-agent beside {}: scripts/build-agent makes one; name it with --agent", program.display()),
    }
}

/// The report, for people. `asked` are the drivers that the user named.
fn tell(report: &Report, asked: &[String]) -> String {
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { wrap(names) };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let mut out = format!("kernel     {} ({})\n", report.kernel.display(), report.release);
    out += &format!("initramfs  {} ({})\n", report.initramfs.display(), mib(report.bytes));
    out += &format!("modules    {}: {}\n", report.modules.len(), list(&report.modules));
    out += &format!("built in   {}: {}\n", report.built_in.len(), list(&report.built_in));
    out += &format!("absent     {}: {}\n", report.absent.len(), list(&report.absent));
    let missing: Vec<&str> = asked.iter().filter(|driver| report.absent.contains(driver)).map(String::as_str).collect();
    if !missing.is_empty() {
        out += &format!("warning: this kernel has no {}, which --driver asks for\n", missing.join(", "));
    }
    out
}

/// Names in lines that fit 100 columns, indented below the first.
fn wrap(names: &[String]) -> String {
    let (mut out, mut column) = (String::new(), 15);
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            let breaks = column + name.len() + 2 > 100;
            out += if breaks { ",\n           " } else { ", " };
            column = if breaks { 11 } else { column + 2 };
        }
        out += name;
        column += name.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        build: Build,
    }

    fn parse(words: &[&str]) -> Result<Build, clap::Error> {
        Line::try_parse_from([&["test", "--out", "boot"], words].concat()).map(|line| line.build)
    }

    #[test]
    fn drivers_that_are_named_come_besides_the_usual_ones_and_once() {
        let options =
            options(&parse(&["--agent", "a", "--kernel-package", "k.deb", "--driver", "qede", "--driver", "nvme"]).unwrap()).unwrap();
        assert_eq!(options.kernel, Kernel::Package("k.deb".into()));
        assert_eq!(options.drivers.len(), DRIVERS.len() + 1);
        assert_eq!(options.drivers.last().unwrap(), "qede");
    }

    #[test]
    fn a_package_has_one_kernel_only() {
        assert!(parse(&["--kernel-package", "k.deb", "--release", "6.1"]).is_err());
        assert!(parse(&["--kernel-package", "k.deb", "--kernel-root", "/"]).is_err());
        let options = options(&parse(&["--agent", "a", "--kernel-root", "/x", "--release", "6.1"]).unwrap()).unwrap();
        assert_eq!(options.kernel, Kernel::Root { root: "/x".into(), release: Some("6.1".to_owned()) });
    }

    #[test]
    fn an_agent_that_is_not_static_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("debug/rackwright");
        fs::create_dir(folder.path().join("debug")).unwrap();
        fs::copy(std::env::current_exe().unwrap(), program.with_file_name("rackwright-agent")).unwrap();
        assert!(find_agent(&program).unwrap_err().to_string().contains("--agent"));
    }

    #[test]
    fn the_report_names_what_was_asked_for_and_is_not_there() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let report = Report {
            release: "6.1.0".to_owned(),
            kernel: "boot/vmlinuz".into(),
            initramfs: "boot/initramfs.img".into(),
            bytes: 3 << 20,
            modules: names(&["virtio.ko"; 12]),
            built_in: vec![],
            absent: names(&["hpsa", "qede"]),
        };
        let text = tell(&report, &names(&["qede"]));
        assert!(text.contains("initramfs  boot/initramfs.img (3.0 MiB)\n") && text.contains("built in   0: none\n"), "{text}");
        assert!(text.ends_with("this kernel has no qede, which --driver asks for\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 101), "{text}");
    }
}
