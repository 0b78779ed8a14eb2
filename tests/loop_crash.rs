//! The law's tenth line: a crash changes nothing. The controller is killed at each single write of its journal, before the write is
//! durable and after, while it installs a machine; started again, it finishes, and the disk's own account says that it was written once.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use lab::{Lab, Node, PATIENCE, ready};
use nix::sys::{prctl, signal::Signal};
use rackwright::{
    cli::{config::Config, run::Controller},
    journal::SqliteJournal,
    model::{AttemptEnd, CommitId, Fact, History, MachineName, Record, Timestamp},
    ports::{Journal, JournalError},
    sim::SEED,
};
use serde_json::{Value, json};

/// Laboratories at work at a time, and machines in each: one machine for each death, so that no case stands on another one's ruins.
const LABS: usize = 5;
const MACHINES: usize = 20;

const CONFIG: &str = "CRASH_CONFIG";
const DEATH: &str = "CRASH_DEATH";

/// On which side of its durability a write kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// When to die: at the n-th write from the start of the process. Zero: never.
#[derive(Debug, Clone, Copy)]
struct Death {
    write: usize,
    side: Side,
}

const NEVER: Death = Death { write: 0, side: Side::Before };

/// The real journal, and a process that dies by it.
struct Dying {
    journal: SqliteJournal,
    death: Death,
    writes: AtomicUsize,
    log: Mutex<File>,
}

impl Dying {
    fn count(&self, what: &str) -> usize {
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        writeln!(self.log.lock().unwrap(), "{number} {what}").unwrap();
        number
    }

    fn die_if(&self, number: usize, side: Side) {
        if number == self.death.write && side == self.death.side {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGKILL);
            std::process::abort();
        }
    }
}

