//! The service itself: root, sessions, accounts, OData documents.

use redfish_codegen::models::{
    account_service::v1_13_0::{AccountService, LocalAccountAuth},
    manager_account::{
        AccountTypes,
        v1_10_0::{Links as AccountLinks, ManagerAccount},
    },
    privileges::PrivilegeType,
    resource::State,
    role::v1_3_1::Role as RedfishRole,
    service_root::v1_16_0::{Expand, Links, ProtocolFeaturesSupported, ServiceRoot},
    session::v1_6_0::{Session as RedfishSession, SessionTypes},
    session_service::v1_1_8::SessionService,
};
use serde_json::{Value, json};

use super::{
    Bmc,
    access::{Role, SESSION_TIMEOUT, Session},
    system::MANAGER,
    value::{body, collection, id, link, name, odata_id, status},
};

pub(super) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const ACCOUNTS: &str = "/redfish/v1/AccountService";

/// Services that the root names, with their schemas.
const SERVICES: [(&str, &str); 6] = [
    ("Systems", "ComputerSystemCollection.ComputerSystemCollection"),
    ("Chassis", "ChassisCollection.ChassisCollection"),
    ("Managers", "ManagerCollection.ManagerCollection"),
    ("SessionService", "SessionService.SessionService"),
    ("AccountService", "AccountService.AccountService"),
    ("UpdateService", "UpdateService.UpdateService"),
];

/// `/redfish` (DSP0266, "Protocol version").
pub(super) fn versions() -> Value {
    json!({ "v1": "/redfish/v1/" })
}

/// `/redfish/v1/` (DSP0266, "Service root request").
pub(super) fn service_root(bmc: &Bmc) -> Value {
    let service = |name: &str| Some(link(format!("/redfish/v1/{name}")));
    body(ServiceRoot {
        odata_id: odata_id("/redfish/v1/"),
        id: id("RootService"),
        name: name("Root Service"),
        account_service: service("AccountService"),
        chassis: service("Chassis"),
        links: Links { sessions: link(SESSIONS), manager_providing_service: Some(link(MANAGER)), ..Links::default() },
        managers: service("Managers"),
        product: Some("Rackwright Simulator".to_owned()),
        protocol_features_supported: Some(ProtocolFeaturesSupported {
            excerpt_query: Some(false),
            expand_query: Some(Expand {
                expand_all: Some(false),
                levels: Some(false),
                links: Some(false),
                no_links: Some(false),
                ..Expand::default()
            }),
            filter_query: Some(false),
            multiple_http_requests: Some(false),
            only_member_query: Some(false),
            select_query: Some(false),
            ..ProtocolFeaturesSupported::default()
        }),
        redfish_version: Some("1.18.0".to_owned()),
        session_service: service("SessionService"),
        systems: service("Systems"),
        uuid: Some(bmc.machine.config.uuid.clone()),
        update_service: service("UpdateService"),
        vendor: Some("Rackwright".to_owned()),
        ..ServiceRoot::default()
    })
}

/// `/redfish/v1/odata` (DSP0266, "OData service document").
pub(super) fn odata() -> Value {
    let entry = |name: &str| json!({ "name": name, "kind": "Singleton", "url": format!("/redfish/v1/{name}") });
    let mut value: Vec<Value> = SERVICES.iter().map(|(name, _)| entry(name)).collect();
    value.insert(0, json!({ "name": "Service", "kind": "Singleton", "url": "/redfish/v1/" }));
    json!({ "@odata.context": "/redfish/v1/$metadata", "value": value })
}

/// Schemas that the answers use, for `$metadata`.
const SCHEMAS: [(&str, &str); 21] = [
    ("ServiceRoot", "v1_16_0"),
    ("ComputerSystemCollection", ""),
    ("ComputerSystem", "v1_20_1"),
    ("EthernetInterfaceCollection", ""),
    ("EthernetInterface", "v1_10_0"),
    ("StorageCollection", ""),
    ("Storage", "v1_15_0"),
    ("Drive", "v1_17_0"),
    ("ChassisCollection", ""),
    ("Chassis", "v1_23_0"),
    ("ManagerCollection", ""),
    ("Manager", "v1_18_0"),
    ("SessionService", "v1_1_8"),
    ("SessionCollection", ""),
    ("Session", "v1_6_0"),
    ("AccountService", "v1_13_0"),
    ("ManagerAccountCollection", ""),
    ("ManagerAccount", "v1_10_0"),
    ("RoleCollection", ""),
    ("Role", "v1_3_1"),
    ("UpdateService", "v1_11_3"),
];

