//! A BMC for tests: a tree of resources over HTTPS, and a hook in which a test makes it misbehave.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use rackwright::{
    bmc::{Config, Redfish},
    model::{BmcTarget, Fingerprint, SecretName, Trust},
    ports::{Credential, SecretError, Secrets},
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Ask {
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What the peer holds. Paths are kept in lower case without a trailing slash: recorded trees differ in both.
#[derive(Default)]
pub struct Tree {
    pub resources: BTreeMap<String, Value>,
    pub asked: Vec<Ask>,
    pub tokens: Vec<String>,
    pub password: String,
    pub sessions: usize,
}

impl Tree {
    pub fn key(path: &str) -> String {
        path.trim_end_matches('/').to_lowercase()
    }

    pub fn get(&self, path: &str) -> &Value {
        &self.resources[&Self::key(path)]
    }

    pub fn put(&mut self, path: &str, value: Value) {
        self.resources.insert(Self::key(path), value);
    }

    pub fn count(&self, method: &str, path: &str) -> usize {
        self.asked.iter().filter(|ask| ask.is(method, path)).count()
    }

    /// A small server: one host that is on, with a NIC, a disk and a BIOS version.
    pub fn small() -> Self {
        let mut tree = Self { password: "secret".into(), ..Self::default() };
        let link = |uri: &str| json!({ "@odata.id": uri });
        let members = |uris: &[&str]| json!({"Members": uris.iter().map(|uri| link(uri)).collect::<Vec<_>>()});
        tree.put(
            "/redfish/v1",
            json!({"RedfishVersion": "1.15.0", "Systems": link("/redfish/v1/Systems"), "UpdateService": link("/redfish/v1/Up"),
                "Links": {"Sessions": link("/redfish/v1/Sess")}}),
        );
        tree.put("/redfish/v1/Systems", members(&["/redfish/v1/Systems/box"]));
        tree.put(
            "/redfish/v1/Systems/box",
            json!({"@odata.id": "/redfish/v1/Systems/box", "Id": "box", "PowerState": "On", "SerialNumber": "S1", "Model": "M",
                "UUID": "11111111-2222-3333-4444-555555555555", "Status": {"HealthRollup": "OK"}, "Bios": link("/redfish/v1/Bios"),
                "Boot": {"BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideMode": "UEFI"},
                "EthernetInterfaces": link("/redfish/v1/Eth"), "Storage": link("/redfish/v1/Sto"),
                "Actions": {"#ComputerSystem.Reset": {"target": "/redfish/v1/Systems/box/Go",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown"]}}}),
        );
        tree.put("/redfish/v1/Eth", members(&["/redfish/v1/Eth/1", "/redfish/v1/Eth/2"]));
        tree.put("/redfish/v1/Eth/1", json!({"Id": "1", "MACAddress": "52:54:00:00:00:01", "LinkStatus": "LinkUp"}));
        tree.put("/redfish/v1/Eth/2", json!({"Id": "2", "MACAddress": "00:00:00:00:00:00"}));
        tree.put("/redfish/v1/Sto", members(&["/redfish/v1/Sto/1"]));
        tree.put("/redfish/v1/Sto/1", json!({"Id": "1", "Drives": [link("/redfish/v1/Drive/a"), link("/redfish/v1/Drive/b")]}));
        tree.put("/redfish/v1/Drive/a", json!({"Id": "a", "SerialNumber": "D1", "CapacityBytes": 480_000_000_000_u64}));
        tree.put("/redfish/v1/Drive/b", json!({"Id": "b", "Status": {"State": "Absent"}}));
        tree.put("/redfish/v1/Up", json!({"FirmwareInventory": link("/redfish/v1/Up/Fw")}));
        tree.put("/redfish/v1/Up/Fw", members(&["/redfish/v1/Up/Fw/bios"]));
        tree.put("/redfish/v1/Up/Fw/bios", json!({"Id": "bios", "Name": "BIOS", "Version": "1.2.3"}));
        tree
    }

    /// What a well-behaved BMC answers.
    pub fn answer(&mut self, ask: &Ask) -> Response {
        let sessions = self.get("/redfish/v1").pointer("/Links/Sessions/@odata.id").and_then(Value::as_str).map(str::to_owned);
        let sessions = sessions.unwrap_or_else(|| "/none".into());
        let root = Self::key(&ask.path) == "/redfish/v1";
        if ask.method == Method::POST && ask.path == sessions {
            if ask.body["Password"] != self.password {
                return error(401, "Base.1.0.ResourceAtUriUnauthorized");
            }
            self.sessions += 1;
            let token = format!("token{}", self.sessions);
            self.tokens.push(token.clone());
            let location = format!("{sessions}/{token}");
            return (StatusCode::CREATED, [("X-Auth-Token", token), ("Location", location)], "{}").into_response();
        }
        let by_token = ask.header("x-auth-token").is_some_and(|token| self.tokens.iter().any(|known| known == token));
        // "user:secret"
        let by_basic = ask.header("authorization") == Some("Basic dXNlcjpzZWNyZXQ=") && self.password == "secret";
        if !root && !by_token && !by_basic {
            return error(401, "Base.1.0.NoValidSession");
        }
        if ask.method == Method::DELETE && ask.path.starts_with(&sessions) {
            self.tokens.retain(|token| !ask.path.ends_with(token.as_str()));
            return StatusCode::NO_CONTENT.into_response();
        }
        let key = Self::key(&ask.path);
        match ask.method {
            Method::GET => self.resources.get(&key).map_or_else(|| error(404, "Base.1.0.ResourceMissingAtURI"), ok),
            Method::PATCH => match self.resources.get_mut(&key) {
                Some(resource) => {
                    for (name, value) in ask.body["Boot"].as_object().into_iter().flatten() {
                        resource["Boot"][name] = value.clone();
                    }
                    StatusCode::NO_CONTENT.into_response()
                }
                None => error(404, "Base.1.0.ResourceMissingAtURI"),
            },
            Method::POST => self.reset(ask),
            _ => error(405, "Base.1.0.OperationNotAllowed"),
        }
    }

    fn reset(&mut self, ask: &Ask) -> Response {
        let target =
            |resource: &Value| resource.pointer("/Actions/#ComputerSystem.Reset/target").and_then(Value::as_str).map(str::to_lowercase);
        let path = ask.path.to_lowercase();
        let Some(system) = self.resources.values_mut().find(|resource| target(resource).as_deref() == Some(&path)) else {
            return error(404, "Base.1.0.ResourceMissingAtURI");
        };
        system["PowerState"] = match ask.body["ResetType"].as_str() {
            Some("On") => json!("On"),
            Some("ForceOff" | "GracefulShutdown") => json!("Off"),
            _ => return error(400, "Base.1.0.ActionParameterNotSupported"),
        };
        StatusCode::NO_CONTENT.into_response()
    }
}

pub fn ok(value: &Value) -> Response {
    ([("Content-Type", "application/json")], value.to_string()).into_response()
}

pub fn error(status: u16, id: &str) -> Response {
    let body = json!({"error": {"@Message.ExtendedInfo": [{"MessageId": id}]}});
    (StatusCode::from_u16(status).unwrap(), [("Content-Type", "application/json")], body.to_string()).into_response()
}

/// Changes an answer before the tree is asked.
pub type Hook = dyn Fn(&Ask, &mut Tree) -> Option<Response> + Send + Sync;

/// A peer that runs until it is dropped.
pub struct Peer {
    pub address: String,
    pub fingerprint: Fingerprint,
    pub tree: Arc<Mutex<Tree>>,
    pub requests: Arc<AtomicUsize>,
    handle: Handle<std::net::SocketAddr>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

impl Peer {
    pub async fn start(tree: Tree, hook: impl Fn(&Ask, &mut Tree) -> Option<Response> + Send + Sync + 'static) -> Self {
        let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        Self::with_certificate(tree, hook, signed.cert.der().to_vec(), signed.signing_key.serialize_der()).await
    }

    pub async fn with_certificate(
        tree: Tree,
        hook: impl Fn(&Ask, &mut Tree) -> Option<Response> + Send + Sync + 'static,
        certificate: Vec<u8>,
        key: Vec<u8>,
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tree = Arc::new(Mutex::new(tree));
        let requests = Arc::new(AtomicUsize::new(0));
        let fingerprint = Fingerprint::of(&certificate);
        let (hook, held, counted): (Arc<Hook>, _, _) = (Arc::new(hook), tree.clone(), requests.clone());
        let app = axum::Router::new().fallback(move |request: Request| {
            let (hook, held, counted) = (hook.clone(), held.clone(), counted.clone());
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let ask = Ask { method: parts.method, path, headers: parts.headers, body };
                let mut tree = held.lock().unwrap();
                tree.asked.push(ask.clone());
                match hook(&ask, &mut tree) {
                    Some(answer) => answer,
                    None => tree.answer(&ask),
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        // Not checked to belong together: a test shows a certificate whose key it does not have.
        let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key.into())).unwrap();
        let certified = rustls::sign::CertifiedKey::new(vec![certificate.into()], key);
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        let tls = RustlsConfig::from_config(Arc::new(config));
        let handle = Handle::new();
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap().handle(handle.clone());
        tokio::spawn(server.serve(app.into_make_service()));
        Self { address, fingerprint, tree, requests, handle }
    }

    pub fn target(&self) -> BmcTarget {
        target(&self.address, Trust::Pinned(self.fingerprint))
    }
}

pub fn target(address: &str, trust: Trust) -> BmcTarget {
    BmcTarget { address: address.to_owned(), credentials: Some(SecretName::new("bmc").unwrap()), trust }
}

/// A body that never ends and never says much.
pub fn trickle() -> Response {
    let drops = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, std::io::Error>(" "), ()))
    });
    Body::from_stream(drops).into_response()
}

pub fn silence() -> Response {
    Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>()).into_response()
}

/// A password that a test can change.
#[derive(Clone)]
pub struct Password(pub Arc<Mutex<String>>);

impl Secrets for Password {
    fn credential(&self, _: &SecretName) -> Result<Credential, SecretError> {
        Ok(Credential { username: "user".into(), password: self.0.lock().unwrap().clone() })
    }
}

/// Short waits, so that a test of a fault does not take as long as the fault.
pub fn quick() -> Config {
    Config {
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(60),
        observe_timeout: Duration::from_secs(60),
        read_back_pause: Duration::from_millis(1),
        ..Config::default()
    }
}

pub fn client(config: Config) -> (Redfish, Password) {
    let password = Password(Arc::new(Mutex::new("secret".into())));
    (Redfish::new(config, Arc::new(password.clone())).unwrap(), password)
}
