//! Manifests from observation: whatever a BMC says, the text parses back to exactly that, or says that it was left out; machines are told
//! apart, and nothing of the fleet is claimed twice.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, option, prelude::*, sample::select};
use rackwright::{
    manifest::{
        Cache, Loaded,
        adopt::{Found, NameFrom, Verdict, Wanted, adopt},
        load,
    },
    model::{
        BmcTarget, BootOverride, FileEntry, FileKind, Files, Fingerprint, Fleet, Health, Mac, MachineName, Observation, ObservedDisk,
        ObservedIdentity, ObservedNic, OnClaim, PowerIntent, PowerState, Seen, Timestamp, Trust, Unknown, is_placeholder_uuid,
    },
};

const SETTINGS: &str = "apiVersion: rackwright.dev/v1alpha1\nkind: Fleet\nmetadata: {name: fleet}\nspec: {}\n";
const SECRET: &str = "apiVersion: rackwright.dev/v1alpha1\nkind: Secret\nmetadata: {name: bmc}\nspec: {username: a, from: {env: A}}\n";

fn entry(text: &str) -> FileEntry {
    use sha2::Digest as _;
    let hash: [u8; 32] = sha2::Sha256::digest(text.as_bytes()).into();
    FileEntry { id: hash[..20].try_into().unwrap(), kind: FileKind::Regular, bytes: text.as_bytes().into() }
}

fn fleet(machines: &[(&str, &str)]) -> (Files, Fleet) {
    let texts = [("fleet.yaml", SETTINGS), ("secrets/bmc.yaml", SECRET)].into_iter().chain(machines.iter().copied());
    let files: Files = texts.map(|(path, text)| (path.to_owned(), entry(text))).collect();
    let loaded = load(&files, &mut Cache::default());
    assert!(loaded.is_usable(), "{:?}", loaded.problems);
    (files, loaded.fleet)
}

fn with(mut files: Files, verdicts: &[Verdict]) -> Loaded {
    for verdict in verdicts {
        if let Verdict::New(manifest) = verdict {
            assert!(files.insert(manifest.path.clone(), entry(&manifest.text)).is_none(), "{} is overwritten", manifest.path);
        }
    }
    load(&files, &mut Cache::default())
}

fn at() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// A machine, as most BMCs describe one.
fn machine(address: &str, serial: Option<&str>, uuid: Option<&str>, macs: &[u8]) -> Found {
    let nic = |last: &u8| ObservedNic { name: format!("NIC.{last}"), mac: Mac([0x52, 0x54, 0, 0, 0, *last]), link_up: None };
    let identity = ObservedIdentity { serial: serial.map(str::to_owned), uuid: uuid.map(str::to_owned), ..ObservedIdentity::default() };
    let seen = Observation {
        power: Seen::Known(PowerState::On),
        identity: Seen::Known(identity),
        nics: Seen::Known(macs.iter().map(nic).collect()),
        ..Observation::blank(at(), address, &Unknown::NotReported)
    };
    let target = BmcTarget { address: address.to_owned(), credentials: Some("bmc".parse().unwrap()), trust: Trust::Ca };
    Found { target, seen, host_name: None, serial_is_sku: false, name: None }
}

/// What means something to YAML or to a terminal.
#[rustfmt::skip]
const PIECES: &[&str] = &[
    "a", "Z", "0", "9", "e", "-", ".", "_", ":", " ", "\n", "\r", "\t", "\u{0}", "\u{1b}[2J", "\u{85}", "\u{2028}", "\u{2029}", "\u{feff}", "\u{202e}", "é", "😀", "\"", "'", "\\", "#", " #", "# ", ": ", "- ", "---\n", "...\n", "{", "}", "[", "]", ",", "&a", "*a", "!!int ", "|", ">", "%YAML", "@", "`", "?", "~", "null", "true", "No", "0x1f", "1e3", "12:30:45", "2026-11-21", "onClaim: Install", "\n  rebuild: 9\n", ".inf", "\\u0041",
];

