//! Network namespaces that a test makes, and a boot server inside one of them.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rackwright::{boot::Server, model::BootTable, ports::Boot as _};

use super::Recorder;

const SERVER: &str = "RACKWRIGHT_TEST_BOOT_SERVER";

/// Namespaces of one test; gone when dropped.
pub struct Net {
    prefix: String,
    names: Vec<&'static str>,
}

impl Net {
    /// Makes the namespaces, or says why the test is skipped.
    pub fn new(test: &str, names: &[&'static str]) -> Option<Net> {
        let mut net = Net { prefix: format!("rw{}{test}", std::process::id()), names: Vec::new() };
        for name in names {
            let made = Command::new("ip").args(["netns", "add", &net.name(name)]).output();
            if !made.is_ok_and(|made| made.status.success()) {
                println!("skipped: network namespaces can't be made here (needs root and iproute2)");
                return None;
            }
            net.names.push(name);
            net.ip(name, "link set lo up");
        }
        Some(net)
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A command in a namespace.
    pub fn exec(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(name), program]);
        command
    }

    /// `ip <words>` in a namespace.
    pub fn ip(&self, name: &str, words: &str) {
        let done = Command::new("ip").args(["-n", &self.name(name)]).args(words.split_whitespace()).output().unwrap();
        assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A cable between two namespaces, both ends up.
    pub fn cable(&self, a: (&str, &str), b: (&str, &str)) {
        self.ip(a.0, &format!("link add {} type veth peer name {} netns {}", a.1, b.1, self.name(b.0)));
        for (name, device) in [a, b] {
            self.ip(name, &format!("link set {device} up"));
        }
    }

    /// Starts a boot server in a namespace: this test program again, as `serve_here`.
    pub fn serve(&self, name: &str, folder: &Path, device: &str, advertise: Ipv4Addr, table: &BootTable) -> Remote {
        super::fill(folder);
        let mut config = super::config(folder, Ipv4Addr::UNSPECIFIED);
        config.advertise = advertise;
        config.interfaces = vec![device.to_owned()];
        config.dhcp = Some("0.0.0.0:67".parse().unwrap());
        config.proxy_dhcp = Some("0.0.0.0:4011".parse().unwrap());
        config.tftp = "0.0.0.0:69".parse().unwrap();
        std::fs::write(folder.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        std::fs::write(folder.join("table.json"), serde_json::to_vec(table).unwrap()).unwrap();
        let mut command = self.exec(name, std::env::current_exe().unwrap().to_str().unwrap());
        command.args(["serve_here", "--exact", "--nocapture"]).env(SERVER, folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (lines, output) = (Arc::new(Mutex::new(Vec::new())), child.stdout.take().unwrap());
        let kept = lines.clone();
        std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        let remote = Remote { child: Kill(child), lines };
        remote.wait_for("ready");
        remote
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", &self.name(name)]).output();
        }
    }
}

/// A child that is killed when dropped.
pub struct Kill(pub Child);

impl Drop for Kill {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A boot server in a namespace. It prints what its witness is told.
pub struct Remote {
    child: Kill,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Remote {
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line that has `text` in it.
    pub fn wait_for(&self, text: &str) {
        for _ in 0..1800 {
            if self.lines().iter().any(|line| line.contains(text)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("never said {text:?}: {:#?}", self.lines());
    }
}

/// The body of the test `serve_here`: nothing, unless [`Net::serve`] started it. Ends when its input does.
pub fn serve_if_asked() {
    let Some(folder) = std::env::var_os(SERVER) else { return };
    let folder = Path::new(&folder);
    let config = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let table: BootTable = serde_json::from_slice(&std::fs::read(folder.join("table.json")).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let witness = Arc::new(Recorder::default());
    let server = runtime.block_on(async {
        let server = Server::start(config, &folder.join("state"), witness.clone()).await.unwrap();
        server.publish(Arc::new(table)).await;
        server
    });
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    println!("ready {:?}", server.addresses());
    let mut said = (0, 0);
    loop {
        let (saw, refused) = (witness.saw.lock().unwrap().clone(), witness.refused.lock().unwrap().clone());
        saw[said.0..].iter().for_each(|(attempt, evidence)| println!("saw {attempt} {:?}", evidence.rung()));
        refused[said.1..].iter().for_each(|(machine, what)| println!("refused {machine:?} {what}"));
        said = (saw.len(), refused.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}
