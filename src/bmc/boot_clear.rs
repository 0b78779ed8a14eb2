//! Taking a boot override back. As with setting it, BMCs differ in what they take and some say yes and do nothing, so it is climbed rung by
//! rung and believed only when it reads back (DSP0268 ComputerSystem.Boot; HARDWARE rows 37, 38, 41 and 44).

use serde_json::{Value, json};

use super::{
    boot::{READ_BACKS, is_refusal, settings_with_boot},
    conversation::Conversation,
    document::{Document, text},
    error::Error,
};

/// What is sent, fullest first: some BMCs forget what is not sent, others refuse what they don't know.
fn bodies() -> [Value; 3] {
    [
        json!({"Boot": {"BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Disabled"}}),
        json!({"Boot": {"BootSourceOverrideEnabled": "Disabled"}}),
        json!({"Boot": {"BootSourceOverrideTarget": "None"}}),
    ]
}

/// Takes it back, and reads that it is gone.
pub(super) async fn clear(bmc: &mut Conversation) -> Result<(), Error> {
    let host = bmc.host().await?;
    if check(&host.document).is_ok() {
        return Ok(());
    }
    let settings = settings_with_boot(bmc, &host).await?;
    let mut failure = None;
    for place in [Some(host.uri.clone()), settings].into_iter().flatten() {
        for body in bodies() {
            match bmc.patch(&place, &body).await {
                Ok(()) => match read_back(bmc, &host.uri).await {
                    Ok(()) => {
                        tracing::info!(bmc = bmc.channel.address(), host = host.uri, "the boot override is taken back");
                        return Ok(());
                    }
                    Err(error @ Error::ReadBack { .. }) => failure = Some(error),
                    Err(error) => return Err(error),
                },
                Err(error) if is_refusal(&error) => failure = failure.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::Unsupported { url: host.uri, why: "it has no boot override".into() }))
}

async fn read_back(bmc: &mut Conversation, system: &str) -> Result<(), Error> {
    let mut last = String::new();
    for attempt in 0..READ_BACKS {
        if attempt > 0 {
            tokio::time::sleep(bmc.config.read_back_pause).await;
        }
        match check(&bmc.channel.get(system).await?) {
            Ok(()) => return Ok(()),
            Err(read) => last = read,
        }
    }
    Err(Error::ReadBack { url: system.to_owned(), read: last })
}

/// Whether a document shows no override in force; else what it shows.
fn check(document: &Document) -> Result<(), String> {
    let said = |name: &str| text(&document.raw, &["Boot", name]).unwrap_or_default();
    let (target, enabled) = (said("BootSourceOverrideTarget"), said("BootSourceOverrideEnabled"));
    let is = |text: &str, word: &str| text.is_empty() || text.eq_ignore_ascii_case(word);
    if is(&enabled, "Disabled") || is(&target, "None") { Ok(()) } else { Err(format!("target {target:?}, enabled {enabled:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_gone_when_it_is_disabled_or_has_no_target() {
        let document = |boot: Value| {
            let Value::Object(map) = json!({ "Boot": boot }) else { panic!("an object") };
            Document::new(map, None)
        };
        for boot in [
            json!({"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Disabled"}),
            json!({"BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Continuous"}),
            json!({}),
        ] {
            assert!(check(&document(boot)).is_ok());
        }
        let left = json!({"BootSourceOverrideTarget": "Hdd", "BootSourceOverrideEnabled": "Continuous"});
        assert!(check(&document(left)).is_err());
    }
}
