//! `after`: what has to hold of other rollouts first.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    fault::{At, Fault, path_to},
    names::Names,
    raw::Kind,
    text,
    world::Source,
};
use crate::model::{self, RolloutName, SignedDuration};

/// A rollout that has to finish first: its name, or a mapping with conditions.
#[derive(Debug, Clone)]
pub(crate) enum After {
    /// Its name.
    Name(String),
    /// With more.
    Stated(AfterFields),
}

/// What has to hold of another rollout; all that is stated does.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AfterFields {
    /// The rollout.
    rollout: String,
    /// For how long its machines have to be healthy, such as `30m`.
    healthy_for: Option<String>,
    /// So many of its machines have to hold what they should, such as `80%`, rounded up; one that failed does not. Without it each has to,
    /// but for those that failed for good while the breaker is closed.
    #[schemars(extend("pattern" = r"^(100|[1-9][0-9]?)%$"))]
    share: Option<String>,
}

impl After {
    /// The rollout that it names.
    pub(crate) fn rollout(&self) -> &str {
        match self {
            After::Name(name) => name,
            After::Stated(fields) => &fields.rollout,
        }
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = After;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a rollout, or a mapping of `rollout`, `healthyFor` and `share`")
            }
            fn visit_str<E>(self, name: &str) -> Result<After, E> {
                Ok(After::Name(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<After, A::Error> {
                AfterFields::deserialize(MapAccessDeserializer::new(map)).map(After::Stated)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for After {
    fn schema_name() -> Cow<'static, str> {
        "After".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<AfterFields>();
        json_schema!({ "anyOf": [{ "type": "string" }, fields] })
    }
}

/// Checks what a rollout states.
pub(crate) fn after<'a>(source: Source<'a>, stated: &[After], names: &Names<'_>, faults: &mut Vec<(&'a str, Fault)>) -> Vec<model::After> {
    let mut read = Vec::new();
    for (n, after) in stated.iter().enumerate() {
        let (at, fields) = match after {
            After::Name(_) => (path_to!["spec", "after", n], None),
            After::Stated(fields) => (path_to!["spec", "after", n, "rollout"], Some(fields)),
        };
        let dangling = names.check(Kind::Rollout, after.rollout(), source.doc.number, || at);
        faults.extend(dangling.map(|fault| (source.file, fault)));
        let mut fault = |field, message: String, hint: &str| {
            let at = At::Value(source.doc.number, path_to!["spec", "after", n, field]);
            faults.push((source.file, Fault::error("bad-after", at, message).hint(hint)));
        };
        let mut healthy_for = SignedDuration::ZERO;
        if let Some(text) = fields.and_then(|fields| fields.healthy_for.as_ref()) {
            match text.parse::<SignedDuration>().ok().filter(|time| time.is_positive()) {
                Some(time) => healthy_for = time,
                None => fault("healthyFor", format!("`{text}` is not a length of time"), "write one such as `30m` or `1h 30m`"),
            }
        }
        let mut share = None;
        if let Some(text) = fields.and_then(|fields| fields.share.as_ref()) {
            share = text::percent(text).filter(|share| *share > 0);
            if share.is_none() {
                fault("share", format!("`{text}` is not a share of its machines"), "write it from `1%` to `100%`, in whole per cent");
            }
        }
        let rollout = RolloutName::new(after.rollout()).ok();
        read.extend(rollout.map(|rollout| model::After { rollout, healthy_for, share }));
    }
    read
}
