//! Who we are to a BMC: one session for each target, kept, renewed, and logged out (DSP0266 section 13.3).
//!
//! BMCs have few sessions (8 on iDRAC, 16 on XCC) and some leak them, so there is never more than one of ours; where there is
//! none to have, Basic authentication does it.

use std::time::Instant;

use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_MATCH, LOCATION},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    client::{Answer, Client, Request},
    config::Config,
    document::Document,
    error::Error,
};
use crate::ports::Credential;

/// The one path that DSP0266 fixes (section 6.1). All others are links.
const ROOT: &str = "/redfish/v1/";
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// What is posted to open a session (DSP0266 section 13.3.4.2). redfish-codegen's `Session` can't be used: it is a service's
/// answer, and always writes `@odata.id`, `Id` and `Name`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Login<'a> {
    user_name: &'a str,
    password: &'a str,
}

/// How requests prove who we are.
enum Auth {
    /// Not settled yet: log in first.
    Undecided,
    /// No credentials are configured.
    Nobody,
    Basic {
        since: Instant,
    },
    Session {
        token: HeaderValue,
        uri: Option<String>,
        /// Something that it let us read: while that is so, the session lives.
        read: Option<String>,
    },
}

/// An authenticated conversation with one BMC.
pub(super) struct Channel {
    client: Client,
    auth: Auth,
    credential: Option<Credential>,
    /// Credentials that the BMC refused, when, and what it said.
    refused: Option<([u8; 32], Instant, String)>,
    root: Option<Document>,
    config: Config,
}

impl Channel {
    pub(super) fn new(client: Client, config: Config) -> Self {
        Self { client, auth: Auth::Undecided, credential: None, refused: None, root: None, config }
    }

    /// Sets whom to log in as. When it differs from before (HARDWARE row 24), the old session is given back.
    pub(super) async fn use_credential(&mut self, credential: Option<Credential>) {
        if self.credential.as_ref().map(hash) != credential.as_ref().map(hash) {
            self.log_out().await;
            self.refused = None;
        }
        self.credential = credential;
    }

    /// The service root, read once.
    pub(super) async fn root(&mut self) -> Result<Document, Error> {
        if let Some(root) = &self.root {
            return Ok(root.clone());
        }
        let request = |headers| Request { method: Method::GET, uri: ROOT, headers, body: None };
        let mut answer = self.client.send(request(HeaderMap::new())).await?;
        // The root is open to all by the standard, but not everywhere.
        if answer.status == StatusCode::UNAUTHORIZED
            && let Some(credential) = &self.credential
        {
            self.refuse_known_bad(credential)?;
            answer = self.client.send(request(basic(credential))).await?;
            if answer.status == StatusCode::UNAUTHORIZED {
                return Err(self.note_refused(answer));
            }
            self.auth = Auth::Basic { since: Instant::now() };
        }
        let root = answer.document()?;
        self.root = Some(root.clone());
        Ok(root)
    }

    /// Reads one resource.
    pub(super) async fn get(&mut self, uri: &str) -> Result<Document, Error> {
        self.call(Method::GET, uri, None, None).await?.document()
    }

