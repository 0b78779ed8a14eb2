//! One machine's document → a resolved machine.

use std::net::Ipv4Addr;

use super::{
    fault::{At, Fault, Path, path_to},
    merged::{Settings, Stated},
    parse::Doc,
    raw::{self, Kind, MachineSpec, Spec},
    template::MachineInput,
    world::World,
};
use crate::model::{
    BmcTarget, BootSettings, Disks, Fingerprint, Generation, HandoffUse, Handoffs, Identity, Install, Mac, Machine, MachineName,
    NetworkName, Nic, Place, PowerIntent, ProfileName, SecretName, SourceRef, Trust, Upkeep,
};

impl MachineSpec {
    pub(crate) fn stated(&self) -> Stated<'_> {
        Stated {
            image: self.image.as_ref(),
            boot: self.boot.as_ref(),
            power: self.power,
            disks: self.disks.as_ref(),
            configuration: self.configuration.as_ref(),
            on_config_change: self.on_config_change,
            firmware: &self.firmware,
            publishes: self.publishes.as_ref(),
        }
    }
}

/// Resolves the machine in `doc`, as far as it can be resolved.
pub(crate) fn resolve(file: &str, doc: &Doc, world: &World<'_>) -> (Option<Machine>, Vec<Fault>) {
    let Spec::Machine(spec) = &doc.spec else { return (None, Vec::new()) };
    let mut reader = Reader { doc, spec, world, faults: Vec::new() };
    let machine = reader.machine(file);
    (machine, reader.faults)
}

