//! What happens between power and a running system: POST, boot devices in their order, and what they hold.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use reqwest::{Client as HttpClient, Url};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Activity, Enabled, Machine, Override, Target, cluster, dhcp,
    host::SimHost,
    script::{Download, Downloads, Ended, Shell},
    tftp,
};
use crate::{
    agent::{self, End},
    model::{BootMode, CallHome, Digest, PowerState},
    sim::{
        config::{BootDevice, VmConfig, std_duration},
        fault::Fault,
        qemu,
    },
};

/// Largest script that is kept; the head of anything else is cut there.
const SCRIPT: usize = 1 << 20;
/// How often an installed system tries to call home (as cloud-init's `phone_home` with `tries: 10`).
const CALL_HOME_TRIES: u32 = 10;
/// Port of TFTP servers (RFC 1350).
const TFTP_PORT: u16 = 69;

/// How one boot device went.
enum Went {
    /// Nothing to start there: the next one.
    Nowhere,
    /// What it started reboots the machine.
    Reboot,
    /// What it started switches the machine off.
    Off,
    /// What it started runs until power goes.
    Stays,
}

impl Machine {
    /// Firmware and what it boots, until power goes.
    pub(super) async fn run(self: Arc<Self>, rail: CancellationToken) {
        if let Some(vm) = self.config.vm.clone() {
            return self.run_vm(&vm).await;
        }
        loop {
            self.set_power(PowerState::On, Activity::Post);
            tokio::time::sleep(std_duration(self.pace.post)).await;
            if !self.boot_once(&rail).await {
                return;
            }
            info!(machine = %self.config.name, "reboot");
        }
    }

    /// The same with a virtual machine: firmware and all that follows are real, and only power and the first device are ours.
    async fn run_vm(self: Arc<Self>, vm: &VmConfig) {
        loop {
            let first = self.boot_devices().first().copied().unwrap_or(BootDevice::Disk);
            self.set_power(PowerState::On, if first == BootDevice::Network { Activity::NetworkBoot } else { Activity::DiskBoot });
            match self.vm.run(&self.config, vm, &self.disks, first).await {
                qemu::Ended::Reset => info!(machine = %self.config.name, "the guest rebooted"),
                qemu::Ended::Shutdown => return self.set_power(PowerState::Off, Activity::Off),
                qemu::Ended::Died(why) => {
                    warn!(machine = %self.config.name, why, "the virtual machine ended");
                    self.set_power(PowerState::Off, Activity::Off);
                    return self.trouble(&why);
                }
            }
        }
    }

    /// One way from POST to a system; true when that reboots.
    async fn boot_once(self: &Arc<Self>, rail: &CancellationToken) -> bool {
        for device in self.boot_devices() {
            let went = match device {
                BootDevice::Network => self.boot_network(rail).await,
                BootDevice::Disk => self.boot_disk(rail).await,
            };
            match went {
                Went::Reboot => return true,
                Went::Off => {
                    self.set_power(PowerState::Off, Activity::Off);
                    return false;
                }
                Went::Stays => return false,
                Went::Nowhere => {}
            }
        }
        self.set_activity(Activity::NoBootDevice);
        let before = self.state().trouble.map(|why| format!("{why}; "));
        self.trouble(&format!("{}no boot device", before.unwrap_or_default()));
        false
    }

    /// The override first, then the boot order. An override for one boot is used up here, whatever comes of it.
    pub(super) fn boot_devices(&self) -> Vec<BootDevice> {
        let chosen = self.change(|state| {
            state.boots += 1;
            state.trouble = None;
            state.cluster = None;
            let chosen = state.boot_override;
            if chosen.enabled == Enabled::Once {
                state.boot_override = Override::NONE;
            }
            chosen
        });
        let first = match chosen.target {
            Target::None => None,
            Target::Hdd => Some(BootDevice::Disk),
            Target::Pxe if self.faults.strikes(Fault::BootsDiskInstead) => {
                info!(machine = %self.config.name, "fault boots-disk-instead: the override is ignored");
                Some(BootDevice::Disk)
            }
            Target::Pxe => Some(BootDevice::Network),
        };
        let rest = self.config.boot_order.iter().copied().filter(|device| Some(*device) != first);
        first.into_iter().chain(rest).collect()
    }

