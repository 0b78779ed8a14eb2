//! All that machines refer to: settings, profiles, images, networks, rollouts, secrets, templates.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use ipnet::Ipv4Net;
use minijinja::Value;

use super::{
    budgets, drift,
    fault::{At, Fault, Path, path_to},
    gates::Gates,
    merged::{self, Own, Profiles},
    names::Names,
    parse::Doc,
    raw::{ImageSpec, Kind, NetworkSpec, SecretSpec, Spec},
    signatures,
    template::{Templates, network_input},
    text, windows,
};
use crate::model::{
    Digest, Files, FleetSettings, Image, ImageName, Network, NetworkName, Rollout, RolloutName, SecretFrom, SecretName, SecretSource,
};

/// A document and the file in which it stands.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    pub(crate) doc: &'a Doc,
}

impl<'a> Source<'a> {
    pub(crate) fn name(&self) -> &'a str {
        &self.doc.metadata.name
    }

    /// A fault at a value of this document.
    fn fault(&self, code: &'static str, at: Path, message: impl Into<String>) -> (&'a str, Fault) {
        (self.file, Fault::error(code, At::Value(self.doc.number, at), message))
    }
}

/// All that machines refer to.
pub(crate) struct World<'a> {
    pub(crate) names: Names<'a>,
    pub(crate) settings: FleetSettings,
    pub(crate) images: BTreeMap<&'a str, Image>,
    pub(crate) networks: BTreeMap<NetworkName, Network>,
    /// The networks as templates see them.
    pub(crate) network_inputs: BTreeMap<NetworkName, Value>,
    pub(crate) profiles: Profiles<'a>,
    pub(crate) rollouts: BTreeMap<RolloutName, Rollout>,
    pub(crate) secrets: BTreeMap<SecretName, SecretSource>,
    pub(crate) templates: Templates<'a>,
    pub(crate) gates: Gates<'a>,
}

type Faults<'a> = Vec<(&'a str, Fault)>;

impl<'a> World<'a> {
    /// Resolves everything but machines. `sources` holds one document for each kind and name.
    pub(crate) fn new(files: &'a Files, names: Names<'a>, sources: &[Source<'a>], faults: &mut Faults<'a>) -> Self {
        let templates = Templates::compile(files, &template_paths(sources));
        faults.extend(templates.faults().map(|fault| ("", fault)));
        let of = |kind| sources.iter().copied().filter(move |source: &Source<'a>| source.doc.kind() == kind);

        let settings = of(Kind::Fleet).next().map_or_else(FleetSettings::default, |source| fleet(source, files, faults));
        let networks: BTreeMap<_, _> = of(Kind::Network).filter_map(|source| network(source, faults)).collect();
        let exists = |path: &str| templates.exists(path);
        let own: BTreeMap<_, _> = of(Kind::Profile)
            .filter_map(|source| Some((source.name(), Own::read(source.file, source.doc, &names, exists, faults)?)))
            .collect();
        let rollouts = budgets::rollouts(of(Kind::Rollout), &names, &settings, faults);
        let gates = Gates::read(of(Kind::Fleet).chain(of(Kind::Rollout)), faults);
        Self {
            images: of(Kind::Image).filter_map(|source| image(source, faults)).collect(),
            network_inputs: networks.iter().map(|(name, network)| (name.clone(), network_input(network))).collect(),
            profiles: merged::merge(&own, faults),
            secrets: of(Kind::Secret).filter_map(|source| secret(source, faults)).collect(),
            names,
            settings,
            networks,
            rollouts,
            templates,
            gates,
        }
    }
}

fn template_paths<'a>(sources: &[Source<'a>]) -> BTreeSet<&'a str> {
    let stated = sources.iter().filter_map(|source| match &source.doc.spec {
        Spec::Profile(spec) => spec.stated().user_data(),
        Spec::Machine(spec) => spec.stated().user_data(),
        _ => None,
    });
    stated.collect()
}

fn fleet<'a>(source: Source<'a>, files: &'a Files, faults: &mut Faults<'a>) -> FleetSettings {
    let Spec::Fleet(spec) = &source.doc.spec else { return FleetSettings::default() };
    let stated = &spec.budgets;
    let stated = budgets::Stated {
        unavailable: &stated.max_unavailable,
        per: &stated.max_unavailable_per,
        destructive: &stated.max_destructive,
        breaker: &stated.breaker,
    };
    for (n, bad) in spec.approvers.iter().enumerate().filter(|(_, text)| !is_address(text)) {
        let (file, fault) = source.fault("bad-approver", path_to!["spec", "approvers", n], format!("`{bad}` is not an author's address"));
        faults.push((file, fault.hint("write the address alone, as `git log --format=%ae` prints it, such as `anna@example.org`")));
    }
    FleetSettings {
        allow_force_push: spec.allow_force_push,
        approvers: spec.approvers.clone(),
        drift: drift::policies(source, &spec.drift, faults),
        budgets: stated.read(source, path_to!["spec", "budgets"], &Default::default(), faults),
        windows: windows::windows(source, spec.windows.as_deref().unwrap_or_default(), faults),
        freeze: windows::freeze(source, &spec.freeze, faults),
        signatures: signatures::signatures(source, spec, files, faults),
    }
}

/// Whether `text` may be what a commit states as its author's address.
fn is_address(text: &str) -> bool {
    let plain = !text.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | ','));
    plain && text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
}

