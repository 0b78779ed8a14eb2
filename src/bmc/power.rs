//! Power: the order that the BMC says it takes, and no error when nothing is to be done.

use redfish_codegen::models::{computer_system::v1_20_1::ResetRequestBody, resource::ResetType};
use serde_json::Value;

use super::{
    conversation::{Conversation, Host},
    document::{self, Document},
    error::Error,
    observe, quirks,
};
use crate::{
    model::{PowerState, Seen},
    ports::PowerCommand,
};

/// Orders a power state. Reads the present one first; being there already, or on the way there, is success without an order.
pub(super) async fn power(bmc: &mut Conversation, command: PowerCommand) -> Result<(), Error> {
    let host = bmc.host().await?;
    if is_reached(command, &host.document) {
        return Ok(());
    }
    wait_out_transit(command, &host)?;
    let orders = orders(bmc, &host, command).await?;
    let mut refusal = None;
    for order in orders {
        match send(bmc, &host, &order).await {
            Ok(()) => {
                tracing::info!(bmc = bmc.channel.address(), host = host.uri, ?order, "ordered power");
                return Ok(());
            }
            // Taken for "already there" by some, for "not now" by others (HARDWARE rows 29 to 31): the state itself decides.
            Err(error) if matches!(error.status(), Some(400 | 404 | 405 | 409 | 412 | 422 | 501)) => {
                if is_reached(command, &bmc.host().await?.document) {
                    return Ok(());
                }
                let not_now = error.is_busy();
                tracing::debug!(?order, %error, "the BMC refused a power order");
                refusal = Some(error);
                if not_now {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(refusal.unwrap_or_else(|| Error::Unsupported { url: host.uri, why: format!("it offers no reset that means {command:?}") }))
}

/// Whether nothing needs to be ordered.
fn is_reached(command: PowerCommand, system: &Document) -> bool {
    let state = observe::power_state(system);
    match command {
        PowerCommand::On => matches!(state, Seen::Known(PowerState::On | PowerState::PoweringOn)),
        // One that is still going down gracefully is not off, and a forced order is meant to end just that.
        PowerCommand::ForceOff => matches!(state, Seen::Known(PowerState::Off)),
        PowerCommand::GracefulOff => matches!(state, Seen::Known(PowerState::Off | PowerState::PoweringOff)),
    }
}

/// Between On and Off nothing but a forced order makes sense (row 32): the engine asks again.
fn wait_out_transit(command: PowerCommand, host: &Host) -> Result<(), Error> {
    match host.document.text(&["PowerState"]) {
        Some(state) if quirks::is_in_transit(&state) && command != PowerCommand::ForceOff && state != "Paused" => {
            Err(Error::InTransit { url: host.uri.clone(), state })
        }
        _ => Ok(()),
    }
}

/// Orders that mean `command`, best first, as far as the BMC says that it takes them.
async fn orders(bmc: &mut Conversation, host: &Host, command: PowerCommand) -> Result<Vec<ResetType>, Error> {
    let wanted = match command {
        PowerCommand::On => vec![ResetType::On, ResetType::ForceOn],
        PowerCommand::ForceOff => vec![ResetType::ForceOff],
        PowerCommand::GracefulOff => vec![ResetType::GracefulShutdown, ResetType::ForceOff],
    };
    let action = reset_action(host)?;
    let mut allowed = action.allowed;
    if let (true, Some(info)) = (allowed.is_empty(), action.info) {
        match bmc.channel.get(&info).await {
            Ok(info) => allowed = document::action_info_values(&info),
            Err(error) if error.ends_the_conversation() => return Err(error),
            Err(error) => tracing::debug!(%error, "no ActionInfo; trying the standard's values"),
        }
    }
    // A list that has none of them is not believed: the BMC itself may refuse.
    let named: Vec<ResetType> = wanted.iter().filter(|order| allowed.contains(&name(order))).cloned().collect();
    Ok(if named.is_empty() { wanted } else { named })
}

fn reset_action(host: &Host) -> Result<document::Action, Error> {
    host.document
        .action("#ComputerSystem.Reset")
        .ok_or_else(|| Error::Unsupported { url: host.uri.clone(), why: "it has no Reset action".into() })
}

async fn send(bmc: &mut Conversation, host: &Host, order: &ResetType) -> Result<(), Error> {
    let body = ResetRequestBody { reset_type: Some(order.clone()) };
    let body = serde_json::to_value(body).expect("an enumeration is always JSON");
    let if_match = if host.platform.wants_if_match_on_actions() { Some("*") } else { None };
    let target = reset_action(host)?.target;
    match bmc.post(&target, &body, if_match).await {
        // AMI needs the header on actions, whatever it calls itself (row 5); others fail with it (row 11).
        Err(error) if error.status() == Some(428) && if_match.is_none() => bmc.post(&target, &body, Some("*")).await,
        answer => answer,
    }
}

/// The standard's name of an order.
fn name(order: &ResetType) -> String {
    match serde_json::to_value(order) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}