    /// Sends a request as ourselves and gives the answer, whatever its status. A session that ended is opened again, once; one that
    /// lives is kept when a single resource answers 401, or each of its 401 would cost a session.
    ///
    /// # Errors
    /// [`Error::Unauthorized`]: we are refused, and not only this request.
    pub(super) async fn call(&mut self, method: Method, uri: &str, if_match: Option<&str>, body: Option<Vec<u8>>) -> Result<Answer, Error> {
        self.settle().await?;
        let known = match &self.auth {
            Auth::Session { read, .. } => read.clone(),
            _ => None,
        };
        let mut renewed = false;
        let refused = loop {
            let answer = self.attempt(&method, uri, if_match, body.clone()).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                if method == Method::GET && answer.status.is_success() {
                    self.has_read(uri);
                }
                return Ok(answer);
            }
            let Some(known) = &known else { break answer };
            if self.attempt(&Method::GET, known, None, None).await?.status != StatusCode::UNAUTHORIZED {
                self.has_read(known);
                return Ok(answer);
            }
            if std::mem::replace(&mut renewed, true) {
                break answer;
            }
            tracing::debug!(bmc = self.client.address(), "the session ended; logging in again");
            self.log_out().await;
            self.settle().await?;
        };
        self.log_out().await;
        Err(self.note_refused(refused))
    }

    /// Remembers that the session let us read something.
    fn has_read(&mut self, uri: &str) {
        if let Auth::Session { read, .. } = &mut self.auth {
            *read = Some(uri.to_owned());
        }
    }

    async fn attempt(&self, method: &Method, uri: &str, if_match: Option<&str>, body: Option<Vec<u8>>) -> Result<Answer, Error> {
        let mut headers = self.proof();
        if let Some(etag) = if_match.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_MATCH, etag);
        }
        self.client.send(Request { method: method.clone(), uri, headers, body }).await
    }

    /// Gives the session back. Errors don't matter: the BMC lets it expire.
    pub(super) async fn log_out(&mut self) {
        let headers = self.proof();
        if let Auth::Session { uri: Some(uri), .. } = std::mem::replace(&mut self.auth, Auth::Undecided)
            && let Err(error) = self.client.send(Request { method: Method::DELETE, uri: &uri, headers, body: None }).await
        {
            tracing::debug!(bmc = self.client.address(), %error, "could not log out");
        }
    }

    /// Forgets everything that was learnt, but the session.
    pub(super) fn forget(&mut self) {
        self.root = None;
    }

    /// The BMC's address, for messages.
    pub(super) fn address(&self) -> &str {
        self.client.address()
    }

    /// Sees that `auth` is decided.
    async fn settle(&mut self) -> Result<(), Error> {
        let expired = matches!(self.auth, Auth::Basic { since } if since.elapsed() > self.config.basic_pause);
        if !matches!(self.auth, Auth::Undecided) && !expired {
            return Ok(());
        }
        let Some(credential) = self.credential.clone() else {
            self.auth = Auth::Nobody;
            return Ok(());
        };
        self.refuse_known_bad(&credential)?;
        self.auth = match self.sessions_uri(&credential).await? {
            Some(uri) => self.log_in(&uri, &credential).await?,
            None => Auth::Basic { since: Instant::now() },
        };
        Ok(())
    }

    /// Where sessions are opened: the root's own link, which needs no authentication; else through the SessionService (row 23).
    async fn sessions_uri(&mut self, credential: &Credential) -> Result<Option<String>, Error> {
        let root = self.root().await?;
        if let Some(uri) = root.link(&["Links", "Sessions"]) {
            return Ok(Some(uri));
        }
        let Some(service) = root.link(&["SessionService"]) else { return Ok(None) };
        let request = Request { method: Method::GET, uri: &service, headers: basic(credential), body: None };
        let answer = self.client.send(request).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(self.note_refused(answer));
        }
        Ok(answer.document().ok().and_then(|service| service.link(&["Sessions"])))
    }

    async fn log_in(&mut self, uri: &str, credential: &Credential) -> Result<Auth, Error> {
        let login = Login { user_name: &credential.username, password: &credential.password };
        let body = serde_json::to_vec(&login).expect("two texts are always JSON");
        let request = Request { method: Method::POST, uri, headers: HeaderMap::new(), body: Some(body) };
        let answer = self.client.send(request).await?;
        let session = answer.header(LOCATION.as_str());
        if let (true, Some(token)) = (answer.status.is_success(), answer.headers.get(&TOKEN).cloned()) {
            let own = session.or_else(|| serde_json::from_slice(&answer.body).ok().and_then(|body| super::document::link(&body)));
            let mut token = token;
            token.set_sensitive(true);
            tracing::debug!(bmc = self.client.address(), "logged in");
            return Ok(Auth::Session { token, uri: own, read: None });
        }
        let messages = super::document::messages(&answer.body).join("; ");
        // iLO answers 400 to a wrong password and names it only in the message.
        let wrong = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if (wrong && !messages.contains("RAC0218")) || messages.contains("UnauthorizedLoginAttempt") {
            return Err(self.note_refused(answer));
        }
        tracing::info!(bmc = self.client.address(), status = answer.status.as_u16(), messages, "no session to have; using Basic");
        Ok(Auth::Basic { since: Instant::now() })
    }

    fn proof(&self) -> HeaderMap {
        match (&self.auth, &self.credential) {
            (Auth::Session { token, .. }, _) => HeaderMap::from_iter([(TOKEN, token.clone())]),
            (Auth::Basic { .. }, Some(credential)) => basic(credential),
            _ => HeaderMap::new(),
        }
    }

    fn refuse_known_bad(&self, credential: &Credential) -> Result<(), Error> {
        match &self.refused {
            Some((bad, when, why)) if *bad == hash(credential) && when.elapsed() < self.config.refused_pause => {
                Err(Error::Unauthorized { url: self.client.address().to_owned(), why: format!("{why}; not tried again yet") })
            }
            _ => Ok(()),
        }
    }

    fn note_refused(&mut self, answer: Answer) -> Error {
        self.auth = Auth::Undecided;
        let messages = super::document::messages(&answer.body).join("; ");
        let why = match (&self.credential, messages.as_str()) {
            (None, _) => "it wants credentials, and none are configured".to_owned(),
            (Some(_), "") => answer.status.to_string(),
            (Some(_), said) => format!("{}: {said}", answer.status),
        };
        if let Some(credential) = &self.credential {
            self.refused = Some((hash(credential), Instant::now(), why.clone()));
        }
        Error::Unauthorized { url: answer.url, why }
    }
}

fn basic(credential: &Credential) -> HeaderMap {
    let encoded = base64(format!("{}:{}", credential.username, credential.password).as_bytes());
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().chain([0, 0].iter()).take(3).fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        for place in 0..4 {
            let digit = DIGITS[group >> (18 - 6 * place) & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Tells two credentials apart without keeping a second copy of the password.
fn hash(credential: &Credential) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((credential.username.len() as u64).to_be_bytes());
    hash.update(&credential.username);
    hash.update(&credential.password);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648 section 10.
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn user_and_password_can_not_run_into_each_other() {
        let of = |user: &str, password: &str| hash(&Credential { username: user.into(), password: password.into() });
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_eq!(of("a", "b"), of("a", "b"));
    }
}
