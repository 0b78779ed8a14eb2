//! An interpreter of iPXE scripts (ipxe.org/scripting), as far as boot scripts go.
//!
//! What a script downloads is really downloaded and hashed. Commands that need a screen or a keyboard are unknown, and an unknown
//! command fails, as in an iPXE that was built without it.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use reqwest::Url;
use tracing::info;

use crate::model::{BootMode, Digest};

/// A script that runs longer than so many commands goes round in circles; a boot script has a dozen.
const MOST_COMMANDS: u32 = 10_000;
/// Scripts that load scripts.
const DEEPEST: u32 = 8;

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Download {
    pub(crate) url: Url,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Its first bytes; all of them when it is a script.
    pub(crate) head: Vec<u8>,
}

/// Where files come from.
#[async_trait]
pub(crate) trait Downloads: Send + Sync {
    /// Downloads all of it. `None` when that fails; the reason is logged.
    async fn get(&self, url: &Url) -> Option<Download>;
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It started a kernel.
    Kernel { command_line: String, kernel: Digest, initrds: Vec<Digest> },
    /// It started what is on the disk.
    Disk,
    /// It gave the machine back to its firmware.
    Exit,
}

/// A running script's environment.
pub(crate) struct Shell<'a> {
    pub(crate) downloads: &'a dyn Downloads,
    pub(crate) mode: BootMode,
    /// Whether the machine has a disk that could be started.
    pub(crate) disk: bool,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) name: String,
    kernel: Option<(Digest, String)>,
    initrds: Vec<Digest>,
    left: u32,
}

/// What one command did.
enum Did {
    Well,
    Failed,
    Goto(String),
    Ended(Ended),
}

impl<'a> Shell<'a> {
    pub(crate) fn new(name: String, downloads: &'a dyn Downloads, mode: BootMode, disk: bool, settings: BTreeMap<String, String>) -> Self {
        Self { downloads, mode, disk, settings, name, kernel: None, initrds: Vec::new(), left: MOST_COMMANDS }
    }

    /// Chains `url`: a script or a loader.
    pub(crate) async fn chain(&mut self, url: &Url, depth: u32) -> Option<Ended> {
        if depth >= DEEPEST {
            return None;
        }
        let download = self.downloads.get(url).await?;
        if download.head.starts_with(b"#!ipxe") {
            let text = String::from_utf8_lossy(&download.head).into_owned();
            return Box::pin(self.run(&text, &download.url, depth)).await;
        }
        // A UEFI application. The only one that a boot server chains instead of a kernel is one that goes on to the disk.
        (self.mode == BootMode::UEFI && super::boot::is_local_boot(url.path()) && self.disk).then_some(Ended::Disk)
    }

