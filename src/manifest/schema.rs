//! JSON Schemas (2020-12) of the documents, made from the types that read them, so that an editor knows what the program knows.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};

use super::raw::{API_VERSION, FleetSpec, ImageSpec, Kind, MachineSpec, Metadata, NetworkSpec, ProfileSpec, RolloutSpec, SecretSpec};

/// Each schema with the name of its file: one for each kind, and `fleet-repo.schema.json` for a document of any kind.
pub fn schemas() -> Vec<(&'static str, Value)> {
    let one = |kind| (file_name(kind), whole(kind));
    Kind::ALL.into_iter().map(one).chain([("fleet-repo.schema.json", any())]).collect()
}

fn file_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Fleet => "fleet.schema.json",
        Kind::Machine => "machine.schema.json",
        Kind::Profile => "profile.schema.json",
        Kind::Image => "image.schema.json",
        Kind::Network => "network.schema.json",
        Kind::Rollout => "rollout.schema.json",
        Kind::Secret => "secret.schema.json",
    }
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}

/// The schema of one kind, complete in itself.
fn whole(kind: Kind) -> Value {
    let mut generator = generator();
    let mut schema = document(kind, &mut generator).to_value();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$defs"] = Value::Object(generator.take_definitions(true));
    schema
}

/// The schema of a document of any kind. `if`/`then` instead of `oneOf`, whose only message is "matches none of them".
fn any() -> Value {
    let mut generator = generator();
    let one = |kind: Kind| {
        let then = document(kind, &mut generator).to_value();
        json!({ "if": { "properties": { "kind": { "const": kind.name() } }, "required": ["kind"] }, "then": then })
    };
    let all: Vec<Value> = Kind::ALL.into_iter().map(one).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Document of a fleet repository",
        "type": "object",
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "enum": Kind::ALL.map(Kind::name) },
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "allOf": all,
        "$defs": generator.take_definitions(true),
    })
}

fn document(kind: Kind, generator: &mut SchemaGenerator) -> Schema {
    let metadata = generator.subschema_for::<Metadata>();
    let (spec, description) = match kind {
        Kind::Fleet => spec::<FleetSpec>(generator),
        Kind::Machine => spec::<MachineSpec>(generator),
        Kind::Profile => spec::<ProfileSpec>(generator),
        Kind::Image => spec::<ImageSpec>(generator),
        Kind::Network => spec::<NetworkSpec>(generator),
        Kind::Rollout => spec::<RolloutSpec>(generator),
        Kind::Secret => spec::<SecretSpec>(generator),
    };
    json_schema!({
        "title": kind.name(),
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": kind.name() },
            "metadata": metadata,
            "spec": spec,
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
    })
}

/// The schema of a `spec`, and what its type says about itself.
fn spec<T: JsonSchema>(generator: &mut SchemaGenerator) -> (Schema, Value) {
    let schema = generator.subschema_for::<T>();
    let description = generator.definitions().get(T::schema_name().as_ref()).and_then(|schema| schema.get("description")).cloned();
    (schema, description.unwrap_or_default())
}
