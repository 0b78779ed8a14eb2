//! One image as a stream of bytes that survives lost connections and restarted servers.

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE},
};

use super::{
    client::{Client, Patience, chain, is_final},
    failure::{Failure, code},
};

/// A download. It goes on where it stopped (RFC 9110 section 14, Range and If-Range) and notices when the file is another one.
pub(super) struct Download {
    client: Client,
    url: Url,
    /// Bytes handed out.
    at: u64,
    /// Bytes in all, where the server says so.
    length: Option<u64>,
    etag: Option<String>,
    response: Option<Response>,
    /// Bytes to drop because the server sent the file from its start.
    skip: u64,
    /// For the time since the last byte.
    patience: Patience,
}

impl Download {
    /// Asks for the file; returns when the server began to answer, and before any of its bytes were read.
    pub(super) async fn open(client: &Client, url: &str) -> Result<Self, Failure> {
        let bad = |error| Failure::new(code::IMAGE_UNAVAILABLE, format!("the image's address {url} can't be used: {error}"));
        let url = Url::parse(url).map_err(bad)?;
        let (client, patience) = (client.clone(), Patience::new(client.pace));
        let mut download = Self { client, url, at: 0, length: None, etag: None, response: None, skip: 0, patience };
        download.connect().await?;
        Ok(download)
    }

    /// Bytes in all, where the server says so.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; `None` at the end of the file.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let stall = self.client.pace.stall;
        loop {
            if self.length == Some(self.at) {
                return Ok(None);
            }
            let Some(response) = &mut self.response else {
                self.connect().await?;
                continue;
            };
            let problem = match tokio::time::timeout(stall, response.chunk()).await {
                Ok(Ok(Some(mut chunk))) => {
                    let drop = self.skip.min(chunk.len() as u64);
                    self.skip -= drop;
                    let chunk = chunk.split_off(drop as usize);
                    if chunk.is_empty() {
                        continue;
                    }
                    self.at += chunk.len() as u64;
                    self.patience = Patience::new(self.client.pace);
                    return Ok(Some(chunk));
                }
                Ok(Ok(None)) if self.length.is_none() && self.skip == 0 => return Ok(None),
                Ok(Ok(None)) => "the connection ended early".to_owned(),
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("nothing came for {} s", stall.as_secs()),
            };
            self.response = None;
            self.pause(&format!("stopped at {} bytes: {problem}", self.at)).await?;
        }
    }

    /// Connects until the server sends the file from [`Download::at`], or says that it never will.
    async fn connect(&mut self) -> Result<(), Failure> {
        loop {
            // The bytes as they are: a server that compresses on the way would change what the digest is about.
            let mut request = self.client.image(&self.url).header(ACCEPT_ENCODING, "identity");
            if self.at > 0 {
                request = request.header(RANGE, format!("bytes={}-", self.at));
                if let Some(etag) = &self.etag {
                    request = request.header(IF_RANGE, etag);
                }
            }
            let problem = match tokio::time::timeout(self.client.pace.request, request.send()).await {
                Ok(Ok(response)) if response.status().is_success() => return self.accept(response),
                Ok(Ok(response)) if is_final(response.status()) => return Err(self.refused(response.status())),
                Ok(Ok(response)) => format!("the server answers {}", response.status()),
                Ok(Err(error)) => chain(&error),
                Err(_) => "the server does not answer".to_owned(),
            };
            self.pause(&problem).await?;
        }
    }

    /// Waits before the next try, unless there is to be none.
    async fn pause(&mut self, problem: &str) -> Result<(), Failure> {
        if self.patience.is_time_to_speak() {
            self.client.say(&format!("waiting for the image {}: {problem}", self.url));
        }
        let gone = |_| Failure::new(code::IMAGE_UNAVAILABLE, format!("{} can't be fetched: {problem}", self.url));
        self.patience.wait().await.map_err(gone)
    }

    /// Takes a new response, if it is of the same file.
    fn accept(&mut self, response: Response) -> Result<(), Failure> {
        let part = response.status() == StatusCode::PARTIAL_CONTENT;
        let (start, length) = if part { range(response.headers()).unwrap_or((u64::MAX, None)) } else { (0, response.content_length()) };
        let etag = strong_etag(response.headers());
        let misplaced = part && start != self.at;
        if misplaced || differ(&length, &self.length) || differ(&etag, &self.etag) {
            return Err(self.changed());
        }
        self.skip = if part { 0 } else { self.at };
        self.length = self.length.or(length);
        self.etag = self.etag.take().or(etag);
        self.response = Some(response);
        Ok(())
    }

    fn refused(&self, status: StatusCode) -> Failure {
        if status == StatusCode::RANGE_NOT_SATISFIABLE && self.at > 0 {
            return self.changed();
        }
        Failure::new(code::IMAGE_UNAVAILABLE, format!("{} can't be fetched: the server answers {status}", self.url))
    }

    fn changed(&self) -> Failure {
        Failure::new(code::IMAGE_CHANGED, format!("{} became another file after {} bytes of it", self.url, self.at))
    }
}

fn differ<T: PartialEq>(new: &Option<T>, old: &Option<T>) -> bool {
    matches!((new, old), (Some(new), Some(old)) if new != old)
}

/// Start and complete length out of `Content-Range: bytes 5-9/10`.
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, length) = text.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, length.parse().ok()))
}

/// Weak validators say nothing about bytes (RFC 9110 section 8.8.1).
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(ETAG)?.to_str().ok()?;
    (!text.starts_with("W/")).then(|| text.to_owned())
}
