//! From request to answer: faults, authentication, resources, changes.

use std::{sync::Arc, sync::PoisonError, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri, header},
};
use redfish_codegen::registries::base::v1_16_0::Base;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    Bmc,
    access::Role,
    answer::{Answer, created, empty, error, error_at, json_answer, not_allowed, not_found, resource, set, unauthorized, xml},
    plant, root, system,
    value::seal,
};
use crate::sim::{
    fault::Fault,
    machine::{Enabled, Target},
};

/// Most bytes of a request's body. The largest that makes sense is a few hundred.
const MAX_BODY: usize = 64 * 1024;

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

pub(super) fn router(bmc: Arc<Bmc>) -> Router {
    Router::new().fallback(handle).with_state(bmc)
}

async fn handle(State(bmc): State<Arc<Bmc>>, request: Request<Body>) -> Answer {
    if let Some(answer) = bmc.misbehave().await {
        return answer;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, Base::UnrecognizedRequestBody);
    };
    let answer = bmc.answer(&parts.method, &parts.uri, &parts.headers, &body);
    debug!(machine = %bmc.machine.config.name, method = %parts.method, path = parts.uri.path(), status = answer.status().as_u16(), "redfish");
    answer
}

impl Bmc {
    /// The faults that spoil an answer; `bmc-hang` never returns.
    async fn misbehave(&self) -> Option<Answer> {
        let faults = &self.machine.faults;
        if faults.strikes(Fault::BmcHang) {
            std::future::pending::<()>().await;
        }
        if let Some(left) = self.busy() {
            let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, Base::ServiceTemporarilyUnavailable(left.to_string()));
            set(&mut answer, header::RETRY_AFTER, &left.to_string());
            return Some(answer);
        }
        if faults.strikes(Fault::BmcGarbage) {
            let mut answer = empty(StatusCode::OK);
            *answer.body_mut() = Body::from("<html><title>BMC</title>{\"@odata.id\":");
            set(&mut answer, header::CONTENT_TYPE, "application/json");
            return Some(answer);
        }
        None
    }

    /// Seconds that it still answers 503, at least 1; `None` when it is not busy.
    fn busy(&self) -> Option<u64> {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seconds) = self.machine.faults.busy_begins() {
            *busy_until = Some(Instant::now() + Duration::from_secs(seconds));
        }
        let left = busy_until.and_then(|until| until.checked_duration_since(Instant::now()));
        if left.is_none() {
            *busy_until = None;
        }
        left.map(|left| left.as_secs() + 1)
    }

    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
        let path = uri.path();
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if reads && let Some(answer) = self.open_to_all(path) {
            return answer;
        }
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
        if *method == Method::POST && matches!(segments[..], ["redfish", "v1", "SessionService", "Sessions"]) {
            return self.log_in(body);
        }
        let Some(role) = self.access.role(text(headers, TOKEN), text(headers, header::AUTHORIZATION)) else {
            return unauthorized();
        };
        if uri.query().is_some_and(|query| query.split('&').any(|parameter| parameter.starts_with('$') || parameter == "only")) {
            return error(StatusCode::NOT_IMPLEMENTED, Base::QueryNotSupported);
        }
        if reads {
            return match self.get(&segments) {
                Some(value) => resource(value, text(headers, header::IF_NONE_MATCH)),
                None if segments.contains(&"Actions") && segments.last() == Some(&"ComputerSystem.Reset") => not_allowed("POST"),
                None => not_found(path),
            };
        }
        self.change(method, path, &segments, headers, body, role)
    }

    /// What may be read without logging in (DSP0266, "Authentication").
    fn open_to_all(&self, path: &str) -> Option<Answer> {
        Some(match path {
            "/redfish" | "/redfish/" => json_answer(StatusCode::OK, &root::versions()),
            "/redfish/v1" | "/redfish/v1/" => resource(root::service_root(self), None),
            "/redfish/v1/odata" => json_answer(StatusCode::OK, &root::odata()),
            "/redfish/v1/$metadata" => xml(root::metadata()),
            _ => return None,
        })
    }

    /// The resource of a path.
    fn get(&self, segments: &[&str]) -> Option<Value> {
        let machine = &self.machine;
        let ["redfish", "v1", service, rest @ ..] = segments else { return None };
        match (*service, rest) {
            ("Systems", []) => Some(super::value::collection(
                system::SYSTEMS,
                "ComputerSystemCollection",
                "Computer Systems",
                [system::system_path(machine)],
            )),
            ("Systems", [name, below @ ..]) if *name == machine.config.name.as_str() => system::below(machine, below),
            ("Chassis", rest) => plant::below_chassis(machine, rest),
            ("Managers", rest) => plant::below_managers(machine, rest),
            ("UpdateService", rest) => plant::below_update(machine, rest),
            ("SessionService", rest) => root::below_sessions(self, rest),
            ("AccountService", rest) => root::below_accounts(self, rest),
            _ => None,
        }
    }

    fn change(&self, method: &Method, path: &str, segments: &[&str], headers: &HeaderMap, body: &[u8], role: Role) -> Answer {
        let name = self.machine.config.name.as_str();
        let forbidden = || error(StatusCode::FORBIDDEN, Base::InsufficientPrivilege);
        let administrator = role == Role::Administrator;
        match (method.as_str(), segments) {
            ("POST", ["redfish", "v1", "Systems", system, "Actions", "ComputerSystem.Reset"]) if *system == name => {
                if administrator {
                    self.reset(body)
                } else {
                    forbidden()
                }
            }
            ("PATCH", ["redfish", "v1", "Systems", system]) if *system == name => {
                if administrator {
                    self.patch_system(headers, body)
                } else {
                    forbidden()
                }
            }
            ("DELETE", ["redfish", "v1", "SessionService", "Sessions", id]) => {
                if self.access.close(id) {
                    empty(StatusCode::NO_CONTENT)
                } else {
                    not_found(path)
                }
            }
            (_, ["redfish", "v1", "Systems", system, "Actions", "ComputerSystem.Reset"]) if *system == name => not_allowed("POST"),
            (_, ["redfish", "v1", "Systems", system]) if *system == name => not_allowed("GET, HEAD, PATCH"),
            (_, ["redfish", "v1", "SessionService", "Sessions"]) => not_allowed("GET, HEAD, POST"),
            (_, ["redfish", "v1", "SessionService", "Sessions", _]) => not_allowed("GET, HEAD, DELETE"),
            _ if self.get(segments).is_some() || self.open_to_all(path).is_some() => not_allowed("GET, HEAD"),
            _ => not_found(path),
        }
    }

    /// `POST Sessions` (DSP0266, "Redfish session login authentication").
    fn log_in(&self, body: &[u8]) -> Answer {
        let object = match object(body) {
            Ok(object) => object,
            Err(answer) => return answer,
        };
        let field = |name: &str| object.get(name).and_then(Value::as_str);
        let (Some(username), Some(password)) = (field("UserName"), field("Password")) else {
            return error(StatusCode::BAD_REQUEST, Base::CreateFailedMissingReqProperties("UserName, Password".to_owned()));
        };
        let Some(role) = self.access.check(username, password) else {
            return unauthorized();
        };
        let Some((session, token)) = self.access.open(username, role) else {
            return error(StatusCode::SERVICE_UNAVAILABLE, Base::SessionLimitExceeded);
        };
        let mut answer = created(root::session(&session), &format!("{}/{}", root::SESSIONS, session.id));
        set(&mut answer, TOKEN, &token);
        answer
    }

    /// `ComputerSystem.Reset`.
    fn reset(&self, body: &[u8]) -> Answer {
        let object = match object(body) {
            Ok(object) => object,
            Err(answer) => return answer,
        };
        let action = || "ComputerSystem.Reset".to_owned();
        let Some(wanted) = object.get("ResetType") else {
            return error(StatusCode::BAD_REQUEST, Base::ActionParameterMissing(action(), "ResetType".to_owned()));
        };
        let wanted = wanted.as_str().unwrap_or_default();
        let Some(kind) = system::reset_kind(wanted) else {
            let message = Base::ActionParameterValueNotInList(wanted.to_owned(), "ResetType".to_owned(), action());
            return error(StatusCode::BAD_REQUEST, message);
        };
        info!(machine = %self.machine.config.name, ?kind, "reset");
        match self.machine.reset(kind) {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(refused) => {
                let message = Base::ActionParameterValueConflict("ResetType".to_owned(), format!("PowerState {}", refused.power));
                error(StatusCode::CONFLICT, message)
            }
        }
    }

    /// `PATCH` of the system: the boot override, all of it or nothing.
    fn patch_system(&self, headers: &HeaderMap, body: &[u8]) -> Answer {
        let now = || system::below(&self.machine, &[]).unwrap_or_default();
        match text(headers, header::IF_MATCH) {
            None if self.machine.config.require_if_match => return error(StatusCode::PRECONDITION_REQUIRED, Base::PreconditionRequired),
            Some(wanted) if wanted != "*" && wanted != seal(&mut now()) => {
                return error(StatusCode::PRECONDITION_FAILED, Base::PreconditionFailed);
            }
            _ => {}
        }
        let object = match object(body) {
            Ok(object) => object,
            Err(answer) => return answer,
        };
        let current = self.machine.state().boot_override;
        let mode = system::mode_name(self.machine.config.mode);
        match boot_change(&object, mode) {
            Err(answer) => *answer,
            Ok((target, enabled)) => {
                let target = target.unwrap_or(current.target);
                // A target without `Enabled` is for the next boot, unless it is set for good already.
                let enabled = enabled.unwrap_or(if current.enabled == Enabled::Continuous { Enabled::Continuous } else { Enabled::Once });
                info!(machine = %self.machine.config.name, ?target, ?enabled, "boot override");
                self.machine.set_override(target, enabled);
                resource(now(), None)
            }
        }
    }
}

