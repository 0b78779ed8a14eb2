//! The machine itself: system, interfaces, storage.

use redfish_codegen::models::{
    computer_system::{
        BootSource,
        v1_20_1::{
            Actions, Boot, BootProgress, BootProgressTypes, BootSourceOverrideEnabled, BootSourceOverrideMode, ComputerSystem, Links,
            Reset, SystemType,
        },
    },
    drive::v1_17_0::{Drive, Links as DriveLinks, MediaType},
    ethernet_interface::v1_10_0::{EthernetInterface, LinkStatus, MACAddress},
    protocol::Protocol,
    resource::{Identifier, PowerState as RedfishPower, ResetType, State as RedfishState, UUID, v1_16_0},
    storage::v1_15_0::{Links as StorageLinks, Storage},
};
use serde_json::{Value, json};

use super::value::{body, collection, count, id, link, links, name, odata_id, plain_status, status};
use crate::{
    model::{BootMode, Mac, PowerState},
    sim::{
        config::{BootDevice, DiskConfig},
        machine::{Activity, Enabled, Machine, ResetKind, State, Target},
    },
};

pub(super) const SYSTEMS: &str = "/redfish/v1/Systems";
pub(super) const CHASSIS: &str = "/redfish/v1/Chassis/1";
pub(super) const MANAGER: &str = "/redfish/v1/Managers/BMC";

/// Path of the machine's system.
pub(super) fn system_path(machine: &Machine) -> String {
    format!("{SYSTEMS}/{}", machine.config.name)
}

/// Everything at and below the system; `rest` is what follows its path, without slash.
pub(super) fn below(machine: &Machine, rest: &[&str]) -> Option<Value> {
    let disks = &machine.config.disks;
    match rest {
        [] => Some(system(machine, &machine.state())),
        ["EthernetInterfaces"] => Some(interfaces(machine)),
        ["EthernetInterfaces", number] => {
            let index = index(number)?;
            Some(interface(machine, index, *macs(machine).get(index)?))
        }
        ["Storage"] => {
            let path = format!("{}/Storage", system_path(machine));
            Some(collection(&path.clone(), "StorageCollection", "Storage", [format!("{path}/1")]))
        }
        ["Storage", "1"] => Some(storage(machine)),
        ["Storage", "1", "Drives", number] => {
            let index = index(number)?;
            Some(drive(machine, index, disks.get(index)?))
        }
        _ => None,
    }
}

/// Ids count from 1 and have one spelling.
fn index(number: &str) -> Option<usize> {
    let value: usize = number.parse().ok()?;
    (value.to_string() == number).then(|| value.checked_sub(1))?
}

fn system(machine: &Machine, state: &State) -> Value {
    let path = system_path(machine);
    let config = &machine.config;
    let resource = ComputerSystem {
        odata_id: odata_id(&path),
        id: id(config.name.as_str()),
        name: name(config.name.as_str()),
        actions: Some(Actions {
            computer_system_reset: Some(Reset { target: Some(reset_target(machine)), ..Reset::default() }),
            ..Actions::default()
        }),
        bios_version: Some("1.0.0".to_owned()),
        boot: Some(boot(machine, state)),
        boot_progress: Some(BootProgress { last_state: Some(boot_progress(state.activity)), ..BootProgress::default() }),
        ethernet_interfaces: Some(link(format!("{path}/EthernetInterfaces"))),
        links: Some(Links {
            chassis: links([CHASSIS.to_owned()]),
            chassis_odata_count: count(1),
            managed_by: links([MANAGER.to_owned()]),
            managed_by_odata_count: count(1),
            ..Links::default()
        }),
        manufacturer: Some(config.manufacturer.clone()),
        model: Some(config.model.clone()),
        power_state: Some(redfish_power(state.power)),
        serial_number: Some(machine.serial()),
        sku: Some(machine.serial()),
        status: status(if state.power == PowerState::Off { RedfishState::StandbyOffline } else { RedfishState::Enabled }),
        storage: Some(link(format!("{path}/Storage"))),
        system_type: Some(SystemType::Physical),
        uuid: Some(UUID(config.uuid.clone())),
        ..ComputerSystem::default()
    };
    annotated(body(resource), machine)
}

/// What the types have no field for.
fn annotated(mut system: Value, machine: &Machine) -> Value {
    system["AssetTag"] = Value::Null;
    system["HostName"] = Value::Null;
    let boot = &mut system["Boot"];
    boot["BootSourceOverrideTarget@Redfish.AllowableValues"] = json!(["None", "Pxe", "Hdd"]);
    boot["BootSourceOverrideEnabled@Redfish.AllowableValues"] = json!(["Disabled", "Once", "Continuous"]);
    boot["BootSourceOverrideMode@Redfish.AllowableValues"] = json!([mode_name(machine.config.mode)]);
    let resets: Vec<Value> = ResetKind::ALL.iter().map(|kind| body(redfish_reset(*kind))).collect();
    system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"] = Value::Array(resets);
    system
}

fn boot(machine: &Machine, state: &State) -> Boot {
    let alias = |device: &BootDevice| match device {
        BootDevice::Disk => BootSource::Hdd,
        BootDevice::Network => BootSource::Pxe,
    };
    Boot {
        alias_boot_order: Some(machine.config.boot_order.iter().map(alias).collect()),
        boot_source_override_enabled: Some(match state.boot_override.enabled {
            Enabled::Disabled => BootSourceOverrideEnabled::Disabled,
            Enabled::Once => BootSourceOverrideEnabled::Once,
            Enabled::Continuous => BootSourceOverrideEnabled::Continuous,
        }),
        boot_source_override_mode: Some(match machine.config.mode {
            BootMode::UEFI => BootSourceOverrideMode::UEFI,
            BootMode::BIOS => BootSourceOverrideMode::Legacy,
        }),
        boot_source_override_target: Some(match state.boot_override.target {
            Target::None => BootSource::None,
            Target::Pxe => BootSource::Pxe,
            Target::Hdd => BootSource::Hdd,
        }),
        ..Boot::default()
    }
}

