//! Redfish answers as they come: JSON that is read leniently.
//!
//! redfish-codegen's types describe what a *service* says and drop links, etags and annotations when they are read, and its
//! enumerations are closed. So answers are read here, from raw JSON: `null` anywhere, a number where a text should be, an object
//! where a list should be, and missing required fields are all normal (DSP0266 leaves no room for them; the field does).

use serde_json::{Map, Value};

/// One resource.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// Its own `@odata` annotations.
    pub(super) odata: OData,
    /// `ETag` header, if there was one that says something.
    pub(super) header_etag: Option<String>,
    /// Everything as it came: always an object.
    pub(super) raw: Value,
    /// Bytes of the answer that it came in; 0 if it came in none.
    pub(super) size: usize,
}

/// `@odata.id`, `@odata.type`, `@odata.etag` (DSP0266 section 9.6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OData {
    pub(super) id: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) etag: Option<String>,
}

impl Document {
    /// Takes any JSON object.
    pub(super) fn new(raw: Map<String, Value>, header_etag: Option<String>) -> Self {
        let raw = Value::Object(raw);
        let odata = OData {
            id: text(&raw, &["@odata.id"]),
            kind: text(&raw, &["@odata.type"]),
            // An empty ETag means none; sending it back gives 412 (HARDWARE row 9).
            etag: text(&raw, &["@odata.etag"]),
        };
        Self { odata, header_etag: header_etag.filter(|etag| !etag.trim_matches('"').trim().is_empty()), raw, size: 0 }
    }

    pub(super) fn text(&self, path: &[&str]) -> Option<String> {
        text(&self.raw, path)
    }

    pub(super) fn link(&self, path: &[&str]) -> Option<String> {
        link(at(&self.raw, path)?)
    }

    pub(super) fn has(&self, path: &[&str]) -> bool {
        at(&self.raw, path).is_some()
    }

    /// What `Members` of a collection link to. Some BMCs send no `Members`, `null`, one object, or nulls in the list.
    pub(super) fn members(&self) -> Vec<String> {
        links(&self.raw, &["Members"])
    }

    /// The next page of a collection (DSP0266 section 7.9).
    pub(super) fn next_page(&self) -> Option<String> {
        ["Members@odata.nextLink", "@odata.nextLink"].iter().find_map(|name| link(at(&self.raw, &[name])?))
    }

    /// The `target` of an action, such as `#ComputerSystem.Reset`.
    pub(super) fn action(&self, name: &str) -> Option<Action> {
        let action = at(&self.raw, &["Actions", name])?;
        let target = text(action, &["target"])?;
        let allowed = action
            .as_object()?
            .iter()
            .find(|(key, _)| key.ends_with("ResetType@Redfish.AllowableValues"))
            .map(|(_, list)| texts(list))
            .unwrap_or_default();
        Some(Action { target, allowed, info: at(action, &["@Redfish.ActionInfo"]).and_then(link) })
    }

    /// Where changes of this resource go (`@Redfish.Settings`, DSP0266 section 9.10).
    pub(super) fn settings_object(&self) -> Option<String> {
        self.link(&["@Redfish.Settings", "SettingsObject"])
    }

    /// The vendors' names under `Oem`.
    pub(super) fn oem_keys(&self) -> Vec<String> {
        at(&self.raw, &["Oem"]).and_then(Value::as_object).map(|oem| oem.keys().cloned().collect()).unwrap_or_default()
    }

    /// `Status.HealthRollup`, else `Status.Health`.
    pub(super) fn health(&self) -> Option<String> {
        self.text(&["Status", "HealthRollup"]).or_else(|| self.text(&["Status", "Health"]))
    }

    /// Whether the thing is not there: BMCs list empty drive bays and NIC slots as members.
    pub(super) fn is_absent(&self) -> bool {
        self.text(&["Status", "State"]).is_some_and(|state| state.eq_ignore_ascii_case("Absent"))
    }
}