#[async_trait]
impl Journal for Dying {
    async fn append(&self, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, JournalError> {
        let number = self.count(&serde_json::to_string(&facts).unwrap());
        self.die_if(number, Side::Before);
        let written = self.journal.append(at, commit, facts).await;
        self.die_if(number, Side::After);
        written
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), JournalError> {
        let number = self.count(&format!("put {key} {value}"));
        self.die_if(number, Side::Before);
        let written = self.journal.put(key, value).await;
        self.die_if(number, Side::After);
        written
    }

    async fn records(&self) -> Result<Vec<Record>, JournalError> {
        self.journal.records().await
    }

    async fn get(&self, key: &str) -> Result<Option<String>, JournalError> {
        self.journal.get(key).await
    }
}

/// Not a test by itself: the controller's process, when another test of this file runs this program again.
#[tokio::test(flavor = "multi_thread")]
async fn process_of_the_controller() {
    let (Some(config), Ok(death)) = (std::env::var_os(CONFIG), std::env::var(DEATH)) else { return };
    prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _ = tracing_subscriber::fmt().with_env_filter("warn,rackwright=debug").with_ansi(false).with_writer(std::io::stderr).try_init();
    let config = Config::read(Some(&PathBuf::from(config))).unwrap();
    let (write, side) = death.split_once(' ').unwrap();
    let side = if side == "Before" { Side::Before } else { Side::After };
    fs::create_dir_all(&config.state_dir).unwrap();
    let log = File::options().create(true).append(true).open(config.state_dir.join("writes.log")).unwrap();
    let journal = SqliteJournal::open(&config.journal(), "crash test").unwrap();
    let death = Death { write: write.parse().unwrap(), side };
    let journal = Dying { journal, death, writes: AtomicUsize::new(0), log: Mutex::new(log) };
    let controller = Controller::start(config, Arc::new(journal)).await.unwrap();
    controller.ended().await.unwrap();
}

/// A controller in a process of its own; gone when this is dropped.
struct Process(Child);

impl Process {
    fn start(lab: &Lab, death: Death) -> Self {
        let config = lab.path("crash.json");
        let log = File::options().create(true).append(true).open(lab.path("controller.log")).unwrap();
        writeln!(&log, "--- dies at {death:?}").unwrap();
        let arguments = ["--exact", "process_of_the_controller", "--nocapture", "--test-threads=1"];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).env(CONFIG, config).env(DEATH, format!("{} {:?}", death.write, death.side));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn is_dead(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The laboratory's configuration, with deadlines that a busy machine holds: what is tried here is death, not slowness.
fn write_config(lab: &Lab) {
    let mut config: Value = serde_json::from_slice(&fs::read(lab.config()).unwrap()).unwrap();
    let limits = &mut config["deadlines"];
    ["firstWrite", "silence", "fromDisk", "callHome"].iter().for_each(|name| limits[*name] = json!("60s"));
    // A machine whose network boot fell into the controller's absence is started again after these.
    ["firstPacket", "loader", "agent"].iter().for_each(|name| limits[*name] = json!("5s"));
    limits["shutdown"] = json!("1s");
    limits["maxTries"] = json!(10);
    fs::write(lab.path("crash.json"), config.to_string()).unwrap();
}

/// Which deaths were tried, and the first one that a whole install did not reach.
#[derive(Default)]
struct Deaths {
    next: usize,
    unreached: Option<usize>,
}

impl Deaths {
    fn take(&mut self, both_sides: bool) -> Option<Death> {
        let write = if both_sides { self.next / 2 } else { self.next } + 1;
        let death = Death { write, side: if self.next.is_multiple_of(2) { Side::Before } else { Side::After } };
        self.next += 1;
        self.unreached.is_none_or(|unreached| death.write < unreached).then_some(death)
    }
}

/// What a case is about: the image that a machine gets, how many installs of its disk that makes, and on which sides to die.
#[derive(Clone, Copy)]
struct Case {
    image: &'static str,
    installs: u64,
    both_sides: bool,
}

/// Kills the controller at each of its writes while machines are installed, one for each death.
async fn die_everywhere(labs: &mut [Lab], case: Case) -> usize {
    let deaths = Mutex::new(Deaths::default());
    let all = labs.iter_mut().map(|lab| async {
        // For a reinstall: those that were installed here.
        let machines = (0..MACHINES).filter(|index| case.installs == 1 || lab.is_declared(*index)).collect::<Vec<_>>();
        for index in machines {
            let Some(death) = deaths.lock().unwrap().take(case.both_sides) else { return };
            if !die_once(lab, index, death, case).await {
                let mut deaths = deaths.lock().unwrap();
                deaths.unreached = Some(deaths.unreached.map_or(death.write, |known| known.min(death.write)));
            }
        }
    });
    futures_util::future::join_all(all).await;
    let deaths = deaths.into_inner().unwrap();
    deaths.unreached.unwrap_or_else(|| panic!("an install has more writes than {} machines can show", LABS * MACHINES)) - 1
}

/// One death and one recovery. False when the install was over before the write at which it should have died.
async fn die_once(lab: &mut Lab, index: usize, death: Death, case: Case) -> bool {
    let name = lab.nodes[index].name.clone();
    lab.nodes[index].image = case.image.to_owned();
    lab.write_machine(index);
    let commit = lab.commit(&format!("{name} gets image {}, the controller dies at {death:?}", case.image));
    let begun = Instant::now();
    let is_ready = ready(&commit);
    let mut process = Process::start(lab, death);
    let died = loop {
        if process.is_dead() {
            break true;
        }
        if lab.status().await.is_some_and(|status| is_ready(&status)) {
            break false;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", lab.tell(&name, death, "neither died nor finished"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    if died {
        process = Process::start(lab, NEVER);
        while !lab.status().await.is_some_and(|status| is_ready(&status)) {
            assert!(!process.is_dead(), "{}", lab.tell(&name, death, "the second controller ended"));
            assert!(begun.elapsed() < PATIENCE, "{}", lab.tell(&name, death, "did not finish after the death"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    drop(process);
    if let Err(wrong) = judge(lab, &name, case) {
        panic!("{}", lab.tell(&name, death, &wrong));
    }
    died
}

/// What the disk says, then what the journal says.
fn judge(lab: &Lab, name: &str, case: Case) -> Result<(), String> {
    let check = |good: bool, what: String| if good { Ok(()) } else { Err(what) };
    let installs = lab.installs(name);
    check(installs == case.installs, format!("{installs} installs began on the disk instead of {}", case.installs))?;
    check(lab.difference(name, case.image).is_none(), "the disk does not hold the image".to_owned())?;
    let mut account = lab.disk(name).into_os_string();
    account.push(".writes.json");
    let account: Value = serde_json::from_slice(&fs::read(account).unwrap()).unwrap();
    let size = fs::metadata(lab.disk(name)).unwrap().len();
    for (block, writes) in account["blocks"].as_object().unwrap() {
        let at = block.parse::<usize>().unwrap() << 20;
        // The ends are zeroed before all else, and written after it.
        let times = if at == 0 || at as u64 + (1 << 20) == size { 2 } else { 1 };
        let lawful = SEED.contains(&at) || writes.as_u64() <= Some(times * case.installs);
        check(lawful, format!("block {block} was written {writes} times"))?;
    }
    let records = SqliteJournal::read_only(&lab.path("state/journal.db")).unwrap().records_after(0).unwrap();
    check(records.iter().map(|record| record.seq).eq(1..=records.len() as u64), "the journal has gaps".to_owned())?;
    let history = History::of(&records);
    let machine = &history.machines[&name.parse::<MachineName>().unwrap()];
    let done = machine.attempts.iter().filter(|attempt| matches!(attempt.end, Some((_, AttemptEnd::Done)))).count() as u64;
    check(done == case.installs, format!("{done} attempts are done: {:#?}", machine.attempts))?;
    check(machine.attempts.iter().all(|attempt| attempt.end.is_some()), "an attempt is open".to_owned())?;
    let wrote = machine.attempts.iter().filter(|attempt| attempt.wrote()).count() as u64;
    check(wrote == case.installs, format!("{wrote} attempts wrote: {:#?}", machine.attempts))
}

trait Crash {
    fn is_declared(&self, index: usize) -> bool;
    fn write_machine(&self, index: usize);
    fn tell(&self, name: &str, death: Death, what: &str) -> String;
}

impl Crash for Lab {
    fn is_declared(&self, index: usize) -> bool {
        self.path("work/machines").join(format!("{}.yaml", self.nodes[index].name)).exists()
    }

    /// Puts the machine into the repository, or changes it there.
    fn write_machine(&self, index: usize) {
        let machines = self.path("work/machines");
        let name = format!("{}.yaml", self.nodes[index].name);
        let present: Vec<_> = fs::read_dir(&machines).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        self.write_machines();
        for entry in fs::read_dir(&machines).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != *name && !present.contains(&entry.file_name()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn tell(&self, name: &str, death: Death, what: &str) -> String {
        let read = |file: &str| fs::read_to_string(self.path(file)).unwrap_or_default();
        let last = |text: String, count: usize| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        };
        let report = self.simulator.report(name);
        format!(
            "{name}, {death:?}: {what}\n{report:#?}\nwrites:\n{}\nlog:\n{}",
            last(read("state/writes.log"), 40),
            last(read("controller.log"), 150)
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_write_of_an_install_loses_nothing_and_writes_no_disk_twice() {
    if std::env::var_os(CONFIG).is_some() {
        return;
    }
    let mut labs = Vec::new();
    for _ in 0..LABS {
        let modes = ["UEFI", "BIOS"];
        let node = |index: usize| Node::new(&format!("m{index}"), "Install").with(|node| node.mode = modes[index % 2]);
        let lab = Lab::new((0..MACHINES).map(node).collect()).await;
        write_config(&lab);
        fs::remove_dir_all(lab.path("work/machines")).unwrap();
        fs::create_dir(lab.path("work/machines")).unwrap();
        lab.commit("No machine yet");
        labs.push(lab);
    }
    let begun = Instant::now();
    let writes = die_everywhere(&mut labs, Case { image: "one", installs: 1, both_sides: true }).await;
    println!("an install has {writes} writes; the controller died before and after each of them, {:.0?}", begun.elapsed());
    assert!(writes > 15, "an install has more writes than {writes}");

    // The same machines again, running now: the old content of a disk goes once, and the machines beside it keep theirs.
    let writes = die_everywhere(&mut labs, Case { image: "two", installs: 2, both_sides: false }).await;
    println!("a reinstall has {writes} writes; the controller died at each of them, {:.0?} in all", begun.elapsed());
    assert!(writes > 15, "a reinstall has more writes than {writes}");
}
