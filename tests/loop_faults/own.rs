//! The controller's own troubles: its notes, its journal, and another controller.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rackwright::model::State;
use serde_json::{Value, json};

use crate::{
    all_ready, end, find,
    images::ImageServer,
    is,
    lab::{Lab, Node, ready},
    pair,
};

fn run_the_binary(config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rackwright")).args(["run", "--config"]).arg(config).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_controller_on_one_journal() {
    let mut lab = Lab::new(vec![Node::new("only", "Install")]).await;
    let controller = lab.controller().await;
    let config = lab.config();
    let second = tokio::task::spawn_blocking(move || run_the_binary(&config)).await.unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let journal = lab.path("state/journal.db").display().to_string();
    let holder = format!("held by another controller: site lab (process {} on ", std::process::id());
    for text in [journal.as_str(), &holder, "Only one may run on it; stop the other one first"] {
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
    // The first one does not notice.
    all_ready(&lab).await;
    lab.node("only").rebuild = 1;
    lab.write_machines();
    lab.commit("Rebuild it");
    all_ready(&lab).await;
    assert_eq!(lab.installs("only"), 2);
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_an_unknown_field() {
    let lab = Lab::tuned(vec![Node::new("only", "Install")], "20ms", Value::Null, json!({"boot": {"tfpt": "x"}})).await;
    let config = lab.config();
    let refused = tokio::task::spawn_blocking(move || run_the_binary(&config)).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("rackwright.yaml:1:") && said.contains("`tfpt`") && said.contains("did you mean `tftp`?"), "{said}");
    assert!(!lab.path("state/journal.db").exists(), "nothing was begun");
}

struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// OpenSSH's server on a high port; returns what the configuration says of the repository then.
async fn sshd(folder: &Path) -> Option<(Sshd, Value)> {
    let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let Some(program) = program else {
        println!("skipped: sshd is not installed (apt-get install openssh-server)");
        return None;
    };
    for name in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name)).status().unwrap().success());
    }
    // Its folder for privilege separation; only root needs it, and only root can make it.
    let _ = fs::create_dir_all("/run/sshd");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let here = folder.display();
    let conf = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\nPidFile none\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    );
    fs::write(folder.join("sshd.conf"), conf).unwrap();
    let key = fs::read_to_string(folder.join("host.pub")).unwrap();
    fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {key}")).unwrap();
    let mut command = Command::new(program);
    command.args(["-D", "-e", "-f"]).arg(folder.join("sshd.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Sshd(command.spawn().unwrap());
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let url = format!("ssh://{}@127.0.0.1:{port}{here}/fleet.git", user.trim());
    let repository = json!({"url": url, "sshKey": folder.join("user"), "knownHosts": folder.join("known_hosts"), "poll": "1s"});
    Some((server, repository))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_refuses_notes() {
    let mut lab = Lab::new(pair("Install", |_| {})).await;
    let Some((_sshd, repository)) = sshd(lab.folder.path()).await else { return };
    lab.tune = json!({ "repository": repository });
    let refuses = lab.path("refuses");
    File::create(&refuses).unwrap();
    let hook = lab.path("fleet.git/hooks/pre-receive");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let script = "#!/bin/sh\nwhile read old new ref; do case $ref in refs/notes/*) [ ! -e REFUSES ] || exit 1;; esac; done\n";
    fs::write(&hook, script.replace("REFUSES", refuses.to_str().unwrap())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();

    let controller = lab.controller().await;
    let first = lab.head();
    let status = lab.until("both installs, without notes", |status| ready(&first)(status) && status.notes_problem.is_some()).await;
    let problem = status.notes_problem.unwrap();
    for text in ["refuses notes on refs/notes/rackwright/lab/status", "pre-receive hook declined", "Allow the controller's user"] {
        assert!(problem.contains(text), "{text:?} is not in {problem}");
    }
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1), "machines are not affected");
    let refs = crate::lab::git(&lab.path("fleet.git"), &["for-each-ref", "refs/notes"]);
    assert_eq!(refs, "", "nothing was pushed");
    lab.node("good").rebuild = 1;
    lab.write_machines();
    let second = lab.commit("Rebuild good");
    all_ready(&lab).await;

    fs::remove_file(&refuses).unwrap();
    lab.note(&second, "Rackwright-State: Ready").await;
    let superseded = lab.note(&first, "Rackwright-State: Superseded").await;
    assert!(superseded.contains(&second), "the first commit has its last word: {superseded}");
    lab.until("notes are pushed", |status| status.notes_problem.is_none()).await;
    end(lab, controller).await;
}

/// A small file system that is unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: a file system that can be filled needs leave to mount one (root)");
        None
    }

    /// Not one byte is left after it.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write(&vec![1; size]).is_ok_and(|written| written > 0) {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_journal_and_clone() {
    let mut lab = Lab::new(pair("Install", |_| {})).await;
    let Some(small) = Small::mount(&lab.path("state")) else { return };
    let server = ImageServer::start(fs::read(lab.path("images/two.raw.zst")).unwrap(), false, None).await;
    lab.write_image("far", &lab.images["two"].digest.to_string(), &server.url);
    lab.nodes[0].image = "far".to_owned();
    lab.write_machines();
    lab.commit("An image that waits");
    lab.tune = json!({"deadlines": {"firstWrite": "120s", "silence": "120s"}});
    let controller = lab.controller().await;
    lab.until("the other install", |status| is(status, "good", State::Ready, "AsDeclared")).await;
    server.asked().await;

    // From here the agent has all it needs but leave to write, which is journaled before it is given.
    let ballast = small.fill();
    server.open();
    let status = lab.until("the trouble is told", |status| status.journal_problem.is_some()).await;
    let problem = status.journal_problem.unwrap();
    assert!(problem.contains("can't write the journal: the disk is full; make room"), "{problem}");
    assert_eq!(status.state, State::Stalled);
    // The agent asks again and again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = lab.status().await.expect("the controller goes on");
    assert_eq!((lab.installs("bad"), lab.installs("good")), (0, 1), "no leave to write without a journal");
    assert_eq!(find(&status, "bad").unwrap().reason, "Installing");
    assert!(is(&status, "good", State::Ready, "AsDeclared"), "{status:?}");
    // Nor is there room for a commit that comes meanwhile.
    let before = status.commit.id;
    lab.node("good").rebuild = 1;
    lab.write_machines();
    lab.commit("Rebuild the other one");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = lab.status().await.expect("the controller goes on");
    assert!(status.commit.id == before && status.state == State::Stalled, "{status:?}");
    assert_eq!((lab.installs("bad"), lab.installs("good")), (0, 1), "nothing is begun");

    fs::remove_file(ballast).unwrap();
    let status = lab.until("everything Ready", |status| ready(&lab.head())(status) && status.journal_problem.is_none()).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 2), "{status:?}");
    assert_eq!(lab.difference("bad", "two"), None);
    drop(small);
    end(lab, controller).await;
}