type BootChange = (Option<Target>, Option<Enabled>);

/// What a PATCH body asks of the boot override. Boxed, because an answer is large.
fn boot_change(object: &Map<String, Value>, mode: &str) -> Result<BootChange, Box<Answer>> {
    const READ_ONLY: [&str; 6] = ["PowerState", "SerialNumber", "UUID", "Manufacturer", "Model", "Status"];
    if let Some(key) = object.keys().find(|key| *key != "Boot") {
        let read_only = READ_ONLY.contains(&key.as_str());
        let message = if read_only { Base::PropertyNotWritable(key.clone()) } else { Base::PropertyUnknown(key.clone()) };
        return Err(Box::new(error_at(StatusCode::BAD_REQUEST, message, Some(&format!("#/{key}")))));
    }
    let Some(Value::Object(boot)) = object.get("Boot") else {
        return Err(Box::new(error(StatusCode::BAD_REQUEST, Base::PropertyMissing("Boot".to_owned()))));
    };
    let (mut target, mut enabled) = (None, None);
    for (key, value) in boot {
        let text = value.as_str().unwrap_or_default();
        let pointer = format!("#/Boot/{key}");
        let wrong = |message| Err(Box::new(error_at(StatusCode::BAD_REQUEST, message, Some(&pointer))));
        let known = match key.as_str() {
            "BootSourceOverrideTarget" => {
                target = [("None", Target::None), ("Pxe", Target::Pxe), ("Hdd", Target::Hdd)]
                    .into_iter()
                    .find_map(|(name, target)| (name == text).then_some(target));
                target.is_some()
            }
            "BootSourceOverrideEnabled" => {
                enabled = [("Disabled", Enabled::Disabled), ("Once", Enabled::Once), ("Continuous", Enabled::Continuous)]
                    .into_iter()
                    .find_map(|(name, enabled)| (name == text).then_some(enabled));
                enabled.is_some()
            }
            "BootSourceOverrideMode" => text == mode,
            _ => return wrong(Base::PropertyUnknown(key.clone())),
        };
        if !known {
            return wrong(Base::PropertyValueNotInList(value.to_string(), key.clone()));
        }
    }
    Ok((target, enabled))
}

/// The body as an object.
#[allow(clippy::result_large_err, reason = "an answer is what both sides come to; it is made once a request")]
fn object(body: &[u8]) -> Result<Map<String, Value>, Answer> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(error(StatusCode::BAD_REQUEST, Base::UnrecognizedRequestBody)),
        Err(_) => Err(error(StatusCode::BAD_REQUEST, Base::MalformedJSON)),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