struct Reader<'a> {
    doc: &'a Doc,
    spec: &'a MachineSpec,
    world: &'a World<'a>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn fault(&mut self, code: &'static str, at: Path, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Fault::error(code, At::Value(self.doc.number, at), message).hint(hint));
    }

    fn machine(&mut self, file: &str) -> Option<Machine> {
        let (spec, labels) = (self.spec, &self.doc.metadata.labels.0);
        let settings = self.settings();
        let (identity, bmc, nics) = (self.identity(), self.bmc(), self.nics());
        let text = |text: &Option<raw::Text>| text.as_ref().map(|text| text.0.clone());
        let rack = text(&spec.place.rack).or_else(|| labels.get("rack").cloned());
        let place = Place { site: text(&spec.place.site), rack, slot: text(&spec.place.slot) };
        let mut machine = Machine {
            name: MachineName::new(self.doc.metadata.name.as_str()).ok()?,
            labels: labels.clone(),
            source: SourceRef { file: file.to_owned(), line: self.doc.line },
            identity,
            place,
            bmc: bmc?,
            nics: nics?,
            disks: Disks { system: settings.system.clone(), keep: settings.keep.clone() },
            power: settings.power.unwrap_or(PowerIntent::Unmanaged),
            profile: spec.profile.as_deref().and_then(|name| ProfileName::new(name).ok()),
            install: None,
            decommission: None,
            boot: BootSettings { mode: settings.mode.unwrap_or_default() },
            on_claim: spec.on_claim,
            suspend: spec.suspend,
            gates: Vec::new(),
            upkeep: Upkeep { on_config_change: settings.on_config_change.unwrap_or_default(), firmware: settings.firmware.clone() },
            handoffs: Handoffs { publishes: settings.publishes.clone().unwrap_or_default(), ..Default::default() },
        };
        match &spec.decommission {
            Some(stated) => stated.apply(&mut machine, spec.rebuild, self.doc.number, &mut self.faults),
            None => machine.install = self.install(&machine, &settings),
        }
        // One that is never installed passes none.
        if machine.install.is_some() {
            machine.gates = self.world.gates.of(&machine, &self.world.rollouts, &mut self.faults);
        }
        let user_data = machine.install.as_ref().and_then(|install| install.user_data.as_deref());
        // What is damaged has been told, and is not rendered.
        machine.handoffs.uses = user_data.and_then(|text| HandoffUse::all_in(text).ok()).unwrap_or_default();
        Some(machine)
    }

    /// The profile's values with the machine's own on top.
    fn settings(&mut self) -> Settings<'a> {
        let (world, spec, number) = (self.world, self.spec, self.doc.number);
        let own = spec.stated().settings(number, &world.names, |path| world.templates.exists(path), &mut self.faults);
        let Some(name) = &spec.profile else { return own };
        self.faults.extend(world.names.check(Kind::Profile, name, number, || path_to!["spec", "profile"]));
        match world.profiles.get(name.as_str()) {
            Some(profile) => profile.clone().under(&own),
            None => own,
        }
    }

    fn identity(&mut self) -> Identity {
        let stated = &self.spec.identity;
        let serial = stated.serial.as_ref().map(|serial| serial.0.trim().to_owned()).filter(|serial| !serial.is_empty());
        let uuid = stated.uuid.as_deref().and_then(uuid);
        if let Some(text) = stated.uuid.as_ref().filter(|_| uuid.is_none()) {
            let hint = "write it as firmware prints it, such as `4c4c4544-0051-3010-8052-b4c04f565231`";
            self.fault("bad-uuid", path_to!["spec", "identity", "uuid"], format!("`{text}` is not a UUID"), hint);
        }
        if serial.is_none() && stated.uuid.is_none() {
            let at = At::Value(self.doc.number, path_to!["spec", "identity"]);
            let message = format!("nothing says which hardware `{}` is: it has neither serial nor UUID", self.doc.metadata.name);
            let hint = "state `identity: {serial: …}`, so that a swapped cable can't make it reinstall another machine";
            self.faults.push(Fault::warning("no-identity", at, message).hint(hint));
        }
        Identity { serial, uuid }
    }

    fn bmc(&mut self) -> Option<BmcTarget> {
        let stated = &self.spec.bmc;
        let address = bmc_address(&stated.address);
        if address.is_none() {
            let message = format!("`{}` is not the address of a BMC", stated.address);
            self.fault("bad-bmc-address", path_to!["spec", "bmc", "address"], message, bmc_hint(&stated.address));
        }
        if let Some(name) = &stated.credentials {
            let dangling = self.world.names.check(Kind::Secret, name, self.doc.number, || path_to!["spec", "bmc", "credentials"]);
            self.faults.extend(dangling);
        }
        let plain = address.as_ref().is_some_and(|address| address.starts_with("http://"));
        let trust = match (&stated.fingerprint, stated.insecure) {
            (_, false) if plain => {
                let message = "over plain `http://` no BMC can prove who it is, and everyone on the way reads the password";
                let hint = "write `https://`; where the BMC knows only HTTP, say so with `insecure: true` and without `fingerprint`";
                self.fault("plain-http", path_to!["spec", "bmc", "address"], message, hint);
                // Nobody speaks to it; but where an earlier release let this pass, the machine is still in the fleet.
                Trust::Ca
            }
            (None, false) => Trust::Ca,
            (None, true) => Trust::Insecure,
            (Some(_), true) => {
                let message = "`insecure` and `fingerprint` contradict each other";
                self.fault("contradiction", path_to!["spec", "bmc", "insecure"], message, "keep the fingerprint");
                return None;
            }
            (Some(text), false) => match text.parse::<Fingerprint>() {
                Ok(fingerprint) => Trust::Pinned(fingerprint),
                Err(_) => {
                    let hint = "write `sha256:` and 64 hexadecimal digits";
                    let message = format!("`{text}` is not the fingerprint of a certificate");
                    self.fault("bad-fingerprint", path_to!["spec", "bmc", "fingerprint"], message, hint);
                    return None;
                }
            },
        };
        let credentials = stated.credentials.as_deref().and_then(|name| SecretName::new(name).ok());
        Some(BmcTarget { address: address?, credentials, trust })
    }

    /// `None` if one of them can't be read: a machine with half its interfaces is another machine.
    fn nics(&mut self) -> Option<Vec<Nic>> {
        let spec = self.spec;
        let mut nics: Vec<Option<Nic>> = Vec::with_capacity(spec.nics.len());
        for (n, nic) in spec.nics.iter().enumerate() {
            let before = &spec.nics[..n];
            if before.iter().any(|other| other.name == nic.name) {
                let message = format!("two interfaces of this machine are named `{}`", nic.name);
                self.fault("duplicate-nic", path_to!["spec", "nics", n, "name"], message, "give each a name of its own");
            }
            if nic.boot && before.iter().any(|other| other.boot) {
                let message = "a machine boots from one interface, and two are marked";
                self.fault("two-boot-nics", path_to!["spec", "nics", n, "boot"], message, "mark only one with `boot: true`");
            }
            nics.push(self.nic(n, nic));
        }
        nics.into_iter().collect()
    }

    fn nic(&mut self, n: usize, stated: &raw::Nic) -> Option<Nic> {
        let mac = stated.mac.parse::<Mac>();
        if mac.is_err() {
            let hint = match plain_mac(&stated.mac) {
                Some(mac) => format!("did you mean \"{mac}\"?"),
                None => "write six pairs of hexadecimal digits, such as \"52:54:00:12:34:56\"".to_owned(),
            };
            self.fault("bad-mac", path_to!["spec", "nics", n, "mac"], format!("`{}` is not a MAC address", stated.mac), hint);
        } else if mac.as_ref().is_ok_and(|mac| mac.0[0] & 1 == 1) {
            let message = format!("`{}` is a group address, which no interface has", stated.mac);
            self.fault("bad-mac", path_to!["spec", "nics", n, "mac"], message, "read it off the machine again");
        }
        if let Some(name) = &stated.network {
            let dangling = self.world.names.check(Kind::Network, name, self.doc.number, || path_to!["spec", "nics", n, "network"]);
            self.faults.extend(dangling);
        }
        let network = stated.network.as_deref().and_then(|name| NetworkName::new(name).ok());
        let address = match &stated.address {
            Some(text) => Some(self.address(n, text, network.as_ref())?),
            None => None,
        };
        Some(Nic { name: stated.name.clone(), mac: mac.ok()?, network, address, boot: stated.boot })
    }

    fn address(&mut self, n: usize, text: &str, network: Option<&NetworkName>) -> Option<Ipv4Addr> {
        let at = || path_to!["spec", "nics", n, "address"];
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let prefix = prefix.map(|prefix| prefix.parse::<u8>().ok().filter(|prefix| *prefix <= 32));
        let (Ok(address), false) = (address.parse::<Ipv4Addr>(), prefix == Some(None)) else {
            self.fault("bad-address", at(), format!("`{text}` is not an IPv4 address"), "write it like `10.0.4.12` or `10.0.4.12/24`");
            return None;
        };
        let world = self.world;
        let Some(network) = network.and_then(|name| world.networks.get(name)) else { return Some(address) };
        let (name, subnet) = (&network.name, network.subnet);
        if !subnet.contains(&address) {
            let hint = format!("addresses of `{name}` are {} to {}", subnet.network(), subnet.broadcast());
            self.fault("outside-subnet", at(), format!("{address} is not in the network `{name}` ({subnet})"), hint);
        } else if subnet.prefix_len() < 31 && (address == subnet.network() || address == subnet.broadcast()) {
            let message = format!("{address} is the first or last address of the network `{name}`, which no machine can have");
            self.fault("reserved-address", at(), message, "take another address");
        } else if network.gateway == Some(address) {
            self.fault("reserved-address", at(), format!("{address} is the gateway of the network `{name}`"), "take another address");
        }
        if let Some(prefix) = prefix.flatten().filter(|prefix| *prefix != subnet.prefix_len()) {
            let hint = format!("write `{address}/{}`, or leave the length out", subnet.prefix_len());
            self.fault("wrong-prefix", at(), format!("/{prefix} is not the prefix length of the network `{name}` ({subnet})"), hint);
        }
        Some(address)
    }

    fn install(&mut self, machine: &Machine, settings: &Settings<'_>) -> Option<Install> {
        let image = settings.image.and_then(|name| self.world.images.get(name))?;
        if machine.nics.is_empty() {
            let at = At::Value(self.doc.number, path_to!["spec", "nics"]);
            let message = format!("`{}` has an image but no network interface, so it can never be installed", machine.name);
            self.faults.push(Fault::warning("no-nic", at, message).hint("list the interface that it boots from under `nics`"));
        }
        // One that is stated and wrong has been told already.
        let stated = self.spec.disks.as_ref().is_some_and(|disks| disks.system.is_some());
        if machine.disks.system.is_none() && !stated {
            let at = At::Value(self.doc.number, path_to!["spec", "disks"]);
            let message = format!("`{}` has an image but no system disk, so nothing can be written", machine.name);
            self.faults.push(Fault::warning("no-system-disk", at, message).hint("say which disk: `disks: {system: {serial: …}}`"));
        }
        let user_data = match settings.user_data {
            Some(path) => Some(self.user_data(machine, path)?),
            None => None,
        };
        let rebuild = self.spec.rebuild;
        let generation = Generation::of(image.digest, user_data.as_deref(), rebuild);
        Some(Install { generation, image: image.clone(), user_data, rebuild })
    }

    /// `None` after a fault: a machine must never be installed without the configuration that was meant for it.
    fn user_data(&mut self, machine: &Machine, path: &str) -> Option<String> {
        let (boot, input) = (machine.boot_nic(), input(machine));
        let network = boot.and_then(|nic| self.world.network_inputs.get(nic.network.as_ref()?));
        let profile = machine.profile.as_ref().map(|name| name.as_str());
        match self.world.templates.render(path, &input, profile, network)? {
            Ok(text) => Some(text),
            Err(fault) => {
                self.faults.push(fault);
                None
            }
        }
    }
}

