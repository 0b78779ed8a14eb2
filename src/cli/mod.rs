//! The command line: one file a command. The only place where things are wired together, and where errors become text.

mod adopt;
mod agent;
mod completion;
pub mod config;
mod edit;
mod explain;
pub mod get;
mod history;
mod hold;
mod init;
mod journal;
pub mod live;
mod notes;
mod observe;
mod out;
mod plan;
pub mod run;
pub mod secrets;
mod sim;
mod sim_lab;
mod source;
mod validate;
mod verify;
mod yaml;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use out::{READER_GONE, ReaderGone, errln};

/// GitOps for bare metal.
///
/// A fleet repository says what every machine should be. Rackwright watches it, looks at the hardware over Redfish, plans, and
/// makes it true. Changes are commits; status comes back as git notes.
#[derive(Parser)]
#[command(name = "rackwright", version, max_term_width = 100, after_help = FIRST_STEPS)]
struct Cli {
    /// How much to tell on standard error: error, warn, info, debug, trace, or a tracing filter such as `rackwright::bmc=debug`.
    #[arg(long, global = true, env = "RACKWRIGHT_LOG", default_value = "info", value_name = "LEVEL", help_heading = "Log")]
    log: String,
    /// Form of the log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = "Log")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  rackwright sim init lab                  or try the whole loop first, without hardware
  rackwright init my-fleet                 make a fleet repository that validates
  rackwright validate my-fleet             check it
  rackwright adopt --from bmcs.txt         write manifests for machines that run already
  rackwright plan --repo my-fleet          see what the last commit does to hardware
  rackwright run --config rackwright.yaml  follow it
  rackwright status                        see how it goes
  rackwright explain web-01                why a machine is as it is; `history web-01` tells what happened
  rackwright hold --all                    stop, whatever Git says; `unhold --all` lets go on

`rackwright help COMMAND` tells more of each.";

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Args),
    Validate(validate::Args),
    Verify(verify::Args),
    Plan(plan::Args),
    Run(run::Args),
    Status(get::StatusArgs),
    Get(get::GetArgs),
    Explain(explain::Args),
    History(history::Args),
    Journal(journal::Args),
    Hold(hold::Args),
    Unhold(hold::UnholdArgs),
    Suspend(edit::SuspendArgs),
    Resume(edit::ResumeArgs),
    Rebuild(edit::RebuildArgs),
    Approve(edit::ApproveArgs),
    Notes(notes::Args),
    Observe(observe::Args),
    Adopt(adopt::Args),
    Sim(sim::Args),
    Agent(agent::Args),
    Completion(completion::Args),
}

/// How a command ended when it did not fail.
enum Done {
    /// Exit code 0.
    Ok,
    /// Exit code 1: it worked, and what it found is bad.
    Bad,
    /// Exit code 2: it worked, and there is something to do.
    Changes,
}

/// Parses the arguments, runs the command, prints what went wrong.
///
/// Exit codes: 0 done, 1 error, 2 the arguments make no sense, or `plan --detailed-exitcode` found changes, 141 nobody reads what is
/// printed any more.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli);
    // Both ring and others may be linked; one must be chosen before the first TLS connection. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Status(args) => get::status(&args),
        Command::Get(args) => get::get(&args),
        Command::Explain(args) => explain::run(&args),
        Command::History(args) => history::run(&args),
        Command::Journal(args) => journal::run(&args),
        Command::Hold(args) => hold::hold(&args),
        Command::Unhold(args) => hold::unhold(&args),
        Command::Suspend(args) => edit::suspend(&args),
        Command::Resume(args) => edit::resume(&args),
        Command::Rebuild(args) => edit::rebuild(&args),
        Command::Approve(args) => edit::approve(&args),
        Command::Notes(args) => notes::run(&args),
        Command::Observe(args) => observe::run(&args),
        Command::Adopt(args) => adopt::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Completion(args) => completion::run(&args),
    };
    match result {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Bad) => ExitCode::from(1),
        Ok(Done::Changes) => ExitCode::from(2),
        Err(error) if error.is::<ReaderGone>() => ExitCode::from(READER_GONE),
        Err(error) => {
            tell(&error);
            ExitCode::from(1)
        }
    }
}

fn tell(error: &anyhow::Error) {
    errln!("{} {error}", paint("error:", "1;31"));
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // libgit2 ends its messages with numbers that help nobody.
        let cause = cause.split("; class=").next().unwrap_or_default().to_owned();
        // A cause that its outer error quoted already would only be said twice.
        if !said.contains(&cause) {
            errln!("  because: {cause}");
        }
        said = cause;
    }
}

/// `text` in a colour, where standard error is a terminal and NO_COLOR (no-color.org) is not set.
fn paint(text: &str, code: &str) -> String {
    let plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

fn start_log(cli: &Cli) {
    use tracing_subscriber::{EnvFilter, fmt};
    // `info` means ours; libraries speak up from `warn` on unless named.
    let plain = ["error", "warn", "info", "debug", "trace"].contains(&cli.log.as_str());
    let filter = if plain { format!("warn,rackwright={}", cli.log) } else { cli.log.clone() };
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("warn,rackwright=info"));
    // An error of the log can only be told to the log's own reader, which may have gone away.
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).log_internal_errors(false);
    match cli.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Runs `work` on a runtime, and drops the runtime without waiting for what hangs.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// `1 machine`, `2 machines`.
fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Bytes as people read them, in the binary units that manifests are written in.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The machine's clock.
pub struct SystemClock {
    started: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl crate::ports::Clock for SystemClock {
    fn now(&self) -> crate::model::Timestamp {
        crate::model::Timestamp::now()
    }

    fn steady(&self) -> Option<std::time::Duration> {
        Some(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn sizes_have_units() {
        let texts = [0, 1023, 1024, 16 << 20, 1 << 41].map(super::size);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "16.0 MiB", "2.0 TiB"]);
    }

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