fn image<'a>(source: Source<'a>, faults: &mut Faults<'a>) -> Option<(&'a str, Image)> {
    let Spec::Image(ImageSpec { digest, format, url, size }) = &source.doc.spec else { return None };
    let read = digest.parse::<Digest>();
    if read.is_err() {
        let (file, fault) = source.fault("bad-digest", path_to!["spec", "digest"], format!("`{digest}` is not a digest"));
        faults.push((file, fault.hint("write `sha256:` and the 64 digits that `sha256sum` prints for the file as it is served")));
    }
    if let Some((message, hint)) = bad_url(url) {
        let (file, fault) = source.fault("bad-url", path_to!["spec", "url"], message);
        faults.push((file, fault.hint(hint)));
    }
    let bytes = size.as_ref().and_then(|size| text::size(&size.0));
    if let Some(size) = size.as_ref().filter(|_| bytes.is_none()) {
        faults.push((source.file, merged::bad_size(&size.0, At::Value(source.doc.number, path_to!["spec", "size"]))));
    }
    let name = ImageName::new(source.name()).ok()?;
    Some((source.name(), Image { name, digest: read.ok()?, format: *format, url: url.clone(), size: bytes }))
}

/// Why an image can't be fetched from `url`, and what to write instead.
fn bad_url(url: &str) -> Option<(String, &'static str)> {
    let relative = "write `https://…`, or a path below the boot server's image folder, such as `debian/12.raw.zst`";
    if let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) {
        let host = rest.split('/').next().unwrap_or_default();
        let bad = host.is_empty() || host.contains('@') || url.contains(char::is_whitespace);
        return bad.then(|| (format!("`{url}` is not the address of a file"), "write `https://host/path`, without user or password"));
    }
    if url.contains("://") {
        return Some((format!("images can't be fetched from `{url}`"), relative));
    }
    let parts = || url.split('/');
    let bad =
        parts().any(|part| part.is_empty() || part == "." || part == "..") || url.contains(['\\', '\0']) || url.contains(char::is_control);
    bad.then(|| (format!("`{url}` is not a path below the image folder"), relative))
}

fn network<'a>(source: Source<'a>, faults: &mut Faults<'a>) -> Option<(NetworkName, Network)> {
    let Spec::Network(spec) = &source.doc.spec else { return None };
    let NetworkSpec { subnet, vlan, gateway, dns, ntp, dhcp } = spec;
    let read: Option<Ipv4Net> = subnet.parse().ok();
    match read {
        None => {
            let (file, fault) = source.fault("bad-cidr", path_to!["spec", "subnet"], format!("`{subnet}` is not an IPv4 network"));
            faults.push((file, fault.hint("write address and prefix length, such as `10.0.4.0/24`")));
        }
        Some(net) if net.trunc() != net => {
            let (file, fault) = source.fault("bad-cidr", path_to!["spec", "subnet"], format!("`{subnet}` is an address inside a network"));
            faults.push((file, fault.hint(format!("did you mean `{}`?", net.trunc()))));
        }
        Some(_) => {}
    }
    if let Some(vlan) = vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
        faults.push(source.fault("bad-vlan", path_to!["spec", "vlan"], format!("a VLAN id is 1 to 4094, not {vlan}")));
    }
    let gateway_read = gateway.as_ref().and_then(|text| address::<Ipv4Addr>(source, text, path_to!["spec", "gateway"], faults));
    if let (Some(net), Some(gateway)) = (read, gateway_read)
        && !net.contains(&gateway)
    {
        let message = format!("the gateway {gateway} is not in the network {}", net.trunc());
        faults.push(source.fault("outside-subnet", path_to!["spec", "gateway"], message));
    }
    let mut list = |texts: &[String], field: &str| -> Vec<IpAddr> {
        texts.iter().enumerate().filter_map(|(n, text)| address(source, text, path_to!["spec", field, n], faults)).collect()
    };
    let (dns, ntp) = (list(dns, "dns"), list(ntp, "ntp"));
    let name = NetworkName::new(source.name()).ok()?;
    let vlan = vlan.and_then(|vlan| u16::try_from(vlan).ok());
    Some((name.clone(), Network { name, subnet: read?, vlan, gateway: gateway_read, dns, ntp, dhcp: *dhcp }))
}

fn address<'a, T: FromStr>(source: Source<'a>, text: &str, at: Path, faults: &mut Faults<'a>) -> Option<T> {
    let read = text.parse().ok();
    if read.is_none() {
        let (file, fault) = source.fault("bad-address", at, format!("`{text}` is not an IP address"));
        faults.push((file, fault.hint("write an address such as `10.0.4.1`; names are not resolved here")));
    }
    read
}

fn secret<'a>(source: Source<'a>, faults: &mut Faults<'a>) -> Option<(SecretName, SecretSource)> {
    let Spec::Secret(SecretSpec { username, from }) = &source.doc.spec else { return None };
    let is_variable = |text: &str| {
        !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let found = match (&from.file, &from.env) {
        (Some(file), None) if !file.trim().is_empty() => SecretFrom::File(file.clone()),
        (None, Some(variable)) if is_variable(variable) => SecretFrom::Env(variable.clone()),
        (None, Some(variable)) => {
            faults.push(source.fault(
                "bad-variable",
                path_to!["spec", "from", "env"],
                format!("`{variable}` is not the name of a variable"),
            ));
            return None;
        }
        _ => {
            let (file, fault) = source.fault("bad-secret", path_to!["spec", "from"], "a secret comes from exactly one place");
            faults.push((file, fault.hint("write `from: {file: path}` or `from: {env: NAME}`")));
            return None;
        }
    };
    let name = SecretName::new(source.name()).ok()?;
    Some((name.clone(), SecretSource { name, username: username.as_ref().map(|name| name.0.clone()), from: found }))
}
