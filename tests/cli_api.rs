//! Law 12: the API only reads, and only on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use lab::{Lab, Node};
use reqwest::{Client, Method, StatusCode};

/// The routes, as the source has them.
fn routes() -> Vec<String> {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/mod.rs")).unwrap();
    source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("{name}", "a")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_has_no_mutating_route() {
    let lab = Lab::new(vec![Node::new("a", "Adopt")]).await;
    let _controller = lab.controller().await;
    let before = lab.until("the first turn", |status| status.ready == 1).await;
    let (client, routes) = (Client::new(), routes());
    assert!(routes.len() >= 5 && routes.contains(&"/api/v1/machines/a".to_owned()), "{routes:?}");
    let methods = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE];
    let own = ["PROPFIND", "MKCOL", "LOCK", "PURGE", "reset"].map(|name| Method::from_bytes(name.as_bytes()).unwrap());
    for route in &routes {
        let url = format!("{}{route}", lab.api());
        assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::OK, "{url}");
        for method in methods.iter().chain(&own) {
            let answer = client.request(method.clone(), &url).body(r#"{"power":"Off"}"#).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {url}");
        }
    }
    // A method hidden in a header is not taken either.
    let url = format!("{}/api/v1/machines/a", lab.api());
    let hidden = client.get(&url).header("X-HTTP-Method-Override", "DELETE").send().await.unwrap();
    assert_eq!(hidden.status(), StatusCode::OK);
    let after = lab.status().await.unwrap();
    assert_eq!((before.commit, before.state), (after.commit, after.state));
    assert_eq!(lab.installs("a"), 0);
}

#[tokio::test]
async fn the_api_listens_on_loopback_only() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "10.0.0.1:0"] {
        let config = rackwright::api::Config { listen: listen.parse().unwrap() };
        let error = rackwright::api::bind(&config).await.unwrap_err().to_string();
        assert!(error.contains("only a loopback address") && error.contains(listen), "{error}");
    }
    let config = rackwright::api::Config { listen: "127.0.0.1:0".parse().unwrap() };
    assert!(rackwright::api::bind(&config).await.is_ok());
}

/// A page in a browser on the controller's host, whose name resolves to loopback by now.
#[tokio::test]
async fn a_page_that_rebinds_its_name_reads_nothing() {
    let lab = Lab::new(vec![Node::new("a", "Adopt")]).await;
    let _controller = lab.controller().await;
    lab.until("the first turn", |status| status.ready == 1).await;
    let (client, url) = (Client::new(), format!("{}/api/v1/status", lab.api()));
    let port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    for (host, status) in [
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        (&format!("evil.example:{port}"), StatusCode::MISDIRECTED_REQUEST),
        ("127.0.0.1.evil.example", StatusCode::MISDIRECTED_REQUEST),
        ("", StatusCode::MISDIRECTED_REQUEST),
        (&format!("LocalHost:{port}"), StatusCode::OK),
        ("[::1]:80", StatusCode::OK),
        ("127.0.0.1", StatusCode::OK),
    ] {
        let answer = client.get(&url).header("Host", host).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host:?}");
    }
}
