//! Orders: what is sent, in which order it is tried, and that nothing is believed that does not read back.

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use rackwright::{
    model::{BootMode, RetryClass},
    ports::{Bmc as _, PowerCommand},
};
use serde_json::{Value, json};

use crate::peer::{Ask, Peer, Tree, client, error, quick};

const BOX: &str = "/redfish/v1/Systems/box";
const GO: &str = "/redfish/v1/Systems/box/Go";

fn sent(peer: &Peer, method: &str) -> Vec<Value> {
    let tree = peer.tree.lock().unwrap();
    let own = |ask: &&Ask| ask.method == method && ask.path != "/redfish/v1/Sess";
    tree.asked.iter().filter(own).map(|ask| ask.body.clone()).collect()
}

#[tokio::test]
async fn power_is_ordered_only_when_it_is_not_there_yet() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(quick());
    for command in [PowerCommand::On, PowerCommand::ForceOff, PowerCommand::ForceOff, PowerCommand::GracefulOff, PowerCommand::On] {
        redfish.power(&peer.target(), command).await.unwrap();
    }
    redfish.power(&peer.target(), PowerCommand::GracefulOff).await.unwrap();
    assert_eq!(
        sent(&peer, "POST"),
        [json!({"ResetType": "ForceOff"}), json!({"ResetType": "On"}), json!({"ResetType": "GracefulShutdown"})]
    );
}

#[tokio::test]
async fn values_come_from_action_info_and_graceful_falls_back_to_forced() {
    let mut tree = Tree::small();
    let reset = json!({"target": GO, "@Redfish.ActionInfo": "/redfish/v1/Info"});
    tree.resources.get_mut(&Tree::key(BOX)).unwrap()["Actions"]["#ComputerSystem.Reset"] = reset;
    tree.put("/redfish/v1/Info", json!({"Parameters": [{"Name": "ResetType", "AllowableValues": ["On", "ForceOff", null]}]}));
    let peer = Peer::start(tree, |_, _| None).await;
    let (redfish, _) = client(quick());
    redfish.power(&peer.target(), PowerCommand::GracefulOff).await.unwrap();
    assert_eq!(sent(&peer, "POST"), [json!({"ResetType": "ForceOff"})]);
}

#[tokio::test]
async fn a_conflict_is_success_if_the_state_is_reached_and_otherwise_waits() {
    // It went off between our read and our order.
    let race = |ask: &Ask, tree: &mut Tree| -> Option<Response> {
        (ask.path == GO).then(|| {
            tree.resources.get_mut(&Tree::key(BOX)).unwrap()["PowerState"] = json!("Off");
            error(409, "Base.1.8.ResourceInUse")
        })
    };
    let (redfish, _) = client(quick());
    let peer = Peer::start(Tree::small(), race).await;
    redfish.power(&peer.target(), PowerCommand::ForceOff).await.unwrap();
    let peer = Peer::start(Tree::small(), |ask, _| (ask.path == GO).then(|| error(409, "Base.1.8.ActionParameterValueConflict"))).await;
    let refused = redfish.power(&peer.target(), PowerCommand::ForceOff).await.unwrap_err();
    assert_eq!(refused.class, RetryClass::Wait, "{}", refused.message);
    let peer = Peer::start(Tree::small(), |ask, _| (ask.path == GO).then(|| error(400, "iLO.2.14.InvalidOperationForSystemState"))).await;
    let refused = redfish.power(&peer.target(), PowerCommand::ForceOff).await.unwrap_err();
    assert_eq!(refused.class, RetryClass::Wait, "{}", refused.message);
}

#[tokio::test]
async fn between_on_and_off_only_a_forced_order_is_sent() {
    let mut tree = Tree::small();
    tree.resources.get_mut(&Tree::key(BOX)).unwrap()["PowerState"] = json!("Reset");
    let peer = Peer::start(tree, |_, _| None).await;
    let (redfish, _) = client(quick());
    assert_eq!(redfish.power(&peer.target(), PowerCommand::On).await.unwrap_err().class, RetryClass::Wait);
    assert!(sent(&peer, "POST").is_empty());
    redfish.power(&peer.target(), PowerCommand::ForceOff).await.unwrap();
}

#[tokio::test]
async fn the_full_triple_is_sent_first_and_read_back() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(quick());
    redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap();
    let triple = json!({"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI"});
    assert_eq!(sent(&peer, "PATCH"), [json!({ "Boot": triple })]);
}

#[tokio::test]
async fn a_bmc_without_modes_gets_none_and_is_not_asked_twice() {
    let picky = |ask: &Ask, _: &mut Tree| -> Option<Response> {
        (ask.method == "PATCH" && ask.body["Boot"].get("BootSourceOverrideMode").is_some()).then(|| error(400, "Base.1.0.PropertyUnknown"))
    };
    let peer = Peer::start(Tree::small(), picky).await;
    let (redfish, _) = client(quick());
    redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap();
    redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap();
    assert_eq!(sent(&peer, "PATCH").len(), 3, "what worked is remembered");
}

