//! What of an observation can stand in a manifest, and what can't, and why.

use crate::model::{Mac, Observation, Seen, Unknown, is_placeholder_uuid};

use super::{
    Found, LONGEST,
    yaml::{shown, shown_up_to},
};

/// An interface, with the BMC's name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nic {
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) link_up: Option<bool>,
}

/// What identifies a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) serial: Option<String>,
    /// In lower case with dashes.
    pub(super) uuid: Option<String>,
    pub(super) nics: Vec<Nic>,
    /// What was said and is not written, a sentence each.
    pub(super) left_out: Vec<String>,
}

impl Facts {
    /// Reads an observation.
    ///
    /// # Errors
    /// A reason that may pass: something was not read to its end, and a manifest from half of it would describe another machine.
    pub(super) fn of(found: &Found) -> Result<Self, String> {
        let seen = &found.seen;
        let mut facts = Self::default();
        if let Some(why) = nothing_known(seen) {
            return Err(shown_reason(why));
        }
        match &seen.identity {
            Seen::Known(identity) => {
                facts.serial = facts.serial_of(identity.serial.as_deref());
                facts.uuid = facts.uuid_of(identity.uuid.as_deref());
            }
            Seen::Unknown(why) if passes(why) => return Err(format!("who it is could not be read: {}", shown_reason(why))),
            Seen::Unknown(_) => {}
        }
        match &seen.nics {
            Seen::Known(nics) => nics.iter().for_each(|nic| {
                if !facts.nics.iter().any(|other| other.mac == nic.mac) {
                    facts.nics.push(Nic { name: nic.name.clone(), mac: nic.mac, link_up: nic.link_up });
                }
            }),
            Seen::Unknown(why) if passes(why) => return Err(format!("its network interfaces could not be read: {}", shown_reason(why))),
            Seen::Unknown(why) => facts.left_out.push(format!("network interfaces: {}", shown_reason(why))),
        }
        Ok(facts)
    }

    /// Whether anything tells this machine from another.
    pub(super) fn identifies(&self) -> bool {
        self.serial.is_some() || self.uuid.is_some() || !self.nics.is_empty()
    }

    fn serial_of(&mut self, said: Option<&str>) -> Option<String> {
        let serial = said?.trim();
        if serial.is_empty() {
            return None;
        }
        if is_placeholder_serial(serial) {
            self.left_out.push(format!("serial number {:?}: firmware shows it when nobody set one", shown(serial)));
            return None;
        }
        if serial.chars().count() > LONGEST {
            self.left_out.push(format!("serial number {:?}: no serial number is so long", shown(serial)));
            return None;
        }
        Some(serial.to_owned())
    }

    fn uuid_of(&mut self, said: Option<&str>) -> Option<String> {
        let said = said?.trim();
        if is_placeholder_uuid(said) {
            self.left_out.push(format!("UUID {}: firmware shows it when nobody set one", shown(said)));
            return None;
        }
        let uuid = dashed(said);
        if uuid.is_none() {
            self.left_out.push(format!("UUID {:?}: it is not one", shown(said)));
        }
        uuid
    }
}

/// The reason, when nothing was told that says anything about a machine.
fn nothing_known(seen: &Observation) -> Option<&Unknown> {
    let nothing = seen.power.known().is_none() && seen.identity.known().is_none() && seen.nics.known().is_none();
    seen.power.unknown().filter(|_| nothing)
}

/// Whether asking again may give another answer. What the hardware does not report, or reports unreadably, it will not report later.
fn passes(why: &Unknown) -> bool {
    match why {
        Unknown::NotAsked
        | Unknown::Unreachable(_)
        | Unknown::TimedOut(_)
        | Unknown::Unauthorized(_)
        | Unknown::CertificateChanged(_)
        | Unknown::Busy(_) => true,
        Unknown::NotReported | Unknown::Garbage(_) => false,
    }
}

/// A reason, which may quote the BMC, on one line.
pub(super) fn shown_reason(why: &Unknown) -> String {
    shown_up_to(&why.to_string(), 300)
}

/// A UUID in lower case with dashes, if it is 32 hexadecimal digits with or without them.
fn dashed(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    let usual = text.len() == 32 || text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let hexadecimal = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let part = |from: usize, to: usize| &digits[from..to];
    (usual && hexadecimal).then(|| [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

/// Whether a serial number is what board makers leave in the SMBIOS tables: it would name every machine of the model.
fn is_placeholder_serial(text: &str) -> bool {
    const WORDS: [&str; 20] = [
        "none",
        "n/a",
        "na",
        "nil",
        "null",
        "unknown",
        "empty",
        "default",
        "default string",
        "invalid",
        "not applicable",
        "not available",
        "not specified",
        "oem",
        "system serial number",
        "chassis serial number",
        "serial number",
        "0123456789",
        "1234567890",
        "123456789",
    ];
    let text = text.trim().to_ascii_lowercase();
    let one_character = text.chars().all(|c| text.starts_with(c));
    one_character || WORDS.contains(&text.as_str()) || text.starts_with("to be filled") || text.starts_with("to be set")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_serial_numbers() {
        for text in ["0", "0000000", "xxxxxxxx", "To be filled by O.E.M.", "Default string", "0123456789", "N/A", "System Serial Number"] {
            assert!(is_placeholder_serial(text), "{text}");
        }
        for text in ["F54P1G3", "S123456", "0123456789AB", "1580924760074"] {
            assert!(!is_placeholder_serial(text), "{text}");
        }
    }

    #[test]
    fn a_uuid_is_written_as_firmware_prints_it() {
        let uuid = "4c4c4544-0035-3410-8050-c6c04f314733";
        assert_eq!(dashed("4C4C4544-0035-3410-8050-C6C04F314733").as_deref(), Some(uuid));
        assert_eq!(dashed("4C4C4544003534108050C6C04F314733").as_deref(), Some(uuid));
        for text in ["", "system0-uuid", "4c4c4544-0035-3410-8050-c6c04f31473", "4c4c-45440035-3410-8050-c6c04f314733", "é"] {
            assert_eq!(dashed(text), None, "{text}");
        }
    }
}
