//! Names that people give to things, each with a type of its own. Shared, not copied: a plan names each machine several times.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name: use 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit")]
pub struct BadName {
    /// The text as it was written.
    pub text: String,
}

/// Whether `text` is an RFC 1123 name: 1 to 63 of a-z, 0-9, '-' and '.', first and last a letter or digit.
pub fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (1..=63).contains(&text.len())
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `text` (RFC 1123, at most 63 characters).
            ///
            /// # Errors
            /// [`BadName`] when it is not a name.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                if is_name(&text) { Ok(Self(text.into())) } else { Err(BadName { text }) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// A machine: the `metadata.name` of its manifest.
    MachineName
);
name!(
    /// A profile: what a role is.
    ProfileName
);
name!(
    /// An image that can be put on a disk.
    ImageName
);
name!(
    /// A network that machines are on.
    NetworkName
);
name!(
    /// A rollout: a group of machines, and how a change reaches them.
    RolloutName
);
name!(
    /// A secret: the name only, never its value.
    SecretName
);
name!(
    /// A value that a machine publishes: the name only, never the value.
    HandoffName
);
name!(
    /// A site: one controller's part of the world. Part of the ref that its notes are written to.
    SiteName
);