    /// PXE: DHCP, the loader by TFTP, DHCP again as iPXE, its script by HTTP, and what that says.
    async fn boot_network(self: &Arc<Self>, rail: &CancellationToken) -> Went {
        self.set_activity(Activity::NetworkBoot);
        let Some(server) = &self.boot_server else { return Went::Nowhere };
        if self.faults.strikes(Fault::NoDhcp) {
            info!(machine = %self.config.name, "fault no-dhcp: packets are lost");
            tokio::time::sleep(std_duration(self.pace.dhcp_timeout)).await;
            return self.no_network("no DHCP answer");
        }
        let client = dhcp::Client {
            mac: self.config.mac,
            uuid: self.config.uuid.clone(),
            mode: self.config.mode,
            address: self.config.address,
            server: server.dhcp,
            relay_port: server.relay_port,
            timeout: std_duration(self.pace.dhcp_timeout),
        };
        let Some(lease) = self.lease(&client, dhcp::Program::Firmware).await else { return self.no_network("no DHCP answer") };
        // UEFI HTTP boot names its loader as a URL; a PXE ROM has only TFTP.
        if lease.file.starts_with("http") {
            return self.no_network("DHCP names a loader by HTTP, and this firmware has only TFTP");
        }
        let Some((tftp_server, file)) = loader_place(&lease, server.tftp) else {
            return self.no_network(&format!("DHCP names no TFTP server for {:?}", lease.file));
        };
        if self.faults.strikes(Fault::TftpAbort) {
            let size = tftp::size(self.config.address, tftp_server, &file).await;
            return self.no_network(&format!("fault tftp-abort: given up after the size was known ({size:?})"));
        }
        match tftp::fetch(self.config.address, tftp_server, &file).await {
            Ok(loader) => info!(machine = %self.config.name, file, size = loader.size, digest = %loader.digest, "loader"),
            Err(error) => return self.no_network(&format!("{file}: {error}")),
        }
        if is_local_boot(&file) {
            return self.boot_disk(rail).await;
        }
        let Some(lease) = self.lease(&client, dhcp::Program::Ipxe).await else { return self.no_network("iPXE gets no DHCP answer") };
        self.ipxe(&lease, rail).await
    }

    async fn ipxe(self: &Arc<Self>, lease: &dhcp::Lease, rail: &CancellationToken) -> Went {
        let Ok(url) = lease.file.parse::<Url>() else {
            return self.no_network(&format!("iPXE is given {:?}, which is no URL", lease.file));
        };
        let http =
            match HttpClient::builder().local_address(Some(self.config.address.into())).connect_timeout(Duration::from_secs(10)).build() {
                Ok(http) => http,
                Err(error) => return self.no_network(&format!("no HTTP client: {error}")),
            };
        let downloads = Http { http, machine: self.config.name.to_string() };
        let settings = self.settings(lease);
        let mut shell = Shell::new(self.config.name.to_string(), &downloads, self.config.mode, self.has_system().await, settings);
        match shell.chain(&url, 0).await {
            Some(Ended::Kernel { command_line, kernel, initrds }) => {
                info!(machine = %self.config.name, %kernel, ?initrds, "kernel");
                self.run_agent(&command_line, rail).await
            }
            Some(Ended::Disk) => self.boot_disk(rail).await,
            Some(Ended::Exit) => Went::Nowhere,
            None => self.no_network("the boot script failed"),
        }
    }

