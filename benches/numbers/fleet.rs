//! A generated fleet repository: like the example repository, only larger.

use std::fmt::Write as _;

use rackwright::model::{FileEntry, FileKind, Files};
use sha2::{Digest as _, Sha256};

/// Machines of one rack.
const RACK: usize = 40;

/// Roles, each with a profile, a template, an image and a rollout of its own.
const ROLES: [&str; 4] = ["web", "db", "edge", "store"];

/// How the BMC of a machine is reached.
pub enum Bmcs<'a> {
    /// Addresses that nobody asks.
    Nowhere,
    /// A simulated one for each machine, with the certificate of this fingerprint and the password in this file.
    Simulated { fingerprint: &'a str, password: &'a str, port: u16 },
}

/// Paths and texts of a repository of `machines` machines.
pub fn repository(machines: usize, bmcs: &Bmcs<'_>) -> Vec<(String, String)> {
    let (password, network) = match bmcs {
        Bmcs::Nowhere => ("/etc/rackwright/bmc-password", "10.0.0.0/8"),
        Bmcs::Simulated { password, .. } => (*password, "127.0.0.0/8"),
    };
    let mut files = vec![
        ("fleet.yaml".to_owned(), document("Fleet", "fleet", "  drift: {power: Correct}\n")),
        ("networks/lan.yaml".to_owned(), document("Network", "lan", &format!("  subnet: {network}\n  dhcp: Authoritative\n"))),
        ("secrets/bmc.yaml".to_owned(), document("Secret", "bmc", &format!("  username: admin\n  from: {{file: {password}}}\n"))),
        ("profiles/base.yaml".to_owned(), document("Profile", "base", "  boot: {mode: UEFI}\n  power: On\n")),
    ];
    for (number, role) in ROLES.iter().enumerate() {
        let digest = hex::encode(Sha256::digest(role.as_bytes()));
        let image = format!("  digest: sha256:{digest}\n  format: raw.zst\n  url: {role}.raw.zst\n  size: 8 GiB\n");
        let profile = format!(
            "  extends: [base]\n  image: {role}-1\n  configuration:\n    cloudInit:\n      userData: templates/{role}.yaml\n  disks:\n    keep: [{{model: DATA-{number}}}]\n"
        );
        files.push((format!("images/{role}-1.yaml"), document("Image", &format!("{role}-1"), &image)));
        files.push((format!("profiles/{role}.yaml"), document("Profile", role, &profile)));
        files.push((format!("rollouts/{role}.yaml"), document("Rollout", role, &format!("  selector: {{role: {role}}}\n"))));
        files.push((format!("templates/{role}.yaml"), TEMPLATE.to_owned()));
    }
    files.extend((0..machines).map(|number| (path(number), machine(number, bmcs, 0))));
    files
}

/// The path of a machine's manifest.
pub fn path(number: usize) -> String {
    format!("machines/rack-{:03}/{}.yaml", number / RACK, name(number))
}

/// The name of a machine.
pub fn name(number: usize) -> String {
    format!("{}-{number:05}", ROLES[number % ROLES.len()])
}

/// The loopback address of a machine's simulated BMC.
pub fn address(number: usize) -> String {
    format!("127.101.{}.{}", number / 250, number % 250 + 1)
}

/// The hardware address of a machine.
pub fn mac(number: usize) -> String {
    let [_, a, b, c] = (number as u32).to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// The SMBIOS UUID of a machine.
pub fn uuid(number: usize) -> String {
    format!("4c4c4544-0051-3010-8052-{number:012x}")
}

/// A machine's manifest.
pub fn machine(number: usize, bmcs: &Bmcs<'_>, rebuild: usize) -> String {
    let (name, role, rack) = (name(number), ROLES[number % ROLES.len()], number / RACK);
    let (bmc, fingerprint, lan) = match bmcs {
        Bmcs::Nowhere => {
            let (b, c) = (number / 250, number % 250 + 1);
            (format!("10.200.{b}.{c}"), hex::encode(Sha256::digest(number.to_string())), format!("10.100.{b}.{c}"))
        }
        Bmcs::Simulated { fingerprint, port, .. } => {
            (format!("{}:{port}", address(number)), fingerprint.trim_start_matches("sha256:").to_owned(), address(number))
        }
    };
    let mut text = format!(
        "# yaml-language-server: $schema=../../../schemas/machine.schema.json
apiVersion: rackwright.dev/v1alpha1
kind: Machine
metadata:
  name: {name}
  labels: {{role: {role}, rack: rack-{rack:03}, zone: z{}}}
spec:
  profile: {role}
  identity: {{serial: SN-{number:05}, uuid: {}}}
  place: {{site: bench, rack: rack-{rack:03}, slot: \"{}\"}}
  bmc:
    address: https://{bmc}
    credentials: bmc
    fingerprint: sha256:{fingerprint}
  nics:
    - {{name: lan0, mac: \"{}\", network: lan, address: {lan}, boot: true}}
  disks:
    system: {{serial: SYS-{number:05}}}         # no match, or two: nothing is written
",
        rack % 4,
        uuid(number),
        number % RACK,
        mac(number),
    );
    if rebuild > 0 {
        let _ = writeln!(text, "  rebuild: {rebuild}");
    }
    text
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: rackwright.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

const TEMPLATE: &str = "#cloud-config
hostname: {{ machine.name }}
ssh_pwauth: false
write_files:
  - path: /etc/rackwright/role
    content: \"{{ profile.name }} in rack {{ machine.place.rack }}\"
  - path: /etc/rackwright/network
    content: |
{% for nic in machine.nics %}
      {{ nic.name }} {{ nic.mac }} {{ network.subnet }}
{% endfor %}
";

/// The same as a commit's files. The ids are not Git's, but as good: equal ids are equal bytes.
pub fn files(repository: Vec<(String, String)>) -> Files {
    repository.into_iter().map(|(path, text)| (path, entry(&text))).collect()
}

/// One file.
pub fn entry(text: &str) -> FileEntry {
    let hash = Sha256::digest(text);
    let mut id = [0; 20];
    id.copy_from_slice(&hash[..20]);
    FileEntry { id, kind: FileKind::Regular, bytes: text.as_bytes().into() }
}
