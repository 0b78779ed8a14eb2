//! The boot override: network, once. BMCs take it in different places and with different fields, and some say yes and do nothing,
//! so it is climbed rung by rung and believed only when it reads back (HARDWARE rows 37 to 48).

use redfish_codegen::models::computer_system::{
    BootSource,
    v1_20_1::{Boot, BootSourceOverrideEnabled, BootSourceOverrideMode},
};
use serde_json::{Value, json};

use super::{
    conversation::{Conversation, Host},
    document::{Document, at, text},
    error::Error,
};
use crate::model::BootMode;

/// Reads after each order until it shows. Settings are taken over in steps by some BMCs.
pub(super) const READ_BACKS: usize = 5;

/// One way to set the override.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rung {
    place: Place,
    fields: Fields,
}

/// Where it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    System,
    /// The `@Redfish.Settings` object, where that holds Boot (rows 37 and 38).
    Settings,
}

/// With which fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fields {
    /// Target, enabled and mode: Supermicro forgets what is not sent (row 41).
    Triple,
    /// HPE Gen9 and Supermicro X10 have no mode (rows 41 and 44).
    WithoutMode,
    /// HPE DL160 Gen10 refuses extra fields (row 44).
    TargetOnly,
}

/// Sets the next boot to the network and reads it back. What worked is tried first next time.
pub(super) async fn from_network(bmc: &mut Conversation, mode: BootMode) -> Result<(), Error> {
    let host = bmc.host().await?;
    let settings = settings_with_boot(bmc, &host).await?;
    let mut failure = None;
    for rung in ladder(&host.document, settings.is_some(), bmc.boot_rung) {
        let place = match rung.place {
            Place::System => host.uri.clone(),
            Place::Settings => settings.clone().unwrap_or_else(|| host.uri.clone()),
        };
        match bmc.patch(&place, &body(rung.fields, mode)).await {
            Ok(()) => match read_back(bmc, &host.uri, &place, mode).await {
                Ok(()) => {
                    tracing::info!(bmc = bmc.channel.address(), host = host.uri, ?rung, "the next boot is from the network");
                    bmc.boot_rung = Some(rung);
                    return Ok(());
                }
                Err(error @ Error::ReadBack { .. }) => failure = Some(error),
                Err(error) => return Err(error),
            },
            Err(error) if is_refusal(&error) => {
                tracing::debug!(?rung, %error, "the BMC refused this form of boot override");
                // What the BMC says to the full form explains most; a read-back that differs explains more.
                failure = failure.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| Error::Unsupported { url: host.uri, why: "it has no boot override".into() }))
}

/// The settings object, if it holds Boot; many hold only something else (row 38).
pub(super) async fn settings_with_boot(bmc: &mut Conversation, host: &Host) -> Result<Option<String>, Error> {
    let Some(uri) = host.document.settings_object() else { return Ok(None) };
    match bmc.channel.get(&uri).await {
        Ok(settings) if settings.has(&["Boot"]) => Ok(Some(uri)),
        Err(error) if error.ends_the_conversation() => Err(error),
        _ => Ok(None),
    }
}

fn ladder(system: &Document, settings: bool, worked: Option<Rung>) -> Vec<Rung> {
    let places = if settings { &[Place::System, Place::Settings][..] } else { &[Place::System] };
    // A BMC that shows no mode is spared it at first, and gets it only if nothing else works.
    let shows_mode = at(&system.raw, &["Boot"])
        .and_then(Value::as_object)
        .is_none_or(|boot| boot.keys().any(|key| key.starts_with("BootSourceOverrideMode")));
    let fields = if shows_mode {
        [Fields::Triple, Fields::WithoutMode, Fields::TargetOnly]
    } else {
        [Fields::WithoutMode, Fields::TargetOnly, Fields::Triple]
    };
    let mut rungs: Vec<Rung> = worked.into_iter().filter(|rung| places.contains(&rung.place)).collect();
    for place in places.iter().copied() {
        for fields in fields {
            let rung = Rung { place, fields };
            if !rungs.contains(&rung) {
                rungs.push(rung);
            }
        }
    }
    rungs
}

fn body(fields: Fields, mode: BootMode) -> Value {
    let enabled = match fields {
        Fields::Triple | Fields::WithoutMode => Some(BootSourceOverrideEnabled::Once),
        Fields::TargetOnly => None,
    };
    let mode = match (fields, mode) {
        (Fields::Triple, BootMode::UEFI) => Some(BootSourceOverrideMode::UEFI),
        (Fields::Triple, BootMode::BIOS) => Some(BootSourceOverrideMode::Legacy),
        _ => None,
    };
    let boot = Boot {
        boot_source_override_target: Some(BootSource::Pxe),
        boot_source_override_enabled: enabled,
        boot_source_override_mode: mode,
        ..Boot::default()
    };
    json!({ "Boot": serde_json::to_value(boot).expect("enumerations and texts are always JSON") })
}

/// A refusal of this form, not of us and not for now: the next rung may be taken.
pub(super) fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Status { status: 400 | 404 | 405 | 409 | 415 | 422, .. } => !error.is_busy(),
        // Some firmware fails on what it does not know instead of refusing it.
        Error::Status { status: 500 | 501, .. } => !error.says("SYS518"),
        Error::Unsupported { .. } => true,
        _ => false,
    }
}