    async fn lease(&self, client: &dhcp::Client, program: dhcp::Program) -> Option<dhcp::Lease> {
        let lease = dhcp::lease(client, program).await;
        lease.unwrap_or_else(|error| {
            warn!(machine = %self.config.name, %error, "DHCP");
            None
        })
    }

    /// Settings that iPXE has from hardware and DHCP.
    fn settings(&self, lease: &dhcp::Lease) -> BTreeMap<String, String> {
        let config = &self.config;
        let mut settings: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: Option<String>| settings.extend(value.map(|value| (name.to_owned(), value)));
        let address = |address: Option<std::net::Ipv4Addr>| address.map(|address| address.to_string());
        for prefix in ["", "net0/"] {
            set(&format!("{prefix}mac"), Some(config.mac.to_string()));
            set(&format!("{prefix}ip"), address(lease.address));
            set(&format!("{prefix}netmask"), address(lease.netmask));
            set(&format!("{prefix}gateway"), address(lease.gateway));
            set(&format!("{prefix}dns"), address(lease.dns));
            set(&format!("{prefix}next-server"), address(lease.next_server));
            set(&format!("{prefix}filename"), Some(lease.file.clone()));
        }
        set("uuid", Some(config.uuid.clone()));
        set("serial", Some(self.serial()));
        set("manufacturer", Some(config.manufacturer.clone()));
        set("product", Some(config.model.clone()));
        set("platform", Some(if config.mode == BootMode::UEFI { "efi" } else { "pcbios" }.to_owned()));
        set("buildarch", Some("x86_64".to_owned()));
        settings
    }

    /// Runs the agent: the same code as on a real machine, on a simulated host.
    async fn run_agent(self: &Arc<Self>, command_line: &str, rail: &CancellationToken) -> Went {
        self.set_activity(Activity::Agent);
        if self.faults.strikes(Fault::AgentNeverCalls) {
            return self.hang("fault agent-never-calls");
        }
        let params = match agent::Params::from_cmdline(command_line) {
            Ok(params) => params,
            Err(error) => return self.hang(&format!("the kernel is not the agent's, or its command line is wrong: {error}")),
        };
        let host = Arc::new(SimHost::new(Arc::clone(self), rail.clone()));
        match agent::run(params, host, boot_id(), self.agent_pace()).await {
            End::Reboot => Went::Reboot,
            End::PowerOff => Went::Off,
            End::Halt { why } => self.hang(&why),
        }
    }

    /// A retry soon and often: the machine is simulated, and people look on.
    fn agent_pace(&self) -> agent::Pace {
        let give_up = std_duration(self.pace.agent_give_up);
        agent::Pace { retry_first: Duration::from_millis(100), retry_most: Duration::from_secs(1), give_up, ..agent::Pace::default() }
    }

    /// Starts what is on the first disk. A system that was installed calls home; one that was here before just runs.
    async fn boot_disk(self: &Arc<Self>, rail: &CancellationToken) -> Went {
        if !self.has_system().await {
            return Went::Nowhere;
        }
        self.set_activity(Activity::DiskBoot);
        tokio::time::sleep(std_duration(self.pace.os_boot)).await;
        let (machine, power) = (Arc::clone(self), rail.clone());
        let seed = tokio::task::spawn_blocking(move || machine.seed(power)).await.ok().flatten();
        self.set_activity(Activity::Running);
        if let Some(seed) = seed {
            cluster::start(self, &seed, rail);
            self.call_home(&seed).await;
            self.serve(&seed.call_home, rail);
        }
        Went::Stays
    }

