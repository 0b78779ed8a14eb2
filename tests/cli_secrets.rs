//! Law 14: secrets stand nowhere but where they were put. The real programs run with every log line of every library on.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli_support;

use std::{collections::BTreeMap, fs, path::Path};

use cli_support::{Lab, edit, git, told};
use ring::hmac;

const PASSWORD: &str = "Zq7-planted-bmc-password";
const OLD_PASSWORD: &str = "simulated-and-worth-nothing";
const VARIABLE: &str = "PLANTED_BMC_PASSWORD";

#[test]
fn secrets_appear_nowhere() {
    let (lab, _) = Lab::init();
    plant(&lab);
    let simulator = lab.simulator(|command| {
        command.env("RACKWRIGHT_LOG", "trace,rackwright=trace");
    });
    let controller = lab.controller("run.log", |command| {
        command.env("RACKWRIGHT_LOG", "trace,rackwright=trace").env(VARIABLE, PASSWORD);
    });
    lab.until("3 of 3 machines ready");
    edit(&lab.path("fleet/profiles/node.yaml"), |text| text.replace("image: one", "image: two"));
    lab.push("Move to image two");
    let moved = || lab.tell(&["get", "machines"]);
    cli_support::wait("the move", || if moved().matches("two").count() == 3 { Ok(()) } else { Err(moved()) });
    lab.until("3 of 3 machines ready");
    let mut places = answers(&lab);
    assert_eq!(controller.stop("-INT").code(), Some(0));
    // Once more with a password that the BMC refuses: errors like to quote what they were given.
    fs::write(lab.path("bmc-password"), format!("{PASSWORD}-wrong\n")).unwrap();
    let controller = lab.controller("run-refused.log", |command| {
        command.env("RACKWRIGHT_LOG", "trace,rackwright=trace").env(VARIABLE, format!("{PASSWORD}-wrong"));
    });
    cli_support::wait("the refusal", || {
        let told = lab.tell(&["explain", "node-1"]);
        if told.contains("credentials") { Ok(()) } else { Err(told) }
    });
    assert_eq!(controller.stop("-INT").code(), Some(0));
    drop(simulator);
    places.extend(kept(&lab));
    assert!(places["run.log"].len() > 100_000, "the log at trace level is there: {} bytes", places["run.log"].len());
    let leaks: Vec<String> = secrets(&lab)
        .iter()
        .flat_map(|(what, secret)| {
            places.iter().filter(|(_, bytes)| holds(bytes, secret)).map(move |(place, _)| format!("{what} is in {place}"))
        })
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// node-1 and node-2 take the password from a file, node-3 from the environment.
fn plant(lab: &Lab) {
    edit(&lab.path("sim.yaml"), |text| text.replace(OLD_PASSWORD, PASSWORD));
    fs::write(lab.path("bmc-password"), format!("{PASSWORD}\n")).unwrap();
    let fleet = lab.path("fleet");
    edit(&fleet.join("machines/node-3.yaml"), |text| text.replace("credentials: bmc", "credentials: bmc-env"));
    let secret = format!(
        "apiVersion: rackwright.dev/v1alpha1\nkind: Secret\nmetadata: {{name: bmc-env}}\nspec: {{username: admin, from: {{env: {VARIABLE}}}}}\n"
    );
    fs::write(fleet.join("secrets/bmc-env.yaml"), secret).unwrap();
    git(&fleet, &["add", "--all"]);
    lab.push("One password from the environment");
}

/// Every secret of this laboratory, in the forms that it takes on the wire and in memory.
fn secrets(lab: &Lab) -> Vec<(String, Vec<u8>)> {
    let key = fs::read(lab.path("state/boot.key")).unwrap();
    let basic = base64(format!("admin:{PASSWORD}").as_bytes());
    let mut secrets = vec![
        ("the BMC password".to_owned(), PASSWORD.as_bytes().to_vec()),
        ("Basic authentication of the BMC".to_owned(), basic.into_bytes()),
        ("the key of the tokens".to_owned(), hex::encode(&key).into_bytes()),
        ("the key of the tokens, raw".to_owned(), key.clone()),
    ];
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    for attempt in ["node-1#1", "node-2#1", "node-3#1", "node-3#2"] {
        for purpose in ["agent", "callhome"] {
            let token = hex::encode(hmac::sign(&hmac_key, format!("{purpose}\0{attempt}").as_bytes()));
            secrets.push((format!("the {purpose} token of {attempt}"), token.into_bytes()));
        }
    }
    secrets
}

/// What commands and the API answer.
fn answers(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let mut places = BTreeMap::new();
    for command in [
        "status",
        "status --json",
        "get machines",
        "get machines --json",
        "explain node-3",
        "explain node-3 --json",
        "history node-1",
        "history node-3",
        "history node-3 --json",
        "plan --repo fleet --config rackwright.yaml --format json",
        "plan --repo fleet --head main",
        "plan --repo fleet --base HEAD~1 --head main --format json",
        "validate fleet --json",
    ] {
        let output = lab.command(&command.split(' ').collect::<Vec<_>>()).output().unwrap();
        let said = told(&output);
        assert!(output.status.success(), "{command}: {said}");
        places.insert(command.to_owned(), said.into_bytes());
    }
    let api = format!("http://{}:8470", lab.address(1));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for route in ["status", "plan", "observations", "machines/node-1", "machines/node-3"] {
        let url = format!("{api}/api/v1/{route}");
        let text = runtime.block_on(async { reqwest::get(&url).await.unwrap().error_for_status().unwrap().text().await.unwrap() });
        places.insert(url, text.into_bytes());
    }
    places
}

/// What is kept: logs, journal, clone, notes.
fn kept(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let mut places = BTreeMap::new();
    for log in ["run.log", "run-refused.log", "sim.log"] {
        places.insert(log.to_owned(), fs::read(lab.path(log)).unwrap());
    }
    for entry in fs::read_dir(lab.path("state")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let name = entry.file_name().into_string().unwrap();
        if name != "boot.key" {
            places.insert(format!("state/{name}"), fs::read(entry.path()).unwrap());
        }
    }
    assert!(places.contains_key("state/journal.db"), "{:?}", places.keys());
    for repository in ["fleet.git", "state/fleet.git"] {
        let everything = git(&lab.path(repository), &["log", "--all", "--patch", "--format=fuller"]);
        assert!(repository != "fleet.git" || everything.contains("Rackwright-State"), "the notes are there");
        places.insert(format!("every commit of {repository}"), everything.into_bytes());
        walk(&lab.path(repository), &mut places);
    }
    places
}

fn walk(folder: &Path, places: &mut BTreeMap<String, Vec<u8>>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            walk(&path, places);
        } else {
            places.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let number = (0..3).fold(0u32, |number, at| number << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        let digit = move |at: usize| DIGITS[(number >> (18 - 6 * at) & 63) as usize] as char;
        (0..4).map(move |at| if at <= chunk.len() { digit(at) } else { '=' }).collect::<Vec<_>>()
    });
    digits.collect()
}

#[test]
fn the_search_itself_finds() {
    assert!(holds(b"x-secret-y", b"secret") && !holds(b"x-secre", b"secret"));
    assert_eq!([base64(b"admin:a"), base64(b"admin:ab"), base64(b"admin:abc")], ["YWRtaW46YQ==", "YWRtaW46YWI=", "YWRtaW46YWJj"]);
}
