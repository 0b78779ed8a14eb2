//! Who may ask: accounts, Basic authentication, sessions (DSP0266, "Security"). It guards simulated machines on loopback: secrets are
//! compared in plain.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom, SystemRandom};

use crate::model::Timestamp;

/// How long a session lives without use.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(600);

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Administrator,
    ReadOnly,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Administrator => "Administrator",
            Role::ReadOnly => "ReadOnly",
        }
    }
}

/// One account. Has no `Debug` on purpose (law 14).
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) role: Role,
}

/// One login.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) created: Timestamp,
    token: String,
    role: Role,
    used: Instant,
}

/// Accounts and sessions of one BMC.
pub(super) struct Access {
    accounts: std::sync::Arc<[Account]>,
    sessions: Mutex<Vec<Session>>,
    max_sessions: usize,
}

impl Access {
    pub(super) fn new(accounts: std::sync::Arc<[Account]>, max_sessions: usize) -> Self {
        Self { accounts, sessions: Mutex::new(Vec::new()), max_sessions }
    }

    /// User names and roles.
    pub(super) fn accounts(&self) -> Vec<(String, Role)> {
        self.accounts.iter().map(|account| (account.username.clone(), account.role)).collect()
    }

    /// The role of who sent these headers, if they prove anything.
    pub(super) fn role(&self, token: Option<&str>, authorization: Option<&str>) -> Option<Role> {
        match (token, authorization) {
            (Some(token), _) => self.by_token(token),
            (None, Some(authorization)) => {
                let (username, password) = decode_basic(authorization)?;
                self.check(&username, &password)
            }
            (None, None) => None,
        }
    }

    /// The role of an account, if the password is right.
    pub(super) fn check(&self, username: &str, password: &str) -> Option<Role> {
        let account = self.accounts.iter().find(|account| account.username == username)?;
        (account.password == password).then_some(account.role)
    }

    /// Opens a session and gives it with its token; `None` when there are as many as there may be.
    pub(super) fn open(&self, username: &str, role: Role) -> Option<(Session, String)> {
        let mut sessions = self.lock();
        if sessions.len() >= self.max_sessions {
            return None;
        }
        let token = random_hex::<16>();
        let session = Session {
            id: random_hex::<4>(),
            username: username.to_owned(),
            created: Timestamp::now(),
            token: token.clone(),
            role,
            used: Instant::now(),
        };
        sessions.push(session.clone());
        Some((session, token))
    }

    /// Ends a session; false when there is none of that id.
    pub(super) fn close(&self, id: &str) -> bool {
        let mut sessions = self.lock();
        let before = sessions.len();
        sessions.retain(|session| session.id != id);
        sessions.len() < before
    }

    /// Sessions that are open now.
    pub(super) fn sessions(&self) -> Vec<Session> {
        self.lock().clone()
    }

    fn by_token(&self, token: &str) -> Option<Role> {
        let mut sessions = self.lock();
        let session = sessions.iter_mut().find(|session| session.token == token)?;
        session.used = Instant::now();
        Some(session.role)
    }

    /// The sessions, without those that timed out.
    fn lock(&self) -> MutexGuard<'_, Vec<Session>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| session.used.elapsed() < SESSION_TIMEOUT);
        sessions
    }
}

fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system's random numbers never run out");
    hex::encode(bytes)
}

/// User name and password of `Authorization: Basic …` (RFC 7617). The password may hold colons.
fn decode_basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(decode_base64(encoded.trim())?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

/// RFC 4648 section 4.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes().map(|c| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let (mut bits, mut length, mut bytes) = (0u32, 0, Vec::new());
    for digit in digits {
        bits = (bits << 6 | u32::from(digit?)) & 0xffff;
        length += 6;
        if length >= 8 {
            length -= 8;
            bytes.push((bits >> length) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(max_sessions: usize) -> Access {
        let account = Account { username: "admin".into(), password: "a:b".into(), role: Role::Administrator };
        Access::new(vec![account].into(), max_sessions)
    }

    #[test]
    fn basic_authentication_takes_a_password_with_a_colon() {
        assert_eq!(decode_basic("Basic YWRtaW46YTpi"), Some(("admin".into(), "a:b".into())));
        assert_eq!(access(1).role(None, Some("Basic YWRtaW46YTpi")), Some(Role::Administrator));
        assert_eq!(access(1).role(None, Some("Basic YWRtaW46YTpj")), None);
        for header in ["Basic", "Basic !!", "Bearer YWRtaW46YTpi", "Basic YWRtaW4="] {
            assert_eq!(access(1).role(None, Some(header)), None, "{header}");
        }
    }

    #[test]
    fn sessions_are_capped_and_can_be_closed() {
        let access = access(2);
        let (first, token) = access.open("admin", Role::Administrator).unwrap();
        assert!(access.open("admin", Role::Administrator).is_some());
        assert!(access.open("admin", Role::Administrator).is_none());
        assert_eq!(access.role(Some(&token), None), Some(Role::Administrator));
        assert!(access.close(&first.id) && !access.close(&first.id));
        assert_eq!(access.role(Some(&token), None), None);
        assert!(access.open("admin", Role::Administrator).is_some());
    }
}