/// What `machine` is in a template.
pub(super) fn input(machine: &Machine) -> MachineInput<'_> {
    let boot = machine.boot_nic();
    MachineInput {
        name: machine.name.as_str(),
        labels: &machine.labels,
        place: (&machine.place).into(),
        serial: machine.identity.serial.as_deref(),
        uuid: machine.identity.uuid.as_deref(),
        address: boot.and_then(|nic| nic.address).map(|address| address.to_string()),
        mac: boot.map(|nic| nic.mac.to_string()),
        nics: machine.nics.iter().map(Into::into).collect(),
    }
}

/// `https://host:port`, and behind a BMC of several systems the path of one. Paths keep their case, which counts to some BMCs.
/// `None`: it is no such address.
pub fn bmc_address(text: &str) -> Option<String> {
    let (scheme, rest) = text.trim_end_matches('/').split_once("://")?;
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let usual = |c: char| c.is_ascii_alphanumeric() || "-._~:+".contains(c);
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(usual);
    let system = path.is_empty() || path.strip_prefix("/redfish/v1/").is_some_and(|path| path.split('/').all(part));
    (matches!(scheme.as_str(), "http" | "https") && is_host(&host) && system).then(|| format!("{scheme}://{host}{path}"))
}

fn bmc_hint(text: &str) -> String {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    if is_host(&host.to_ascii_lowercase()) {
        return format!("write `https://{host}`");
    }
    match host.split_once('/') {
        Some((host, _)) if is_host(&host.to_ascii_lowercase()) => format!(
            "write `https://{host}`; only where a BMC has several systems, the path of one follows, such as \
             `https://{host}/redfish/v1/Systems/1`"
        ),
        _ => "write `https://` and a host, with a port if it is not the usual one, such as `https://10.0.8.12`".to_owned(),
    }
}

