//! `rackwright adopt`.

mod ask;
mod list;
mod prove;
mod show;
mod write;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::{Done, block_on, out::errln, secrets::LocalSecrets, source};
use crate::{
    bmc,
    manifest::adopt::{self, Found, Manifest, NameFrom, Verdict, Wanted},
    model::{Files, Fingerprint, Fleet, ImageName, MachineName, Problem, ProfileName, SecretFrom, SecretName, SecretSource},
    ports::{Credential, Secrets as _},
};

/// Write manifests for machines that run already, from what their BMCs tell. No machine is changed.
///
/// Each manifest describes what is, so that a controller which follows it plans nothing but to note that the machine is there; this is
/// tried before a file is written. What no BMC can know stands in comments. A machine that the fleet has already, and any file that is
/// there, is left alone, so the same list can be given again.
///
/// Who a BMC is has to be known before it gets a password: by a fingerprint in the list, by a CA, or, if you say so, by what it
/// presents now. Without any of these, nobody is logged in to: you get a list of the fingerprints presented, to compare and give back.
///
/// Exit code 1 when a machine could not be adopted; the others are.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// BMCs: https://HOST[:PORT], or only HOST. One of several systems behind a BMC is named by its path.
    #[arg(value_name = "BMC", required_unless_present = "from")]
    bmcs: Vec<String>,
    /// A file with a BMC a line, or - for standard input: ADDRESS [sha256:FINGERPRINT] [name=NAME]. `#` begins a comment.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The fleet repository that the manifests are written into.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    into: PathBuf,
    /// The Secret that the manifests name. If the fleet has it, user and password are read from where it says.
    #[arg(long, value_name = "NAME", default_value = "bmc", help_heading = "Credentials")]
    credentials: SecretName,
    /// User name, where the fleet does not have the Secret, or its password is not on this host.
    #[arg(long, value_name = "U", alias = "username", requires = "password", help_heading = "Credentials")]
    user: Option<String>,
    /// File that holds the password (never given on the command line, where others could read it).
    #[arg(long, value_name = "F", group = "password", requires = "user", help_heading = "Credentials")]
    password_file: Option<PathBuf>,
    /// Variable of the environment that holds the password.
    #[arg(long, value_name = "VAR", group = "password", requires = "user", help_heading = "Credentials")]
    password_env: Option<String>,
    /// Trust exactly this certificate: SHA-256 of its DER. For a single BMC; in a list, each has its own.
    #[arg(long, value_name = "HEX", group = "trust", help_heading = "Trust")]
    fingerprint: Option<Fingerprint>,
    /// Trust certificates that these CAs signed (PEM).
    #[arg(long, value_name = "FILE", group = "trust", help_heading = "Trust")]
    ca_file: Option<PathBuf>,
    /// Trust whatever each BMC presents now, and write it down. Whoever answers in its place now gets the password, and stays trusted.
    #[arg(long, group = "trust", help_heading = "Trust")]
    trust_seen: bool,
    /// Trust any certificate, now and later. Only for laboratories.
    #[arg(long, group = "trust", help_heading = "Trust")]
    insecure: bool,
    /// Where names come from; where that says nothing, from the next one.
    #[arg(long, value_enum, default_value_t = From::Serial, value_name = "WHAT", help_heading = "Manifests")]
    name_from: From,
    /// The profile that the machines follow.
    #[arg(long, value_name = "NAME", help_heading = "Manifests")]
    profile: Option<ProfileName>,
    /// The image that their disks are taken to hold: a later change of it reinstalls them.
    #[arg(long, value_name = "NAME", help_heading = "Manifests")]
    image: Option<ImageName>,
    /// A label for all of them; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = list::label, help_heading = "Manifests")]
    label: Vec<(String, String)>,
    /// Print the manifests instead of writing them.
    #[arg(long)]
    dry_run: bool,
    /// Print what became of each as JSON.
    #[arg(long)]
    json: bool,
    /// How many BMCs are asked at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

#[derive(Clone, Copy, ValueEnum)]
enum From {
    /// The serial number.
    Serial,
    /// What the operating system told the BMC.
    Hostname,
    /// The BMC's address.
    Address,
}

const EXAMPLES: &str = "\
Examples:
  rackwright adopt --from bmcs.txt > seen.txt        the certificates there are, to compare
  rackwright adopt --from seen.txt --into my-fleet   adopt what answers with these
  rackwright adopt 10.0.8.12 10.0.8.13 --ca-file ca.pem --user admin --password-file F
  rackwright adopt 10.0.8.12 --trust-seen --dry-run  see the manifest first
  rackwright adopt --from seen.txt --profile web --label rack=a --name-from hostname

