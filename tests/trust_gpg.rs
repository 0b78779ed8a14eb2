//! Signatures that real GnuPG makes, and forged ones.
#![allow(clippy::unwrap_used, missing_docs)]

mod trust_support;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use trust_support::{By, Repo, fleet};

/// A repository, and a home for GnuPG whose agent ends with it.
struct Home(Repo);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", self.0.gpg_home()).status();
    }
}

impl Home {
    /// `None`, with a word, where there is no GnuPG.
    fn new(rest: &str) -> Option<Self> {
        if Command::new("gpg").arg("--version").output().is_err() {
            eprintln!("skipped: there is no gpg here (scripts/test-packages test)");
            return None;
        }
        let mut repo = Repo::with(rest);
        // Its keys are made now, so commits come after that.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        repo.clock = now.as_secs() as i64 + 60;
        fs::create_dir(repo.gpg_home()).unwrap();
        fs::set_permissions(repo.gpg_home(), fs::Permissions::from_mode(0o700)).unwrap();
        Some(Self(repo))
    }

    fn gpg(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]).args(args);
        let output = command.env("GNUPGHOME", self.0.gpg_home()).output().unwrap();
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key for NAME@example.org; gives its fingerprint.
    fn key(&self, name: &str, algorithm: &str, usage: &str, expires: &str) -> String {
        self.gpg(&["--quick-gen-key", &format!("{name} <{name}@example.org>"), algorithm, usage, expires]);
        self.fingerprints(name)[0].clone()
    }

    /// Of the primary key, then of the subkeys.
    fn fingerprints(&self, name: &str) -> Vec<String> {
        let listed = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", &format!("{name}@example.org")])).unwrap();
        listed.lines().filter(|line| line.starts_with("fpr:")).map(|line| line.split(':').nth(9).unwrap().to_owned()).collect()
    }

    fn public(&self, name: &str) -> String {
        String::from_utf8(self.gpg(&["--armor", "--export", &format!("{name}@example.org")])).unwrap()
    }

    /// Has the repository know these keys.
    fn allow(&mut self, files: &[(&str, &str)]) {
        let paths: Vec<String> = files.iter().map(|(name, _)| format!("signers/{name}.asc")).collect();
        let stated = fleet(&format!("    openpgpKeys: [{}]\n", paths.join(", ")));
        let mut all: Vec<(&str, &str)> = paths.iter().map(String::as_str).zip(files.iter().map(|(_, text)| *text)).collect();
        all.push(("fleet.yaml", &stated));
        self.0.commit(By::Ssh("anna"), "keys", &all);
        self.0.git(&["tag", "-f", "base"]);
    }

    fn signed(&mut self, key: &str) -> String {
        self.0.commit(By::Gpg(key), "signed", &[]);
        self.0.verdict()
    }
}

#[test]
fn keys_of_each_type_sign_as_git_sees_it() {
    let Some(mut home) = Home::new("") else { return };
    let types = [("ed", "ed25519"), ("rsa2", "rsa2048"), ("rsa3", "rsa3072"), ("p256", "nistp256"), ("p384", "nistp384")];
    let keys: Vec<String> = types.iter().map(|(name, algorithm)| home.key(name, algorithm, "sign,cert", "never")).collect();
    let public: Vec<String> = types.iter().map(|(name, _)| home.public(name)).collect();
    // All in one file, as `cat` makes it.
    home.allow(&[("all", &public.concat())]);
    for ((name, _), key) in types.iter().zip(&keys) {
        for _ in 0..if name.starts_with('p') { 6 } else { 2 } {
            assert_eq!(home.signed(key), format!("{name}@example.org"));
            assert!(home.0.try_git(&["verify-commit", "HEAD"]).status.success());
        }
    }
    // A key that only certifies, with one that signs.
    let key = home.key("sub", "ed25519", "cert", "never");
    home.gpg(&["--quick-add-key", &key, "rsa2048", "sign", "never"]);
    home.gpg(&["--quick-add-key", &key, "cv25519", "encr", "never"]);
    let public = home.public("sub");
    home.allow(&[("sub", &public)]);
    assert_eq!(home.signed(&key), "sub@example.org");
    let judged = home.0.judged("base");
    assert_eq!(judged.signer().unwrap().key, home.fingerprints("sub")[1]);
    assert!(home.signed(&keys[0]).contains("is not among the allowed signers"), "it is not listed any more");
}

