//! Real servers: `git http-backend` behind lighttpd with TLS and basic auth, and OpenSSH.
#![allow(clippy::unwrap_used, missing_docs)]

mod git_support;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use git_support::{Fleet, Server, git};
use rackwright::{
    git::{Config, GitNotes, GitSource},
    model::{CommitId, RetryClass, SiteName},
    ports::{Notes as _, NotesError, Source as _, SourceError},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

const REF: &str = "refs/notes/rackwright/berlin/status";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16, server: &mut Server) {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        assert!(server.0.try_wait().unwrap().is_none(), "the server ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing listens on {port}");
}

fn program(names: &[&str]) -> Option<PathBuf> {
    names.iter().map(PathBuf::from).find(|path| path.exists())
}

async fn latest(config: &Config, dir: &Path) -> Result<CommitId, SourceError> {
    GitSource::open(config.clone(), dir)?.latest(None, false).await.map(|snapshot| snapshot.commit.id)
}

fn open_notes(config: &Config, dir: &Path) -> GitNotes {
    GitNotes::open(config.clone(), dir, SiteName::new("berlin").unwrap()).unwrap()
}

async fn note(config: &Config, dir: &Path, about: u8) -> Result<(), NotesError> {
    open_notes(config, dir).write(vec![(CommitId([about; 20]), "a note".into())]).await
}

fn stalled(error: (&str, RetryClass), parts: &[&str]) {
    assert_eq!(error.1, RetryClass::Stalled, "{}", error.0);
    for part in parts {
        assert!(error.0.contains(part), "{part:?} is not in: {}", error.0);
    }
}

fn source_stalled<T: std::fmt::Debug>(result: Result<T, SourceError>, parts: &[&str]) {
    let error = result.unwrap_err();
    stalled((&error.message, error.class), parts);
}

fn notes_stalled(result: Result<(), NotesError>, parts: &[&str]) {
    let error = result.unwrap_err();
    stalled((&error.message, error.class), parts);
}