Then commit: a controller notes the machines, and does nothing else.
docs/adopting.md tells the whole way.";

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let entries = list::entries(&args.bmcs, args.from.as_deref(), args.fingerprint)?;
    let trust = match (args.trust_seen, args.insecure, &args.ca_file) {
        (true, ..) => ask::Trusting::Seen,
        (_, true, _) => ask::Trusting::Anyone,
        (.., Some(_)) => ask::Trusting::Ca,
        _ => ask::Trusting::Nobody,
    };
    let config = bmc::Config { ca_file: args.ca_file.clone(), ..bmc::Config::default() };
    // Where nobody is trusted, nobody is logged in to: neither a fleet nor a password is needed.
    let anyone = trust != ask::Trusting::Nobody || entries.iter().any(|entry| entry.fingerprint.is_some());
    let (mut files, fleet) = if anyone { fleet(&args.into)? } else { Default::default() };
    let wanted = wanted(args, &files);
    let (credential, new_secret) = if anyone { credential(args, &fleet, wanted.schemas)? } else { (nobody(), None) };
    if let Some((path, text)) = &new_secret {
        if files.contains_key(path) {
            bail!("{path} is there and is not the Secret {}: name the one that it is with --credentials", args.credentials);
        }
        files.insert(path.clone(), prove::entry(text)?);
    }
    if anyone {
        prove::names_are_there(&files, &wanted, &args.credentials)?;
    }
    let how = ask::How { config, credential, name: args.credentials.clone(), trust };
    let asked = block_on(ask::all(entries, how, usize::from(args.jobs)))?;
    let mut results = judge(asked, &fleet, &files, &wanted)?;
    if !args.dry_run {
        write_all(&args.into, new_secret.as_ref(), &mut results)?;
    }
    show::show(args, new_secret.as_ref(), &results)?;
    Ok(if results.iter().all(Outcome::is_good) { Done::Ok } else { Done::Bad })
}

fn nobody() -> Credential {
    Credential { username: String::new(), password: String::new() }
}

/// What became of one machine, or of one BMC of which no machine is known.
struct Outcome {
    bmc: String,
    what: What,
}

enum What {
    /// There is a manifest, and it was (or, on trial, would be) written.
    New(Box<Manifest>),
    Known {
        machine: String,
        place: String,
        by: String,
    },
    /// It was found, and no manifest can be written.
    Refused(String),
    /// It was not found.
    Failed(String),
    /// It presents this certificate, and nobody said that it is the right one. With the name that the list gives it.
    Untrusted(Fingerprint, Option<MachineName>),
}

impl Outcome {
    fn is_good(&self) -> bool {
        matches!(self.what, What::New(_) | What::Known { .. })
    }
}

/// The fleet as it stands. One with errors may hide the very machines that are to be adopted.
fn fleet(folder: &Path) -> anyhow::Result<(Files, Fleet)> {
    let (files, _) =
        source::files(folder, None).with_context(|| format!("--into {}: `rackwright init` makes a fleet repository", folder.display()))?;
    let loaded = crate::manifest::load(&files, &mut crate::manifest::Cache::default());
    if !loaded.is_usable() {
        source::load(&files);
        bail!("the fleet has errors ({}), so which machines it has is not known: mend it first", source::count(&loaded.problems));
    }
    Ok((files, loaded.fleet))
}

fn wanted(args: &Args, files: &Files) -> Wanted {
    let name_from = match args.name_from {
        From::Serial => NameFrom::Serial,
        From::Hostname => NameFrom::Hostname,
        From::Address => NameFrom::Address,
    };
    let labels: BTreeMap<String, String> = args.label.iter().cloned().collect();
    let schemas = files.contains_key(".rackwright/schemas/machine.schema.json");
    Wanted { name_from, profile: args.profile.clone(), image: args.image.clone(), labels, schemas }
}

