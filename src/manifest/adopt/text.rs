//! The text of a manifest: values that were seen, and comments for what nobody can see.

use std::fmt::Write as _;

use super::{
    Found, Wanted,
    facts::{Facts, Nic, shown_reason},
    yaml::{quoted, scalar, shown},
};
use crate::model::{BootOverride, MachineName, ObservedDisk, ObservedIdentity, SecretFrom, SecretName, Seen, Trust};

/// Where comments beside values begin.
const COLUMN: usize = 40;
/// The most disks that are listed in comments.
const MOST_DISKS: usize = 48;

/// The manifest of one machine.
pub(super) fn manifest(name: &MachineName, found: &Found, facts: &Facts, wanted: &Wanted) -> String {
    let mut out = String::new();
    head(&mut out, found, facts, wanted.schemas);
    out.push_str("apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata:\n");
    line(&mut out, 2, &format!("name: {}", scalar(name.as_str())), "");
    if !wanted.labels.is_empty() {
        let labels: Vec<String> = wanted.labels.iter().map(|(key, value)| format!("{}: {}", scalar(key), scalar(value))).collect();
        line(&mut out, 2, &format!("labels: {{{}}}", labels.join(", ")), "");
    }
    out.push_str("spec:\n");
    line(&mut out, 2, "onClaim: Adopt", "it is what it should be: nothing is installed");
    power(&mut out, found);
    if let Some(profile) = &wanted.profile {
        line(&mut out, 2, &format!("profile: {}", scalar(profile.as_str())), "");
    }
    if let Some(image) = &wanted.image {
        line(&mut out, 2, &format!("image: {}", scalar(image.as_str())), "what its disk is taken to hold");
    }
    identity(&mut out, found, facts);
    bmc(&mut out, found);
    nics(&mut out, &facts.nics);
    boot(&mut out, found);
    disks(&mut out, found);
    out
}

/// The manifest of a secret.
pub(super) fn secret(name: &SecretName, username: &str, from: &SecretFrom, schemas: bool) -> String {
    let mut out = String::new();
    schema(&mut out, "secret", schemas);
    out.push_str("# Where the controller finds the password of BMCs, on its own host. The value never stands in this repository.\n");
    out.push_str("apiVersion: rackwright.dev/v1alpha1\nkind: Secret\nmetadata:\n");
    line(&mut out, 2, &format!("name: {}", scalar(name.as_str())), "");
    out.push_str("spec:\n");
    line(&mut out, 2, &format!("username: {}", scalar(username)), "");
    let from = match from {
        SecretFrom::File(path) => format!("from: {{file: {}}}", quoted(path)),
        SecretFrom::Env(variable) => format!("from: {{env: {}}}", scalar(variable)),
    };
    line(&mut out, 2, &from, "");
    out
}

/// One line of values, with a comment that begins where the others do.
fn line(out: &mut String, indent: usize, text: &str, comment: &str) {
    let text = format!("{:indent$}{text}", "");
    let _ = match comment {
        "" => writeln!(out, "{text}"),
        comment => writeln!(out, "{text:<COLUMN$} # {comment}"),
    };
}

fn schema(out: &mut String, kind: &str, schemas: bool) {
    if schemas {
        let _ = writeln!(out, "# yaml-language-server: $schema=../.rackwright/schemas/{kind}.schema.json");
    }
}

fn head(out: &mut String, found: &Found, facts: &Facts, schemas: bool) {
    schema(out, "machine", schemas);
    let seen = &found.seen;
    let none = ObservedIdentity::default();
    let identity = seen.identity.known().unwrap_or(&none);
    let what: Vec<String> = [&identity.manufacturer, &identity.model].into_iter().flatten().map(|text| shown(text)).collect();
    let what = if what.is_empty() { "A machine".to_owned() } else { what.join(" ") };
    let _ = writeln!(out, "# {what}, as its BMC described it on {}.", seen.at.strftime("%Y-%m-%d"));
    if let Some(name) = &found.host_name {
        let _ = writeln!(out, "# Its system calls itself {}.", shown(name));
    }
    if let Seen::Known(health) = seen.health
        && health != crate::model::Health::OK
    {
        let _ = writeln!(out, "# Its health was {health:?}.");
    }
    let in_force = |boot: &&BootOverride| !is_nothing(&boot.enabled) && !is_nothing(&boot.target);
    if let Some(boot) = seen.boot_override.known().filter(in_force) {
        let (target, enabled) = (shown(&boot.target), shown(&boot.enabled));
        let _ = writeln!(out, "# Somebody set a boot override, which is shown as drift while it lasts: {target} ({enabled}).");
    }
    for left in &facts.left_out {
        let _ = writeln!(out, "# Left out: {left}.");
    }
}

/// Whether half of a boot override says that there is none.
fn is_nothing(word: &str) -> bool {
    ["", "none", "disabled"].contains(&word.trim().to_ascii_lowercase().as_str())
}

/// Never `On` or `Off`: adopting a machine takes nothing over, not even its power switch.
fn power(out: &mut String, found: &Found) {
    let was = match &found.seen.power {
        Seen::Known(power) => format!("it was {power}"),
        Seen::Unknown(why) => shown_reason(why),
    };
    line(out, 2, "power: Unmanaged", &format!("{was}; `On` would have it switched on whenever it is off"));
}

