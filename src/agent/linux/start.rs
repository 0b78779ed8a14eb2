//! What PID 1 of the initramfs does before and after the agent's work: mounts, modules, network, console, reboot.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    kmod::{ModuleInitFlags, finit_module},
    libc,
    mount::{MsFlags, mount},
    sys::reboot::RebootMode,
};

use super::super::StaticAddress;
use crate::model::Mac;

/// Where the initramfs builder puts the modules, and the order in which they are loaded.
pub const MODULE_ORDER: &str = "/modules.order";

/// How long a network interface may need to appear after its module was loaded. Some cards load firmware for 20 seconds.
const INTERFACE: Duration = Duration::from_secs(60);

/// How long its link may need. Switch ports with spanning tree are silent for 30 seconds; the agent's requests are retried anyway.
const LINK: Duration = Duration::from_secs(30);

/// Most bytes of one console line: the kernel cuts records near 1,000.
const LINE: usize = 900;

/// Shows a line on every console that the kernel has. Only the last `console=` is /dev/console, while what people look at may be
/// another: the kernel's log goes to all.
pub fn say(line: &str) {
    let printable: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for part in printable.chunks(LINE / 4) {
        let text: String = part.iter().collect();
        // Level 3 (error) is shown even after `quiet`.
        let logged = OpenOptions::new()
            .write(true)
            .open("/dev/kmsg")
            .and_then(|mut log| log.write_all(format!("<3>rackwright: {text}\n").as_bytes()));
        if logged.is_err() {
            // Without a log there is nobody else to tell.
            let _ = writeln!(io::stdout(), "rackwright: {text}");
        }
    }
}

/// Mounts the kernel's file systems. What can't be mounted is said; what needs it says more.
pub fn mount_all() {
    mount_one("devtmpfs", "/dev");
    mount_one("proc", "/proc");
    mount_one("sysfs", "/sys");
    // Without this the kernel drops our lines when they are many.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on");
}

/// Makes the kernel restart the machine a minute after it panicked, which it does when PID 1 ends, instead of standing there for ever.
/// A `panic=` on its command line is somebody's wish and stays.
pub fn restart_after_kernel_panic() {
    const PANIC: &str = "/proc/sys/kernel/panic";
    let told = fs::read_to_string(PANIC).is_ok_and(|seconds| seconds.trim() != "0");
    if !told && let Err(error) = fs::write(PANIC, "60") {
        say(&format!("{PANIC} can't be written: {error}"));
    }
}

/// Mounts the firmware's variables, once their module is loaded.
pub fn mount_efivars() {
    if Path::new("/sys/firmware/efi").is_dir() {
        mount_one("efivarfs", "/sys/firmware/efi/efivars");
    }
}

fn mount_one(kind: &str, target: &str) {
    let made = fs::create_dir_all(target);
    match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
        Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
        Err(error) => say(&format!("{target} can't be mounted: {error} ({made:?})")),
    }
}

/// Loads the modules of [`MODULE_ORDER`]. One that does not load is not needed by this machine, or is missed later and said then.
pub fn load_modules() {
    let Ok(order) = fs::read_to_string(MODULE_ORDER) else {
        say("this initramfs brings no modules");
        return;
    };
    let (mut loaded, mut refused) = (0, Vec::new());
    for path in order.lines().filter(|path| !path.is_empty()) {
        match load_module(path) {
            Ok(()) => loaded += 1,
            Err(error) => refused.push(format!("{path}: {error}")),
        }
    }
    say(&format!("{loaded} modules loaded"));
    if !refused.is_empty() {
        say(&format!("{} were not: {}", refused.len(), refused.join(", ")));
    }
}

