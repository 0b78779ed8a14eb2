//! `spec.decommission` of a machine: as it is written, and as it is meant.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{
    fault::{At, Fault, path_to},
    merged::disk_hint,
    raw::DiskHint,
};
use crate::model::{Machine, PowerIntent, Wipe, WipeDisks, WipeMethod};

/// Wipe the machine, prove it, and switch it off for good. Only a machine can say so, no profile. Removing the manifest later releases it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Decommission {
    /// How: `signatures`, `discard`, `secureErase` or `zero`. docs/decommission.md says what each removes, and what it does not.
    method: WipeMethod,
    /// Which disks: `system`, `all` but those to keep, or a list of hints, each of which must be exactly one disk.
    disks: DisksText,
}

/// `system`, `all`, or a list of hints.
#[derive(Debug, Clone)]
enum DisksText {
    Word(String),
    These(Vec<DiskHint>),
}

impl<'de> Deserialize<'de> for DisksText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = DisksText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`system`, `all`, or a list of disk hints")
            }
            fn visit_str<E>(self, word: &str) -> Result<DisksText, E> {
                Ok(DisksText::Word(word.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<DisksText, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(DisksText::These)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for DisksText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "WipeDisks".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let hint = generator.subschema_for::<DiskHint>();
        json_schema!({ "anyOf": [{ "enum": ["system", "all"] }, { "type": "array", "minItems": 1, "items": hint }] })
    }
}

impl Decommission {
    /// Puts what document `number` says into `machine`, of which `rebuild` is the counter.
    ///
    /// A machine whose order can't be read keeps what it would be without it: the fault stops the commit.
    pub(crate) fn apply(&self, machine: &mut Machine, rebuild: u64, number: usize, faults: &mut Vec<Fault>) {
        let at = |path| At::Value(number, path);
        let disks = match &self.disks {
            DisksText::Word(word) if word == "system" => WipeDisks::System,
            DisksText::Word(word) if word == "all" => WipeDisks::All,
            DisksText::Word(word) => {
                let message = format!("`{word}` does not say which disks are wiped");
                let fault = Fault::error("unknown-value", at(path_to!["spec", "decommission", "disks"]), message);
                return faults.push(fault.hint("write `system`, `all`, or a list such as `[{serial: S5GXNX0T}]`"));
            }
            DisksText::These(hints) => {
                if hints.is_empty() {
                    let fault = Fault::error(
                        "empty-list",
                        at(path_to!["spec", "decommission", "disks"]),
                        "this names no disk, so nothing would be wiped",
                    );
                    return faults.push(fault.hint("name the disks, write `all`, or take `decommission` out"));
                }
                let read = |(n, hint)| disk_hint(hint, number, || path_to!["spec", "decommission", "disks", n], faults);
                let read: Vec<_> = hints.iter().enumerate().filter_map(read).collect();
                if read.len() < hints.len() {
                    return;
                }
                WipeDisks::These(read)
            }
        };
        if machine.nics.is_empty() {
            let message = format!("`{}` is to be wiped and has no network interface, so it never can be", machine.name);
            let fault = Fault::warning("no-nic", at(path_to!["spec", "nics"]), message);
            faults.push(fault.hint("list the interface that it boots from under `nics`"));
        }
        if disks == WipeDisks::System && machine.disks.system.is_none() {
            let message = format!("`{}` is to lose its system disk, and nothing says which disk that is", machine.name);
            let fault = Fault::warning("no-system-disk", at(path_to!["spec", "decommission", "disks"]), message);
            faults.push(fault.hint("say which disk: `disks: {system: {serial: …}}`"));
        }
        machine.install = None;
        machine.power = PowerIntent::Off;
        machine.decommission = Some(Wipe::new(self.method, disks, rebuild));
    }
}