#[test]
fn forged_signatures_are_refused() {
    let Some(mut home) = Home::new("") else { return };
    let (good, eve) = (home.key("carl", "rsa2048", "sign,cert", "never"), home.key("eve", "rsa2048", "sign,cert", "never"));
    let public = home.public("carl");
    home.allow(&[("carl", &public)]);
    let expect = |home: &Home, expected: &str| {
        let verdict = home.0.verdict();
        assert!(verdict.starts_with("refused: ") && verdict.contains(expected), "{expected}: {verdict}");
    };
    home.signed(&eve);
    expect(&home, "is not among the allowed signers");
    assert_eq!(home.signed(&good), "carl@example.org");
    let raw = String::from_utf8(home.0.raw("HEAD")).unwrap();
    home.0.forge(raw.replace("\n\nsigned", "\n\nforged").as_bytes());
    expect(&home, "does not fit what the commit says");
    assert!(!home.0.try_git(&["verify-commit", "HEAD"]).status.success());

    let with = |signature: &str| {
        let (head, message) = raw.split_once("\n\n").unwrap();
        let head: Vec<&str> = head.lines().take_while(|line| !line.starts_with("gpgsig")).collect();
        format!("{}\ngpgsig {}\n\n{message}", head.join("\n"), signature.trim_end().replace('\n', "\n ")).into_bytes()
    };
    let payload = home.0.folder.path().join("payload");
    let (head, message) = raw.split_once("\n\n").unwrap();
    let head: Vec<&str> = head.lines().take_while(|line| !line.starts_with("gpgsig")).collect();
    fs::write(&payload, format!("{}\n\n{message}", head.join("\n"))).unwrap();
    let sign = |how: &[&str]| {
        let all: Vec<&str> =
            ["--armor", "--output", "-"].into_iter().chain(how.iter().copied()).chain([payload.to_str().unwrap()]).collect();
        String::from_utf8(home.gpg(&all)).unwrap()
    };
    home.0.forge(&with(&sign(&["--detach-sign", "-u", &good])));
    assert_eq!(home.0.verdict(), "carl@example.org");
    home.0.forge(&with(&sign(&["--detach-sign", "-u", &good, "--digest-algo", "SHA512"])));
    assert_eq!(home.0.verdict(), "carl@example.org");
    let cases = [
        (sign(&["--detach-sign", "-u", &good, "--digest-algo", "SHA1"]), "its hash is none of"),
        (sign(&["--detach-sign", "-u", &good, "-u", &eve]), "it is not one signature"),
        (sign(&["--detach-sign", "-u", &good, "--textmode"]), "it is not one that GnuPG makes of a commit"),
        (sign(&["--detach-sign", "-u", &good]) + &sign(&["--detach-sign", "-u", &eve]), "it is not one armored block"),
        (sign(&["--sign", "-u", &good]).replace("PGP MESSAGE", "PGP SIGNATURE"), "its signature is damaged"),
        (sign(&["--clearsign", "-u", &good]), "an unknown kind"),
        (sign(&["--detach-sign", "-u", &good]).replacen("-----END", "AAAA\n-----END", 1), "armor"),
        ("-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n".to_owned(), "it is not one signature"),
    ];
    for (signature, expected) in cases {
        home.0.forge(&with(&signature));
        expect(&home, expected);
    }
    // Whom a signature names is not signed: Carl's name on Eve's.
    let hers = sign(&["--detach-sign", "-u", &eve]);
    let bytes =
        STANDARD.decode(hers.lines().filter(|line| !line.contains([':', '-']) && !line.starts_with('=')).collect::<String>()).unwrap();
    let named = |fingerprint: &str| hex::decode(&fingerprint[24..]).unwrap();
    let at: Vec<usize> = (0..bytes.len() - 8).filter(|at| bytes[*at..*at + 8] == named(&eve)).collect();
    let mut renamed = bytes.clone();
    at.iter().for_each(|at| renamed[*at..*at + 8].copy_from_slice(&named(&good)));
    home.0.forge(&with(&armored("SIGNATURE", &renamed)));
    expect(&home, "does not fit what the commit says");
}

