//! HTTP to one BMC: limits, redirects, and what BMCs do to HTTP. Knows nothing of sessions or resources.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Method, StatusCode, Url,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LOCATION},
};
use rustls::RootCertStore;

use super::{config::Config, document::Document, error::Error, tls};
use crate::model::{BmcTarget, Trust};

/// Redirects that one request follows. Aliases in the field are one or two steps long.
const MAX_REDIRECTS: usize = 5;

/// One BMC's HTTP client. Connections are kept and reused.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    /// Scheme, host and port; path `/`.
    base: Url,
    max_body: usize,
    read_timeout: Duration,
    write_timeout: Duration,
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// A URI as a resource gave it.
    pub(super) uri: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
}

/// One answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) url: String,
    pub(super) method: Method,
}

impl Client {
    /// For one target. No proxy of the environment is used: BMCs are on a network of their own, and what is sent holds passwords.
    pub(super) fn new(target: &BmcTarget, config: &Config, cas: Option<&Arc<RootCertStore>>) -> Result<Self, Error> {
        let mut base = base(&target.address)?;
        base.set_path("/");
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .user_agent(concat!("rackwright/", env!("CARGO_PKG_VERSION")));
        // What was declared about a certificate must not be dropped where there is none, and no redirect turns HTTP into HTTPS.
        if base.scheme() == "http" && target.trust != Trust::Insecure {
            let why = "over plain http it can't prove who it is, and only a target that is declared insecure may do without".to_owned();
            return Err(Error::Address { address: target.address.clone(), why });
        }
        let failed = |source| Error::Tls { address: target.address.clone(), source };
        let tls = tls::client(&target.trust, cas).map_err(|error| failed(error.into()))?;
        let http = builder.tls_backend_preconfigured(tls).build().map_err(|error| failed(error.into()))?;
        Ok(Self { http, base, max_body: config.max_body, read_timeout: config.read_timeout, write_timeout: config.write_timeout })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// A GET is tried again once when a kept connection was reset (HARDWARE row 12), without `Accept-Encoding` on 406 (row 10),
    /// and with the trailing slash the other way on 404 (row 14).
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Answer, Error> {
        let url = self.resolve(request.uri)?;
        let mut headers = request.headers.clone();
        // A compressed answer turns its ETag weak, and a later PATCH fails (row 10).
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // DSP0266 section 6.5: clients name the OData version that they speak.
        headers.insert("odata-version", HeaderValue::from_static("4.0"));
        let mut answer = self.follow(&request, url.clone(), &headers).await?;
        if request.method != Method::GET {
            return Ok(answer);
        }
        if answer.status == StatusCode::NOT_ACCEPTABLE {
            headers.remove(ACCEPT_ENCODING);
            answer = self.follow(&request, url.clone(), &headers).await?;
        }
        if answer.status == StatusCode::NOT_FOUND {
            let mut other = url;
            let path = match other.path().strip_suffix('/') {
                Some(path) => path.to_owned(),
                None => format!("{}/", other.path()),
            };
            other.set_path(&path);
            let again = self.follow(&request, other, &headers).await?;
            if again.status != StatusCode::NOT_FOUND {
                return Ok(again);
            }
        }
        Ok(answer)
    }

    /// Follows redirects on the same host. Unlike a browser it keeps the method and the body, except on 303: BMCs redirect to
    /// aliases of a resource (row 15).
    async fn follow(&self, request: &Request<'_>, mut url: Url, headers: &HeaderMap) -> Result<Answer, Error> {
        let mut method = request.method.clone();
        for _ in 0..=MAX_REDIRECTS {
            let body = if method == Method::GET { None } else { request.body.clone() };
            let answer = match self.once(method.clone(), url.clone(), headers, body.clone()).await {
                Err(Error::Connect { source, .. }) if method == Method::GET && is_reset(source.as_ref()) => {
                    tracing::debug!(url = %url, "the connection was reset; asking once more");
                    self.once(method.clone(), url.clone(), headers, body).await?
                }
                other => other?,
            };
            let location = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(location) = location.filter(|_| answer.status.is_redirection()) else { return Ok(answer) };
            let foreign = || Error::Foreign { url: url.to_string(), to: location.to_owned() };
            let next = url.join(location).map_err(|_| foreign())?;
            // Not even to https: the trust that was declared is for this scheme, host and port.
            if next.origin() != url.origin() {
                return Err(foreign());
            }
            if answer.status == StatusCode::SEE_OTHER {
                method = Method::GET;
            }
            url = next;
        }
        Err(Error::RedirectLoop { url: url.to_string() })
    }

    async fn once(&self, method: Method, url: Url, headers: &HeaderMap, body: Option<Vec<u8>>) -> Result<Answer, Error> {
        // Orders may be held open for long; asking may not.
        let patience = if method == Method::GET { self.read_timeout } else { self.write_timeout };
        let mut request = self.http.request(method.clone(), url.clone()).headers(headers.clone());
        if let Some(body) = body {
            // A body of known length is never sent in chunks, which some BMCs refuse (row 13).
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let late = || Error::Timeout { url: url.to_string(), doing: String::new() };
        let response = tokio::time::timeout(patience, request.send()).await;
        let mut response = response.map_err(|_| late())?.map_err(|error| failure(&url, error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let large = || Error::TooLarge { url: url.to_string(), limit: self.max_body };
        if response.content_length().is_some_and(|length| length > self.max_body as u64) {
            return Err(large());
        }
        let mut body = Vec::new();
        loop {
            let chunk = tokio::time::timeout(patience, response.chunk()).await;
            let Some(chunk) = chunk.map_err(|_| late())?.map_err(|error| failure(&url, error))? else { break };
            if body.len() + chunk.len() > self.max_body {
                return Err(large());
            }
            body.extend_from_slice(&chunk);
        }
        tracing::trace!(%method, %url, status = status.as_u16(), bytes = body.len(), "BMC answered");
        Ok(Answer { status, headers, body, url: url.to_string(), method })
    }

    /// The base address, for messages.
    pub(super) fn address(&self) -> &str {
        self.base.as_str()
    }

    /// A URI of a resource as a URL of this BMC. Only its path and query count: behind a forwarded port a BMC names itself by an
    /// address that we can't reach, and no link may lead our credentials elsewhere.
    fn resolve(&self, uri: &str) -> Result<Url, Error> {
        let foreign = || Error::Foreign { url: self.base.to_string(), to: uri.to_owned() };
        let full = self.base.join(uri).map_err(|_| foreign())?;
        let mut url = self.base.clone();
        url.set_path(full.path());
        url.set_query(full.query());
        Ok(url)
    }
}

impl Answer {
    /// The answer if its status is 2xx, else the error that it is.
    pub(super) fn ok(self) -> Result<Self, Error> {
        if self.status.is_success() {
            return Ok(self);
        }
        let messages = super::document::messages(&self.body);
        Err(Error::Status { method: self.method.to_string(), url: self.url, status: self.status.as_u16(), messages })
    }

    /// The resource in it.
    pub(super) fn document(self) -> Result<Document, Error> {
        let answer = self.ok()?;
        let etag = answer.header(ETAG.as_str());
        match serde_json::from_slice(&answer.body) {
            Ok(serde_json::Value::Object(map)) => Ok(Document { size: answer.body.len(), ..Document::new(map, etag) }),
            Ok(_) => Err(Error::NotJson { url: answer.url, source: None }),
            Err(source) => Err(Error::NotJson { url: answer.url, source: Some(source) }),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }
}

/// An address as a URL with nothing but scheme, host, port and path.
pub(super) fn base(address: &str) -> Result<Url, Error> {
    let bad = |why: &str| Error::Address { address: address.to_owned(), why: why.to_owned() };
    let url = Url::parse(address).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("its scheme is neither https nor http"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The address itself is not repeated: it may hold a password (law 14).
        return Err(Error::Address {
            address: "https://…@…".to_owned(), why: "it holds a user name; name a Secret instead".to_owned()
        });
    }
    Ok(url)
}

fn failure(url: &Url, error: reqwest::Error) -> Error {
    if let Some(why) = tls::certificate_problem(&error) {
        return Error::Certificate { url: url.to_string(), why };
    }
    if error.is_timeout() {
        return Error::Timeout { url: url.to_string(), doing: if error.is_connect() { "connecting".into() } else { String::new() } };
    }
    // The URL is said once already.
    Error::Connect { url: url.to_string(), source: Box::new(error.without_url()) }
}

/// Whether an established connection went away under the request. A connection that never came up is no such case.
fn is_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(|error| !error.is_connect() && !error.is_timeout() && !error.is_builder())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fingerprint;

    fn client(address: &str) -> Client {
        let trust = Trust::Pinned(Fingerprint([0; 32]));
        Client::new(&BmcTarget { address: address.into(), credentials: None, trust }, &Config::default(), None).unwrap()
    }

    #[test]
    fn no_link_leads_to_another_server() {
        let client = client("https://10.0.0.1:8443");
        for (uri, url) in [
            ("/redfish/v1/Systems/1", "https://10.0.0.1:8443/redfish/v1/Systems/1"),
            ("https://evil.example/redfish/v1", "https://10.0.0.1:8443/redfish/v1"),
            ("//evil.example/redfish/v1", "https://10.0.0.1:8443/redfish/v1"),
            ("/redfish/v1/Chassis#/Power/0", "https://10.0.0.1:8443/redfish/v1/Chassis"),
            ("/redfish/v1/Systems?$skip=50", "https://10.0.0.1:8443/redfish/v1/Systems?$skip=50"),
        ] {
            assert_eq!(client.resolve(uri).unwrap().as_str(), url, "{uri}");
        }
    }

    #[test]
    fn an_address_that_can_not_work_is_refused_without_repeating_a_password() {
        for address in ["10.0.0.1", "ftp://10.0.0.1", "https://", "https://root:calvin@10.0.0.1"] {
            let message = base(address).unwrap_err().to_string();
            assert!(!message.contains("calvin"), "{message}");
        }
    }

    #[test]
    fn trust_by_ca_without_a_ca_says_what_to_do() {
        let target = BmcTarget { address: "https://10.0.0.1".into(), credentials: None, trust: Trust::Ca };
        let error = Client::new(&target, &Config::default(), None).unwrap_err();
        assert!(format!("{:?}", error.unknown()).contains("caFile"), "{error:?}");
    }
}
