//! What the operator can set about talking to BMCs.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// How BMCs are talked to. Every field has a default; durations read `10s`, `5m`, or a number of seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// PEM file of the CAs that sign BMC certificates. Needed by targets that are trusted by CA.
    pub ca_file: Option<PathBuf>,
    /// For TCP and TLS to come up. A BMC on the same site answers in milliseconds, or it is gone.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Longest silence within an answer to a GET. Some BMCs take 20 s for the first one.
    #[serde(with = "seconds")]
    pub read_timeout: Duration,
    /// Longest wait for one order (boot override, power) with its ladder and read-back. Some BMCs hold a PATCH for over 60 s.
    #[serde(with = "seconds")]
    pub write_timeout: Duration,
    /// Longest time that one observation takes. What was not read by then is unknown, and the next one goes on from there.
    #[serde(with = "seconds")]
    pub observe_timeout: Duration,
    /// How long NICs, disks and firmware versions are believed. They change when somebody opens the machine or updates it.
    #[serde(with = "seconds")]
    pub inventory_every: Duration,
    /// How long after a change of power they are read again. Server firmware takes 2 to 9 minutes to show all devices.
    #[serde(with = "seconds")]
    pub settle_after_power: Duration,
    /// How long credentials that a BMC refused are not tried again: most lock the account after a few wrong passwords.
    #[serde(with = "seconds")]
    pub refused_pause: Duration,
    /// How long Basic authentication is used after a BMC had no session to give.
    #[serde(with = "seconds")]
    pub basic_pause: Duration,
    /// Pause between two reads while a boot override is read back.
    #[serde(with = "seconds")]
    pub read_back_pause: Duration,
    /// Largest answer in bytes that is read.
    pub max_body: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(180),
            observe_timeout: Duration::from_secs(60),
            inventory_every: Duration::from_secs(600),
            settle_after_power: Duration::from_secs(240),
            refused_pause: Duration::from_secs(60),
            basic_pause: Duration::from_secs(600),
            read_back_pause: Duration::from_secs(1),
            max_body: 4 << 20,
        }
    }
}

/// Durations as people write them.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}ms", value.as_millis()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let wanted = "a duration such as \"10s\" or \"5m\", or a number of seconds";
        match Written::deserialize(from).map_err(|_| D::Error::custom(format!("write {wanted}")))? {
            Written::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| D::Error::custom(format!("write {wanted}"))),
            Written::Text(text) => text
                .parse::<jiff::SignedDuration>()
                .ok()
                .and_then(|duration| Duration::try_from(duration).ok())
                .ok_or_else(|| D::Error::custom(format!("{text:?} is not {wanted}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_text_or_seconds_and_survive_a_round_trip() {
        let config: Config = serde_json::from_str(r#"{"connectTimeout": "2s", "readTimeout": 1.5, "inventoryEvery": "10m"}"#).unwrap();
        assert_eq!(config.connect_timeout, Duration::from_secs(2));
        assert_eq!(config.read_timeout, Duration::from_millis(1500));
        assert_eq!(config.inventory_every, Duration::from_secs(600));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn what_is_no_duration_says_what_to_write() {
        for bad in [r#"{"readTimeout": "soon"}"#, r#"{"readTimeout": -1}"#, r#"{"readTimeout": "-3s"}"#, r#"{"readTimeout": []}"#] {
            let message = serde_json::from_str::<Config>(bad).unwrap_err().to_string();
            assert!(message.contains("\"10s\""), "{bad}: {message}");
        }
    }
}