fn load_module(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    let flags = if path.ends_with(".ko") { ModuleInitFlags::empty() } else { compressed() };
    match finit_module(&file, c"", flags) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// MODULE_INIT_COMPRESSED_FILE of linux/module.h.
fn compressed() -> ModuleInitFlags {
    ModuleInitFlags::from_bits_retain(4)
}

/// Brings up the interface with this hardware address, and gives it the address that the machine booted with.
///
/// # Errors
/// A sentence for the console.
pub fn configure_network(mac: Option<Mac>, address: StaticAddress) -> Result<(), String> {
    let name = wait_for_interface(mac)?;
    let step = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(step("a socket can't be made"))?;
    let network = Network { socket };
    network.up("lo").map_err(step("lo can't be brought up"))?;
    network.set_address(&name, libc::SIOCSIFADDR, address.address).map_err(step("the address can't be set"))?;
    network.set_address(&name, libc::SIOCSIFNETMASK, address.netmask).map_err(step("the netmask can't be set"))?;
    network.up(&name).map_err(step("the interface can't be brought up"))?;
    if let Some(gateway) = address.gateway {
        let mask = u32::from(address.netmask);
        if u32::from(gateway) & mask != u32::from(address.address) & mask {
            network.route(&name, gateway, Ipv4Addr::BROADCAST, None).map_err(step("the gateway can't be reached"))?;
        }
        let any = Ipv4Addr::UNSPECIFIED;
        network.route(&name, any, any, Some(gateway)).map_err(step("the default route can't be set"))?;
    }
    say(&format!("{name} has {} netmask {} gateway {:?}", address.address, address.netmask, address.gateway));
    wait_for(LINK, || fs::read_to_string(format!("/sys/class/net/{name}/carrier")).is_ok_and(|text| text.trim() == "1").then_some(()));
    Ok(())
}

fn wait_for_interface(mac: Option<Mac>) -> Result<String, String> {
    let find = || {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir("/sys/class/net").ok()?.flatten() {
            let path = entry.path();
            let seen = fs::read_to_string(path.join("address")).ok().and_then(|text| text.trim().parse::<Mac>().ok());
            let wanted = if mac.is_some() { seen == mac } else { seen.is_some() };
            if path.join("device").exists() && wanted {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        names.into_iter().next()
    };
    wait_for(INTERFACE, find).ok_or_else(|| match mac {
        Some(mac) => format!("no network interface has the address {mac}; its driver may not be in the initramfs"),
        None => "there is no network interface; its driver may not be in the initramfs".to_owned(),
    })
}

fn wait_for<T>(limit: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if since.elapsed() >= limit {
            return None;
        }
        sleep(Duration::from_millis(50));
    }
}

/// The old ioctl interface to addresses and routes (netdevice(7)): all that is needed, and much less than netlink.
struct Network {
    socket: UdpSocket,
}

impl Network {
    fn request(name: &str) -> libc::ifreq {
        // SAFETY: ifreq is a C structure of integers and arrays, for which all zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // One byte stays zero: the name ends there.
        let room = request.ifr_name.len() - 1;
        for (place, byte) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        request
    }

    fn call<T>(&self, code: u64, argument: &mut T) -> io::Result<()> {
        // SAFETY: each caller passes the structure that its code reads and writes, alive during the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, std::ptr::from_mut(argument)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn up(&self, name: &str) -> io::Result<()> {
        let mut request = Self::request(name);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    fn set_address(&self, name: &str, code: u64, address: Ipv4Addr) -> io::Result<()> {
        let mut request = Self::request(name);
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.call(code, &mut request)
    }

    fn route(&self, name: &str, to: Ipv4Addr, mask: Ipv4Addr, gateway: Option<Ipv4Addr>) -> io::Result<()> {
        let mut device = name.as_bytes().to_vec();
        device.push(0);
        // SAFETY: rtentry is a C structure of integers and pointers, for which all zeros is a value.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(to);
        route.rt_genmask = socket_address(mask);
        route.rt_flags = libc::RTF_UP as libc::c_ushort;
        route.rt_dev = device.as_mut_ptr().cast();
        if mask == Ipv4Addr::BROADCAST {
            route.rt_flags |= libc::RTF_HOST as libc::c_ushort;
        }
        if let Some(gateway) = gateway {
            route.rt_gateway = socket_address(gateway);
            route.rt_flags |= libc::RTF_GATEWAY as libc::c_ushort;
        }
        self.call(libc::SIOCADDRT, &mut route)
    }
}

/// A sockaddr_in in the shape of the sockaddr that the ioctls declare (ip(7)).
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: sockaddr is a C structure of integers, for which all zeros is a value.
    let mut socket_address: libc::sockaddr = unsafe { std::mem::zeroed() };
    socket_address.sa_family = libc::AF_INET as libc::sa_family_t;
    // Two bytes of port, then the address.
    for (place, byte) in socket_address.sa_data[2..6].iter_mut().zip(address.octets()) {
        *place = byte as libc::c_char;
    }
    socket_address
}

/// Puts everything on the disks and restarts the machine. Returns only when the kernel refuses.
pub fn reboot() -> io::Error {
    end(RebootMode::RB_AUTOBOOT)
}

/// Puts everything on the disks and switches the machine off. Returns only when the kernel refuses.
pub fn power_off() -> io::Error {
    end(RebootMode::RB_POWER_OFF)
}

fn end(how: RebootMode) -> io::Error {
    nix::unistd::sync();
    match nix::sys::reboot::reboot(how) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}
