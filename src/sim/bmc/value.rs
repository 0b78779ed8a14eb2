//! From redfish-codegen's types to JSON.
//!
//! The types say which properties there are and how they are spelt. What they have no field for is added here: annotations,
//! nulls, ETags.

use redfish_codegen::models::{
    odata_v4::{Count, Id as ODataId, IdRef},
    resource::{Health, Id, Name, State, Status},
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(super) fn link(path: impl Into<String>) -> IdRef {
    IdRef { odata_id: Some(ODataId(path.into())) }
}

pub(super) fn links(paths: impl IntoIterator<Item = String>) -> Option<Vec<IdRef>> {
    Some(paths.into_iter().map(link).collect())
}

pub(super) fn count(number: usize) -> Option<Count> {
    Some(Count(i64::try_from(number).unwrap_or(i64::MAX)))
}

pub(super) fn odata_id(path: impl Into<String>) -> ODataId {
    ODataId(path.into())
}

pub(super) fn id(text: impl Into<String>) -> Id {
    Id(text.into())
}

pub(super) fn name(text: impl Into<String>) -> Name {
    Name(text.into())
}

pub(super) fn status(state: State) -> Option<Status> {
    Some(Status { health: Some(Health::OK), health_rollup: Some(Health::OK), state: Some(state), ..Status::default() })
}

/// Status of something whose schema has no roll-up.
pub(super) fn plain_status() -> Option<Status> {
    Some(Status { health: Some(Health::OK), state: Some(State::Enabled), ..Status::default() })
}

/// The JSON of a resource.
pub(super) fn body(resource: impl Serialize) -> Value {
    serde_json::to_value(resource).expect("Redfish types have string keys only, so they always serialise")
}

/// A collection (DSP0266, "Resource Collections"): `schema` is such as `ComputerSystemCollection`.
pub(super) fn collection(path: &str, schema: &str, title: &str, members: impl IntoIterator<Item = String>) -> Value {
    let members: Vec<Value> = members.into_iter().map(|member| json!({ "@odata.id": member })).collect();
    json!({
        "@odata.id": path,
        "@odata.type": format!("#{schema}.{schema}"),
        "Name": title,
        "Members@odata.count": members.len(),
        "Members": members,
    })
}

/// Adds the ETag over everything else that the resource says, and gives it.
pub(super) fn seal(body: &mut Value) -> String {
    let hash = Sha256::digest(body.to_string().as_bytes());
    let etag = format!("\"{}\"", hex::encode(&hash[..8]));
    body["@odata.etag"] = Value::String(etag.clone());
    etag
}