/// A host name or address with an optional port, and nothing else: no path, no user, no query.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
            ("v6", rest.strip_prefix(':').or(rest.is_empty().then_some("443")))
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, Some("443")), |(host, port)| (host, Some(port))),
    };
    let port = port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0));
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    port && host.split('.').all(label)
}

/// Twelve hexadecimal digits, written as a MAC address.
fn plain_mac(text: &str) -> Option<Mac> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let rest_is_separators = text.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '-' | '.' | ' '));
    (digits.len() == 12 && rest_is_separators).then(|| hex::decode(digits).ok()?.try_into().ok().map(Mac))?
}

/// A UUID in lower case, if it is one.
fn uuid(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let parts: Vec<&str> = text.split('-').collect();
    let lengths = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    (lengths && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_a_port() {
        for text in ["10.0.8.12", "bmc-1.example", "127.77.0.11:8443", "[fd00::1]", "[fd00::1]:8443"] {
            assert!(is_host(text), "{text}");
        }
        for text in ["", "a/b", "user@host", "host:", "host:0", "host:99999", "a..b", "[fd00::1", "[x]", "fd00::1", "host?x"] {
            assert!(!is_host(text), "{text}");
        }
    }

    #[test]
    fn an_address_may_name_one_of_several_systems_in_its_own_case() {
        for (text, address) in [
            ("HTTPS://BMC-1.Example:8443/", "https://bmc-1.example:8443"),
            ("https://10.0.8.12/redfish/v1/Systems/System.Embedded.1", "https://10.0.8.12/redfish/v1/Systems/System.Embedded.1"),
        ] {
            assert_eq!(bmc_address(text).as_deref(), Some(address));
        }
        for path in
            ["/redfish/v1", "/Systems/1", "/redfish/v1/../x", "/redfish/v1//x", "/redfish/v1/x?y", "/redfish/v1/x#y", "/redfish/v1/a b"]
        {
            assert_eq!(bmc_address(&format!("https://10.0.8.12{path}")), None, "{path}");
        }
    }

    #[test]
    fn a_mac_without_separators_is_recognised() {
        assert_eq!(plain_mac("525400123456").map(|mac| mac.to_string()).as_deref(), Some("52:54:00:12:34:56"));
        assert_eq!(plain_mac("5254001234"), None);
    }
}