    /// Runs a script; `None` when it failed.
    async fn run(&mut self, text: &str, base: &Url, depth: u32) -> Option<Ended> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            at += 1;
            self.left = self.left.checked_sub(1)?;
            if line.is_empty() || line.starts_with(['#', ':']) {
                continue;
            }
            match self.line(line, base, depth).await {
                Did::Well => {}
                Did::Failed => {
                    info!(machine = %self.name, line, "the boot script failed");
                    return None;
                }
                Did::Goto(label) => at = lines.iter().position(|line| line.strip_prefix(':').map(str::trim) == Some(&label))? + 1,
                Did::Ended(ended) => return Some(ended),
            }
        }
        // The end of a script is as `exit 0`.
        Some(Ended::Exit)
    }

    /// One line: commands joined by `||` and `&&`, from left to right.
    async fn line(&mut self, line: &str, base: &Url, depth: u32) -> Did {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (mut well, mut wanted) = (true, true);
        let mut rest = &words[..];
        while !rest.is_empty() {
            let end = rest.iter().position(|word| word == "||" || word == "&&").unwrap_or(rest.len());
            if well == wanted {
                let words: Vec<String> = rest[..end].iter().map(|word| self.expand(word)).collect();
                match self.command(&words, base, depth).await {
                    Did::Well => well = true,
                    Did::Failed => well = false,
                    other => return other,
                }
            }
            wanted = rest.get(end).is_none_or(|joint| joint == "&&");
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        if well { Did::Well } else { Did::Failed }
    }

    async fn command(&mut self, words: &[String], base: &Url, depth: u32) -> Did {
        let Some((command, arguments)) = words.split_first() else { return Did::Well };
        let (options, plain) = split_options(arguments);
        let done = |well| if well { Did::Well } else { Did::Failed };
        match command.as_str() {
            "echo" => {
                info!(machine = %self.name, "iPXE: {}", plain.join(" "));
                Did::Well
            }
            "set" | "clear" | "isset" | "iseq" | "inc" => done(self.settings_command(command, &plain)),
            "goto" => plain.first().map_or(Did::Failed, |label| Did::Goto((*label).to_owned())),
            "sleep" => {
                let seconds = plain.first().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Did::Well
            }
            "kernel" | "imgselect" => done(self.load_kernel(&plain, base).await),
            "initrd" | "imgfetch" | "module" => done(self.load_initrd(&plain, base).await),
            "imgargs" => done(self.set_arguments(&plain)),
            "imgfree" => {
                (self.kernel, self.initrds) = (None, Vec::new());
                Did::Well
            }
            "boot" => match self.kernel.take() {
                Some((kernel, command_line)) => {
                    Did::Ended(Ended::Kernel { command_line, kernel, initrds: std::mem::take(&mut self.initrds) })
                }
                None => Did::Failed,
            },
            "chain" => {
                let Some(url) = plain.first().and_then(|url| base.join(url).ok()) else { return Did::Failed };
                match self.chain(&url, depth + 1).await {
                    // A chained script that exits comes back here, unless it took the caller's place.
                    Some(Ended::Exit) if !options.iter().any(|option| option == "--replace" || option == "-r") => Did::Well,
                    Some(ended) => Did::Ended(ended),
                    None => Did::Failed,
                }
            }
            // Under UEFI, iPXE has no BIOS drives (seen with OVMF: "No such device").
            "sanboot" if self.mode == BootMode::BIOS && self.disk => Did::Ended(Ended::Disk),
            "exit" => Did::Ended(Ended::Exit),
            "dhcp" | "ifopen" | "ifconf" | "imgstat" | "show" | "sync" => Did::Well,
            _ => Did::Failed,
        }
    }

    fn settings_command(&mut self, command: &str, arguments: &[&str]) -> bool {
        let name = arguments.first().map_or("", |name| bare(name)).to_owned();
        match command {
            "set" => {
                self.settings.insert(name, arguments[arguments.len().min(1)..].join(" "));
            }
            "clear" => {
                self.settings.remove(&name);
            }
            // `isset ${x}` is expanded already.
            "isset" => return arguments.first().is_some_and(|value| !value.is_empty()),
            "iseq" => return arguments.first() == arguments.get(1),
            _ => {
                let number: u64 = self.settings.get(&name).and_then(|value| value.parse().ok()).unwrap_or(0);
                let step = arguments.get(1).and_then(|step| step.parse().ok()).unwrap_or(1u64);
                self.settings.insert(name, number.wrapping_add(step).to_string());
            }
        }
        true
    }

    async fn load_kernel(&mut self, arguments: &[&str], base: &Url) -> bool {
        let Some(url) = arguments.first().and_then(|url| base.join(url).ok()) else { return false };
        match self.downloads.get(&url).await {
            Some(download) => {
                self.kernel = Some((download.digest, arguments[1..].join(" ")));
                true
            }
            None => false,
        }
    }

    async fn load_initrd(&mut self, arguments: &[&str], base: &Url) -> bool {
        let Some(url) = arguments.first().and_then(|url| base.join(url).ok()) else { return false };
        let download = self.downloads.get(&url).await;
        self.initrds.extend(download.as_ref().map(|download| download.digest));
        download.is_some()
    }

    fn set_arguments(&mut self, arguments: &[&str]) -> bool {
        let Some((_, command_line)) = &mut self.kernel else { return false };
        *command_line = arguments[arguments.len().min(1)..].join(" ");
        true
    }

    /// Replaces `${name}`, `${name:type}` by their values; what is not set is empty.
    fn expand(&self, word: &str) -> String {
        let mut expanded = word.to_owned();
        while let Some(start) = expanded.rfind("${") {
            let Some(length) = expanded[start..].find('}') else { break };
            let setting = &expanded[start + 2..start + length];
            let (name, kind) = setting.split_once(':').unwrap_or((setting, ""));
            let value = self.settings.get(name).cloned().unwrap_or_default();
            let value = match kind {
                "hexhyp" => value.replace(':', "-"),
                "hexraw" => value.replace([':', '-'], ""),
                _ => value,
            };
            expanded.replace_range(start..=start + length, &value);
        }
        expanded
    }
}

