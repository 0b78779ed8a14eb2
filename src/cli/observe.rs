//! `rackwright observe`.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};

use super::{
    Done, block_on,
    out::{out, outln},
    secrets::OneSecret,
    size,
};
use crate::{
    bmc::{self, Redfish},
    model::{BmcTarget, Fingerprint, Observation, Seen, Timestamp, Trust, Unknown},
    ports::{Bmc as _, Credential},
};

/// Ask one BMC what its machine is, and print it. Needs no fleet, and changes nothing.
///
/// Exit code 1 when the BMC could not be asked; the reasons are printed field by field.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The BMC: https://HOST[:PORT].
    #[arg(long, value_name = "URL")]
    bmc: String,
    /// User name; without it no credentials are sent.
    #[arg(long, value_name = "U", requires = "password_file")]
    user: Option<String>,
    /// File that holds the password (never given on the command line, where others could read it).
    #[arg(long, value_name = "F", requires = "user")]
    password_file: Option<PathBuf>,
    /// Trust any certificate. Only for laboratories.
    #[arg(long, conflicts_with = "fingerprint")]
    insecure: bool,
    /// Trust exactly this certificate: SHA-256 of its DER, in hexadecimal.
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// Trust certificates that these CAs signed (PEM).
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print JSON (schemas/observation.schema.json) instead of text.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  rackwright observe --bmc https://10.0.8.12     tells the certificate's fingerprint, asks no more
  rackwright observe --bmc https://10.0.8.12 --fingerprint HEX --user admin --password-file F
  rackwright observe --bmc https://10.0.8.12 --ca-file ca.pem --user admin --password-file F --json";

/// No certificate has this fingerprint.
const NO_FINGERPRINT: Fingerprint = Fingerprint([0; 32]);

pub fn run(args: &Args) -> anyhow::Result<Done> {
    if !args.bmc.starts_with("https://") && !args.bmc.starts_with("http://") {
        bail!("--bmc {} is not a URL: write https://{}", args.bmc, args.bmc);
    }
    if args.bmc.starts_with("http://") && !args.insecure {
        bail!(
            "over plain http, {} can't prove who it is, and everyone on the way reads the password: write https://, or add --insecure in a \
             laboratory",
            args.bmc
        );
    }
    let credential = match (&args.user, &args.password_file) {
        (Some(user), Some(file)) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("can't read the password file {}", file.display()))?;
            Some(Credential { username: user.clone(), password: text.trim_end_matches(['\r', '\n']).to_owned() })
        }
        _ => None,
    };
    let trust = match (args.insecure, args.fingerprint) {
        (true, _) => Trust::Insecure,
        (false, Some(fingerprint)) => Trust::Pinned(fingerprint),
        (false, None) if args.ca_file.is_some() => Trust::Ca,
        // Who pins what no certificate has is told which one was presented, before any credential was sent.
        (false, None) => Trust::Pinned(NO_FINGERPRINT),
    };
    let name = "command-line".parse().context("a name")?;
    let target = BmcTarget { address: args.bmc.clone(), credentials: credential.as_ref().map(|_| name), trust: trust.clone() };
    let config = bmc::Config { ca_file: args.ca_file.clone(), ..bmc::Config::default() };
    let secret = OneSecret(credential.unwrap_or(Credential { username: String::new(), password: String::new() }));
    let observation = block_on(async {
        let redfish = Redfish::new(config, Arc::new(secret))?;
        let observation = redfish.observe(&target, Timestamp::now()).await;
        redfish.close().await;
        Ok(observation)
    })?;
    if trust == Trust::Pinned(NO_FINGERPRINT) {
        bail!("{}", how_to_trust(&observation, &args.bmc));
    }
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&observation)?)?;
    } else {
        out!("{}", text(&observation))?;
    }
    Ok(if observation.power.known().is_some() { Done::Ok } else { Done::Bad })
}

fn how_to_trust(seen: &Observation, bmc: &str) -> String {
    let Seen::Unknown(why) = &seen.power else { return "say how the BMC's certificate is to be trusted".to_owned() };
    let why = why.to_string();
    let presented = why.split("has the fingerprint ").nth(1).and_then(|rest| rest.split(',').next());
    match presented {
        Some(fingerprint) => format!(
            "say how the certificate of {bmc} is to be trusted: it presents {fingerprint}. If that is what the BMC's own page shows, \
             add --fingerprint {fingerprint}; otherwise --ca-file FILE, or --insecure in a laboratory"
        ),
        None => why,
    }
}

fn line<T>(what: &str, seen: &Seen<T>, show: impl Fn(&T) -> String) -> String {
    match seen {
        Seen::Known(value) => format!("{what:<10} {}\n", show(value)),
        Seen::Unknown(why) => format!("{what:<10} unknown: {why}\n"),
    }
}

pub fn text(seen: &Observation) -> String {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join("\n           ") };
    let mut out = format!("{:<10} {} at {}\n", "source", seen.source, seen.at.strftime("%Y-%m-%d %H:%M:%S UTC"));
    if let Some(why) = nothing_known(seen) {
        return out + &format!("{:<10} unknown: {why}\n", "everything");
    }
    out += &line("power", &seen.power, ToString::to_string);
    out += &line("health", &seen.health, |health| format!("{health:?}"));
    out += &line("identity", &seen.identity, |id| {
        format!("{} {}, serial {}, UUID {}", or(&id.manufacturer), or(&id.model), or(&id.serial), or(&id.uuid))
    });
    out += &line("boot", &seen.boot_override, |boot| format!("{} {} {}", boot.target, boot.enabled, or(&boot.mode)));
    out += &line("nics", &seen.nics, |nics| {
        list(
            nics.iter()
                .map(|nic| format!("{} {}{}", nic.mac, nic.name, if nic.link_up == Some(true) { " (link up)" } else { "" }))
                .collect(),
        )
    });
    out += &line("disks", &seen.disks, |disks| {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
        list(
            disks.iter().map(|disk| format!("{} {} serial {} {}", disk.name, size(disk.size), or(&disk.serial), or(&disk.model))).collect(),
        )
    });
    out += &line("firmware", &seen.firmware, |all| list(all.iter().map(|one| format!("{} {}", one.name, one.version)).collect()));
    out
}

/// The reason, when one is why nothing at all is known.
fn nothing_known(seen: &Observation) -> Option<&Unknown> {
    let Seen::Unknown(why) = &seen.power else { return None };
    let same = |other: Option<&Unknown>| other == Some(why);
    let all =
        same(seen.health.unknown()) && same(seen.identity.unknown()) && same(seen.boot_override.unknown()) && same(seen.nics.unknown());
    (all && same(seen.disks.unknown()) && same(seen.firmware.unknown())).then_some(why)
}
