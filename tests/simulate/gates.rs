//! Health gates: pages that answer at once, late or never, and checks that fail before they pass.

use rackwright::model::*;

use crate::{
    controller::Controller,
    metal::{Body, Content, Power, Runs},
    site::Site,
    story::Setup,
};

/// How long a late page takes.
const LATE: SignedDuration = SignedDuration::from_secs(150);

/// The gates in a machine's first manifest: in some fleets each machine but each fourth has some.
pub fn of(setup: &Setup, number: usize) -> Vec<Gate> {
    if !setup.destructive.is_multiple_of(3) {
        return Vec::new();
    }
    let page = || Gate::Http { url: format!("http://m-{number}/healthz"), status: 200, within: SignedDuration::from_mins(6) };
    let within = SignedDuration::from_mins(4);
    match number % 4 {
        0 => Vec::new(),
        1 => vec![page(), Gate::RedfishHealth { worst: Health::Warning, within }],
        2 => vec![page(), Gate::Reported { check: "raid".to_owned(), within }],
        _ => vec![page(), Gate::CalledHome { within: SignedDuration::from_mins(25) }],
    }
}

/// Whether the page of a machine answers as it should. That of each fourth one is late, and with some images it never does.
pub fn answers(body: &Body, number: usize, home: Timestamp, now: Timestamp) -> bool {
    let Content::Whole(generation, _) = &body.system().content else { return false };
    let runs = body.power == Power::On && matches!(body.runs, Runs::System(_)) && !body.no_network;
    let never = number % 4 == 3 && generation.to_string().ends_with(|digit: char| matches!(digit, '0'..='5'));
    runs && !never && (number % 4 != 2 || now.duration_since(home) >= LATE)
}

impl Controller {
    /// `engine::gatekeeper`: the pages of machines that wait at a gate are asked.
    pub fn probe(&mut self, site: &mut Site, fleet: &Fleet) {
        let meant = self.commit().map(|index| site.repo.commits[index].meant.clone()).unwrap_or_default();
        let mut probes = Probes::new();
        for (name, machine) in &fleet.machines {
            let open = self.known.history.machines.get(name).and_then(MachineHistory::open_attempt);
            let Some(home) = open.and_then(|open| open.reached(Rung::CalledHome)) else { continue };
            let Some(body) = meant.get(name).copied() else { continue };
            for gate in &machine.gates {
                let Gate::Http { url, .. } = gate else { continue };
                let well = answers(&site.bodies[body], body, home, site.now);
                let answer = if well { ProbeAnswer::Status(200) } else { ProbeAnswer::Failed("connection refused".to_owned()) };
                let before = self.probes.get(name).and_then(|probes| probes.get(url)).and_then(|before| before.passed);
                let probed = Probed { at: site.now, answer, passed: if well { Some(site.now) } else { before } };
                probes.entry(name.clone()).or_default().insert(url.clone(), probed);
            }
        }
        self.probes = probes;
    }
}
