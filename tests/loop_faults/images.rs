//! Images that are not what they should be, and servers of images that go away.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rackwright::model::{Digest, State};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    all_ready, end, find, is,
    lab::{Lab, Node},
    only_bad_stalls, pair,
};

/// `bad` is to get image `odd`, which `make` declares. It is tried once and not booted, `installs` times it wrote; another image
/// is the cure if it fits.
async fn odd_image(change: impl FnOnce(&mut Node), make: impl FnOnce(&Lab), texts: &[&str], installs: u64) {
    let mut lab = Lab::new(pair("Install", change)).await;
    make(&lab);
    lab.node("bad").image = "odd".to_owned();
    lab.write_machines();
    lab.commit("An odd image");
    let controller = lab.controller().await;
    let status = only_bad_stalls(&lab, "Quarantined", texts).await;
    let bad = find(&status, "bad").unwrap();
    assert_eq!((lab.installs("bad"), u64::from(bad.writes)), (installs, installs), "tried once: it would be the same again");
    assert_eq!(bad.generation, None, "nobody claims to know what is on its disk");
    assert_eq!(lab.simulator.report("bad").unwrap().boots, 1, "it was not started from that disk");

    if installs > 0 {
        // The same digest is the same generation, so the truncated image's cure is one more rebuild.
        lab.node("bad").image = "two".to_owned();
        lab.node("bad").rebuild = 1;
        lab.write_machines();
        lab.commit("A good image");
        all_ready(&lab).await;
        assert_eq!((lab.installs("bad"), lab.installs("good")), (installs + 1, 1));
        assert_eq!(lab.difference("bad", "two"), None);
    }
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_a_wrong_digest() {
    let declared = Digest([0xab; 32]).to_string();
    let make = |lab: &Lab| lab.write_image("odd", &declared, "two.raw.zst");
    let texts = ["bad#1 failed (wrong-digest)", "the image file has the digest sha256:", "the manifest says", &declared];
    odd_image(|_| {}, make, &texts, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_truncated() {
    let make = |lab: &Lab| {
        let mut file = fs::read(lab.path("images/two.raw.zst")).unwrap();
        file.truncate(file.len() * 2 / 3);
        fs::write(lab.path("images/short.raw.zst"), file).unwrap();
        lab.write_image("odd", &lab.images["two"].digest.to_string(), "short.raw.zst");
    };
    odd_image(|_| {}, make, &["bad#1 failed (truncated)"], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_larger_than_the_disk() {
    let make = |lab: &Lab| lab.write_image("odd", &lab.images["two"].digest.to_string(), "two.raw.zst");
    let texts = ["bad#1 failed (disk-too-small)", "bytes, the disk has 8388608; nothing was written"];
    odd_image(|bad| bad.disk_size = "8MiB", make, &texts, 0).await;
}

/// Serves one file over plain HTTP, with ranges. Can hold its answers, and die in the middle of one.
pub struct ImageServer {
    pub url: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    file: Vec<u8>,
    /// Answers wait for this.
    open: watch::Sender<bool>,
    /// The next answer ends after so many bytes, and the server with it.
    dies_after: Mutex<Option<usize>>,
    dead: watch::Sender<bool>,
    /// Where each request wanted to begin.
    asked: Mutex<Vec<usize>>,
}

impl ImageServer {
    pub async fn start(file: Vec<u8>, open: bool, dies_after: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, dead) = (watch::Sender::new(open), watch::Sender::new(false));
        let shared = Arc::new(Shared { file, open, dies_after: Mutex::new(dies_after), dead, asked: Mutex::default() });
        let mut server = Self { url: format!("http://{address}/image.raw.zst"), address, shared, accepting: None };
        server.accept(listener);
        server
    }

    fn accept(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.accepting = Some(tokio::spawn(async move {
            let mut dead = shared.dead.subscribe();
            loop {
                tokio::select! {
                    stream = listener.accept() => drop(tokio::spawn(answer(stream.unwrap().0, shared.clone()))),
                    _ = dead.wait_for(|dead| *dead) => return,
                }
            }
        }));
    }

    pub async fn died(&self) {
        self.shared.dead.subscribe().wait_for(|dead| *dead).await.unwrap();
    }

    pub async fn come_back(&mut self) {
        self.accepting.take().unwrap().await.unwrap();
        self.shared.dead.send_replace(false);
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.accept(listener);
    }

    /// Waits until somebody asks.
    pub async fn asked(&self) {
        while self.shared.asked.lock().unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub fn open(&self) {
        self.shared.open.send_replace(true);
    }
}

async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let range = request.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
    shared.asked.lock().unwrap().push(range.unwrap_or(0));
    shared.open.subscribe().wait_for(|open| *open).await.unwrap();
    let (start, all) = (range.unwrap_or(0), shared.file.len());
    let status =
        if range.is_some() { format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{all}", all - 1) } else { "200 OK".into() };
    let head = format!("HTTP/1.1 {status}\r\nETag: \"one\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", all - start);
    let dies = shared.dies_after.lock().unwrap().take();
    let body = &shared.file[start..dies.unwrap_or(all)];
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
    let _ = stream.shutdown().await;
    if dies.is_some() {
        shared.dead.send_replace(true);
    }
}

/// `bad` gets its image from a server that dies in the middle.
pub async fn mortal(sim: Value, tune: Value) -> (Lab, ImageServer) {
    let mut lab = Lab::tuned(pair("Install", |_| {}), "20ms", sim, tune).await;
    let file = fs::read(lab.path("images/two.raw.zst")).unwrap();
    let half = file.len() / 2;
    let server = ImageServer::start(file, true, Some(half)).await;
    lab.write_image("far", &lab.images["two"].digest.to_string(), &server.url);
    lab.nodes[0].image = "far".to_owned();
    lab.write_machines();
    lab.commit("An image that is far away");
    (lab, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_server_that_dies_half_way_and_comes_back() {
    let tune = json!({"deadlines": {"silence": "60s"}});
    let (lab, mut server) = mortal(Value::Null, tune).await;
    let controller = lab.controller().await;
    server.died().await;
    let status = lab.until("the other install", |status| is(status, "good", State::Ready, "AsDeclared")).await;
    let bad = find(&status, "bad").unwrap();
    assert_eq!((bad.state, bad.reason.as_str()), (State::Reconciling, "Installing"), "{bad:?}");
    server.come_back().await;
    all_ready(&lab).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1), "it went on where it was");
    assert_eq!(lab.difference("bad", "two"), None);
    let asked = server.shared.asked.lock().unwrap().clone();
    assert_eq!(asked, [0, server.shared.file.len() / 2], "only the rest was asked for");
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_server_that_dies_half_way_for_good() {
    let (mut lab, server) = mortal(json!({"pace": {"agentGiveUp": "1s"}}), json!({"deadlines": {"maxTries": 2}})).await;
    let controller = lab.controller().await;
    let texts = ["bad#2 failed (image-unavailable)", &server.url];
    only_bad_stalls(&lab, "Quarantined", &texts).await;
    assert_eq!(lab.installs("bad"), 1, "the second try found no server, so it wrote nothing");

    lab.node("bad").image = "one".to_owned();
    lab.write_machines();
    lab.commit("An image that is near");
    all_ready(&lab).await;
    assert_eq!(lab.difference("bad", "one"), None);
    end(lab, controller).await;
}
