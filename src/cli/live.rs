//! The fleet as it changes: a bar for each machine that is worked on; plain lines where there is no terminal.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{get::get_json, out::outln};
use crate::model::{MachineName, MachineStatus, Phase, Rung, State, Status};

/// Rungs that a bar counts, and the share of it that bytes fill.
const RUNGS: u64 = 10;
const BYTES: u64 = 10;

/// Draws statuses.
pub struct View {
    bars: MultiProgress,
    head: ProgressBar,
    machines: BTreeMap<MachineName, ProgressBar>,
    said: BTreeMap<MachineName, String>,
    plain: bool,
}

impl View {
    /// A view on standard error.
    pub fn new() -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bars = MultiProgress::with_draw_target(if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
        let head = bars.add(ProgressBar::new_spinner());
        head.set_style(style("{msg}"));
        Self { bars, head, machines: BTreeMap::new(), said: BTreeMap::new(), plain }
    }

    /// Shows `status`.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub fn show(&mut self, status: &Status) -> anyhow::Result<()> {
        let (id, subject) = (status.commit.id.short(), &status.commit.subject);
        self.head.set_message(format!("{} of {} ready   {id} {subject}", status.ready, status.total));
        let worked_on: BTreeMap<_, _> =
            status.machines.iter().filter(|(_, machine)| machine.state != State::Ready || machine.rung.is_some()).collect();
        self.machines.retain(|name, bar| {
            let stays = worked_on.contains_key(name);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for (name, machine) in worked_on {
            let bar = self.machines.entry(name.clone()).or_insert_with(|| {
                let bar = self.bars.add(ProgressBar::new(RUNGS + BYTES));
                bar.set_style(style("  {prefix:<12.bold} [{bar:24.cyan/blue}] {wide_msg}"));
                bar.set_prefix(name.to_string());
                bar
            });
            bar.set_position(position(machine));
            bar.set_message(text(machine));
        }
        if self.plain { self.say_changes(status) } else { Ok(()) }
    }

    /// Prints a line above the bars.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub fn say(&self, line: &str) -> anyhow::Result<()> {
        if self.plain { outln!("{line}") } else { self.bars.suspend(|| outln!("{line}")) }
    }

    /// Removes everything that it drew.
    pub fn clear(&mut self) {
        self.machines.values().for_each(ProgressBar::finish_and_clear);
        self.machines.clear();
        self.head.finish_and_clear();
    }

    fn say_changes(&mut self, status: &Status) -> anyhow::Result<()> {
        for (name, machine) in &status.machines {
            let now = match machine.rung {
                Some(rung) => rung.to_string(),
                None => machine.reason.clone(),
            };
            let before = self.said.insert(name.clone(), now.clone());
            // A fleet that is only looked at, and found as it should be, is no news.
            let quiet = machine.reason == "NotObserved"
                || (machine.state == State::Ready && before.as_deref().is_none_or(|before| before == "NotObserved"));
            if before.as_ref() != Some(&now) && !quiet {
                outln!("  {name}: {now}")?;
            }
        }
        Ok(())
    }
}

impl Default for View {
    fn default() -> Self {
        Self::new()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

fn position(machine: &MachineStatus) -> u64 {
    let rung = match machine.rung {
        None => 0,
        Some(Rung::TicketArmed) => 1,
        Some(Rung::BootSet) => 2,
        Some(Rung::PowerSeen) => 3,
        Some(Rung::DhcpSeen) => 4,
        Some(Rung::LoaderFetched) => 5,
        Some(Rung::AgentUp) => 6,
        Some(Rung::Writing) => 7,
        Some(Rung::Written) => 8,
        Some(Rung::BootedFromDisk) => 9,
        Some(Rung::CalledHome | Rung::Healthy) => 10,
    };
    let bytes = match machine.progress {
        _ if machine.rung >= Some(Rung::Written) => BYTES,
        Some(progress) => match (progress.phase, progress.total) {
            (Phase::Writing, Some(total)) if total > 0 => progress.done.min(total) * (BYTES - 2) / total,
            (Phase::Writing, _) => 1,
            (Phase::Verifying, _) => BYTES - 2,
            (Phase::Finishing, _) => BYTES - 1,
        },
        None => 0,
    };
    rung + bytes
}

fn text(machine: &MachineStatus) -> String {
    match (machine.rung, machine.progress) {
        (Some(Rung::Writing), Some(progress)) => {
            let phase = match progress.phase {
                Phase::Writing => "writing",
                Phase::Verifying => "verifying",
                Phase::Finishing => "finishing",
            };
            let mib = |bytes: u64| bytes / (1024 * 1024);
            let of = progress.total.map(|total| format!(" of {} MiB", mib(total))).unwrap_or_default();
            format!("{phase} {}{of}", mib(progress.done))
        }
        (Some(rung), _) => rung.to_string(),
        (None, _) if machine.message.is_empty() => machine.reason.clone(),
        (None, _) => machine.message.clone(),
    }
}

/// Shows a controller's fleet until Ctrl-C.
pub async fn watch(url: &str) -> anyhow::Result<()> {
    let mut view = View::new();
    // The first answer decides whether there is a controller; later gaps are its restarts.
    view.show(&get_json::<Status>(&format!("{url}/api/v1/status")).await?)?;
    loop {
        tokio::select! {
            stopped = tokio::signal::ctrl_c() => {
                view.clear();
                return Ok(stopped?);
            }
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
        }
        if let Ok(status) = get_json::<Status>(&format!("{url}/api/v1/status")).await {
            view.show(&status)?;
        }
    }
}
