//! What is around the machine: chassis, the BMC itself, firmware.

use redfish_codegen::models::{
    chassis::v1_23_0::{Chassis, ChassisType, Links as ChassisLinks},
    manager::v1_18_0::{Links as ManagerLinks, Manager, ManagerType},
    resource::{State, UUID},
    software_inventory::v1_9_0::SoftwareInventory,
    update_service::v1_11_3::{Actions, UpdateService},
};
use serde_json::{Value, json};

use super::{
    system::{CHASSIS, MANAGER, drive_paths, redfish_power, system_path},
    value::{body, collection, count, id, link, links, name, odata_id, plain_status, status},
};
use crate::{
    model::{PowerState, Timestamp},
    sim::machine::Machine,
};

const UPDATE: &str = "/redfish/v1/UpdateService";

/// Version of the simulated BMC's firmware.
const BMC_VERSION: &str = "1.0.0";

pub(super) fn below_chassis(machine: &Machine, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(collection("/redfish/v1/Chassis", "ChassisCollection", "Chassis", [CHASSIS.to_owned()])),
        ["1"] => Some(chassis(machine)),
        _ => None,
    }
}

fn chassis(machine: &Machine) -> Value {
    let config = &machine.config;
    let drives = drive_paths(machine);
    body(Chassis {
        odata_id: odata_id(CHASSIS),
        id: id("1"),
        name: name("Chassis"),
        chassis_type: ChassisType::RackMount,
        links: Some(ChassisLinks {
            computer_systems: links([system_path(machine)]),
            computer_systems_odata_count: count(1),
            drives_odata_count: count(drives.len()),
            drives: links(drives),
            managed_by: links([MANAGER.to_owned()]),
            managed_by_odata_count: count(1),
            storage: links([format!("{}/Storage/1", system_path(machine))]),
            storage_odata_count: count(1),
            ..ChassisLinks::default()
        }),
        manufacturer: Some(config.manufacturer.clone()),
        model: Some(config.model.clone()),
        power_state: Some(redfish_power(if machine.state().power == PowerState::Off { PowerState::Off } else { PowerState::On })),
        serial_number: Some(machine.serial()),
        status: status(State::Enabled),
        ..Chassis::default()
    })
}

pub(super) fn below_managers(machine: &Machine, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(collection("/redfish/v1/Managers", "ManagerCollection", "Managers", [MANAGER.to_owned()])),
        ["BMC"] => Some(manager(machine)),
        _ => None,
    }
}

fn manager(machine: &Machine) -> Value {
    body(Manager {
        odata_id: odata_id(MANAGER),
        id: id("BMC"),
        name: name("Baseboard Management Controller"),
        date_time: Some(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        date_time_local_offset: Some("+00:00".to_owned()),
        firmware_version: Some(BMC_VERSION.to_owned()),
        links: Some(ManagerLinks {
            manager_for_chassis: links([CHASSIS.to_owned()]),
            manager_for_chassis_odata_count: count(1),
            manager_for_servers: links([system_path(machine)]),
            manager_for_servers_odata_count: count(1),
            manager_in_chassis: Some(link(CHASSIS)),
            ..ManagerLinks::default()
        }),
        manager_type: Some(ManagerType::BMC),
        model: Some("Simulated BMC".to_owned()),
        power_state: Some(redfish_power(PowerState::On)),
        service_entry_point_uuid: Some(UUID(machine.config.uuid.clone())),
        status: status(State::Enabled),
        uuid: Some(UUID(machine.config.uuid.clone())),
        ..Manager::default()
    })
}

pub(super) fn below_update(machine: &Machine, rest: &[&str]) -> Option<Value> {
    let inventory = format!("{UPDATE}/FirmwareInventory");
    match rest {
        [] => Some(body(UpdateService {
            odata_id: odata_id(UPDATE),
            id: id("UpdateService"),
            name: name("Update Service"),
            firmware_inventory: Some(link(inventory)),
            // No action, but sushy wants the object.
            actions: Some(Actions::default()),
            service_enabled: Some(true),
            status: status(State::Enabled),
            ..UpdateService::default()
        })),
        ["FirmwareInventory"] => {
            let members = ["BMC", "BIOS"].map(|part| format!("{inventory}/{part}"));
            Some(collection(&inventory, "SoftwareInventoryCollection", "Firmware Inventory", members))
        }
        ["FirmwareInventory", "BMC"] => Some(firmware("BMC", "BMC Firmware", BMC_VERSION, MANAGER.to_owned())),
        ["FirmwareInventory", "BIOS"] => Some(firmware("BIOS", "System BIOS", "1.0.0", system_path(machine))),
        _ => None,
    }
}

fn firmware(part: &str, title: &str, version: &str, item: String) -> Value {
    let mut inventory = body(SoftwareInventory {
        odata_id: odata_id(format!("{UPDATE}/FirmwareInventory/{part}")),
        id: id(part),
        name: name(title),
        related_item: links([item]),
        related_item_odata_count: count(1),
        status: plain_status(),
        updateable: Some(false),
        version: Some(version.to_owned()),
        ..SoftwareInventory::default()
    });
    inventory["SoftwareId"] = json!(part);
    inventory
}
