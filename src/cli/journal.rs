//! `rackwright journal`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Subcommand;
use jiff::{SpanRelativeTo, civil};

use super::{
    Done,
    config::Config,
    history, hold,
    out::{errln, outln},
    size,
};
use crate::{
    journal::{self, SqliteJournal, Survey},
    model::{MachineName, Record, Timestamp},
};

/// Read, check, back up and put back the controller's journal.
///
/// The journal is one file in the state folder. It holds every intention before its effect and every outcome after, and is only
/// appended to.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  rackwright journal show --since 2h
  rackwright journal show --machine web-01 --json | jq .fact
  rackwright journal verify
  rackwright journal backup /backup/journal-$(date +%F).db
  rackwright journal restore /backup/journal-2026-11-21.db";

#[derive(Subcommand)]
enum What {
    /// Print its records, oldest first: number, time, commit, machine, what happened. Works while the controller runs.
    Show {
        /// Only this machine, under each of its names.
        #[arg(long)]
        machine: Option<MachineName>,
        /// Only from then on: `2h`, `3d`, `2026-11-21`, or `2026-11-21T08:00:00Z`. Dates are in UTC.
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Look all of it through, and name the first place that is wrong. Works while the controller runs.
    ///
    /// SQLite's own check; that no record is missing; the checksum of each record over itself and all before it; that each can be read; the
    /// small values; and that it got as far as its controller had written. Exit code 1: something is wrong.
    Verify {
        /// A backup, or another journal.
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Copy it into a new file, also while the controller writes it, and look the copy through. Nothing is overwritten.
    Backup {
        /// The new file.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Put a backup in its place. The controller must be stopped. All machines are held first, by `rackwright hold --all`.
    ///
    /// A backup knows nothing of what was installed since, and by it those installs would be done again. So nothing is begun until you have
    /// looked: start the controller, read `rackwright plan --config`, adopt what was installed since, and `rackwright unhold --all`.
    /// What was there is kept beside it.
    Restore {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
struct Place {
    /// The controller's configuration; otherwise ./rackwright.yaml or /etc/rackwright/rackwright.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn config(&self) -> anyhow::Result<Config> {
        Config::read(self.config.as_deref())
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Done> {
    match &args.what {
        What::Show { machine, since, json, place } => show(machine.as_ref(), since.as_deref(), *json, &place.config()?),
        What::Verify { file, place } => {
            let path = file.clone().map_or_else(|| Ok(place.config()?.journal()), anyhow::Ok)?;
            let survey = journal::verify(&path)?;
            outln!("{} is whole: {}", path.display(), text(&survey))?;
            Ok(Done::Ok)
        }
        What::Backup { file, place } => {
            let survey = journal::backup(&place.config()?.journal(), file, Timestamp::now())?;
            outln!("{}: {}", file.display(), text(&survey))?;
            Ok(Done::Ok)
        }
        What::Restore { file, place } => {
            let config = place.config()?;
            let path = config.journal();
            let aside = journal::restore(file, &path, &config.brake(), hold::user(), Timestamp::now())?;
            outln!("{} is the journal now; all machines are held.", file.display())?;
            if let Some(aside) = aside {
                outln!("The one before is {}", aside.display())?;
            }
            outln!(
                "Next: start the controller; read `rackwright plan --config FILE`; for each machine that was installed since the backup, take"
            )?;
            outln!("its manifest out in one commit and put it back with `onClaim: Adopt` in the next; then `rackwright unhold --all`.")?;
            Ok(Done::Ok)
        }
    }
}

fn show(machine: Option<&MachineName>, since: Option<&str>, json: bool, config: &Config) -> anyhow::Result<Done> {
    let since = since.map(|text| moment(text, Timestamp::now())).transpose()?;
    let reader = SqliteJournal::read_only(&config.journal())?;
    let records = match machine {
        Some(machine) => reader.records_of(machine)?,
        None => reader.records_after(0)?,
    };
    let mut shown = 0;
    for record in records.iter().filter(|record| since.is_none_or(|since| record.at >= since)) {
        shown += 1;
        if json { outln!("{}", serde_json::to_string(record)?) } else { outln!("{}", line(record)) }?;
    }
    if shown == 0 {
        errln!("No record.");
    }
    Ok(Done::Ok)
}

fn line(record: &Record) -> String {
    let at = record.at.strftime("%Y-%m-%d %H:%M:%S");
    format!("{:>6}  {at}  {}  {}  {}", record.seq, record.commit.short(), record.fact.machine(), history::tell(&record.fact).trim_start())
}

fn text(survey: &Survey) -> String {
    let span = survey.span.map(|(first, last)| format!(" from {first:.0} to {last:.0}")).unwrap_or_default();
    let made = survey.backup.as_ref().map(|made| format!(", a backup of {made}")).unwrap_or_default();
    let records = super::plural(usize::try_from(survey.records).unwrap_or(usize::MAX), "record");
    format!("{records}{span}, {}, format {}{made}", size(survey.bytes), survey.format)
}

/// A time, a date, or how long ago.
fn moment(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(date) = text.parse::<civil::Date>() {
        return Ok(date.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp());
    }
    let ago = text.parse::<jiff::Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let ago = ago.ok_or_else(|| anyhow!("{text:?} is no time: say `2h`, `3d`, `2026-11-21` or `2026-11-21T08:00:00Z`"))?;
    Ok(now.checked_sub(ago.abs())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_times_dates_and_how_long_ago() {
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        for (text, is) in [
            ("2h", "2026-11-21T06:00:00Z"),
            ("1d 30m", "2026-11-20T07:30:00Z"),
            ("2026-11-19", "2026-11-19T00:00:00Z"),
            ("2026-11-19T10:00:00+02:00", "2026-11-19T08:00:00Z"),
        ] {
            assert_eq!(moment(text, now).unwrap().to_string(), is);
        }
        assert!(moment("yesterday", now).unwrap_err().to_string().contains("say `2h`"));
    }
}
