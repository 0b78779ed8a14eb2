//! The agent that runs in RAM on a machine being installed: `/init` of the initramfs that the machine boots from the network.

use std::{fs, process::ExitCode, sync::Arc, thread::sleep, time::Duration};

use rackwright::agent::{
    End, Pace, Params, StaticAddress,
    linux::{Linux, start},
    run,
};
use ring::rand::{SecureRandom, SystemRandom};

const HELP: &str = "\
rackwright-agent: installs or wipes the machine that it runs on, as the controller's boot server says.

It is /init of an initramfs (`rackwright agent build-initramfs`) and does nothing when it is started otherwise.
Its orders are on the kernel command line:

  rackwright.url=https://HOST:PORT          the boot server
  rackwright.fingerprint=sha256:HEX         SHA-256 of the boot server's certificate
  rackwright.token=HEX                      the ticket's token
  rackwright.mac=aa:bb:cc:dd:ee:ff          the interface to use
  rackwright.ip=ADDRESS:NETMASK:GATEWAY     its address; the gateway may be empty

Options: --help, --version
";

/// How often a machine that stays says why: whoever opens its console must not wait long, and must be able to read it.
const REMIND: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--version" | "-V") => {
            println!("rackwright-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        // Words of the kernel command line that the kernel does not know are arguments of PID 1.
        _ if std::process::id() == 1 => init(),
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

/// Never returns: the kernel panics when PID 1 ends.
///
/// A panic of ours unwinds: one in a thread that works for an install is reported as its failure, any other ends in [`stay`] as all
/// failures do. What can't unwind (an abort, a stack or a memory that is full) ends PID 1, and then the kernel restarts the machine.
fn init() -> ! {
    std::panic::set_hook(Box::new(|info| start::say(&format!("the agent is broken, which is our fault: {info}"))));
    start::mount_all();
    start::restart_after_kernel_panic();
    start::say(concat!("rackwright-agent ", env!("CARGO_PKG_VERSION")));
    start::load_modules();
    start::mount_efivars();
    let end = std::panic::catch_unwind(work).unwrap_or_else(|_| Err("the agent is broken, which is our fault: see above".to_owned()));
    match end {
        Ok(End::Reboot) => {
            let error = start::reboot();
            stay(&format!("the machine can't be rebooted: {error}"))
        }
        Ok(End::PowerOff) => {
            let error = start::power_off();
            stay(&format!("the disks are wiped; the machine can't be switched off: {error}"))
        }
        Ok(End::Halt { why }) | Err(why) => stay(&why),
    }
}

fn work() -> Result<End, String> {
    let cmdline = fs::read_to_string("/proc/cmdline").map_err(|error| format!("/proc/cmdline can't be read: {error}"))?;
    let params = Params::from_cmdline(&cmdline).map_err(explain)?;
    let address = StaticAddress::from_cmdline(&cmdline).map_err(explain)?;
    let address = address.ok_or("the kernel command line has no rackwright.ip=")?;
    start::configure_network(params.mac, address)?;
    let mut boot_id = [0; 16];
    SystemRandom::new().fill(&mut boot_id).map_err(|_| "the kernel gives no random numbers")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime can't be started: {error}"))?;
    Ok(runtime.block_on(run(params, Arc::new(Linux::default()), hex::encode(boot_id), Pace::default())))
}

fn explain(error: impl std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Stays, and keeps saying why, so that the console of a BMC shows it whenever somebody looks.
fn stay(why: &str) -> ! {
    loop {
        start::say(&format!("halted: {why}"));
        sleep(REMIND);
    }
}