/// Texts that mean something to YAML, to terminals, or to whoever counts characters.
fn text() -> impl Strategy<Value = String> {
    let piece = select(PIECES);
    prop_oneof![
        8 => vec(piece, 0..8).prop_map(|pieces| pieces.concat()),
        4 => "[A-Z0-9]{5,14}",
        1 => any::<String>(),
        1 => (1usize..5000).prop_map(|length| "x1".repeat(length)),
        1 => select(vec!["To be filled by O.E.M.", "0123456789", "Default string", "None"]).prop_map(str::to_owned),
    ]
}

fn uuid() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        1 => "[0-9A-F]{32}",
        1 => text(),
        1 => Just("00000000-0000-0000-0000-000000000000".to_owned()),
        1 => Just("03000200-0400-0500-0006-000700080009".to_owned()),
    ]
}

fn gap() -> impl Strategy<Value = Unknown> {
    prop_oneof![3 => Just(Unknown::NotReported), 1 => text().prop_map(Unknown::Garbage), 1 => text().prop_map(Unknown::TimedOut)]
}

fn seen<T: std::fmt::Debug>(known: impl Strategy<Value = T>) -> impl Strategy<Value = Seen<T>> {
    prop_oneof![8 => known.prop_map(Seen::Known), 1 => gap().prop_map(Seen::Unknown)]
}

fn observation() -> impl Strategy<Value = Observation> {
    let identity = (option::of(text()), option::of(uuid()), option::of(text()), option::of(text()))
        .prop_map(|(serial, uuid, manufacturer, model)| ObservedIdentity { serial, uuid, manufacturer, model });
    // Few addresses, so that machines share some.
    let nic = (text(), 0u8..12, option::of(any::<bool>())).prop_map(|(name, last, link_up)| ObservedNic {
        name,
        mac: Mac([0x52, 0x54, 0, 0, 0, last]),
        link_up,
    });
    let disk = (text(), option::of(text()), option::of(text()), option::of(any::<u64>()))
        .prop_map(|(name, serial, wwn, size)| ObservedDisk { model: serial.clone(), name, serial, wwn, path: None, size });
    let boot = (text(), select(vec!["UEFI", "Legacy", "x\ny"])).prop_map(|(target, mode)| BootOverride {
        target,
        enabled: "Disabled".into(),
        mode: Some(mode.into()),
    });
    let power = select(vec![PowerState::On, PowerState::Off, PowerState::Paused]);
    (
        seen(power),
        seen(boot),
        seen(identity),
        seen(vec(nic, 0..4)),
        seen(vec(disk, 0..60)),
        seen(select(vec![Health::OK, Health::Critical])),
    )
        .prop_map(|(power, boot_override, identity, nics, disks, health)| Observation {
            at: at(),
            source: "test".into(),
            power,
            boot_override,
            identity,
            nics,
            disks,
            firmware: Seen::Unknown(Unknown::NotReported),
            health,
        })
}

fn found() -> impl Strategy<Value = Found> {
    let trust = prop_oneof![Just(Trust::Ca), any::<[u8; 32]>().prop_map(|pin| Trust::Pinned(Fingerprint(pin))), Just(Trust::Insecure)];
    let path = select(vec!["", "/redfish/v1/Systems/1", "/redfish/v1/Systems/System.Embedded.1"]);
    (observation(), option::of(text()), any::<bool>(), trust, path).prop_map(|(seen, host_name, serial_is_sku, trust, path)| Found {
        target: BmcTarget { address: path.to_owned(), credentials: Some("bmc".parse().unwrap()), trust },
        seen,
        host_name,
        serial_is_sku,
        name: None,
    })
}

