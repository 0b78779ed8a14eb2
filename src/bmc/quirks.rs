//! What makes one BMC different from the next: one named predicate for each vendor's peculiarity, with its row in the table of
//! field facts. Call sites read as English; a ladder that finds out by trying is better than a predicate where trying is harmless.

use super::document::Document;
use crate::model::Mac;

/// Which product answers, as far as it says.
///
/// The root's `Vendor` and `Product` name the BMC's firmware; `Manufacturer` of the system names who sold the box. iDRAC8,
/// Supermicro and others have no `Vendor`, so the keys under `Oem` come next, and the manufacturer last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Platform {
    vendor: String,
    product: String,
    oem: Vec<String>,
}

impl Platform {
    pub(super) fn of(root: &Document, system: &Document) -> Self {
        let oem = root.oem_keys();
        let vendor = root.text(&["Vendor"]).or_else(|| oem.first().cloned()).or_else(|| system.text(&["Manufacturer"]));
        Self { vendor: vendor.unwrap_or_default().to_lowercase(), product: root.text(&["Product"]).unwrap_or_default(), oem }
    }

    fn is(&self, vendor: &str) -> bool {
        self.vendor.starts_with(vendor) || self.oem.iter().any(|key| key.to_lowercase().starts_with(vendor))
    }

    /// Dell's `SerialNumber` is that of the mainboard; people read the service tag, which is the SKU (row 86).
    pub(super) fn serial_is_in_sku(&self) -> bool {
        self.is("dell") || self.product.contains("Integrated Dell Remote Access Controller")
    }

    /// AMI MegaRAC wants `If-Match: *` even on actions; on iDRAC the same header makes them fail (rows 5 and 11).
    pub(super) fn wants_if_match_on_actions(&self) -> bool {
        self.is("ami")
    }
}

/// A system that is a baseboard of accelerators or a DPU: it has a Reset action, but no operating system of ours runs there.
pub(super) fn is_no_host(system: &Document) -> Option<&'static str> {
    let says = |path: &[&str], part: &str| system.text(path).is_some_and(|text| text.to_lowercase().contains(part));
    if says(&["Id"], "hgx_baseboard") {
        return Some("it is an HGX baseboard");
    }
    let dpu = says(&["SystemType"], "dpu") || says(&["Id"], "bluefield") || says(&["Model"], "bluefield");
    if dpu { Some("it is a DPU") } else { None }
}

/// HPE says `Reset` or `Unknown`, and other firmware invents words, while power changes (row 32): neither On nor Off.
pub(super) fn is_in_transit(state: &str) -> bool {
    !state.is_empty() && !["On", "Off"].iter().any(|known| known.eq_ignore_ascii_case(state))
}

/// All zeros, all ones, or a group address: what BMCs report for ports that are off (row 87).
pub(super) fn is_junk_mac(mac: Mac) -> bool {
    mac.0 == [0; 6] || mac.0[0] & 1 == 1
}

/// The host's end of its private link to the BMC, which no switch ever sees (row 87).
pub(super) fn is_link_to_bmc(nic: &Document) -> bool {
    ["Id", "Name", "Description"].iter().filter_map(|name| nic.text(&[name])).any(|text| {
        let text = text.to_lowercase();
        text.contains("tomanager") || text.contains("host interface") || text.contains("rndis") || text.contains("usb ethernet")
    })
}

/// Entries of the firmware inventory that are not what runs: Dell keeps earlier and downloaded versions, Lenovo pending and
/// staged ones (rows 70 and 75).
pub(super) fn is_not_running(firmware_id: &str) -> bool {
    let id = firmware_id.to_lowercase();
    id.starts_with("previous-") || id.starts_with("available-") || id.ends_with("-pending") || id.contains("staged")
}

/// Zeros, or the texts that board makers leave in the SMBIOS tables.
pub(super) fn is_junk_identity(text: &str) -> bool {
    const JUNK: [&str; 9] =
        ["none", "n/a", "na", "null", "unknown", "default string", "to be filled by o.e.m.", "not specified", "system serial number"];
    let text = text.trim().to_lowercase();
    text.chars().all(|c| matches!(c, '0' | '-' | ' ' | 'f')) || JUNK.contains(&text.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document(value: Value) -> Document {
        let Value::Object(map) = value else { panic!("an object") };
        Document::new(map, None)
    }

    #[test]
    fn a_platform_is_known_by_root_then_oem_then_manufacturer() {
        let system = document(json!({"Manufacturer": "Dell Inc."}));
        for root in [json!({"Vendor": "Dell"}), json!({"Oem": {"Dell": {}}}), json!({})] {
            assert!(Platform::of(&document(root), &system).serial_is_in_sku());
        }
        let supermicro = Platform::of(&document(json!({"Oem": {"Supermicro": {}}})), &document(json!({})));
        assert!(!supermicro.serial_is_in_sku());
    }

    #[test]
    fn baseboards_and_dpus_are_no_hosts() {
        assert!(is_no_host(&document(json!({"Id": "HGX_Baseboard_0"}))).is_some());
        assert!(is_no_host(&document(json!({"Id": "Card1", "SystemType": "DPU"}))).is_some());
        assert!(is_no_host(&document(json!({"Id": "System_0", "SystemType": "Physical"}))).is_none());
    }

    #[test]
    fn junk_is_told_from_values() {
        assert!(is_junk_mac(Mac([0; 6])) && is_junk_mac(Mac([0xff; 6])) && is_junk_mac(Mac([1, 0, 0x5e, 0, 0, 1])));
        assert!(!is_junk_mac(Mac([0x52, 0x54, 0, 1, 2, 3])));
        for junk in ["", "00000000-0000-0000-0000-000000000000", "Default string", "N/A", "FFFF"] {
            assert!(is_junk_identity(junk), "{junk}");
        }
        assert!(!is_junk_identity("CZ3014ABCD"));
        assert!(is_in_transit("Reset") && is_in_transit("PoweringOn") && !is_in_transit("On"));
        assert!(is_not_running("Previous-159-1.8.2__BIOS") && !is_not_running("Installed-159-1.8.2__BIOS"));
    }
}