/// `/redfish/v1/$metadata` (OData CSDL 4.0).
pub(super) fn metadata() -> String {
    let more = [("SoftwareInventoryCollection", ""), ("SoftwareInventory", "v1_9_0")];
    let reference = |(schema, version): &(&str, &str)| {
        let versioned = if version.is_empty() { String::new() } else { format!("<edmx:Include Namespace=\"{schema}.{version}\"/>") };
        format!(
            "<edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/{schema}_v1.xml\"><edmx:Include Namespace=\"{schema}\"/>{versioned}\
             </edmx:Reference>\n"
        )
    };
    let references: String = SCHEMAS.iter().chain(&more).map(reference).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<edmx:Edmx xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\" Version=\"4.0\">\n\
         {references}\
         <edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/RedfishExtensions_v1.xml\">\
         <edmx:Include Namespace=\"RedfishExtensions.v1_0_0\" Alias=\"Redfish\"/></edmx:Reference>\n\
         <edmx:DataServices><Schema xmlns=\"http://docs.oasis-open.org/odata/ns/edm\" Namespace=\"Service\">\
         <EntityContainer Name=\"Service\" Extends=\"ServiceRoot.v1_16_0.ServiceContainer\"/></Schema></edmx:DataServices>\n</edmx:Edmx>\n"
    )
}

pub(super) fn below_sessions(bmc: &Bmc, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(body(SessionService {
            odata_id: odata_id("/redfish/v1/SessionService"),
            id: id("SessionService"),
            name: name("Session Service"),
            service_enabled: Some(true),
            session_timeout: i64::try_from(SESSION_TIMEOUT.as_secs()).ok(),
            sessions: Some(link(SESSIONS)),
            status: status(State::Enabled),
            ..SessionService::default()
        })),
        ["Sessions"] => {
            let members = bmc.access.sessions().into_iter().map(|session| format!("{SESSIONS}/{}", session.id));
            Some(collection(SESSIONS, "SessionCollection", "Sessions", members))
        }
        ["Sessions", wanted] => bmc.access.sessions().iter().find(|session| session.id == *wanted).map(session),
        _ => None,
    }
}

/// One session. The password is never shown (DSP0266, "Session").
pub(super) fn session(session: &Session) -> Value {
    let mut value = body(RedfishSession {
        odata_id: odata_id(format!("{SESSIONS}/{}", session.id)),
        id: id(&session.id),
        name: name("User Session"),
        created_time: Some(session.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        session_type: Some(SessionTypes::Redfish),
        user_name: Some(session.username.clone()),
        ..RedfishSession::default()
    });
    value["Password"] = Value::Null;
    value
}

pub(super) fn below_accounts(bmc: &Bmc, rest: &[&str]) -> Option<Value> {
    let accounts = bmc.access.accounts();
    let accounts_path = format!("{ACCOUNTS}/Accounts");
    let roles_path = format!("{ACCOUNTS}/Roles");
    match rest {
        [] => Some(body(AccountService {
            odata_id: odata_id(ACCOUNTS),
            id: id("AccountService"),
            name: name("Account Service"),
            accounts: Some(link(accounts_path)),
            local_account_auth: Some(LocalAccountAuth::Enabled),
            roles: Some(link(roles_path)),
            service_enabled: Some(true),
            status: status(State::Enabled),
            ..AccountService::default()
        })),
        ["Accounts"] => {
            let members = (1..=accounts.len()).map(|number| format!("{accounts_path}/{number}"));
            Some(collection(&accounts_path, "ManagerAccountCollection", "Accounts", members))
        }
        ["Accounts", number] => {
            let position = accounts.iter().enumerate().find(|(index, _)| (index + 1).to_string() == *number);
            position.map(|(_, (username, role))| account(number, username, *role))
        }
        ["Roles"] => {
            let members = [Role::Administrator, Role::ReadOnly].map(|role| format!("{roles_path}/{}", role.name()));
            Some(collection(&roles_path, "RoleCollection", "Roles", members))
        }
        ["Roles", wanted] => [Role::Administrator, Role::ReadOnly].into_iter().find(|role| role.name() == *wanted).map(role),
        _ => None,
    }
}

fn account(number: &str, username: &str, role: Role) -> Value {
    let mut value = body(ManagerAccount {
        odata_id: odata_id(format!("{ACCOUNTS}/Accounts/{number}")),
        id: id(number),
        name: name("User Account"),
        account_types: vec![AccountTypes::Redfish],
        enabled: Some(true),
        links: Some(AccountLinks { role: Some(link(format!("{ACCOUNTS}/Roles/{}", role.name()))), ..AccountLinks::default() }),
        locked: Some(false),
        role_id: Some(role.name().to_owned()),
        user_name: Some(username.to_owned()),
        ..ManagerAccount::default()
    });
    value["Password"] = Value::Null;
    value
}

fn role(role: Role) -> Value {
    let privileges = match role {
        Role::Administrator => vec![
            PrivilegeType::Login,
            PrivilegeType::ConfigureManager,
            PrivilegeType::ConfigureUsers,
            PrivilegeType::ConfigureSelf,
            PrivilegeType::ConfigureComponents,
        ],
        Role::ReadOnly => vec![PrivilegeType::Login, PrivilegeType::ConfigureSelf],
    };
    body(RedfishRole {
        odata_id: odata_id(format!("{ACCOUNTS}/Roles/{}", role.name())),
        id: id(role.name()),
        name: name(role.name()),
        assigned_privileges: Some(privileges),
        is_predefined: Some(true),
        role_id: Some(role.name().to_owned()),
        ..RedfishRole::default()
    })
}
