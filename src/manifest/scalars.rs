//! Small values of the first layer that people write in more than one way.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A mapping of texts in which no key may be written twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if labels.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
                    }
                    labels.insert(key, value);
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}

impl JsonSchema for Labels {
    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": ["string", "integer"] } })
    }
}

/// A text that people often write as a plain number, such as a slot or a serial number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text(pub(crate) String);

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

/// A count such as `4`, or a share such as `10%`.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct AmountText(pub(crate) String);

impl JsonSchema for AmountText {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": r"^(100|[0-9]{1,2})%$" }],
            "description": "A count such as 4, or a share such as 10%"
        })
    }
}

/// A size such as `2.1 GiB`, `64MiB` or a number of bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct SizeText(pub(crate) String);

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?([KMGTP]i?)?B$|^[0-9]+$" }
            ],
            "description": "A size such as 2.1 GiB, 64MiB, or a number of bytes"
        })
    }
}

/// `true`, or until when and why.
#[derive(Debug, Clone)]
pub(crate) enum Freeze {
    /// As it is said.
    Plain(bool),
    /// With more.
    Stated(FreezeFields),
}

/// Nothing is begun until then.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FreezeFields {
    /// The end, with the offset from UTC, such as `2026-12-28T06:00:00+01:00`. Without it the freeze ends by a commit.
    pub(crate) until: Option<String>,
    /// Why; `explain` shows it.
    pub(crate) reason: Option<Text>,
}

impl<'de> Deserialize<'de> for Freeze {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Freeze;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a mapping of `until` and `reason`")
            }
            fn visit_bool<E>(self, plain: bool) -> Result<Freeze, E> {
                Ok(Freeze::Plain(plain))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Freeze, A::Error> {
                FreezeFields::deserialize(MapAccessDeserializer::new(map)).map(Freeze::Stated)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Freeze {
    fn schema_name() -> Cow<'static, str> {
        "Freeze".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<FreezeFields>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, fields] })
    }
}
