//! Which remotes we speak to.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Why a text is not a remote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Not a kind of remote that we speak to.
    #[error("{scheme}:// is not used: anyone between here and there could change what your machines become; use https:// or ssh://")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A password in the address would end in logs. The address is not repeated for that reason.
    #[error("the address holds a password; put it into a file and name that with `passwordFile`, and the user with `username`")]
    Password,
    /// Something is missing.
    #[error("{text:?} is not a remote: use a path, file:///path, ssh://user@host/path, user@host:path or https://host/path")]
    Shape {
        /// The address.
        text: String,
    },
}

/// The address of a Git remote. Holds no password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemoteUrl {
    text: String,
    kind: Kind,
}

/// What an address points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A repository on this machine.
    Local { path: PathBuf },
    /// Over ssh.
    Ssh { user: Option<String>, host: String, port: u16 },
    /// Over https.
    Https { host: String },
}

impl RemoteUrl {
    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// What libgit2 is given. It takes a path that does not exist for an unknown protocol, so paths become `file://`.
    pub(super) fn for_libgit2(&self) -> std::io::Result<String> {
        match &self.kind {
            Kind::Local { path } => Ok(format!("file://{}", percent_encoded(&std::path::absolute(path)?))),
            Kind::Ssh { .. } | Kind::Https { .. } => Ok(self.text.clone()),
        }
    }

    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for RemoteUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let shape = || BadUrl::Shape { text: text.to_owned() };
        let kind = match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Kind::Local { path: percent_decoded(path) },
            Some(("ssh", rest)) => ssh(rest).ok_or_else(shape)?,
            Some(("https", rest)) => https(rest)?.ok_or_else(shape)?,
            Some(("file", _)) | Some(("", _)) => return Err(shape()),
            Some((scheme, _)) => return Err(BadUrl::Scheme { scheme: scheme.to_owned() }),
            None => match text.split_once(':') {
                // As git does: a colon before the first slash makes it `host:path`.
                Some((host, path)) if !host.contains('/') => scp(host, path).ok_or_else(shape)?,
                _ if text.is_empty() || text.contains('\0') => return Err(shape()),
                _ => Kind::Local { path: text.into() },
            },
        };
        if let Kind::Ssh { user: Some(user), .. } = &kind
            && user.contains(':')
        {
            return Err(BadUrl::Password);
        }
        Ok(Self { text: text.to_owned(), kind })
    }
}

fn ssh(rest: &str) -> Option<Kind> {
    let (authority, path) = rest.split_once('/')?;
    let (user, host) = user_and_host(authority);
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (host, 22),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    (!host.is_empty() && !path.is_empty()).then_some(Kind::Ssh { user, host, port })
}

fn scp(authority: &str, path: &str) -> Option<Kind> {
    let (user, host) = user_and_host(authority);
    let host = host.to_owned();
    (!host.is_empty() && !path.is_empty()).then_some(Kind::Ssh { user, host, port: 22 })
}

fn https(rest: &str) -> Result<Option<Kind>, BadUrl> {
    let Some((authority, path)) = rest.split_once('/') else { return Ok(None) };
    let (user, host) = user_and_host(authority);
    if user.is_some_and(|user| user.contains(':')) {
        return Err(BadUrl::Password);
    }
    let host = host.to_owned();
    Ok((!host.is_empty() && !path.is_empty()).then_some(Kind::Https { host }))
}

fn percent_decoded(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = if *first == b'%' { tail.get(..2).and_then(|digits| hex::decode(digits).ok()) } else { None };
        bytes.push(escaped.as_ref().map_or(*first, |byte| byte[0]));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

fn percent_encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.as_os_str().as_bytes().iter().map(|&b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn user_and_host(authority: &str) -> (Option<String>, &str) {
    authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user.to_owned()), host))
}

impl TryFrom<String> for RemoteUrl {
    type Error = BadUrl;
    fn try_from(text: String) -> Result<Self, BadUrl> {
        text.parse()
    }
}

impl From<RemoteUrl> for String {
    fn from(url: RemoteUrl) -> String {
        url.text
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        text.parse::<RemoteUrl>().unwrap().kind
    }

    #[test]
    fn each_form_of_address_is_understood() {
        assert_eq!(kind("/srv/fleet.git"), Kind::Local { path: "/srv/fleet.git".into() });
        assert_eq!(kind("./a:b"), Kind::Local { path: "./a:b".into() });
        assert_eq!(kind("file:///srv/fleet.git"), Kind::Local { path: "/srv/fleet.git".into() });
        let ssh = |user: &str, host: &str, port| Kind::Ssh { user: Some(user.into()), host: host.into(), port };
        assert_eq!(kind("git@example.com:fleet.git"), ssh("git", "example.com", 22));
        assert_eq!(kind("ssh://git@example.com/fleet.git"), ssh("git", "example.com", 22));
        assert_eq!(kind("ssh://git@[::1]:2222/fleet.git"), ssh("git", "::1", 2222));
        assert_eq!(kind("https://u@example.com:8443/fleet.git"), Kind::Https { host: "example.com:8443".into() });
    }

    #[test]
    fn paths_with_any_byte_survive() {
        let url: RemoteUrl = "/srv/my fleet #1:50%.git".parse().unwrap();
        assert_eq!(url.for_libgit2().unwrap(), "file:///srv/my%20fleet%20%231%3A50%25.git");
        let again: RemoteUrl = url.for_libgit2().unwrap().parse().unwrap();
        assert_eq!(again.kind, url.kind);
        assert_eq!(kind("file:///a%zz%2"), Kind::Local { path: "/a%zz%2".into() });
    }

    #[test]
    fn what_is_not_safe_or_not_an_address_is_refused() {
        for text in ["", "file://", "file://srv", "ssh://host", "https://host", "https:///x", "git@:x", "://x"] {
            assert!(matches!(text.parse::<RemoteUrl>(), Err(BadUrl::Shape { .. })), "{text}");
        }
        for text in ["http://example.com/fleet.git", "git://example.com/fleet.git", "ftp://x/y"] {
            assert!(matches!(text.parse::<RemoteUrl>(), Err(BadUrl::Scheme { .. })), "{text}");
        }
        for text in ["https://me:hunter2@example.com/x", "ssh://me:hunter2@example.com/x"] {
            let error = text.parse::<RemoteUrl>().unwrap_err();
            assert_eq!(error, BadUrl::Password);
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
