//! The whole controller over simulated machines. These live in another process, so that their CPU time is not counted.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use git2::Repository;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rackwright::{
    cli::{config::Config, get::get_json, run::Controller},
    model::{State, Status},
};
use serde_json::{Value, json};

use crate::{
    Cost, Goal, Size, cpu,
    fleet::{self, Bmcs},
    median, show, show_bytes,
};

const PASSWORD: &str = "bench";
const BMC_PORT: u16 = 8443;

/// Longest that anything may take on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// `rackwright sim`, ended with this value.
struct Simulator(Child);

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(size: &Size) {
    // Each machine has a listener over there and a connection here.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (_simulator, fingerprint) = simulate(folder.path(), size.simulated);
    make_repository(folder.path(), size.simulated, &fingerprint);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure_controller(folder.path(), size));
}

async fn measure_controller(folder: &Path, size: &Size) {
    let machines = size.simulated;
    let before = resident();
    // Looks at each machine once, then only turns.
    let config = configuration(folder, 3600.0);
    let (cpu_before, begun) = (cpu(), Instant::now());
    let controller = start(&config).await;
    let api = format!("http://{}", controller.api);
    all_ready(&api, machines).await;
    let cost = Cost { wall: begun.elapsed(), cpu: cpu() - cpu_before };
    show(&format!("from the start to {machines} machines seen and Ready"), cost, &Goal::None);
    show_bytes("memory of the controller, a machine", (resident() - before) / machines as u64, 20_000);

    // Turns come by the engine's heartbeat of five seconds.
    let turn = at_rest(size.periods, Duration::from_secs(5)).await;
    show(&format!("a turn over {machines} machines, nobody is asked"), turn, &Goal::None);
    let client = reqwest::Client::new();
    let mut costs = Vec::new();
    for _ in 0..=size.runs {
        let (begun, cpu_before) = (Instant::now(), cpu());
        let body = client.get(format!("{api}/api/v1/status")).send().await.unwrap().bytes().await.unwrap();
        costs.push(Cost { wall: begun.elapsed(), cpu: cpu() - cpu_before });
        assert!(body.len() > machines * 20);
    }
    let list = median(size.runs, |run| costs[run]);
    show(&format!("status list of {machines} machines over the API, both ends"), list, &Goal::Wall(Duration::from_millis(2)));
    end(controller).await;

    let config = configuration(folder, 5.0);
    let controller = start(&config).await;
    all_ready(&format!("http://{}", controller.api), machines).await;
    let whole = at_rest(size.periods, Duration::from_secs(5)).await;
    show(&format!("a whole turn over {machines} machines, each asked once"), whole, &Goal::Cpu(Duration::from_millis(100)));
    end(controller).await;
}

async fn start(config: &Path) -> Controller {
    let config = Config::read(Some(config)).unwrap();
    let journal = rackwright::cli::run::open_journal(&config).unwrap();
    Controller::start(config, journal).await.unwrap()
}

async fn end(controller: Controller) {
    controller.stop.cancel();
    controller.ended().await.unwrap();
}

/// CPU time of one `period` of a controller that is left alone.
async fn at_rest(periods: u32, period: Duration) -> Cost {
    tokio::time::sleep(period).await;
    let before = cpu();
    tokio::time::sleep(period * periods).await;
    Cost { wall: period, cpu: (cpu() - before) / periods }
}

async fn all_ready(api: &str, machines: usize) {
    let begun = Instant::now();
    loop {
        let status: Option<Status> = get_json(&format!("{api}/api/v1/status")).await.ok();
        if let Some(status) = status
            && status.state == State::Ready
            && status.ready as usize == machines
        {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the simulated machines did not become Ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn simulate(folder: &Path, machines: usize) -> (Simulator, String) {
    let machine = |number: usize| {
        json!({
            "name": fleet::name(number), "address": fleet::address(number), "port": BMC_PORT, "serial": format!("SN-{number:05}"),
            "uuid": fleet::uuid(number), "mac": fleet::mac(number), "mode": "UEFI", "power": "On",
            "disks": [{"serial": format!("SYS-{number:05}"), "size": "8MiB"}],
        })
    };
    let config = json!({
        "credentials": {"username": "admin", "password": PASSWORD},
        "stateDir": folder.join("sim"),
        "machines": (0..machines).map(machine).collect::<Vec<Value>>(),
    });
    fs::create_dir_all(folder.join("sim")).unwrap();
    let file = folder.join("sim.yaml");
    fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackwright"));
    let command = command.arg("sim").arg("--file").arg(&file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut simulator = Simulator(command.spawn().unwrap());
    let mut line = String::new();
    let mut output = std::io::BufReader::new(simulator.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let fingerprint = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    assert!(fingerprint.starts_with("sha256:"), "the simulator did not start: {line}");
    // It goes on to say where its BMCs are, and somebody has to read that.
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    (simulator, fingerprint)
}

fn make_repository(folder: &Path, machines: usize, fingerprint: &str) {
    let password = folder.join("password");
    fs::write(&password, PASSWORD).unwrap();
    let bmcs = Bmcs::Simulated { fingerprint, password: password.to_str().unwrap(), port: BMC_PORT };
    let bare: Repository = crate::git::make_repository(&folder.join("fleet.git"));
    crate::git::commit(&bare, &fleet::repository(machines, &bmcs));
}

/// The controller's configuration file.
fn configuration(folder: &Path, observe_seconds: f64) -> std::path::PathBuf {
    let boot = folder.join("boot");
    fs::create_dir_all(&boot).unwrap();
    fs::create_dir_all(folder.join("images")).unwrap();
    for name in ["undionly.kpxe", "snponly.efi", "ipxe.efi", "localboot.efi", "vmlinuz", "initramfs.img"] {
        fs::write(boot.join(name), [0x90; 512]).unwrap();
    }
    let udp: Vec<_> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let tcp: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let [dhcp, tftp] = [0, 1].map(|n: usize| at(udp[n].local_addr().unwrap().port()));
    let [http, https] = [0, 1].map(|n: usize| at(tcp[n].local_addr().unwrap().port()));
    let config = json!({
        "site": "bench", "stateDir": folder.join("state"),
        "repository": {"url": folder.join("fleet.git"), "poll": "30s"},
        "boot": {
            "advertise": "127.0.0.1", "dhcp": dhcp, "proxyDhcp": Value::Null, "tftp": tftp, "http": http, "https": https,
            "files": boot, "images": folder.join("images"), "kernel": boot.join("vmlinuz"), "initramfs": boot.join("initramfs.img"),
        },
        "api": {"listen": "127.0.0.1:0"},
        "pace": {"observeSeconds": observe_seconds, "notesSeconds": 1.0},
    });
    let path = folder.join("rackwright.yaml");
    fs::write(&path, config.to_string()).unwrap();
    path
}
