//! What made people distrust this kind of software, replayed on the real program and the simulator: docs/never.md quotes what it answers.
//! `INSTA_UPDATE=always UPDATE=1 cargo test --test cli_stories` renews both.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli_support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cli_support::{Lab, Running, edit, filters, git, wait};
use insta::assert_snapshot;

/// Laboratories of one process have the same addresses.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A laboratory with three machines that run and are adopted, a controller, and what was typed and answered.
struct Story {
    lab: Lab,
    said: String,
    controller: Option<Running>,
    _simulator: Running,
    _guard: MutexGuard<'static, ()>,
}

impl Story {
    /// Begins when all machines are adopted. `change` edits the fleet before that.
    fn begin(change: impl FnOnce(&Path)) -> Self {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (lab, _) = Lab::init();
        let fleet = lab.path("fleet");
        edit(&fleet.join("machines/node-3.yaml"), |text| text.replace("onClaim: Install", "onClaim: Adopt"));
        edit(&lab.path("sim.yaml"), |text| text.replace("power: Off", "power: On "));
        change(&fleet);
        lab.push("Describe the fleet as it stands");
        let simulator = lab.simulator(|_| {});
        let controller = Some(lab.controller("run.log", |_| {}));
        lab.until("3 of 3 machines ready");
        Self { lab, said: String::new(), controller, _simulator: simulator, _guard: guard }
    }

    fn push(&self, subject: &str) {
        git(&self.lab.path("fleet"), &["add", "--all"]);
        self.lab.push(subject);
    }

    /// Quotes what was done in words.
    fn note(&mut self, text: &str) {
        self.said += &format!("# {text}\n");
    }

    /// Quotes a command and its answer.
    fn ask(&mut self, command: &str) {
        let answer = self.lab.tell(&command.split(' ').collect::<Vec<_>>());
        self.quote(command, &answer);
    }

    /// The same once the answer has `text`, and nothing is to be done just now. What the BMC said last is newer than the rest and does not count.
    fn ask_until(&mut self, command: &str, text: &str) {
        let answer = wait(text, || {
            let answer = self.lab.tell(&command.split(' ').collect::<Vec<_>>());
            let judged = answer.split("\nLast seen\n").next().unwrap_or_default();
            if judged.contains(text) && !judged.contains("\n           now ") { Ok(answer) } else { Err(answer) }
        });
        self.quote(command, &answer);
    }

    fn quote(&mut self, command: &str, answer: &str) {
        // What the BMC said last is long, and the same everywhere. Where a line is folded depends on the length of addresses.
        let answer = answer.split("\nLast seen\n").next().unwrap_or_default();
        let answer = answer.replace(&format!("\n{}", " ".repeat(18)), " ");
        let answer =
            answer.split("--- exit code 0").next().unwrap_or_default().replace("--- standard error\n", "").replace("--- exit", "exit");
        self.said += &format!("$ rackwright {command}\n{}\n\n", answer.trim_end());
    }

    fn control(&self, method: &str, path: &str, body: &str) -> String {
        let address = format!("{}:8471", self.lab.address(1));
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {head}");
        body.to_owned()
    }

    fn fault(&self, machine: &str, fault: &str) {
        self.control("POST", &format!("/machines/{machine}/faults"), &format!("{{\"fault\": \"{fault}\"}}"));
    }

    /// What the simulator, which no word of the controller reaches, says of all machines.
    fn outside(&self) -> serde_json::Value {
        serde_json::from_str(&self.control("GET", "/machines", "")).unwrap()
    }

    /// Nobody's disk was written, and nobody was switched: `power` is what each machine has.
    fn nothing_happened(&self, power: [&str; 3]) {
        let outside = self.outside();
        let machines = outside.as_array().unwrap();
        assert_eq!(machines.len(), 3);
        for (machine, power) in machines.iter().zip(power) {
            assert_eq!((&machine["power"], &machine["disks"][0]["bytes"]), (&power.into(), &0.into()), "{machine}");
        }
    }

