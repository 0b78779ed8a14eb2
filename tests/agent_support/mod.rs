//! A server that speaks the agent's protocol and behaves as badly as told, and an image to install.
#![allow(dead_code)]

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use rackwright::model::*;

pub const MIB: u64 = 1 << 20;
pub const TOKEN: &str = "0123456789abcdef";

/// What the server and the disk do wrong, and what was seen of the agent.
#[derive(Default)]
pub struct World {
    pub image: Mutex<Vec<u8>>,
    pub command: Mutex<Option<AgentCommand>>,
    pub events: Mutex<Vec<AgentEvent>>,
    pub image_requests: Mutex<Vec<Option<String>>>,
    /// So many image answers end early, each after a third of the image.
    pub cut: AtomicU32,
    /// So many hellos and reports are answered 503.
    pub unready: AtomicU32,
    /// Reports of this kind are answered 409.
    pub forbid: Mutex<Option<&'static str>>,
    /// Progress is taken and answered only after so long.
    pub slow_progress: Option<Duration>,
    /// Without ETag and ranges, as simple servers are.
    pub plain: bool,
    /// The image is changed to this after its first answer.
    pub change_to: Mutex<Option<Vec<u8>>>,
    pub hellos: AtomicU32,
    pub last_hello: Mutex<Option<AgentHello>>,
}