/// User name and password, and the Secret to write where the fleet has none of that name.
fn credential(args: &Args, fleet: &Fleet, schemas: bool) -> anyhow::Result<(Credential, Option<(String, String)>)> {
    let name = &args.credentials;
    let stated = match (&args.user, &args.password_file, &args.password_env) {
        (Some(user), Some(file), _) => {
            let file = std::path::absolute(file)?;
            let file = file.to_str().with_context(|| format!("the path {} is not UTF-8", file.display()))?.to_owned();
            Some((user, SecretFrom::File(file)))
        }
        (Some(user), None, Some(variable)) => Some((user, SecretFrom::Env(variable.clone()))),
        _ => None,
    };
    let source = match (&stated, fleet.secrets.get(name)) {
        (Some((user, from)), _) => SecretSource { name: name.clone(), username: Some((*user).clone()), from: from.clone() },
        (None, Some(source)) => source.clone(),
        (None, None) => bail!(
            "the fleet has no Secret {name}: say as whom to log in with --user and --password-file (which is written as secrets/{name}.yaml), \
             or name another Secret with --credentials"
        ),
    };
    let secrets = LocalSecrets::default();
    secrets.follow(&[(name.clone(), source.clone())].into());
    let credential = secrets.credential(name).map_err(|error| {
        let here = anyhow::anyhow!("{}", error.message.replace("the controller", "this command"));
        if stated.is_none() { here.context("the fleet's Secret can't be read here; give --user and --password-file") } else { here }
    })?;
    let new = match (stated, fleet.secrets.contains_key(name)) {
        (Some((user, from)), false) => Some((format!("secrets/{name}.yaml"), adopt::secret(name, user, &from, schemas))),
        _ => None,
    };
    Ok((credential, new))
}

/// From what was heard to what becomes of each: which are new, and whether their manifests would be left alone.
fn judge(asked: Vec<ask::Asked>, fleet: &Fleet, files: &Files, wanted: &Wanted) -> anyhow::Result<Vec<Outcome>> {
    let mut found: Vec<Found> = Vec::new();
    let mut slots: Vec<(String, Option<What>)> = Vec::new();
    for asked in asked {
        match asked.heard {
            ask::Heard::Machines(machines) => machines.into_iter().for_each(|one| {
                slots.push((one.target.address.clone(), None));
                found.push(one);
            }),
            ask::Heard::Untrusted(fingerprint) => slots.push((asked.address, Some(What::Untrusted(fingerprint, asked.name)))),
            ask::Heard::Failed(why) => slots.push((asked.address, Some(What::Failed(why)))),
        }
    }
    let verdicts = adopt::adopt(&found, fleet, files, wanted);
    let verdicts = prove::left_alone(verdicts, &found, fleet, files)?;
    let mut verdicts = verdicts.into_iter();
    let what = |verdict: Verdict| match verdict {
        Verdict::New(manifest) => What::New(manifest),
        Verdict::Known { machine, place, by } => What::Known { machine: machine.to_string(), place, by },
        Verdict::Refused(why) => What::Refused(why),
    };
    let fill = |(bmc, known): (String, Option<What>)| {
        let what = known.or_else(|| verdicts.next().map(what)).unwrap_or_else(|| What::Failed("it was lost on the way".to_owned()));
        Outcome { bmc, what }
    };
    Ok(slots.into_iter().map(fill).collect())
}

/// Writes what is new. A machine whose file can't be written is told like one that can't be adopted.
fn write_all(folder: &Path, secret: Option<&(String, String)>, results: &mut [Outcome]) -> anyhow::Result<()> {
    if !results.iter().any(|result| matches!(result.what, What::New(_))) {
        return Ok(());
    }
    if let Some((path, text)) = secret {
        write::new_file(folder, path, text).with_context(|| format!("can't write {path}, without which no manifest is valid"))?;
    }
    for result in &mut *results {
        if let What::New(manifest) = &result.what
            && let Err(error) = write::new_file(folder, &manifest.path, &manifest.text)
        {
            result.what = What::Refused(format!("can't write {}: {error:#}", manifest.path));
        }
    }
    seen_by_git(folder, results)
}

/// Reads the folder again: a rule of `.gitignore` may hide from Git what was just written.
fn seen_by_git(folder: &Path, results: &mut [Outcome]) -> anyhow::Result<()> {
    let (files, _) = source::files(folder, None)?;
    for result in results {
        if let What::New(manifest) = &result.what
            && files.get(&manifest.path).is_none_or(|entry| *entry.bytes != *manifest.text.as_bytes())
        {
            // It is ours, of a moment ago, and no commit would ever have it.
            let _ = std::fs::remove_file(folder.join(&manifest.path));
            result.what = What::Refused(format!("Git ignores {}: `git check-ignore -v` says by which rule", manifest.path));
        }
    }
    let loaded = crate::manifest::load(&files, &mut crate::manifest::Cache::default());
    if loaded.problems.iter().any(Problem::is_error) {
        source::load(&files);
        errln!("The fleet has errors now; somebody may have changed it meanwhile.");
    }
    Ok(())
}