fn founds() -> impl Strategy<Value = Vec<Found>> {
    vec(found(), 1..6).prop_map(|mut all| {
        for (n, one) in all.iter_mut().enumerate() {
            one.target.address = format!("https://10.0.8.{n}{}", one.target.address);
        }
        all
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let from = select(vec![NameFrom::Serial, NameFrom::Hostname, NameFrom::Address]);
    let labels = proptest::collection::btree_map("[a-z]{1,8}", text(), 0..3);
    (from, labels, any::<bool>()).prop_map(|(name_from, labels, schemas)| Wanted { name_from, labels, schemas, ..Wanted::default() })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_parses_back_to_what_was_seen(all in founds(), wanted in wanted()) {
        let (files, before) = fleet(&[]);
        let verdicts = adopt(&all, &before, &files, &wanted);
        prop_assert_eq!(verdicts.len(), all.len());
        let loaded = with(files, &verdicts);
        let allowed = |code: &str| code == "no-identity";
        prop_assert!(loaded.problems.iter().all(|problem| allowed(&problem.code)), "{:?}", loaded.problems);
        let (mut names, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for (one, verdict) in all.iter().zip(&verdicts) {
            let Verdict::New(manifest) = verdict else { continue };
            prop_assert!(names.insert(&manifest.machine), "{} twice", manifest.machine);
            let machine = &loaded.fleet.machines[&manifest.machine];
            prop_assert_eq!((machine.on_claim, machine.power), (OnClaim::Adopt, PowerIntent::Unmanaged));
            prop_assert_eq!((&machine.install, machine.suspend, &machine.disks), (&None, false, &rackwright::model::Disks::default()));
            prop_assert_eq!(&machine.bmc, &one.target);
            prop_assert_eq!(&machine.labels, &wanted.labels);
            let identity = one.seen.identity.known().cloned().unwrap_or_default();
            if let Some(serial) = &machine.identity.serial {
                prop_assert_eq!(Some(serial.as_str()), identity.serial.as_deref().map(str::trim));
                prop_assert!(taken.insert(format!("serial {}", serial.to_ascii_lowercase())), "two manifests claim one item");
            }
            if let Some(uuid) = &machine.identity.uuid {
                prop_assert!(rackwright::model::same_uuid(uuid, identity.uuid.as_deref().unwrap()) && !is_placeholder_uuid(uuid));
                prop_assert!(taken.insert(format!("uuid {uuid}")), "two manifests claim one item");
            }
            let reported: BTreeSet<Mac> = one.seen.nics.known().into_iter().flatten().map(|nic| nic.mac).collect();
            for nic in &machine.nics {
                prop_assert!(reported.contains(&nic.mac) && !nic.boot && nic.network.is_none() && nic.address.is_none());
                prop_assert!(taken.insert(format!("mac {}", nic.mac)), "two manifests claim one item");
            }
            prop_assert!(machine.identity.serial.is_some() || machine.identity.uuid.is_some() || !machine.nics.is_empty());
            let lines_are_plain = manifest.text.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{2028}' && c != '\u{2029}'));
            prop_assert!(lines_are_plain, "{}", manifest.text);
        }
        // What was adopted is known the next time, and is not adopted again.
        let after = loaded.fleet;
        let files: Files = Files::new();
        for (first, second) in verdicts.iter().zip(adopt(&all, &after, &files, &wanted)) {
            match (first, second) {
                (Verdict::New(manifest), Verdict::Known { machine, .. }) => prop_assert_eq!(&machine, &manifest.machine),
                (Verdict::New(manifest), other) => prop_assert!(false, "{} is {other:?}", manifest.machine),
                (_, other) => prop_assert!(!matches!(other, Verdict::New(_)), "{other:?} is new all at once"),
            }
        }
    }
}

/// Snapshots without this file's name in front of theirs.
fn settings() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind_to_scope()
}

fn told(verdicts: &[Verdict]) -> Vec<String> {
    let told = |verdict: &Verdict| match verdict {
        Verdict::New(manifest) if manifest.notes.is_empty() => format!("new {}", manifest.machine),
        Verdict::New(manifest) => format!("new {}, without {}", manifest.machine, manifest.notes.join("; ")),
        Verdict::Known { machine, by, .. } => format!("{machine} by {by}"),
        Verdict::Refused(why) => why.clone(),
    };
    verdicts.iter().map(told).collect()
}

const U1: &str = "4c4c4544-0035-3410-8050-c6c04f314733";
const U2: &str = "4c4c4544-0035-3410-8050-c6c04f314734";

#[test]
fn machines_are_told_apart_by_what_contradicts() {
    let _settings = settings();
    let (files, before) = fleet(&[]);
    let all = [
        machine("https://10.0.8.1", Some("SN-A"), Some(U1), &[1]),
        // By its other address.
        machine("https://10.0.8.2", Some("sn-a"), Some(U1), &[1]),
        // A maker who gives all boards one serial number.
        machine("https://10.0.8.3", Some("BOARD"), Some(U2), &[3]),
        machine("https://10.0.8.4", Some("BOARD"), Some("4c4c4544-0035-3410-8050-c6c04f314735"), &[4]),
        // One that says nothing of its own.
        machine("https://10.0.8.5", Some("To be filled by O.E.M."), Some("00000000-0000-0000-0000-000000000000"), &[]),
        // The link to the BMC has one MAC address in all machines of a model.
        machine("https://10.0.8.6", Some("SN-F"), None, &[6, 99]),
        machine("https://10.0.8.7", Some("SN-G"), None, &[7, 99]),
    ];
    let verdicts = adopt(&all, &before, &files, &Wanted::default());
    insta::assert_snapshot!("adopt-told-apart", told(&verdicts).join("\n"));
    assert!(with(files, &verdicts).problems.is_empty());
}

#[test]
fn what_the_fleet_has_is_left_alone_and_what_contradicts_it_is_told() {
    let _settings = settings();
    let have = |name: &str, address: &str, identity: &str, mac: &str| {
        format!(
            "apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata: {{name: {name}}}\nspec:\n  identity: {{{identity}}}\n  bmc: \
             {{address: \"{address}\", credentials: bmc}}\n  nics: [{{name: a, mac: \"52:54:00:00:00:{mac}\"}}]\n"
        )
    };
    let texts = [
        have("web-01", "https://10.0.8.1", "serial: A", "01"),
        have("web-02", "https://10.0.8.2/redfish/v1/Systems/1", "serial: B", "02"),
        have("web-03", "https://10.0.9.3", &format!("uuid: {U1}"), "03"),
        have("web-04", "https://10.0.9.4", "serial: D", "04"),
        have("web-05", "https://10.0.9.5", "serial: E", "05"),
    ];
    let paths = ["machines/a.yaml", "machines/b.yaml", "c.yaml", "d.yaml", "machines/free.yaml"];
    let named: Vec<(&str, &str)> = paths.into_iter().zip(texts.iter().map(String::as_str)).collect();
    let (files, before) = fleet(&named);
    let all = [
        machine("https://10.0.8.1:443", Some("a "), None, &[1]),
        // Its hardware was replaced: that is an edit, not a machine more.
        machine("https://10.0.8.2", Some("B2"), None, &[12]),
        // The BMC has another address now.
        machine("https://10.0.8.3", None, Some("4C4C4544-0035-3410-8050-C6C04F314733"), &[13]),
        machine("https://10.0.8.4", None, None, &[4]),
        // A card that moved.
        machine("https://10.0.8.5", Some("NEW"), None, &[5, 15]),
        // A name whose file is another machine's.
        machine("https://10.0.8.6", Some("free"), None, &[16]),
    ];
    let verdicts = adopt(&all, &before, &files, &Wanted::default());
    insta::assert_snapshot!("adopt-in-fleet", told(&verdicts).join("\n"));
    assert!(with(files, &verdicts).problems.is_empty());
}

#[test]
fn names_are_given_wished_or_made_and_never_twice() {
    let _settings = settings();
    let (files, before) = fleet(&[]);
    let named = |address: &str, serial: &str, host: &str, name: Option<&str>| Found {
        host_name: Some(host.to_owned()),
        name: name.map(|name| name.parse::<MachineName>().unwrap()),
        ..machine(address, Some(serial), None, &[])
    };
    let all = [
        named("https://10.0.8.1", "SN-A", "Web.Example.org", None),
        named("https://10.0.8.2", "SN-B", "web.example.org", None),
        named("https://10.0.8.3", "SN-C", "localhost.localdomain", None),
        named("https://10.0.8.4", "SN-D", "x", Some("web.example.org-2")),
        named("https://10.0.8.5", &"E1".repeat(50), "y".repeat(90).as_str(), None),
        named("https://10.0.8.6", "SN-F", "y".repeat(80).as_str(), None),
    ];
    let names = |name_from| {
        let verdicts = adopt(&all, &before, &files, &Wanted { name_from, ..Wanted::default() });
        assert!(with(files.clone(), &verdicts).problems.is_empty());
        told(&verdicts).join("\n")
    };
    insta::assert_snapshot!("adopt-names-host", names(NameFrom::Hostname));
    insta::assert_snapshot!("adopt-names-address", names(NameFrom::Address));
    let taken = [named("https://10.0.8.1", "SN-A", "x", Some("web-01"))];
    let text = "apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata: {name: web-01}\nspec: {bmc: {address: \"https://10.0.9.9\"}, identity: {serial: Z}}\n";
    let (files, before) = fleet(&[("m.yaml", text)]);
    insta::assert_snapshot!("adopt-names-given", told(&adopt(&taken, &before, &files, &Wanted::default())).join("\n"));
}

/// What somebody reads who opens the file.
#[test]
fn a_manifest_says_what_was_seen_and_what_nobody_can_see() {
    let _settings = settings();
    let mut one = machine("https://10.0.8.12/redfish/v1/Systems/System.Embedded.1", Some("F54P1G3"), Some(U1), &[1, 2, 2]);
    one.serial_is_sku = true;
    one.host_name = Some("web-01.example.org".into());
    one.target.trust = Trust::Pinned(Fingerprint([0x9f; 32]));
    one.seen.identity = Seen::Known(ObservedIdentity {
        serial: Some("F54P1G3".into()),
        uuid: Some(U1.to_uppercase()),
        manufacturer: Some("Dell Inc.".into()),
        model: Some("PowerEdge R750".into()),
    });
    let disk = |name: &str, serial: Option<&str>, wwn: Option<&str>, size| ObservedDisk {
        name: name.into(),
        serial: serial.map(str::to_owned),
        wwn: wwn.map(str::to_owned),
        model: Some("MZ7LH480".into()),
        path: None,
        size,
    };
    one.seen.disks = Seen::Known(vec![
        disk("Disk.Bay.0", Some("0123456"), None, Some(480_103_981_056)),
        disk("Disk.Bay.1", None, Some("5002538e00a1b2c3"), Some(7_681_501_126_656)),
        disk("Disk.Bay.2", None, None, None),
    ]);
    one.seen.boot_override = Seen::Known(BootOverride { target: "None".into(), enabled: "Disabled".into(), mode: Some("Legacy".into()) });
    one.seen.health = Seen::Known(Health::Warning);
    let text = "apiVersion: rackwright.dev/v1alpha1\nkind: Profile\nmetadata: {name: web}\nspec: {power: On}\n";
    let image = format!(
        "apiVersion: rackwright.dev/v1alpha1\nkind: Image\nmetadata: {{name: d12}}\nspec: {{digest: \"sha256:{}\", format: raw, url: d}}\n",
        "0".repeat(64)
    );
    let (files, before) = fleet(&[("p.yaml", text), ("i.yaml", &image)]);
    let wanted = Wanted {
        profile: Some("web".parse().unwrap()),
        image: Some("d12".parse().unwrap()),
        labels: BTreeMap::from([("rack".to_owned(), "07".to_owned()), ("role".to_owned(), "web".to_owned())]),
        ..Wanted::default()
    };
    let verdicts = adopt(&[one], &before, &files, &wanted);
    let Verdict::New(manifest) = &verdicts[0] else { panic!("{verdicts:?}") };
    insta::assert_snapshot!("adopt-manifest", manifest.text);
    let loaded = with(files, &verdicts);
    assert_eq!(loaded.problems.iter().map(|problem| problem.code.as_str()).collect::<Vec<_>>(), ["no-system-disk"]);
    let machine = &loaded.fleet.machines[&manifest.machine];
    assert_eq!(machine.power, PowerIntent::Unmanaged, "whatever the profile says");
    assert_eq!(machine.place.rack.as_deref(), Some("07"));
}