pub struct Server {
    pub address: SocketAddr,
    pub handle: axum_server::Handle<SocketAddr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

#[derive(Clone)]
pub struct ServerIdentity {
    pub config: Arc<rustls::ServerConfig>,
    pub fingerprint: Fingerprint,
}

pub fn identity() -> ServerIdentity {
    let made = rcgen::generate_simple_self_signed(vec!["boot".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let fingerprint = Fingerprint::of(made.cert.der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    ServerIdentity { config: Arc::new(config), fingerprint }
}

pub fn serve(world: &Arc<World>, identity: &ServerIdentity, address: &str) -> Server {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let handle = axum_server::Handle::new();
    let app = Router::new()
        .route("/agent/v1/hello", post(hello))
        .route("/agent/v1/report", post(report))
        .route("/images/image", get(image))
        .with_state(world.clone());
    let tls = axum_server::tls_rustls::RustlsConfig::from_config(identity.config.clone());
    let server = axum_server::from_tcp_rustls(listener, tls).unwrap().handle(handle.clone());
    tokio::spawn(server.serve(app.into_make_service()));
    Server { address, handle }
}

fn refuse(world: &World, headers: &HeaderMap) -> Option<Response> {
    if headers.get("authorization") != Some(&HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap()) {
        return Some((StatusCode::UNAUTHORIZED, "no ticket has this token").into_response());
    }
    let unready = world.unready.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    unready.then(|| StatusCode::SERVICE_UNAVAILABLE.into_response())
}

async fn hello(State(world): State<Arc<World>>, headers: HeaderMap, Json(hello): Json<AgentHello>) -> Response {
    if let Some(refusal) = refuse(&world, &headers) {
        return refusal;
    }
    world.hellos.fetch_add(1, Ordering::SeqCst);
    assert_eq!((hello.serial.as_deref(), hello.disks.len() >= 2), (Some("SN1"), true));
    *world.last_hello.lock().unwrap() = Some(hello);
    Json(world.command.lock().unwrap().clone().unwrap()).into_response()
}

async fn report(State(world): State<Arc<World>>, headers: HeaderMap, Json(report): Json<AgentReport>) -> Response {
    if let Some(refusal) = refuse(&world, &headers) {
        return refusal;
    }
    let kind = kind(&report.event);
    if let Some(slow) = world.slow_progress.filter(|_| kind == "progress") {
        tokio::time::sleep(slow).await;
    }
    world.events.lock().unwrap().push(report.event);
    if *world.forbid.lock().unwrap() == Some(kind) {
        return (StatusCode::CONFLICT, "a newer attempt exists").into_response();
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn image(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    assert!(headers.contains_key("authorization"));
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    world.image_requests.lock().unwrap().push(range.clone());
    let image = world.image.lock().unwrap().clone();
    if let Some(other) = world.change_to.lock().unwrap().take() {
        *world.image.lock().unwrap() = other;
    }
    let etag = format!("\"{}\"", Digest::of(&image));
    let same = headers.get("if-range").is_none_or(|tag| tag.to_str().unwrap() == etag);
    let start = range.filter(|_| same && !world.plain).map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
    let bytes = image[start.unwrap_or(0)..].to_vec();
    let cut = world.cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    let keep = if cut { (image.len() / 3).min(bytes.len()) } else { bytes.len() };
    let length = bytes.len();
    let chunks: Vec<_> = bytes[..keep].chunks(50_000).map(|chunk| Ok(bytes::Bytes::copy_from_slice(chunk))).collect();
    let end = if cut { vec![Err(io::Error::other("cut"))] } else { vec![] };
    let mut response = Response::builder().header("content-length", length);
    if !world.plain {
        response = response.header("etag", etag);
    }
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{}", image.len() - 1, image.len());
        response = response.status(206).header("content-range", range);
    }
    response.body(Body::from_stream(stream::iter(chunks.into_iter().chain(end)))).unwrap()
}

pub fn kind(event: &AgentEvent) -> &'static str {
    match event {
        AgentEvent::Writing { .. } => "writing",
        AgentEvent::Progress(_) => "progress",
        AgentEvent::Written { .. } => "written",
        AgentEvent::Wiping { .. } => "wiping",
        AgentEvent::Wiped { .. } => "wiped",
        AgentEvent::Failed { .. } => "failed",
    }
}

/// 20 MiB with a CIDATA partition, data, and large holes; `zst` as served.
pub fn sample() -> Vec<u8> {
    let mut raw = vec![0; 20 * MIB as usize];
    let mut state = 1u64;
    for at in (MIB as usize..3 * MIB as usize).chain(9 * MIB as usize..15 * MIB as usize + 12_345) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        raw[at] = (state >> 56) as u8;
    }
    let table = gpt_with_cidata();
    raw[..table.len()].copy_from_slice(&table);
    raw
}

/// Type GUID of an EFI system partition, as on a disk.
pub const ESP: [u8; 16] = [0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B];

/// A primary GPT with `CIDATA` from 4 to 8 MiB.
pub fn gpt_with_cidata() -> Vec<u8> {
    gpt(&[([3; 16], "CIDATA", 4, 8)])
}

/// A primary GPT of partitions `(type, name, from, to)` in MiB.
pub fn gpt(partitions: &[([u8; 16], &str, u64, u64)]) -> Vec<u8> {
    let mut table = vec![0; 34 * 512];
    for (entry, (kind, name, from, to)) in table[1024..].chunks_exact_mut(128).zip(partitions) {
        entry[..16].copy_from_slice(kind);
        entry[16..32].fill(name.len() as u8);
        entry[32..40].copy_from_slice(&(from * MIB / 512).to_le_bytes());
        entry[40..48].copy_from_slice(&(to * MIB / 512 - 1).to_le_bytes());
        for (pair, unit) in entry[56..].chunks_exact_mut(2).zip(name.encode_utf16()) {
            pair.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let entries = crc32fast::hash(&table[1024..]);
    let header = &mut table[512..512 + 92];
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
    header[24] = 1;
    header[40] = 34;
    header[48..56].copy_from_slice(&(20 * MIB / 512 - 34).to_le_bytes());
    header[72] = 2;
    header[80] = 128;
    header[84] = 128;
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    let crc = crc32fast::hash(header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    // The protective MBR, without which firmware does not look further.
    table[446 + 4] = 0xEE;
    table[446 + 8] = 1;
    table[446 + 12..446 + 16].fill(0xFF);
    table[510..512].copy_from_slice(&[0x55, 0xAA]);
    table
}

pub fn order(image: &[u8], format: ImageFormat) -> AgentCommand {
    let digest = Digest::of(image);
    let user_data = Some("#cloud-config\nhostname: web-01\n".to_owned());
    AgentCommand::Install {
        attempt: "web-01#1".parse().unwrap(),
        install: Box::new(Install {
            generation: Generation::of(digest, user_data.as_deref(), 0),
            image: Image { name: ImageName::new("sample").unwrap(), digest, format, url: String::new(), size: None },
            user_data,
            rebuild: 0,
        }),
        system: DiskHint { serial: Some("sda-serial".to_owned()), ..DiskHint::default() },
        keep: vec![DiskHint { serial: Some("sdb-serial".to_owned()), ..DiskHint::default() }],
        call_home: "http://127.0.0.1/callhome".to_owned(),
        handoff: None,
    }
}