    fn end(self, name: &str) {
        let mut filters = filters();
        filters.add_filter(r"\[TIME\]  [0-9a-f]{8}\b", "[TIME]  [ID]");
        filters.add_filter(r"\b(\d+m )?\d+s ago", "[AGE] ago");
        let _filters = filters.bind_to_scope();
        assert_snapshot!(name, self.said.trim_end());
    }
}

#[test]
fn an_image_edit_that_would_rebuild_every_node() {
    // Budgets as they are when nobody thought of them.
    let mut story = Story::begin(|fleet| {
        edit(&fleet.join("rollouts/node.yaml"), |text| {
            text.lines().filter(|line| !line.contains("max")).fold(String::new(), |all, line| all + line + "\n")
        });
    });
    edit(&story.lab.path("fleet/profiles/node.yaml"), |text| text.replace("image: one", "image: two"));
    story.ask("plan --repo fleet");
    story.push("Move to image two");
    story.note("It was pushed all the same.");
    story.ask_until("explain node-2", "are allowed");
    story.nothing_happened(["On", "On", "On"]);
    story.end("story-image-edit");
}

#[test]
fn a_rename_that_deleted() {
    let mut story = Story::begin(|_| {});
    let fleet = story.lab.path("fleet");
    git(&fleet, &["mv", "machines/node-1.yaml", "machines/www-1.yaml"]);
    edit(&fleet.join("machines/www-1.yaml"), |text| text.replace("name: node-1", "name: www-1"));
    story.ask("plan --repo fleet");
    story.push("node-1 is called www-1 now");
    story.ask_until("history www-1", "renamed");
    story.lab.until("3 of 3 machines ready");
    git(&fleet, &["rm", "--quiet", "machines/node-2.yaml"]);
    story.note("And one that really is deleted:");
    story.ask("plan --repo fleet");
    story.push("node-2 leaves");
    story.lab.until("2 of 2 machines ready");
    story.nothing_happened(["On", "On", "On"]);
    story.end("story-rename");
}

#[test]
fn a_drift_loop_that_rebooted() {
    let mut story = Story::begin(|_| {});
    story.fault("node-1", "serial-mismatch");
    story.control("POST", "/machines/node-1/power", "{\"state\": \"Off\"}");
    story.note("node-1 was switched off by hand, and its BMC says that it is another machine.");
    story.ask_until("explain node-1", "spec.power is Off");
    story.control("POST", "/machines/node-2/power", "{\"state\": \"Off\"}");
    story.note("node-2 was switched off by hand, and its manifest says On.");
    wait("node-2 on again", || if story.outside()[1]["power"] == "On" { Ok(()) } else { Err(story.lab.tell(&["explain", "node-2"])) });
    story.ask_until("history node-2", "done");
    story.nothing_happened(["Off", "On", "On"]);
    story.end("story-drift");
}

#[test]
fn a_wrong_disk_hint_that_fell_back_to_any_disk() {
    let mut story = Story::begin(|_| {});
    edit(&story.lab.path("fleet/machines/node-2.yaml"), |text| text.replace("serial: DISK-0002", "serial: DISK-2000") + "  rebuild: 1\n");
    story.ask("plan --repo fleet");
    story.push("Rebuild node-2");
    wait("no disk", || {
        let told = story.lab.tell(&["history", "node-2"]);
        if told.contains("no-disk-matches") { Ok(()) } else { Err(told) }
    });
    wait("node-2 on again", || if story.outside()[1]["power"] == "On" { Ok(()) } else { Err(story.lab.tell(&["history", "node-2"])) });
    story.ask_until("explain node-2", "drift  spec.disks.system");
    story.nothing_happened(["On", "On", "On"]);
    story.end("story-disk");
}

