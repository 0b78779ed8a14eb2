//! One observation: the host's own resource each time, and what rarely changes only now and then.

use super::{
    conversation::{Conversation, Host},
    document::{self, Document},
    error::Error,
    quirks,
};
use crate::model::{BootOverride, Health, Observation, ObservedIdentity, PowerState, Seen, Timestamp, Unknown};

/// Fills `seen` as far as the BMC answers. When this future is dropped at a deadline, what was read so far stays in `seen`, and
/// the inventory goes on from there next time.
pub(super) async fn observe(bmc: &mut Conversation, seen: &mut Observation) -> Result<(), Error> {
    if bmc.inventory.is_old(&bmc.config) {
        // The URI of the host is as old as the inventory.
        bmc.forget_host();
    }
    let host = match bmc.host().await {
        Ok(host) => host,
        Err(error) => {
            if matches!(error.status(), Some(401 | 403)) {
                // A session can outlive its rights (HARDWARE row 24).
                bmc.channel.log_out().await;
            }
            return Err(error);
        }
    };
    let system = &host.document;
    seen.power = power_state(system);
    seen.boot_override = boot_override(system);
    seen.identity = identity(&host);
    seen.health = health(system);
    bmc.inventory.power_is(seen.power.known().copied(), &bmc.config);
    super::inventory::refresh(bmc, &host, seen).await;
    Ok(())
}

/// An observation in which nothing was read before the time was up.
pub(super) fn blank(at: Timestamp, source: &str, limit: std::time::Duration) -> Observation {
    Observation::blank(at, source, &Unknown::TimedOut(format!("no answer from {source} within {limit:?}")))
}

/// `PowerState`. A word that is neither On nor Off is a state between them, never one of them.
pub(super) fn power_state(system: &Document) -> Seen<PowerState> {
    let Some(state) = system.text(&["PowerState"]) else { return Seen::Unknown(Unknown::NotReported) };
    Seen::Known(match state.to_lowercase().as_str() {
        "on" => PowerState::On,
        "off" => PowerState::Off,
        "poweringon" => PowerState::PoweringOn,
        "poweringoff" => PowerState::PoweringOff,
        "paused" | "reset" => PowerState::Paused,
        _ => return Seen::Unknown(Unknown::Garbage(format!("power state {state:?}"))),
    })
}

fn boot_override(system: &Document) -> Seen<BootOverride> {
    let said = |name: &str| document::text(&system.raw, &["Boot", name]);
    match (said("BootSourceOverrideTarget"), said("BootSourceOverrideEnabled")) {
        (Some(target), enabled) => Seen::Known(BootOverride {
            target,
            enabled: enabled.unwrap_or_else(|| "Disabled".to_owned()),
            mode: said("BootSourceOverrideMode"),
        }),
        (None, Some(enabled)) if enabled.eq_ignore_ascii_case("Disabled") => {
            Seen::Known(BootOverride { target: "None".to_owned(), enabled, mode: said("BootSourceOverrideMode") })
        }
        (None, _) => Seen::Unknown(Unknown::NotReported),
    }
}

fn identity(host: &Host) -> Seen<ObservedIdentity> {
    let said = |name: &str| host.document.text(&[name]).filter(|text| !quirks::is_junk_identity(text));
    let serial = said("SerialNumber");
    let serial = if host.platform.serial_is_in_sku() { said("SKU").or(serial) } else { serial };
    let identity = ObservedIdentity {
        serial,
        uuid: said("UUID").map(|uuid| uuid.to_lowercase()),
        manufacturer: said("Manufacturer"),
        model: said("Model"),
    };
    if identity == ObservedIdentity::default() { Seen::Unknown(Unknown::NotReported) } else { Seen::Known(identity) }
}

fn health(system: &Document) -> Seen<Health> {
    let Some(health) = system.health() else { return Seen::Unknown(Unknown::NotReported) };
    Seen::Known(match health.to_lowercase().as_str() {
        "ok" => Health::OK,
        "warning" => Health::Warning,
        "critical" => Health::Critical,
        _ => return Seen::Unknown(Unknown::Garbage(format!("health {health:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bmc::quirks::Platform;

    fn host(root: Value, system: Value) -> Host {
        let document = |value| match value {
            Value::Object(map) => Document::new(map, None),
            _ => panic!("an object"),
        };
        let (root, document) = (document(root), document(system));
        Host { uri: "/s".into(), platform: Platform::of(&root, &document), document }
    }

    #[test]
    fn on_dell_the_serial_is_the_service_tag() {
        let system = json!({"SerialNumber": "CNIVC0014M0388", "SKU": "F54P1G3", "UUID": "4C4C4544-0035-3410-8050-C6C04F314733"});
        let dell = identity(&host(json!({"Vendor": "Dell"}), system.clone()));
        let other = identity(&host(json!({"Vendor": "HPE"}), system));
        assert_eq!(dell.known().unwrap().serial.as_deref(), Some("F54P1G3"));
        assert_eq!(dell.known().unwrap().uuid.as_deref(), Some("4c4c4544-0035-3410-8050-c6c04f314733"));
        assert_eq!(other.known().unwrap().serial.as_deref(), Some("CNIVC0014M0388"));
    }

    #[test]
    fn a_state_between_on_and_off_is_neither() {
        let state = |value: Value| power_state(&host(json!({}), json!({ "PowerState": value })).document);
        assert_eq!(state(json!("On")), Seen::Known(PowerState::On));
        assert_eq!(state(json!("Reset")), Seen::Known(PowerState::Paused));
        assert_eq!(state(json!(null)), Seen::Unknown(Unknown::NotReported));
        assert!(matches!(state(json!("Unknown")), Seen::Unknown(Unknown::Garbage(_))));
    }
}