#[test]
fn keys_end_when_they_expire_or_are_revoked() {
    let Some(mut home) = Home::new("") else { return };
    let key = home.key("carl", "ed25519", "sign,cert", "2d");
    home.gpg(&["--quick-add-key", &key, "ed25519", "sign", "1d"]);
    let (subkey, primary) = (format!("{}!", home.fingerprints("carl")[1]), format!("{key}!"));
    let public = home.public("carl");
    home.allow(&[("carl", &public)]);
    assert_eq!(home.signed(&subkey), "carl@example.org");
    let begun = home.0.clock;
    home.0.clock = begun + 86_400;
    assert!(home.signed(&subkey).contains("of carl@example.org was valid until"), "{}", home.0.verdict());
    assert_eq!(home.signed(&primary), "carl@example.org");
    home.0.clock = begun + 2 * 86_400;
    assert!(home.signed(&primary).contains("of carl@example.org was valid until"), "{}", home.0.verdict());
    home.0.clock = begun - 86_400;
    assert!(home.signed(&primary).contains("is valid from"), "{}", home.0.verdict());

    // Longer, by a newer word of the key itself.
    home.0.clock = begun + 2 * 86_400;
    home.gpg(&["--quick-set-expire", &key, "5d"]);
    let (before, public) = (public, home.public("carl"));
    home.allow(&[("carl", &public)]);
    assert_eq!(home.signed(&primary), "carl@example.org");
    assert!(home.signed(&subkey).contains("was valid until"), "its own end is the same");

    // Revoked: by the certificate that GnuPG puts aside when it makes a key.
    let file = home.0.gpg_home().join(format!("openpgp-revocs.d/{key}.rev"));
    let text = fs::read_to_string(&file).unwrap().replace(":-----BEGIN", "-----BEGIN");
    assert_eq!(home.signed(&primary), "carl@example.org");
    fs::write(&file, text).unwrap();
    home.gpg(&["--import", file.to_str().unwrap()]);
    let revoked = home.public("carl");
    home.0.commit(By::Ssh("anna"), "revoked", &[("signers/carl.asc", &revoked)]);
    home.0.git(&["tag", "-f", "base"]);
    // GnuPG itself signs with it no more; a thief's would.
    let signed = home.0.git(&["rev-parse", "HEAD~1"]);
    home.0.git(&["checkout", "-q", "-B", "thief", &signed]);
    home.0.git(&["tag", "-f", "old", &format!("{signed}~1")]);
    let judged = |home: &Home, files: &[(&str, &str)]| judged_by(home, files);
    assert!(judged(&home, &[("x", &revoked)]).contains("is revoked"));
    assert!(judged(&home, &[("x", &public)]).contains("carl@example.org"));
    assert!(judged(&home, &[("x", &revoked), ("y", &before)]).contains("is revoked"), "an older copy beside it changes nothing");
}

/// What is said of HEAD, by its parent's files with these keys instead.
fn judged_by(home: &Home, files: &[(&str, &str)]) -> String {
    use rackwright::{git, manifest, model::CommitId, model::Signatures, trust};
    let stated = Signatures { openpgp_keys: files.iter().map(|(name, _)| (*name).to_owned()).collect(), ..Signatures::default() };
    let (signers, bad) =
        trust::Signers::read(&stated, |path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.as_bytes().to_vec()));
    assert!(bad.is_empty(), "{bad:?}");
    let at_base = trust::SignersAt { stated: trust::Stated::Signers(signers.into()), ..trust::SignersAt::default() };
    let look = |base: CommitId, commits: &dyn trust::Commits| {
        let question = trust::Question { base: Some(base), at_base, host: None };
        trust::judge(commits, &manifest::FleetSettings, &question).unwrap()
    };
    let judged = git::look_at_range(&home.0.dir(), Some("HEAD~1"), "HEAD", look).unwrap();
    format!("{:?}", judged.verdicts[0].outcome.as_ref().map_err(ToString::to_string))
}

#[test]
fn a_key_vouches_for_its_own_names_and_subkeys_alone() {
    let Some(mut home) = Home::new("") else { return };
    let carl = home.key("carl", "ed25519", "cert", "never");
    home.gpg(&["--quick-add-key", &carl, "ed25519", "sign", "never"]);
    let eve = home.key("eve", "ed25519", "sign,cert", "never");
    let export = |name: &str| packets(&home.gpg(&["--export", &format!("{name}@example.org")]));
    // Key, user ID and its signature; then Carl's subkey and what binds it.
    let (his, hers) = (export("carl"), export("eve"));
    assert_eq!((his.len(), hers.len()), (5, 3));
    let with = |more: &[Vec<u8>]| armored("PUBLIC KEY BLOCK", &[hers.concat(), more.concat()].concat());
    let stolen_name = with(&his[1..3]);
    let bare_name = with(&his[1..2]);
    let stolen_subkey = with(&his[3..5]);
    home.signed(&eve);
    for key in [&stolen_name, &bare_name, &stolen_subkey] {
        let said = judged_by(&home, &[("x", key)]);
        assert!(said.contains("eve@example.org") && !said.contains("carl"), "{said}");
    }
    home.signed(&format!("{}!", home.fingerprints("carl")[1]));
    assert!(judged_by(&home, &[("x", &stolen_subkey)]).contains("is not among the allowed signers"));
    let own = home.public("carl");
    assert!(judged_by(&home, &[("x", &own), ("y", &stolen_subkey)]).contains("carl@example.org"));
}

