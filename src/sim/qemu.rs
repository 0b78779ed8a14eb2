//! A real virtual machine behind the same BMC.
//!
//! Each power-on and each reset is a new QEMU process: `-action reboot=shutdown` makes a guest's reboot an exit, so that a boot
//! override for one boot is used up at the next reset, as on hardware. QEMU's monitor (QMP) is on its standard input and output:
//! no socket to be left behind. Processes are killed with their power, with the simulator, and by the kernel when the simulator is.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    sync::{Mutex, Notify, oneshot},
};
use tracing::info;

use super::{
    config::{Accel, BootDevice, MachineConfig, VmConfig},
    disk::Disk,
};
use crate::model::BootMode;

/// How a QEMU process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The guest rebooted.
    Reset,
    /// The guest switched itself off.
    Shutdown,
    /// Something else: QEMU could not start, or was killed from outside.
    Died(String),
}

/// What one machine's processes share.
pub(crate) struct Vm {
    folder: PathBuf,
    /// Held by the process that runs: the next one waits until that one is gone and its disks are free.
    slot: Arc<Mutex<()>>,
    button: Notify,
}

impl Vm {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, slot: Arc::new(Mutex::new(())), button: Notify::new() }
    }

    /// Presses the power button of the guest that runs (ACPI). What follows is up to it.
    pub(crate) fn press_button(&self) {
        self.button.notify_waiters();
    }

    /// Runs the guest until it ends. Dropping the future takes its power away.
    pub(crate) async fn run(&self, machine: &MachineConfig, vm: &VmConfig, disks: &[Arc<Disk>], first: BootDevice) -> Ended {
        let slot = Arc::clone(&self.slot).lock_owned().await;
        let mut child = match self.start(machine, vm, disks, first) {
            Ok(child) => child,
            Err(error) => return Ended::Died(format!("QEMU can't be started: {error}")),
        };
        info!(machine = %machine.name, ?first, pid = child.id(), "QEMU started");
        let events = (child.stdin.take(), child.stdout.take());
        let (power, unplugged) = oneshot::channel::<()>();
        // The process is waited for even when nobody wants to know how it ended.
        let process = tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                status = child.wait() => status.map(|status| status.to_string()),
                _ = unplugged => child.kill().await.map(|()| "killed".to_owned()),
            }
        });
        let reason = match events {
            (Some(input), Some(output)) => shutdown_reason(input, output, &self.button).await,
            _ => None,
        };
        let status = process.await;
        drop(power);
        match reason.as_deref() {
            Some("guest-reset") => Ended::Reset,
            Some("guest-shutdown") => Ended::Shutdown,
            Some(reason) => Ended::Died(reason.to_owned()),
            None => Ended::Died(format!("{}; see {}", status.map_or_else(|e| e.to_string(), describe), self.log(machine).display())),
        }
    }

    fn start(&self, machine: &MachineConfig, vm: &VmConfig, disks: &[Arc<Disk>], first: BootDevice) -> io::Result<Child> {
        disks.iter().try_for_each(|disk| disk.make())?;
        let vars = self.folder.join(format!("{}.vars.fd", machine.name));
        if machine.mode == BootMode::UEFI && !vars.exists() {
            fs::copy(PathBuf::from(vm.ovmf_code.to_string_lossy().replace("_CODE", "_VARS")), &vars)?;
        }
        let serial = vm.serial_log.clone().unwrap_or_else(|| self.folder.join(format!("{}.serial", machine.name)));
        let arguments = arguments(machine, vm, &disk_files(vm, disks), &vars, &serial, first);
        let mut command = match &vm.netns {
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns, "qemu-system-x86_64"]);
                command
            }
            None => Command::new("qemu-system-x86_64"),
        };
        let log = File::options().create(true).append(true).open(self.log(machine))?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        command.spawn()
    }

    fn log(&self, machine: &MachineConfig) -> PathBuf {
        self.folder.join(format!("{}.qemu.log", machine.name))
    }
}

fn describe(status: io::Result<String>) -> String {
    status.unwrap_or_else(|error| error.to_string())
}

/// Disk files in order; the file of `vm.disk` takes the first disk's place.
fn disk_files(vm: &VmConfig, disks: &[Arc<Disk>]) -> Vec<(PathBuf, String)> {
    let mut files: Vec<(PathBuf, String)> = disks.iter().map(|disk| (disk.path().to_owned(), disk.config.serial.clone())).collect();
    match (&vm.disk, files.first_mut()) {
        (Some(path), Some(first)) => first.0.clone_from(path),
        (Some(path), None) => files.push((path.clone(), String::new())),
        (None, _) => {}
    }
    files
}