#[test]
fn a_remediation_that_powered_tenants_off() {
    let mut story = Story::begin(|_| {});
    story.fault("node-1", "bmc-unreachable");
    story.note("node-1's BMC is gone. What runs on the machine does not care.");
    story.ask_until("explain node-1", "Stalled, BmcUnreachable");
    git(&story.lab.path("fleet"), &["rm", "--quiet", "machines/node-1.yaml"]);
    story.note("And somebody takes its manifest away:");
    story.ask("plan --repo fleet");
    story.push("node-1 leaves");
    story.lab.until("2 of 2 machines ready");
    story.nothing_happened(["On", "On", "On"]);
    story.end("story-tenants");
}

#[test]
fn a_dead_lock_holder() {
    let mut story = Story::begin(|_| {});
    story.note("Somebody starts a second controller:");
    story.ask("run");
    story.controller.take().unwrap().stop("-KILL");
    story.note("The first one is killed with SIGKILL. Another one starts at once, with nobody's help:");
    story.controller = Some(story.lab.controller("second.log", |_| {}));
    story.ask_until("status", "3 of 3 machines ready");
    assert!(!story.lab.read("second.log").contains("held by"), "{}", story.lab.read("second.log"));
    story.nothing_happened(["On", "On", "On"]);
    story.end("story-lock");
}

#[test]
fn a_rollout_that_nobody_could_explain() {
    let mut story = Story::begin(|fleet| {
        edit(&fleet.join("rollouts/node.yaml"), |text| text + "  waves: [1]\n");
    });
    story.fault("node-1", "agent-never-calls");
    edit(&story.lab.path("fleet/profiles/node.yaml"), |text| text.replace("image: one", "image: two"));
    story.push("Move to image two");
    story.note("node-1 is the canary. Its agent is loaded and never heard of again.");
    story.ask_until("explain node-1", "first word");
    story.ask_until("explain node-2", "wave 2");
    story.ask("status");
    story.end("story-stuck");
}

/// The threat model names tests. Each is there.
#[test]
fn the_tests_that_pages_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut code) = (vec![root.join("src"), root.join("tests")], String::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => code += &fs::read_to_string(&path).unwrap(),
                Some(extension) if extension == "scn" => code += &format!("fn {}(", path.file_name().unwrap().to_str().unwrap()),
                _ => {}
            }
        }
    }
    for page in ["docs/who-can-do-what.md", "docs/never.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let is_test = |name: &&str| name.ends_with(".scn") || (name.matches('_').count() >= 3 && !name.contains(' '));
        let missing: Vec<&str> = quoted.filter(is_test).filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{page}: {missing:?}");
    }
}

/// docs/never.md quotes the stories as they are played here.
#[test]
fn the_page_quotes_what_was_played() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("docs/never.md");
    let text = fs::read_to_string(&page).unwrap();
    let (mut fresh, mut rest, mut quoted) = (String::new(), text.as_str(), 0);
    while let Some((before, after)) = rest.split_once("<!-- played: ") {
        let (name, after) = after.split_once(" -->\n```\n").unwrap();
        let after = after.strip_prefix("```\n").unwrap_or_else(|| after.split_once("\n```\n").unwrap().1);
        let snapshot = fs::read_to_string(root.join(format!("tests/snapshots/{name}.snap"))).unwrap();
        let played = snapshot.splitn(3, "---\n").nth(2).unwrap();
        fresh += &format!("{before}<!-- played: {name} -->\n```\n{}\n```\n", played.trim_end());
        rest = after;
        quoted += 1;
    }
    fresh += rest;
    let stories = fs::read_dir(root.join("tests/snapshots")).unwrap().flatten();
    let stories = stories.filter(|entry| entry.file_name().to_string_lossy().starts_with("story-")).count();
    assert_eq!(quoted, stories, "each story is on the page");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&page, &fresh).unwrap();
    }
    assert_eq!(fresh, fs::read_to_string(&page).unwrap(), "UPDATE=1 renews the page");
}