fn identity(out: &mut String, found: &Found, facts: &Facts) {
    if facts.serial.is_none() && facts.uuid.is_none() {
        out.push_str(
            "  # identity: it reports neither serial number nor UUID that is its own, so only its MAC addresses tell it from others\n",
        );
        return;
    }
    line(out, 2, "identity:", "checked before anything disruptive");
    if let Some(serial) = &facts.serial {
        let which = if found.serial_is_sku { "the service tag, which Redfish calls SKU" } else { "" };
        line(out, 4, &format!("serial: {}", scalar(serial)), which);
    }
    if let Some(uuid) = &facts.uuid {
        line(out, 4, &format!("uuid: {}", quoted(uuid)), "");
    }
}

fn bmc(out: &mut String, found: &Found) {
    let target = &found.target;
    line(out, 2, "bmc:", "");
    line(out, 4, &format!("address: {}", address(&target.address)), "");
    if let Some(credentials) = &target.credentials {
        line(out, 4, &format!("credentials: {}", scalar(credentials.as_str())), "");
    }
    match &target.trust {
        Trust::Ca => line(out, 4, "# fingerprint:", "its certificate chains to a CA, which the controller needs as `bmc.caFile`"),
        Trust::Pinned(fingerprint) => line(out, 4, &format!("fingerprint: {fingerprint}"), ""),
        Trust::Insecure => line(out, 4, "insecure: true", "any certificate will do: for laboratories only"),
    }
}

/// Plain where it is of nothing but what URLs of BMCs are made of, which no YAML reader takes for anything else.
fn address(text: &str) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '.' | '-' | '_');
    let plain = text.starts_with("http") && text.chars().all(usual) && !text.ends_with(':');
    if plain { text.to_owned() } else { quoted(text) }
}

fn nics(out: &mut String, nics: &[Nic]) {
    if nics.is_empty() {
        out.push_str("  # nics: the BMC lists none. For installing: [{name: lan0, mac: \"…\", network: …, address: …, boot: true}]\n");
        return;
    }
    out.push_str("  # Which interface boots can't be seen from here. For installing, give one `network`, `address` and `boot: true`.\n");
    line(out, 2, "nics:", "");
    let mut names: Vec<String> = Vec::new();
    for (n, nic) in nics.iter().enumerate() {
        let mut name = nic_name(&nic.name, n);
        if names.contains(&name) {
            name = format!("nic{n}-{}", nic.mac.to_string().replace(':', ""));
        }
        let link = match nic.link_up {
            Some(true) => "link up",
            Some(false) => "no link",
            None => "",
        };
        line(out, 4, &format!("- {{name: {}, mac: \"{}\"}}", scalar(&name), nic.mac), link);
        names.push(name);
    }
}

/// The BMC's own name for an interface, which stands on its pages, too. A mere number becomes `nic1`.
fn nic_name(said: &str, number: usize) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let short = (1..=48).contains(&said.len()) && said.chars().all(usual);
    match short {
        true if said.bytes().all(|b| b.is_ascii_digit()) => format!("nic{said}"),
        true if said.starts_with(|c: char| c.is_ascii_alphanumeric()) => said.to_owned(),
        _ => format!("nic{number}"),
    }
}

/// A BMC tells the mode of its boot override, which need not be how the machine boots: no value is written.
fn boot(out: &mut String, found: &Found) {
    let mode = found.seen.boot_override.known().and_then(|boot| boot.mode.as_deref());
    if mode.is_some_and(|mode| mode.eq_ignore_ascii_case("Legacy")) {
        line(out, 2, "# boot: {mode: BIOS}", "the BMC's boot override says Legacy; without this line it is UEFI");
    }
}

/// Never a value: lists of BMCs often lack disks, and the one that they show may hold the data (law 6).
fn disks(out: &mut String, found: &Found) {
    let disks = match &found.seen.disks {
        Seen::Known(disks) => disks.as_slice(),
        Seen::Unknown(why) => {
            let _ = writeln!(out, "  # Disks: {}. No disk is named, so none can be written.", shown_reason(why));
            return;
        }
    };
    out.push_str("  # Which disk holds the system can't be seen from here, so none is named, and none can be written. The BMC lists:\n");
    out.push_str("  # disks:\n");
    for disk in disks.iter().take(MOST_DISKS) {
        let hint = hint(disk).unwrap_or_else(|| "# no serial number told:".to_owned());
        let size = disk.size.map(|bytes| format!(", {}", capacity(bytes))).unwrap_or_default();
        let model = disk.model.as_ref().map(|model| format!(", {}", shown(model))).unwrap_or_default();
        let _ = writeln!(out, "  #   {hint} # {}{size}{model}", shown(&disk.name));
    }
    if disks.len() > MOST_DISKS {
        let _ = writeln!(out, "  #   and {} more", disks.len() - MOST_DISKS);
    }
}

/// As it stands on the disk's label: in decimal units.
fn capacity(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        1_000_000_000..1_000_000_000_000 => format!("{} GB", bytes / 1_000_000_000),
        _ => format!("{:.2} TB", bytes as f64 / 1e12),
    }
}

/// A line that could be used as it is.
fn hint(disk: &ObservedDisk) -> Option<String> {
    let usual = |text: &&String| (1..=super::LONGEST).contains(&text.trim().len()) && text.chars().all(|c| matches!(c, ' '..='~'));
    let serial = disk.serial.as_ref().filter(usual).map(|serial| format!("system: {{serial: {}}}", scalar(serial.trim())));
    serial.or_else(|| disk.wwn.as_ref().filter(usual).map(|wwn| format!("system: {{wwn: {}}}", quoted(wwn.trim()))))
}
