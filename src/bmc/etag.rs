//! Which `If-Match` a BMC takes (HARDWARE rows 1 to 9). The standard (RFC 9110 section 13.1.1) is one form of six in the field.

use super::{document::Document, error::Error};

/// A way to write `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The `ETag` header as it came.
    Header,
    /// `@odata.etag` of the body: some Lenovo XCC refuse the header's.
    Body,
    /// Without `W/`: If-Match compares strongly, so a strict server never matches a weak one.
    Strong,
    /// Without quotes.
    Unquoted,
    /// `*`: AMI.
    Star,
    /// No header at all.
    Absent,
}

const LADDER: [Form; 6] = [Form::Header, Form::Body, Form::Strong, Form::Unquoted, Form::Star, Form::Absent];

/// How often a form is tried. The resource may change between a read and its PATCH: then the same form works with the new ETag.
const TRIES: usize = 2;

/// The next form to try and its value, or nothing when all were. Nothing that was `sent` before is sent again.
pub(super) fn next(document: &Document, worked: Option<Form>, sent: &[(Form, Option<String>)]) -> Option<(Form, Option<String>)> {
    let has_etag = document.header_etag.is_some() || document.odata.etag.is_some();
    // A BMC that gives no ETag wants none.
    let first = if has_etag { None } else { Some(Form::Absent) };
    worked
        .into_iter()
        .chain(first)
        .chain(LADDER)
        .filter(|form| sent.iter().filter(|(tried, _)| tried == form).count() < TRIES)
        .filter_map(|form| Some((form, value(document, form)?)))
        .find(|(_, value)| sent.iter().all(|(_, before)| before != value))
}

/// What a form sends; `Some(None)` is "no header", `None` is "this document has no such form".
#[allow(clippy::option_option)]
fn value(document: &Document, form: Form) -> Option<Option<String>> {
    let any = || document.header_etag.as_ref().or(document.odata.etag.as_ref());
    let strong = |etag: &String| etag.strip_prefix("W/").unwrap_or(etag).to_owned();
    match form {
        Form::Header => Some(Some(document.header_etag.clone()?)),
        Form::Body => Some(Some(document.odata.etag.clone()?)),
        Form::Strong => Some(Some(strong(any()?))),
        Form::Unquoted => Some(Some(strong(any()?).trim_matches('"').to_owned())),
        Form::Star => Some(Some("*".to_owned())),
        Form::Absent => Some(None),
    }
}

/// Whether a refusal is because of `If-Match`: 412 and 428, or a message that says so.
pub(super) fn is_about_etag(error: &Error) -> bool {
    matches!(error.status(), Some(412 | 428)) || error.says("PreconditionFailed") || error.says("PreconditionRequired")
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn climb(document: &Document, worked: Option<Form>) -> Vec<Option<String>> {
        let mut sent = Vec::new();
        while let Some(next) = next(document, worked, &sent) {
            sent.push(next);
        }
        sent.into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn a_new_etag_is_tried_in_the_form_that_the_old_one_had_and_not_for_ever() {
        let weak = |number: usize| document(Some(&format!("W/\"{number}\"")), None);
        let mut sent = vec![next(&weak(1), None, &[]).unwrap()];
        assert_eq!(next(&weak(2), None, &sent), Some((Form::Header, Some("W/\"2\"".to_owned()))));
        while let Some(another) = next(&weak(1 + sent.len()), None, &sent) {
            sent.push(another);
        }
        assert_eq!(sent.len(), 2 * 3 + 2, "{sent:?}");
    }

    fn document(header: Option<&str>, body: Option<&str>) -> Document {
        let map = body.map(|etag| Map::from_iter([("@odata.etag".to_owned(), json!(etag))])).unwrap_or_default();
        Document::new(map, header.map(str::to_owned))
    }

    #[test]
    fn each_form_is_sent_once_from_the_most_standard_on() {
        let some = |text: &str| Some(text.to_owned());
        let weak = document(Some("W/\"1\""), Some("\"2\""));
        assert_eq!(climb(&weak, None), [some("W/\"1\""), some("\"2\""), some("\"1\""), some("1"), some("*"), None]);
        assert_eq!(climb(&document(Some("\"1\""), Some("\"1\"")), None), [some("\"1\""), some("1"), some("*"), None]);
        assert_eq!(climb(&document(None, None), None), [None, some("*")]);
        assert_eq!(climb(&weak, Some(Form::Star))[0], some("*"));
    }
}