/// A setting's name without its type, as in `tries:int32`.
fn bare(name: &str) -> &str {
    name.split_once(':').map_or(name, |(name, _)| name)
}

/// Options before the first plain argument; `--name x`, `--drive x` and the like take their value along.
fn split_options(arguments: &[String]) -> (Vec<String>, Vec<&str>) {
    const WITH_VALUE: [&str; 6] = ["--name", "-n", "--drive", "-d", "--timeout", "-t"];
    let (mut options, mut at) = (Vec::new(), 0);
    while let Some(option) = arguments.get(at).filter(|argument| argument.starts_with('-')) {
        at += if WITH_VALUE.contains(&option.as_str()) { 2 } else { 1 };
        options.push(option.clone());
    }
    (options, arguments[at.min(arguments.len())..].iter().map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(BTreeMap<&'static str, &'static str>);

    #[async_trait]
    impl Downloads for Files {
        async fn get(&self, url: &Url) -> Option<Download> {
            let bytes = self.0.get(url.path())?.as_bytes();
            Some(Download { url: url.clone(), digest: Digest::of(bytes), size: bytes.len() as u64, head: bytes.to_vec() })
        }
    }

    async fn run(script: &'static str, mode: BootMode) -> Option<Ended> {
        let more = [("/k", "kernel"), ("/i", "initrd"), ("/localboot.efi", "MZ"), ("/exits", "#!ipxe\nexit")];
        let files = Files(BTreeMap::from_iter(more.into_iter().chain([("/s", script)])));
        let settings = BTreeMap::from([
            ("net0/mac".to_owned(), "52:54:00:00:00:01".to_owned()),
            ("platform".to_owned(), if mode == BootMode::UEFI { "efi" } else { "pcbios" }.to_owned()),
        ]);
        Shell::new("node-1".into(), &files, mode, true, settings).chain(&"http://127.0.0.1/s".parse().unwrap(), 0).await
    }

    #[tokio::test]
    async fn a_kernel_is_started_with_its_command_line() {
        let script = "#!ipxe\nset x:string a b\nkernel --name k /k initrd=i mac=${net0/mac:hexhyp} x=${x} || goto no\ninitrd --name i /i\nboot\n:no\nexit";
        let ended = run(script, BootMode::UEFI).await.unwrap();
        let command_line = "initrd=i mac=52-54-00-00-00-01 x=a b".to_owned();
        assert_eq!(ended, Ended::Kernel { command_line, kernel: Digest::of(b"kernel"), initrds: vec![Digest::of(b"initrd")] });
    }

    #[tokio::test]
    async fn local_boot_depends_on_the_platform() {
        let script = "#!ipxe\niseq ${platform} efi && goto efi || goto bios\n:bios\nsanboot --no-describe --drive 0x80 || goto failed\n\
                      :efi\nchain /localboot.efi || goto failed\n:failed\nexit 1\n";
        assert_eq!(run(script, BootMode::BIOS).await, Some(Ended::Disk));
        assert_eq!(run(script, BootMode::UEFI).await, Some(Ended::Disk));
        assert_eq!(run("#!ipxe\nsanboot --drive 0x80 || exit 1\n", BootMode::UEFI).await, Some(Ended::Exit));
    }

    #[tokio::test]
    async fn what_fails_can_be_caught_counted_and_given_up() {
        let script =
            "#!ipxe\nset tries:int32 0\n:again\ninc tries\nkernel /missing || iseq ${tries} 3 || goto again\niseq ${tries} 3 || boot\nexit";
        assert_eq!(run(script, BootMode::UEFI).await, Some(Ended::Exit));
        assert_eq!(run("#!ipxe\nkernel /missing\nexit", BootMode::UEFI).await, None);
        assert_eq!(run("#!ipxe\nboot || exit", BootMode::UEFI).await, Some(Ended::Exit));
        assert_eq!(run("#!ipxe\nchain /exits && chain --replace /exits\nboot", BootMode::UEFI).await, Some(Ended::Exit));
    }

    #[tokio::test]
    async fn a_script_without_end_is_ended() {
        assert_eq!(run("#!ipxe\n:a\ngoto a", BootMode::UEFI).await, None);
        assert_eq!(run("#!ipxe\nchain /s", BootMode::UEFI).await, None);
        assert_eq!(run("#!ipxe\ngoto nowhere", BootMode::UEFI).await, None);
        assert_eq!(run("#!ipxe\n${${${ menu\n", BootMode::UEFI).await, None);
    }
}