/// Two writers at once; each note must be there.
async fn race(config: &Config, fleet: &Fleet) {
    let had = git(&fleet.bare(), &["notes", "--ref", REF, "list"]).lines().count();
    let writers = [0_u8, 1].map(|writer| {
        let notes = open_notes(config, &fleet.folder.path().join(format!("racer-{writer}.git")));
        tokio::spawn(async move {
            for number in 0..20 {
                let mut id = [100 + writer; 20];
                id[0] = number;
                let id = CommitId(id);
                notes.write(vec![(id, format!("{writer}/{number}"))]).await.unwrap();
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    let list = git(&fleet.bare(), &["notes", "--ref", REF, "list"]);
    assert_eq!(list.lines().count(), had + 40);
}

fn hook(fleet: &Fleet, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = fleet.bare().join("hooks/pre-receive");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// lighttpd with `git http-backend` and a certificate for `name`, user `robot`, password `right`. `None` when it is not installed.
fn https(fleet: &Fleet, name: &str) -> Option<(Server, u16, PathBuf)> {
    let lighttpd = program(&["/usr/sbin/lighttpd", "/usr/local/sbin/lighttpd"]);
    if lighttpd.is_none() || !Path::new("/usr/lib/lighttpd/mod_openssl.so").exists() {
        println!("skipped: lighttpd with TLS is not installed (apt-get install lighttpd lighttpd-mod-openssl)");
        return None;
    }
    let dir = fleet.folder.path();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    fs::write(dir.join("ca.pem"), ca_pem).unwrap();
    fs::write(dir.join("server.pem"), certificate.pem() + &key.serialize_pem()).unwrap();
    fs::write(dir.join("users"), "robot:right\n").unwrap();
    let port = free_port();
    let here = dir.display();
    let backend = git(dir, &["--exec-path"]);
    let conf = format!(
        r#"server.modules = ("mod_alias", "mod_setenv", "mod_auth", "mod_authn_file", "mod_cgi", "mod_openssl")
server.document-root = "{here}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{here}/errors"
ssl.engine = "enable"
ssl.pemfile = "{here}/server.pem"
alias.url = ("/git/" => "{backend}/git-http-backend/")
cgi.assign = ("" => "")
setenv.set-environment = ("GIT_PROJECT_ROOT" => "{here}", "GIT_HTTP_EXPORT_ALL" => "1",
  "GIT_CONFIG_COUNT" => "1", "GIT_CONFIG_KEY_0" => "safe.directory", "GIT_CONFIG_VALUE_0" => "*")
auth.backend = "plain"
auth.backend.plain.userfile = "{here}/users"
auth.require = ("/git/" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
"#
    );
    fs::write(dir.join("lighttpd.conf"), conf).unwrap();
    let mut command = Command::new(lighttpd.unwrap());
    command.arg("-D").arg("-f").arg(dir.join("lighttpd.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server(command.spawn().unwrap());
    wait_for(port, &mut server);
    Some((server, port, dir.join("ca.pem")))
}

// One test, because certificates are trusted by the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn over_https_with_a_certificate_and_a_password() {
    let fleet = Fleet::new();
    let Some((_server, port, ca)) = https(&fleet, "localhost") else { return };
    let url = |port: u16, path: &str| format!("https://localhost:{port}/git/{path}").parse().unwrap();
    let mut config = Config::new(url(port, "fleet.git"));
    let ours = fleet.ours();

    source_stalled(latest(&config, &ours).await, &["certificate", "caFile"]);
    config.ca_file = Some(fleet.folder.path().join("none.pem"));
    source_stalled(latest(&config, &ours).await, &["caFile", "none.pem"]);
    config.ca_file = Some(ca);
    source_stalled(latest(&config, &ours).await, &["asks for a password", "passwordFile"]);

    let password = fleet.folder.path().join("password");
    fs::write(&password, "wrong\n").unwrap();
    config.username = Some("robot".into());
    config.password_file = Some(password.clone());
    source_stalled(latest(&config, &ours).await, &["refuses our user or password"]);
    assert!(note(&config, &ours, 1).await.is_err_and(|error| error.class == RetryClass::Stalled && !error.message.contains("wrong\n")));
    fs::write(&password, "right\n").unwrap();
    assert_eq!(latest(&config, &ours).await.unwrap(), fleet.head());
    let next = fleet.push(&[("a", "a")], "next");
    assert_eq!(latest(&config, &ours).await.unwrap(), next);

    // Signed by an authority that we trust, but for another name.
    let elsewhere = Fleet::new();
    let (_other, other_port, other_ca) = https(&elsewhere, "elsewhere.example").unwrap();
    let by_name = Config { url: url(other_port, "fleet.git"), ca_file: Some(other_ca), ..config.clone() };
    source_stalled(latest(&by_name, &ours).await, &["certificate"]);
    let missing = Config { url: url(port, "other.git"), ..config.clone() };
    assert_eq!(latest(&missing, &fleet.folder.path().join("o.git")).await.unwrap_err().class, RetryClass::Wait);

    // Reading is allowed, writing is not.
    git(&fleet.bare(), &["config", "http.receivepack", "false"]);
    notes_stalled(note(&config, &ours, 1).await, &["does not allow it"]);
    git(&fleet.bare(), &["config", "http.receivepack", "true"]);
    hook(&fleet, "#!/bin/sh\necho 'notes are not welcome' >&2\nexit 1\n");
    notes_stalled(note(&config, &ours, 1).await, &["refuses notes on refs/notes/rackwright/berlin/status", "hook declined"]);
    hook(&fleet, "#!/bin/sh\nexit 0\n");
    note(&config, &ours, 1).await.unwrap();
    assert!(open_notes(&config, &ours).exist().await.unwrap());
    race(&config, &fleet).await;
}

/// OpenSSH's server on a high port, with one host key and one user key. `None` when it is not installed.
fn ssh(fleet: &Fleet) -> Option<(Server, u16)> {
    let Some(sshd) = program(&["/usr/sbin/sshd", "/usr/local/sbin/sshd"]) else {
        println!("skipped: sshd is not installed (apt-get install openssh-server)");
        return None;
    };
    let dir = fleet.folder.path();
    for (kind, name) in [("ed25519", "host"), ("ed25519", "user"), ("ed25519", "stranger"), ("rsa", "rsa")] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", kind, "-N", "", "-f"]).arg(dir.join(name));
        assert!(keygen.status().unwrap().success());
    }
    // Its folder for privilege separation; only root needs it, and only root can make it.
    let _ = fs::create_dir_all("/run/sshd");
    let (port, here) = (free_port(), dir.display());
    let conf = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\nPidFile none\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    );
    fs::write(dir.join("sshd.conf"), conf).unwrap();
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server(command.spawn().unwrap());
    wait_for(port, &mut server);
    Some((server, port))
}

fn known(fleet: &Fleet, port: u16, key: &str) -> PathBuf {
    let path = fleet.folder.path().join("known_hosts");
    let key = fs::read_to_string(fleet.folder.path().join(key)).unwrap();
    fs::write(&path, format!("[127.0.0.1]:{port} {key}")).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_with_a_known_host_and_a_key() {
    let fleet = Fleet::new();
    let Some((_server, port)) = ssh(&fleet) else { return };
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let url = |path: &Path| format!("ssh://{}@127.0.0.1:{port}{}", user.trim(), path.display()).parse().unwrap();
    let mut config = Config::new(url(&fleet.bare()));
    let key = |name: &str| Some(fleet.folder.path().join(name));
    let ours = fleet.ours();
    config.ssh_key = key("user");

    let path = fleet.folder.path().join("known_hosts");
    config.known_hosts = Some(path.clone());
    source_stalled(latest(&config, &ours).await, &["can't read knownHosts"]);
    fs::write(&path, "").unwrap();
    source_stalled(latest(&config, &ours).await, &["the ssh host 127.0.0.1", "is not in", "ssh-keyscan"]);
    known(&fleet, port, "stranger.pub");
    source_stalled(latest(&config, &ours).await, &["shows a ssh-ed25519 key other than the one"]);
    known(&fleet, port, "rsa.pub");
    source_stalled(latest(&config, &ours).await, &["has only ssh-rsa", "ssh-keyscan -t ssh-ed25519"]);
    known(&fleet, port, "host.pub");
    config.ssh_key = key("stranger");
    source_stalled(latest(&config, &ours).await, &["refuses our ssh key"]);
    config.ssh_key = key("none");
    source_stalled(latest(&config, &ours).await, &["can't read sshKey"]);
    config.ssh_key = key("user");
    assert_eq!(latest(&config, &ours).await.unwrap(), fleet.head());
    let next = fleet.push(&[("a", "a")], "next");
    assert_eq!(latest(&config, &ours).await.unwrap(), next);

    let missing = Config { url: url(&fleet.folder.path().join("other.git")), ..config.clone() };
    let error = latest(&missing, &fleet.folder.path().join("o.git")).await.unwrap_err();
    assert_eq!(error.class, RetryClass::Wait, "{error}");
    hook(&fleet, "#!/bin/sh\nexit 1\n");
    notes_stalled(note(&config, &ours, 1).await, &["hook declined"]);
    hook(&fleet, "#!/bin/sh\nexit 0\n");
    note(&config, &ours, 1).await.unwrap();
    race(&config, &fleet).await;
}