/// Redfish's name of a firmware interface.
pub(super) fn mode_name(mode: BootMode) -> &'static str {
    match mode {
        BootMode::UEFI => "UEFI",
        BootMode::BIOS => "Legacy",
    }
}

fn boot_progress(activity: Activity) -> BootProgressTypes {
    match activity {
        Activity::Off => BootProgressTypes::None,
        Activity::Post => BootProgressTypes::MemoryInitializationStarted,
        Activity::NetworkBoot | Activity::DiskBoot => BootProgressTypes::OSBootStarted,
        Activity::Agent | Activity::Running | Activity::Hung => BootProgressTypes::OSRunning,
        Activity::NoBootDevice => BootProgressTypes::SystemHardwareInitializationComplete,
    }
}

/// Where `ComputerSystem.Reset` is posted to.
pub(super) fn reset_target(machine: &Machine) -> String {
    format!("{}/Actions/ComputerSystem.Reset", system_path(machine))
}

fn redfish_reset(kind: ResetKind) -> ResetType {
    match kind {
        ResetKind::On => ResetType::On,
        ResetKind::ForceOff => ResetType::ForceOff,
        ResetKind::GracefulShutdown => ResetType::GracefulShutdown,
        ResetKind::ForceRestart => ResetType::ForceRestart,
        ResetKind::GracefulRestart => ResetType::GracefulRestart,
        ResetKind::PowerCycle => ResetType::PowerCycle,
        ResetKind::PushPowerButton => ResetType::PushPowerButton,
        ResetKind::Nmi => ResetType::Nmi,
    }
}

/// The order that a `ResetType` means here, if it is one that we offer.
pub(super) fn reset_kind(name: &str) -> Option<ResetKind> {
    ResetKind::ALL.into_iter().find(|kind| body(redfish_reset(*kind)) == name)
}

/// Redfish's word for a power state.
pub(super) fn redfish_power(power: PowerState) -> RedfishPower {
    match power {
        PowerState::On => RedfishPower::On,
        PowerState::Off => RedfishPower::Off,
        PowerState::PoweringOn => RedfishPower::PoweringOn,
        PowerState::PoweringOff => RedfishPower::PoweringOff,
        PowerState::Paused => RedfishPower::Paused,
    }
}

fn macs(machine: &Machine) -> Vec<Mac> {
    std::iter::once(machine.config.mac).chain(machine.config.nics.iter().copied()).collect()
}

fn interfaces(machine: &Machine) -> Value {
    let path = format!("{}/EthernetInterfaces", system_path(machine));
    let members = (1..=macs(machine).len()).map(|number| format!("{path}/{number}"));
    collection(&path.clone(), "EthernetInterfaceCollection", "Ethernet Interfaces", members)
}

fn interface(machine: &Machine, index: usize, mac: Mac) -> Value {
    let number = index + 1;
    let address = || Some(MACAddress(mac.to_string().to_uppercase()));
    body(EthernetInterface {
        odata_id: odata_id(format!("{}/EthernetInterfaces/{number}", system_path(machine))),
        id: id(number.to_string()),
        name: name(format!("NIC {number}")),
        mac_address: address(),
        permanent_mac_address: address(),
        link_status: Some(LinkStatus::LinkUp),
        interface_enabled: Some(true),
        speed_mbps: Some(25_000),
        status: plain_status(),
        ..EthernetInterface::default()
    })
}

fn drive_path(machine: &Machine, index: usize) -> String {
    format!("{}/Storage/1/Drives/{}", system_path(machine), index + 1)
}

/// Paths of all drives.
pub(super) fn drive_paths(machine: &Machine) -> Vec<String> {
    (0..machine.config.disks.len()).map(|index| drive_path(machine, index)).collect()
}

fn storage(machine: &Machine) -> Value {
    body(Storage {
        odata_id: odata_id(format!("{}/Storage/1", system_path(machine))),
        id: id("1"),
        name: name("Direct Attached Storage"),
        drives: links(drive_paths(machine)),
        drives_odata_count: count(machine.config.disks.len()),
        links: Some(StorageLinks { enclosures: links([CHASSIS.to_owned()]), enclosures_odata_count: count(1), ..StorageLinks::default() }),
        status: status(RedfishState::Enabled),
        ..Storage::default()
    })
}

fn drive(machine: &Machine, index: usize, disk: &DiskConfig) -> Value {
    let wwn = disk.wwn.clone().map(|wwn| {
        Identifier::V1_16_0(v1_16_0::Identifier {
            durable_name: Some(wwn.trim_start_matches("0x").to_uppercase()),
            durable_name_format: Some(v1_16_0::DurableNameFormat::NAA),
        })
    });
    let mut drive = body(Drive {
        odata_id: odata_id(drive_path(machine, index)),
        id: id((index + 1).to_string()),
        name: name(format!("Disk {}", index + 1)),
        block_size_bytes: Some(512),
        capacity_bytes: i64::try_from(disk.size).ok(),
        identifiers: wwn.map(|wwn| vec![wwn]),
        links: Some(DriveLinks { chassis: Some(link(CHASSIS)), ..DriveLinks::default() }),
        media_type: Some(MediaType::SSD),
        model: Some(disk.model.clone()),
        protocol: Some(Protocol::SATA),
        serial_number: Some(disk.serial.clone()),
        status: plain_status(),
        ..Drive::default()
    });
    drive["AssetTag"] = Value::Null;
    drive["PartNumber"] = Value::Null;
    drive
}