/// An action that a resource offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Action {
    /// Where it is posted.
    pub(super) target: String,
    /// Values that it says it takes; empty when it does not say.
    pub(super) allowed: Vec<String>,
    /// `@Redfish.ActionInfo`: where it says it otherwise.
    pub(super) info: Option<String>,
}

/// The value at a path; `null` is the same as nothing.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let mut value = value;
    for name in path {
        value = value.as_object()?.get(*name)?;
    }
    if value.is_null() { None } else { Some(value) }
}

/// A text that says something, trimmed. A number or a boolean is taken as its text.
pub(super) fn text(value: &Value, path: &[&str]) -> Option<String> {
    let text = match at(value, path)? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    if text.is_empty() { None } else { Some(text) }
}

/// A whole number that is not negative, also when it is sent as a text or with a decimal point.
pub(super) fn whole(value: &Value, path: &[&str]) -> Option<u64> {
    let text = text(value, path)?;
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        // Beyond 2^53 a float is no longer exact, and no disk is that large.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        if (0.0..9_007_199_254_740_992.0).contains(&number) { Some(number as u64) } else { None }
    })
}

/// A list; one object or text stands for a list of one (iDRAC does so for ExtendedInfo, HARDWARE row 17).
pub(super) fn list<'a>(value: &'a Value, path: &[&str]) -> Vec<&'a Value> {
    match at(value, path) {
        None => Vec::new(),
        Some(Value::Array(items)) => items.iter().filter(|item| !item.is_null()).collect(),
        Some(one) => vec![one],
    }
}

/// All links at a path.
pub(super) fn links(value: &Value, path: &[&str]) -> Vec<String> {
    list(value, path).into_iter().filter_map(link).collect()
}

/// The URI of a link: `{"@odata.id": "…"}`, or the bare text that some services send. Empty ones are none.
pub(super) fn link(value: &Value) -> Option<String> {
    let uri = match value {
        Value::String(uri) => uri.trim().to_owned(),
        _ => text(value, &["@odata.id"])?,
    };
    if uri.is_empty() { None } else { Some(uri) }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(|item| text(item, &[])).collect(),
        one => text(one, &[]).into_iter().collect(),
    }
}

/// Values that ActionInfo allows for the parameter `ResetType` (DSP0266 section 7.5.3).
pub(super) fn action_info_values(info: &Document) -> Vec<String> {
    list(&info.raw, &["Parameters"])
        .into_iter()
        .filter(|parameter| text(parameter, &["Name"]).as_deref() == Some("ResetType"))
        .filter_map(|parameter| at(parameter, &["AllowableValues"]))
        .flat_map(texts)
        .collect()
}

/// What an error body says: ids and texts, from `error.@Message.ExtendedInfo`, from a bare `@Message.ExtendedInfo`, or from
/// `error.message` (DSP0266 section 8.6). Nothing is guessed from HTML or plain text.
pub(super) fn messages(body: &[u8]) -> Vec<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let error = at(&body, &["error"]).unwrap_or(&body);
    let mut said: Vec<String> = list(error, &["@Message.ExtendedInfo"])
        .into_iter()
        .chain(if at(&body, &["error"]).is_some() { list(&body, &["@Message.ExtendedInfo"]) } else { Vec::new() })
        .filter_map(|info| match (text(info, &["MessageId"]), text(info, &["Message"])) {
            (Some(id), Some(message)) => Some(format!("{id}: {message}")),
            (id, message) => id.or(message),
        })
        .collect();
    if said.is_empty() {
        said.extend(text(error, &["message"]).or_else(|| text(error, &["code"])));
    }
    said.truncate(8);
    said.iter().map(|message| message.chars().filter(|c| !c.is_control()).take(300).collect()).collect()
}