#[test]
fn what_is_no_public_key_is_told() {
    let Some(home) = Home::new("") else { return };
    home.key("carl", "ed25519", "sign,cert", "never");
    home.key("encr", "rsa2048", "cert", "never");
    let secret = String::from_utf8(home.gpg(&["--armor", "--export-secret-keys", "carl@example.org"])).unwrap();
    let binary = String::from_utf8_lossy(&home.gpg(&["--export", "carl@example.org"])).into_owned();
    let whole = home.public("carl");
    let told = |text: &str| {
        let stated = rackwright::model::Signatures { openpgp_keys: vec!["x".to_owned()], ..Default::default() };
        let (signers, bad) = rackwright::trust::Signers::read(&stated, |_| Some(text.as_bytes().to_vec()));
        assert_eq!(signers.is_empty(), !bad.is_empty());
        bad.get("x").map(|lines| lines[0].message.clone()).unwrap_or_default()
    };
    assert_eq!(told(&whole), "");
    assert!(told(&secret).contains("this is a private key"));
    assert!(told(&secret.replace("PRIVATE KEY BLOCK", "PUBLIC KEY BLOCK")).contains("this is a private key"));
    assert!(told(&binary).contains("not an armored OpenPGP key"));
    assert!(told("").contains("not an armored OpenPGP key"));
    assert!(told(&home.public("encr")).contains("has no key that signs"));
    let packets = packets(&home.gpg(&["--export", "carl@example.org"]));
    assert!(told(&armored("PUBLIC KEY BLOCK", &packets[0])).contains("no user ID"));
    assert!(told(&armored("PUBLIC KEY BLOCK", &packets[1..].concat())).contains("does not begin with a key"));
    let bytes = packets.concat();
    for end in 0..bytes.len() {
        assert_ne!(told(&armored("PUBLIC KEY BLOCK", &bytes[..end])), "", "cut to {end} bytes");
    }
}

/// A forge's key, as GitHub's: it merges what the signers signed.
#[test]
fn a_forge_merges_with_its_own_key() {
    let Some(mut home) = Home::new("") else { return };
    let key = home.key("noreply", "rsa2048", "sign,cert", "never");
    let stated = fleet("    openpgpKeys: [signers/forge.asc]\n    mergeOnly: [noreply@example.org]\n");
    let public = home.public("noreply");
    home.0.commit(By::Ssh("anna"), "forge", &[("fleet.yaml", &stated), ("signers/forge.asc", &public)]);
    home.0.git(&["tag", "-f", "base"]);
    home.0.git(&["checkout", "-q", "-b", "side"]);
    home.0.commit(By::Ssh("bert"), "side", &[("machines/b.yaml", "# b\n")]);
    home.0.git(&["checkout", "-q", "main"]);
    home.0.signed(By::Gpg(&key), &["merge", "-q", "--no-ff", "-m", "Merge pull request #1", "side"]);
    assert_eq!(home.0.verdict(), "noreply@example.org");
    assert!(home.signed(&key).contains("may only make merges"), "{}", home.0.verdict());
}

/// The packets of a key as GnuPG writes them: old headers.
fn packets(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, length) = match bytes[0] & 0x43 {
            0 => (2, usize::from(bytes[1])),
            1 => (3, usize::from(u16::from_be_bytes([bytes[1], bytes[2]]))),
            other => panic!("{other}"),
        };
        let (packet, rest) = bytes.split_at(head + length);
        found.push(packet.to_vec());
        bytes = rest;
    }
    found
}

fn armored(kind: &str, bytes: &[u8]) -> String {
    let base64 = STANDARD.encode(bytes);
    let lines: Vec<&str> = (0..base64.len()).step_by(64).map(|at| &base64[at..(at + 64).min(base64.len())]).collect();
    format!("-----BEGIN PGP {kind}-----\n\n{}\n-----END PGP {kind}-----\n", lines.join("\n"))
}