    async fn call_home(&self, seed: &agent::seed::Seed) {
        let body =
            CallHome { generation: seed.generation.to_string(), digest: Some(seed.digest), hostname: Some(seed.machine.to_string()) };
        let http = HttpClient::builder().local_address(Some(self.config.address.into())).timeout(Duration::from_secs(10)).build();
        let Ok(http) = http else { return };
        let mut wait = Duration::from_millis(500);
        for _ in 0..CALL_HOME_TRIES {
            match http.post(&seed.call_home).json(&body).send().await {
                Ok(answer) if answer.status().is_success() => {
                    info!(machine = %self.config.name, generation = %seed.generation, "called home");
                    return;
                }
                Ok(answer) => info!(machine = %self.config.name, status = answer.status().as_u16(), "call-home refused"),
                Err(error) => info!(machine = %self.config.name, error = %error.without_url(), "call-home failed"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(10));
        }
        self.trouble("the installed system could not call home");
    }

    async fn has_system(self: &Arc<Self>) -> bool {
        let Some(disk) = self.disks.first().map(Arc::clone) else { return false };
        let bootable = tokio::task::spawn_blocking(move || disk.bootable()).await;
        matches!(bootable, Ok(Ok(true)))
    }

    /// What the first disk says that was installed on it.
    pub(crate) fn seed(self: &Arc<Self>, rail: CancellationToken) -> Option<agent::seed::Seed> {
        let disk = self.disks.first()?;
        disk.existing().ok()??;
        agent::seed::read_seed(&mut disk.open(Arc::clone(self), rail).ok()?)
    }

    fn no_network(&self, why: &str) -> Went {
        info!(machine = %self.config.name, why, "network boot failed");
        self.trouble(&format!("network boot failed: {why}"));
        Went::Nowhere
    }

    fn hang(&self, why: &str) -> Went {
        info!(machine = %self.config.name, why, "stands still");
        self.set_activity(Activity::Hung);
        self.trouble(why);
        Went::Stays
    }

    pub(super) fn trouble(&self, why: &str) {
        self.change(|state| state.trouble = Some(why.to_owned()));
    }

    pub(super) fn set_activity(&self, activity: Activity) {
        self.change(|state| state.activity = activity);
    }
}

/// Server and name of the loader. A server off port 69 is named by a URL, `tftp://host:port/name`, as iPXE and these machines take it.
fn loader_place(lease: &dhcp::Lease, configured: Option<SocketAddr>) -> Option<(SocketAddr, String)> {
    if let Some(rest) = lease.file.strip_prefix("tftp://") {
        let (host, name) = rest.split_once('/')?;
        let server = host.parse().ok().or_else(|| Some((host.parse::<Ipv4Addr>().ok()?, TFTP_PORT).into()))?;
        return Some((configured.unwrap_or(server), name.to_owned()));
    }
    let server = configured.or_else(|| Some((lease.next_server?, TFTP_PORT).into()))?;
    Some((server, lease.file.clone()))
}

/// Whether a loader is the one that goes on to the disk. UEFI firmware would run it; here its name says what it does.
pub(super) fn is_local_boot(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|file| file.starts_with("localboot"))
}

fn boot_id() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the operating system's random numbers never run out");
    hex::encode(bytes)
}

/// iPXE's HTTP client.
struct Http {
    http: HttpClient,
    machine: String,
}

#[async_trait]
impl Downloads for Http {
    async fn get(&self, url: &Url) -> Option<Download> {
        match self.download(url).await {
            Ok(download) => {
                info!(machine = %self.machine, %url, size = download.size, digest = %download.digest, "downloaded");
                Some(download)
            }
            Err(error) => {
                info!(machine = %self.machine, %url, error = %error, "download failed");
                None
            }
        }
    }
}

impl Http {
    async fn download(&self, url: &Url) -> io::Result<Download> {
        let failed = |error: reqwest::Error| io::Error::other(error.without_url());
        let mut answer = self.http.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let (mut hash, mut size, mut head) = (Sha256::new(), 0, Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            hash.update(&chunk);
            size += chunk.len() as u64;
            let room = SCRIPT.saturating_sub(head.len());
            head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        Ok(Download { url: answer.url().clone(), digest: Digest(hash.finalize().into()), size, head })
    }
}
