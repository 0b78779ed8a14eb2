//! The simulator's BMC, over TLS, as a client sees it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rackwright::sim::{ArmedFault, Config, Simulator};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

fn client() -> Client {
    #[derive(Debug)]
    struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);
    use rustls::{
        DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };
    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).timeout(Duration::from_secs(20)).build().unwrap()
}

struct Bed {
    simulator: Simulator,
    client: Client,
    base: String,
    _folder: tempfile::TempDir,
}

/// One machine `node-1`; `extra` goes into its part of the file.
async fn bed(extra: &str) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "
credentials: {{username: admin, password: 'se:cret'}}
readOnly: {{username: guest, password: look}}
stateDir: {}
pace: {{powerLag: 50ms, post: 50ms, shutdown: 50ms}}
maxSessions: 3
machines:
  - name: node-1
    address: 127.77.1.1
    port: 0
    serial: SIM0001
    uuid: 00000000-0000-4000-8000-000000000001
    mac: 52:54:00:77:00:01
    nics: ['52:54:00:77:01:01']
    disks: [{{serial: DISK1, size: 64 MiB, wwn: '0x5002538e00a1b2c3'}}, {{serial: DISK2, size: 128 MiB}}]
    {extra}
",
        folder.path().display()
    );
    let config: Config = serde_yaml::from_str(&text).unwrap();
    let simulator = Simulator::start(config).await.unwrap();
    let address: SocketAddr = simulator.machines()[0].bmc;
    Bed { simulator, client: client(), base: format!("https://{address}"), _folder: folder }
}

impl Bed {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).basic_auth("admin", Some("se:cret"))
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn system(&self) -> Value {
        self.get("/redfish/v1/Systems/node-1").await
    }

    async fn reset(&self, kind: &str) -> StatusCode {
        let path = "/redfish/v1/Systems/node-1/Actions/ComputerSystem.Reset";
        self.request(Method::POST, path).json(&json!({ "ResetType": kind })).send().await.unwrap().status()
    }

    async fn until_power(&self, wanted: &str) {
        while self.system().await["PowerState"] != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn arm(&self, fault: &str) {
        self.simulator.arm("node-1", fault.parse::<ArmedFault>().unwrap()).unwrap();
    }
}

