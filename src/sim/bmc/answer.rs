//! Answers: resources with their headers, and Redfish errors (DSP0266, "Error responses").

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use redfish_codegen::{models::message::v1_1_2::Message, registries::base::v1_16_0::Base};
use serde_json::{Value, json};

use super::value::{body, seal};

pub(super) type Answer = Response<Body>;

/// A resource, with its ETag, or 304 when that is the one that the client has (`If-None-Match`).
pub(super) fn resource(mut value: Value, has: Option<&str>) -> Answer {
    let etag = seal(&mut value);
    let mut answer = if has == Some(etag.as_str()) { empty(StatusCode::NOT_MODIFIED) } else { json_answer(StatusCode::OK, &value) };
    set(&mut answer, header::ETAG, &etag);
    answer
}

/// 201 with `Location`.
pub(super) fn created(mut value: Value, location: &str) -> Answer {
    let etag = seal(&mut value);
    let mut answer = json_answer(StatusCode::CREATED, &value);
    set(&mut answer, header::ETAG, &etag);
    set(&mut answer, header::LOCATION, location);
    answer
}

/// JSON without an ETag.
pub(super) fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Body::from(value.to_string()));
    *answer.status_mut() = status;
    set(&mut answer, header::CONTENT_TYPE, "application/json;charset=utf-8");
    common(answer)
}

/// XML.
pub(super) fn xml(text: String) -> Answer {
    let mut answer = Response::new(Body::from(text));
    set(&mut answer, header::CONTENT_TYPE, "application/xml");
    common(answer)
}

/// No body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    common(answer)
}

/// A Redfish error with one message of the Base registry.
pub(super) fn error(status: StatusCode, message: Base) -> Answer {
    error_at(status, message, None)
}

/// The same, about one property, as a JSON pointer.
pub(super) fn error_at(status: StatusCode, message: Base, property: Option<&str>) -> Answer {
    let mut message: Message = message.into();
    message.related_properties = property.map(|property| vec![property.to_owned()]);
    let code = message.message_id.clone();
    let text = message.message.clone();
    let mut info = body(message);
    info["@odata.type"] = json!("#Message.v1_1_2.Message");
    json_answer(status, &json!({ "error": { "code": code, "message": text, "@Message.ExtendedInfo": [info] } }))
}

/// 401; says how to log in (RFC 9110 section 11.6.1).
pub(super) fn unauthorized() -> Answer {
    let mut answer = error(StatusCode::UNAUTHORIZED, Base::NoValidSession);
    set(&mut answer, header::WWW_AUTHENTICATE, "Basic realm=\"Redfish\"");
    answer
}

/// 404.
pub(super) fn not_found(path: &str) -> Answer {
    error(StatusCode::NOT_FOUND, Base::ResourceMissingAtURI(path.to_owned()))
}

/// 405 with `Allow`.
pub(super) fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, Base::OperationNotAllowed);
    set(&mut answer, header::ALLOW, allow);
    answer
}

/// Sets a header; a value that can't be one is left out.
pub(super) fn set(answer: &mut Answer, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// Headers that each answer has (DSP0266, "Response headers").
fn common(mut answer: Answer) -> Answer {
    set(&mut answer, header::HeaderName::from_static("odata-version"), "4.0");
    set(&mut answer, header::CACHE_CONTROL, "no-cache");
    answer
}