/// Leaves QMP's negotiation mode, and reads events until QEMU closes its end; the last `SHUTDOWN` says why.
async fn shutdown_reason(mut input: tokio::process::ChildStdin, output: tokio::process::ChildStdout, button: &Notify) -> Option<String> {
    let mut lines = BufReader::new(output).lines();
    let mut reason = None;
    // An error here is QEMU's end, which its output tells as well.
    let _ = input.write_all(b"{\"execute\": \"qmp_capabilities\"}\n").await;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            () = button.notified() => {
                let _ = input.write_all(b"{\"execute\": \"system_powerdown\"}\n").await;
                continue;
            }
        };
        let Ok(Some(line)) = line else { return reason };
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if event["event"] == "SHUTDOWN" {
            reason = event["data"]["reason"].as_str().map(str::to_owned);
        }
    }
}

/// QEMU's command line.
fn arguments(
    machine: &MachineConfig,
    vm: &VmConfig,
    disks: &[(PathBuf, String)],
    vars: &Path,
    serial: &Path,
    first: BootDevice,
) -> Vec<String> {
    let uefi = machine.mode == BootMode::UEFI;
    let (nic_index, disk_index) = if first == BootDevice::Network { (1, 2) } else { (2, 1) };
    let (accel, cpu) = match vm.accel {
        Accel::Tcg => ("tcg", "max"),
        Accel::Kvm => ("kvm", "host"),
    };
    // QEMU doubles a comma inside a value.
    let quoted = |text: &str| text.replace(',', ",,");
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let mut arguments: Vec<String> =
        ["-nodefaults", "-no-user-config", "-display", "none", "-action", "reboot=shutdown", "-qmp", "stdio"].map(str::to_owned).to_vec();
    let mut pair = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    pair("-name", quoted(machine.name.as_str()));
    pair("-machine", format!("q35,accel={accel},graphics=off"));
    pair("-cpu", cpu.to_owned());
    pair("-smp", vm.cpus.to_string());
    pair("-m", vm.memory.to_string());
    pair("-uuid", machine.uuid.clone());
    let (maker, model) = (quoted(&machine.manufacturer), quoted(&machine.model));
    pair("-smbios", format!("type=1,manufacturer={maker},product={model},serial={}", quoted(&machine.serial)));
    pair("-chardev", format!("file,id=s0,append=on,path={}", path(serial)));
    pair("-serial", "chardev:s0".to_owned());
    pair("-device", "virtio-rng-pci".to_owned());
    pair(
        "-netdev",
        match &vm.tap {
            Some(tap) => format!("tap,id=n0,ifname={},script=no,downscript=no", quoted(tap)),
            None => "user,id=n0".to_owned(),
        },
    );
    // Without a ROM, OVMF uses its own network stack instead of iPXE's.
    let rom = if uefi { ",romfile=" } else { "" };
    pair("-device", format!("virtio-net-pci,id=nic0,netdev=n0,mac={},bootindex={nic_index}{rom}", machine.mac));
    if uefi {
        pair("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={}", path(&vm.ovmf_code)));
        pair("-drive", format!("if=pflash,format=raw,unit=1,file={}", path(vars)));
    }
    for (index, (file, serial)) in disks.iter().enumerate() {
        let boot = if index == 0 { format!(",bootindex={disk_index}") } else { String::new() };
        pair("-drive", format!("if=none,id=d{index},format=raw,file={}", path(file)));
        pair("-device", format!("virtio-blk-pci,id=disk{index},drive=d{index},serial={}{boot}", quoted(serial)));
    }
    arguments.extend(vm.extra_args.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_what_the_file_says() {
        let machine: MachineConfig = serde_yaml::from_str(
            "{name: vm-1, address: 127.77.0.1, serial: 'A,B', uuid: 00000000-0000-4000-8000-000000000001, mac: '52:54:00:00:00:01', mode: BIOS, \
             vm: {tap: tap1, memory: 1024}}",
        )
        .unwrap();
        let vm = machine.vm.clone().unwrap();
        let disks = [(PathBuf::from("/d/a.disk"), "S1".to_owned())];
        let line = |first| arguments(&machine, &vm, &disks, Path::new("/v"), Path::new("/s"), first).join(" ");
        let network = line(BootDevice::Network);
        for part in ["-m 1024", "serial=A,,B", "mac=52:54:00:00:00:01,bootindex=1", "drive=d0,serial=S1,bootindex=2", "ifname=tap1"] {
            assert!(network.contains(part), "{part} is not in {network}");
        }
        assert!(!network.contains("pflash") && line(BootDevice::Disk).contains("serial=S1,bootindex=1"));
    }
}