fn with_settings(holds_boot: bool) -> Tree {
    let mut tree = Tree::small();
    let settings = json!({"SettingsObject": {"@odata.id": "/redfish/v1/Systems/box/SD"}});
    tree.resources.get_mut(&Tree::key(BOX)).unwrap()["@Redfish.Settings"] = settings;
    tree.put("/redfish/v1/Systems/box/SD", if holds_boot { json!({"Boot": {}}) } else { json!({"Id": "SD"}) });
    tree
}

#[tokio::test]
async fn a_system_that_refuses_or_ignores_leads_to_the_settings_object() {
    let refuses = |ask: &Ask, _: &mut Tree| ask.is("PATCH", BOX).then(|| error(405, "Ami.1.0.OperationSupportedInFutureStateURI"));
    let ignores = |ask: &Ask, _: &mut Tree| ask.is("PATCH", BOX).then(|| StatusCode::NO_CONTENT.into_response());
    let (redfish, _) = client(quick());
    for peer in [Peer::start(with_settings(true), refuses).await, Peer::start(with_settings(true), ignores).await] {
        redfish.boot_from_network(&peer.target(), BootMode::BIOS).await.unwrap();
        let tree = peer.tree.lock().unwrap();
        assert_eq!(tree.get("/redfish/v1/Systems/box/SD")["Boot"]["BootSourceOverrideMode"], "Legacy");
    }
    let peer = Peer::start(with_settings(false), refuses).await;
    let refused = redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap_err();
    assert!(refused.message.contains("OperationSupportedInFutureStateURI"), "{}", refused.message);
    assert_eq!(peer.tree.lock().unwrap().count("PATCH", "/redfish/v1/Systems/box/SD"), 0, "it holds no Boot");
}

#[tokio::test]
async fn an_order_that_is_taken_and_forgotten_is_an_error() {
    let peer = Peer::start(Tree::small(), |ask, _| (ask.method == "PATCH").then(|| StatusCode::NO_CONTENT.into_response())).await;
    let (redfish, _) = client(quick());
    let refused = redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap_err();
    assert!(refused.message.contains("reads back"), "{}", refused.message);
    assert_eq!(refused.class, RetryClass::Wait);
}

#[tokio::test]
async fn post_is_waited_out_and_not_climbed_around() {
    let post = |ask: &Ask, _: &mut Tree| (ask.method == "PATCH").then(|| error(400, "iLO.2.14.UnableToModifyDuringSystemPOST"));
    let peer = Peer::start(Tree::small(), post).await;
    let (redfish, _) = client(quick());
    let refused = redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap_err();
    assert_eq!(refused.class, RetryClass::Wait);
    assert_eq!(sent(&peer, "PATCH").len(), 1);
}

/// A BMC whose system has the ETag `W/"7"` and that takes a PATCH with just one `If-Match`.
async fn picky_about(wanted: Option<&'static str>, refusal: u16) -> Peer {
    Peer::start(Tree::small(), move |ask, tree| {
        if ask.is("GET", BOX) {
            let body = tree.get(BOX).to_string();
            return Some(([("ETag", "W/\"7\""), ("Content-Type", "application/json")], body).into_response());
        }
        (ask.is("PATCH", BOX) && ask.header("if-match") != wanted).then(|| error(refusal, "Base.1.0.PreconditionFailed"))
    })
    .await
}

#[tokio::test]
async fn each_form_of_etag_is_found_and_remembered() {
    let (redfish, _) = client(quick());
    for (wanted, refusal) in [(Some("W/\"7\""), 428), (Some("\"7\""), 412), (Some("7"), 412), (Some("*"), 428), (None, 412)] {
        let peer = picky_about(wanted, refusal).await;
        redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap();
        let before = sent(&peer, "PATCH").len();
        redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap();
        assert_eq!(sent(&peer, "PATCH").len() - before, 1, "{wanted:?}");
    }
    let peer = picky_about(Some("never"), 412).await;
    let refused = redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap_err();
    assert!(refused.message.contains("ETag"), "{}", refused.message);
}

#[tokio::test]
async fn actions_carry_no_etag_unless_the_bmc_demands_one() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(quick());
    redfish.power(&peer.target(), PowerCommand::ForceOff).await.unwrap();
    let demands = |ask: &Ask, _: &mut Tree| (ask.path == GO && ask.header("if-match") != Some("*")).then(|| error(428, "x"));
    let ami = Peer::start(Tree::small(), demands).await;
    redfish.power(&ami.target(), PowerCommand::ForceOff).await.unwrap();
    let tree = peer.tree.lock().unwrap();
    assert!(tree.asked.iter().filter(|ask| ask.path == GO).all(|ask| ask.header("if-match").is_none()));
}
