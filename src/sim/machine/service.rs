//! What an installed system does once it has called home: it serves a page, and reports checks of its own.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use reqwest::{Client as HttpClient, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Machine;
use crate::sim::config::{CheckConfig, PageConfig, std_duration};

/// How often a check is told again while nobody takes it.
const TRIES: u32 = 20;

impl Machine {
    /// Begins both; they end when the power does.
    pub(super) fn serve(self: &Arc<Self>, call_home: &str, rail: &CancellationToken) {
        if let Some(page) = self.config.page.clone() {
            let (machine, rail) = (Arc::clone(self), rail.clone());
            tokio::spawn(async move { rail.run_until_cancelled(machine.page(page)).await });
        }
        if !self.config.checks.is_empty() {
            let (machine, rail, url) = (Arc::clone(self), rail.clone(), format!("{call_home}/checks"));
            tokio::spawn(async move { rail.run_until_cancelled(machine.tell_checks(&url)).await });
        }
    }

    /// Answers each request with the page's status, and with 503 until its time has come.
    async fn page(&self, page: PageConfig) {
        let at = SocketAddr::from((self.config.address, page.port));
        let listener = match TcpListener::bind(at).await {
            Ok(listener) => listener,
            Err(error) => return self.trouble(&format!("the installed system can't serve its page on {at}: {error}")),
        };
        let (since, after) = (Instant::now(), std_duration(page.after));
        info!(machine = %self.config.name, %at, "serves its page");
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = if since.elapsed() < after { 503 } else { page.status };
            tokio::spawn(async move {
                let mut head = [0; 2048];
                let _ = stream.read(&mut head).await;
                let answer = format!("HTTP/1.1 {status} simulated\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    }

    async fn tell_checks(&self, url: &str) {
        let Ok(http) = HttpClient::builder().local_address(Some(self.config.address.into())).no_proxy().build() else { return };
        for CheckConfig { check, ok, message, after } in &self.config.checks {
            tokio::time::sleep(std_duration(*after)).await;
            let body = serde_json::json!({ "check": check, "ok": ok, "message": message });
            for _ in 0..TRIES {
                match http.post(url).json(&body).send().await.map(|answer| answer.status()) {
                    Ok(StatusCode::SERVICE_UNAVAILABLE) | Err(_) => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
                    Ok(status) => {
                        info!(machine = %self.config.name, check, ok, status = status.as_u16(), "check told");
                        break;
                    }
                }
            }
        }
    }
}