/// Reads everything that is read from a document, for `fuzz/`.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    drop(messages(bytes));
    let Ok(raw) = serde_json::from_slice(bytes) else { return };
    let document = Document::new(raw, None);
    drop((document.members(), document.next_page(), document.settings_object(), document.oem_keys(), document.health()));
    drop((document.action("#ComputerSystem.Reset"), document.link(&["Links", "Chassis"]), action_info_values(&document)));
    let _ = (document.is_absent(), document.has(&["Boot"]), whole(&document.raw, &["CapacityBytes"]));
    drop((list(&document.raw, &["Members"]), document.text(&["SerialNumber"])));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn document(value: Value) -> Document {
        let Value::Object(map) = value else { panic!("an object") };
        Document::new(map, None)
    }

    #[test]
    fn null_number_and_object_stand_for_what_they_mean() {
        let raw = json!({"a": null, "n": 7, "t": " x ", "e": " ", "l": {"MessageId": "one"}, "size": "480103981056", "f": 1.5e3});
        assert_eq!(text(&raw, &["a"]), None);
        assert_eq!(text(&raw, &["n"]), Some("7".into()));
        assert_eq!(text(&raw, &["t"]), Some("x".into()));
        assert_eq!(text(&raw, &["e"]), None);
        assert_eq!(text(&raw, &["t", "deeper"]), None);
        assert_eq!(list(&raw, &["l"]).len(), 1);
        assert_eq!(whole(&raw, &["size"]), Some(480_103_981_056));
        assert_eq!(whole(&raw, &["f"]), Some(1500));
    }

    #[test]
    fn members_may_be_missing_null_or_hold_nulls() {
        assert!(document(json!({})).members().is_empty());
        assert!(document(json!({"Members": null})).members().is_empty());
        assert_eq!(document(json!({"Members": [null, {"@odata.id": "/a"}, "/b", {}, 3]})).members(), ["/a", "/b"]);
        assert_eq!(document(json!({"Members@odata.nextLink": "/p?$skip=50"})).next_page(), Some("/p?$skip=50".into()));
    }

    #[test]
    fn an_empty_etag_is_none() {
        let document = Document::new(Map::new(), Some("\"\"".into()));
        assert_eq!(document.header_etag, None);
    }

    #[test]
    fn error_bodies_of_each_shape_are_understood() {
        let list = br#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.0.X", "Message": "no"}]}}"#;
        let one = br#"{"error": {"@Message.ExtendedInfo": {"MessageId": "IDRAC.2.8.SYS518"}}}"#;
        let bare = br#"{"@Message.ExtendedInfo": [{"Message": "no"}]}"#;
        let plain = br#"{"error": {"code": "c", "message": "broken"}}"#;
        assert_eq!(messages(list), ["Base.1.0.X: no"]);
        assert_eq!(messages(one), ["IDRAC.2.8.SYS518"]);
        assert_eq!(messages(bare), ["no"]);
        assert_eq!(messages(plain), ["broken"]);
        assert!(messages(b"<html>").is_empty());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("Members"),
            Just("@odata.id"),
            Just("Actions"),
            Just("#ComputerSystem.Reset"),
            Just("target"),
            Just("Status"),
            Just("HealthRollup"),
            Just("error"),
            Just("@Message.ExtendedInfo"),
            Just("Oem"),
            Just("@Redfish.Settings"),
            Just("Parameters"),
            Just("ResetType@Redfish.AllowableValues"),
            Just("SettingsObject"),
            Just("@odata.etag"),
            Just("x"),
        ]
        .prop_map(str::to_owned);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_getter_panics_on_any_json(value in any_json()) {
            let _ = (messages(value.to_string().as_bytes()), texts(&value), link(&value), whole(&value, &["x"]), links(&value, &["x"]));
            if let Value::Object(map) = value {
                let document = Document::new(map, Some("W/\"1\"".into()));
                let _ = (document.members(), document.next_page(), document.action("#ComputerSystem.Reset"), document.settings_object());
                let _ = (document.oem_keys(), document.health(), document.is_absent(), action_info_values(&document));
            }
        }

        #[test]
        fn no_error_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = messages(&body);
        }
    }
}