async fn message_id(response: Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["error"]["@Message.ExtendedInfo"][0]["MessageId"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_leads_to_a_resource_of_that_path() {
    let bed = bed("").await;
    let mut open = vec!["/redfish/v1/".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let body = bed.get(&path).await;
        assert_eq!(body["@odata.id"], path);
        assert!(body["@odata.type"].as_str().unwrap().starts_with('#'), "{path}");
        collect_links(&body, &mut open);
    }
    for path in ["/redfish/v1/Systems/node-1/Storage/1/Drives/2", "/redfish/v1/UpdateService/FirmwareInventory/BIOS"] {
        assert!(seen.contains(path), "{path} is not linked; linked are {seen:?}");
    }
}

fn collect_links(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            into.extend(object.get("@odata.id").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| collect_links(value, into));
        }
        Value::Array(array) => array.iter().for_each(|value| collect_links(value, into)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_is_what_the_file_says() {
    let bed = bed("").await;
    let system = bed.system().await;
    assert_eq!((&system["SerialNumber"], &system["PowerState"]), (&json!("SIM0001"), &json!("Off")));
    assert_eq!(system["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"], json!(["None", "Pxe", "Hdd"]));
    assert!(
        system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"].as_array().unwrap().contains(&json!("ForceOff"))
    );
    let drive = bed.get("/redfish/v1/Systems/node-1/Storage/1/Drives/1").await;
    assert_eq!((&drive["SerialNumber"], &drive["CapacityBytes"]), (&json!("DISK1"), &json!(64 << 20)));
    let nic = bed.get("/redfish/v1/Systems/node-1/EthernetInterfaces/2").await;
    assert_eq!(nic["MACAddress"], "52:54:00:77:01:01");
}

#[tokio::test(flavor = "multi_thread")]
async fn power_takes_its_time_and_an_override_is_used_once() {
    let bed = bed("").await;
    let boot =
        json!({ "Boot": { "BootSourceOverrideTarget": "Hdd", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI" } });
    let response = bed.request(Method::PATCH, "/redfish/v1/Systems/node-1").json(&boot).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(bed.system().await["Boot"]["BootSourceOverrideEnabled"], "Once");
    assert_eq!(bed.reset("ForceRestart").await, StatusCode::CONFLICT);
    assert_eq!(bed.reset("On").await, StatusCode::NO_CONTENT);
    bed.until_power("PoweringOn").await;
    bed.until_power("On").await;
    while bed.system().await["Boot"]["BootSourceOverrideEnabled"] != "Disabled" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bed.system().await["Boot"]["BootSourceOverrideTarget"], "None");
    assert_eq!(bed.reset("On").await, StatusCode::NO_CONTENT, "it is on already");
    assert_eq!(bed.reset("GracefulShutdown").await, StatusCode::NO_CONTENT);
    bed.until_power("Off").await;
    assert_eq!(bed.reset("PowerCycle").await, StatusCode::NO_CONTENT);
    bed.until_power("On").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_change_is_refused_with_the_property_and_changes_nothing() {
    let bed = bed("").await;
    let patch = |body: Value| bed.request(Method::PATCH, "/redfish/v1/Systems/node-1").json(&body).send();
    for (body, id) in [
        (json!({ "Boot": { "BootSourceOverrideTarget": "Floppy" } }), "PropertyValueNotInList"),
        (json!({ "Boot": { "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideMode": "Legacy" } }), "PropertyValueNotInList"),
        (json!({ "Boot": { "Colour": "red" } }), "PropertyUnknown"),
        (json!({ "SerialNumber": "X", "Boot": { "BootSourceOverrideTarget": "Pxe" } }), "PropertyNotWritable"),
        (json!([]), "UnrecognizedRequestBody"),
    ] {
        let response = patch(body.clone()).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(message_id(response).await, format!("Base.1.16.0.{id}"), "{body}");
    }
    assert_eq!(bed.system().await["Boot"]["BootSourceOverrideTarget"], "None");
    assert_eq!(bed.reset("Explode").await, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_guards_a_change() {
    let bed = bed("requireIfMatch: true").await;
    let path = "/redfish/v1/Systems/node-1";
    let body = json!({ "Boot": { "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once" } });
    let patch = |etag: Option<String>| {
        let request = bed.request(Method::PATCH, path).json(&body);
        etag.into_iter().fold(request, |request, etag| request.header("If-Match", etag)).send()
    };
    assert_eq!(patch(None).await.unwrap().status(), StatusCode::PRECONDITION_REQUIRED);
    assert_eq!(patch(Some("\"stale\"".into())).await.unwrap().status(), StatusCode::PRECONDITION_FAILED);
    let etag = bed.system().await["@odata.etag"].as_str().unwrap().to_owned();
    let response = patch(Some(etag.clone())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_ne!(response.headers()["etag"].to_str().unwrap(), etag);
    assert_eq!(patch(Some(etag)).await.unwrap().status(), StatusCode::PRECONDITION_FAILED, "the first change made it stale");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_opened_used_capped_and_closed() {
    let bed = bed("").await;
    let sessions = format!("{}/redfish/v1/SessionService/Sessions", bed.base);
    let log_in = |password: &'static str| bed.client.post(&sessions).json(&json!({ "UserName": "admin", "Password": password })).send();
    assert_eq!(log_in("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let first = log_in("se:cret").await.unwrap();
    assert_eq!(first.status(), StatusCode::CREATED);
    let token = first.headers()["x-auth-token"].to_str().unwrap().to_owned();
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(first.json::<Value>().await.unwrap()["Password"], Value::Null);
    let with_token = |method: Method| bed.client.request(method, format!("{}{location}", bed.base)).header("X-Auth-Token", &token).send();
    assert_eq!(with_token(Method::GET).await.unwrap().status(), StatusCode::OK);
    assert_eq!(log_in("se:cret").await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(log_in("se:cret").await.unwrap().status(), StatusCode::CREATED);
    let full = log_in("se:cret").await.unwrap();
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(message_id(full).await, "Base.1.16.0.SessionLimitExceeded");
    assert_eq!(with_token(Method::DELETE).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(with_token(Method::GET).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(log_in("se:cret").await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so() {
    let bed = bed("").await;
    let get = |path: &str| bed.client.get(format!("{}{path}", bed.base));
    assert_eq!(get("/redfish/v1/").send().await.unwrap().status(), StatusCode::OK);
    let refused = get("/redfish/v1/Systems").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    let guest = |request: RequestBuilder| request.basic_auth("guest", Some("look")).send();
    assert_eq!(guest(get("/redfish/v1/Systems/node-1")).await.unwrap().status(), StatusCode::OK);
    let reset = format!("{}/redfish/v1/Systems/node-1/Actions/ComputerSystem.Reset", bed.base);
    let refused = guest(bed.client.post(reset).json(&json!({ "ResetType": "On" }))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(bed.request(Method::GET, "/redfish/v1/Systems/other").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let response = bed.request(Method::DELETE, "/redfish/v1/Systems").send().await.unwrap();
    assert_eq!((response.status(), response.headers()["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    let response = bed.request(Method::GET, "/redfish/v1/Systems?$expand=.").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_misbehaves_as_asked_and_recovers() {
    let bed = bed("").await;
    let system = || bed.request(Method::GET, "/redfish/v1/Systems/node-1").send();

    bed.arm("bmc-503:1");
    let busy = system().await.unwrap();
    assert_eq!((busy.status(), busy.headers().contains_key("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, true));
    while system().await.unwrap().status() != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    bed.arm("bmc-garbage:1");
    assert!(system().await.unwrap().json::<Value>().await.is_err());
    assert!(system().await.unwrap().json::<Value>().await.is_ok());

    bed.arm("bmc-hang:1");
    let hung = bed.request(Method::GET, "/redfish/v1/Systems/node-1").timeout(Duration::from_millis(300)).send().await;
    assert!(hung.unwrap_err().is_timeout());
    assert!(system().await.is_ok());

    bed.arm("bmc-unreachable");
    while system().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(system().await.unwrap_err().is_connect());
    bed.simulator.clear_faults("node-1").unwrap();
    while system().await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    bed.arm("serial-mismatch");
    assert_eq!(bed.system().await["SerialNumber"], "SIM0001-OTHER");

    bed.arm("power-stuck:1");
    assert_eq!(bed.reset("On").await, StatusCode::NO_CONTENT);
    assert_eq!(bed.system().await["PowerState"], "Off");
    assert_eq!(bed.reset("On").await, StatusCode::NO_CONTENT);
    bed.until_power("On").await;
    bed.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_survives_a_restart_and_a_fault_shows_another() {
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: openssl is not installed (apt-get install openssl)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config: Config = serde_yaml::from_str(&format!(
        "{{credentials: {{username: a, password: b}}, stateDir: {}, machines: [{{name: n, address: 127.77.1.2, port: 0, serial: s, uuid: u, \
         mac: '52:54:00:77:00:02', faults: [bmc-wrong-certificate]}}]}}",
        folder.path().display()
    ))
    .unwrap();
    let first = Simulator::start(config.clone()).await.unwrap();
    let fingerprint = first.fingerprint();
    first.stop().await;
    let second = Simulator::start(config).await.unwrap();
    assert_eq!(second.fingerprint(), fingerprint);
    let wrong = presented(second.machines()[0].bmc).await;
    assert_ne!(wrong, fingerprint);
    second.clear_faults("n").unwrap();
    while presented(second.machines()[0].bmc).await != fingerprint {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fingerprint of the certificate that a server presents, by OpenSSL's own client where it is there.
async fn presented(address: SocketAddr) -> rackwright::model::Fingerprint {
    let output = tokio::task::spawn_blocking(move || {
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -outform DER"))
            .output();
        output.unwrap().stdout
    });
    rackwright::model::Fingerprint::of(&output.await.unwrap())
}