/// Reads until the system, or the place that was changed, shows the override.
async fn read_back(bmc: &mut Conversation, system: &str, place: &str, mode: BootMode) -> Result<(), Error> {
    let mut last = String::new();
    for attempt in 0..READ_BACKS {
        if attempt > 0 {
            tokio::time::sleep(bmc.config.read_back_pause).await;
        }
        for uri in [system, place] {
            match check(&bmc.channel.get(uri).await?, mode) {
                Ok(()) => return Ok(()),
                Err(read) => last = read,
            }
            if system == place {
                break;
            }
        }
    }
    Err(Error::ReadBack { url: place.to_owned(), read: last })
}

/// Whether a document says that the next boot is from the network in this mode; else what it says.
///
/// `Continuous` is let pass: firmware exists that shows every override so (rows 39, 42, 43), and a machine without an open ticket
/// is sent to its disk whatever it boots from.
fn check(document: &Document, mode: BootMode) -> Result<(), String> {
    let said = |name: &str| text(&document.raw, &["Boot", name]);
    let target = said("BootSourceOverrideTarget").unwrap_or_default();
    let enabled = said("BootSourceOverrideEnabled");
    let shown = said("BootSourceOverrideMode");
    let wanted = match mode {
        BootMode::UEFI => "UEFI",
        BootMode::BIOS => "Legacy",
    };
    let disabled = enabled.as_deref().is_some_and(|enabled| enabled.eq_ignore_ascii_case("Disabled"));
    let other_mode = shown.as_deref().is_some_and(|shown| !shown.eq_ignore_ascii_case(wanted));
    if !target.eq_ignore_ascii_case("Pxe") || disabled || other_mode {
        let part = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        return Err(format!("target {target:?}, enabled {}, mode {} (wanted Pxe, Once, {wanted})", part(enabled), part(shown)));
    }
    if enabled.as_deref() == Some("Continuous") {
        tracing::debug!(uri = document.odata.id, "the override reads back as Continuous although Once was set");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_the_standard_names() {
        // Do not change this text: it is the body that BMCs in the field take (DSP0268, ComputerSystem.Boot).
        assert_eq!(
            body(Fields::Triple, BootMode::UEFI),
            json!({"Boot": {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI"}})
        );
        assert_eq!(body(Fields::TargetOnly, BootMode::BIOS), json!({"Boot": {"BootSourceOverrideTarget": "Pxe"}}));
    }

    #[test]
    fn an_override_is_believed_only_when_it_reads_back() {
        let document = |boot: Value| {
            let Value::Object(map) = json!({ "Boot": boot }) else { panic!("an object") };
            Document::new(map, None)
        };
        let pxe = |enabled: &str, mode: Value| {
            document(json!({"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": enabled, "BootSourceOverrideMode": mode}))
        };
        assert!(check(&pxe("Once", json!("UEFI")), BootMode::UEFI).is_ok());
        assert!(check(&pxe("Continuous", json!(null)), BootMode::UEFI).is_ok());
        assert!(check(&pxe("Disabled", json!("UEFI")), BootMode::UEFI).is_err());
        assert!(check(&pxe("Once", json!("Legacy")), BootMode::UEFI).is_err());
        assert!(check(&document(json!({"BootSourceOverrideTarget": "Hdd", "BootSourceOverrideEnabled": "Once"})), BootMode::UEFI).is_err());
        assert!(check(&document(json!(null)), BootMode::UEFI).is_err());
    }
}
