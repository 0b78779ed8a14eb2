//! The second layer: what profiles and machines have in common, merged in a stated order.
//!
//! A profile begins with those that it `extends`, in order; then its own values; a machine's own come last. The last one to
//! state a value wins. Only `disks.keep` adds up, because a list of what is never written must not get shorter by a slip.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fault::{At, Fault, Path, path_to},
    handoff,
    names::Names,
    parse::Doc,
    raw::{self, Kind, ProfileSpec, Spec},
    text,
};
use crate::model::{BootMode, DiskHint, HandoffName, OnConfigChange, PowerIntent};

/// How long a chain of `extends` may be. People lose the thread after four; this only bounds the recursion.
const MAX_EXTENDS: usize = 32;

/// Values that both profiles and machines can state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings<'a> {
    pub(crate) image: Option<&'a str>,
    pub(crate) mode: Option<BootMode>,
    pub(crate) power: Option<PowerIntent>,
    pub(crate) system: Option<DiskHint>,
    pub(crate) keep: Vec<DiskHint>,
    pub(crate) user_data: Option<&'a str>,
    pub(crate) on_config_change: Option<OnConfigChange>,
    pub(crate) firmware: BTreeMap<String, String>,
    pub(crate) publishes: Option<BTreeSet<HandoffName>>,
}

impl<'a> Settings<'a> {
    /// These values, and those of `over` on top.
    pub(crate) fn under(mut self, over: &Settings<'a>) -> Self {
        self.keep.extend(over.keep.iter().filter(|hint| !self.keep.contains(hint)).cloned().collect::<Vec<_>>());
        self.firmware.extend(over.firmware.clone());
        Settings {
            firmware: self.firmware,
            image: over.image.or(self.image),
            mode: over.mode.or(self.mode),
            power: over.power.or(self.power),
            system: over.system.clone().or(self.system),
            keep: self.keep,
            user_data: over.user_data.or(self.user_data),
            on_config_change: over.on_config_change.or(self.on_config_change),
            publishes: over.publishes.clone().or(self.publishes),
        }
    }
}

/// The fields of a profile or a machine that [`Settings`] are made of.
#[derive(Clone, Copy)]
pub(crate) struct Stated<'a> {
    pub(crate) image: Option<&'a String>,
    pub(crate) boot: Option<&'a raw::Boot>,
    pub(crate) power: Option<PowerIntent>,
    pub(crate) disks: Option<&'a raw::Disks>,
    pub(crate) configuration: Option<&'a raw::Configuration>,
    pub(crate) on_config_change: Option<OnConfigChange>,
    pub(crate) firmware: &'a raw::Labels,
    pub(crate) publishes: Option<&'a Vec<String>>,
}

impl<'a> Stated<'a> {
    /// The path of the template that is named.
    pub(crate) fn user_data(&self) -> Option<&'a str> {
        self.configuration?.cloud_init.as_ref()?.user_data.as_deref()
    }

    /// Checks the fields of document `number` and takes over those that are right.
    pub(crate) fn settings(
        &self,
        number: usize,
        names: &Names<'_>,
        template_exists: impl Fn(&str) -> bool,
        faults: &mut Vec<Fault>,
    ) -> Settings<'a> {
        let mut settings = Settings {
            power: self.power,
            user_data: self.user_data(),
            on_config_change: self.on_config_change,
            firmware: self.firmware.0.clone(),
            ..Settings::default()
        };
        if let Some(image) = self.image {
            faults.extend(names.check(Kind::Image, image, number, || path_to!["spec", "image"]));
            settings.image = Some(image);
        }
        if let Some(boot) = self.boot {
            settings.mode = boot.mode;
            if boot.secure_boot == Some(true) {
                let at = At::Value(number, path_to!["spec", "boot", "secureBoot"]);
                let fault = Fault::error("not-supported-yet", at, "this version can't switch on Secure Boot yet");
                faults.push(fault.hint("take it out or write `false`: it would otherwise be believed to be on"));
            }
        }
        if let Some(disks) = self.disks {
            let at = || path_to!["spec", "disks", "system"];
            settings.system = disks.system.as_ref().and_then(|hint| disk_hint(hint, number, at, faults));
            let keep = disks.keep.iter().enumerate();
            settings.keep = keep.filter_map(|(n, hint)| disk_hint(hint, number, || path_to!["spec", "disks", "keep", n], faults)).collect();
        }
        settings.publishes = self.publishes.map(|stated| handoff::published(stated, number, &path_to!["spec", "publishes"], faults));
        if let Some(path) = settings.user_data.filter(|path| !template_exists(path)) {
            let at = At::Value(number, path_to!["spec", "configuration", "cloudInit", "userData"]);
            let hint = names.nearest_template(path).map(|near| format!("did you mean `{near}`?"));
            let fault = Fault::error("dangling-template", at, format!("there is no template `{path}` in the repository"));
            faults.push(fault.hint("give its path from the top of the repository, such as `templates/web.yaml`").maybe_hint(hint));
            settings.user_data = None;
        }
        settings
    }
}

pub(crate) fn disk_hint(raw: &raw::DiskHint, number: usize, at: impl Fn() -> Path, faults: &mut Vec<Fault>) -> Option<DiskHint> {
    let mut whole = true;
    let mut text = |value: &Option<raw::Text>, field: &str| {
        let value = value.as_ref().map(|value| value.0.trim().to_owned());
        if value.as_ref().is_some_and(String::is_empty) {
            let fault = Fault::error("empty-text", At::Value(number, at().then(field)), "an empty text would match any disk, or none");
            faults.push(fault.hint("state what the disk has, or take the field out"));
            whole = false;
        }
        value
    };
    let mut hint = DiskHint {
        serial: text(&raw.serial, "serial"),
        wwn: text(&raw.wwn, "wwn"),
        model: text(&raw.model, "model"),
        path: text(&raw.path, "path"),
        ..DiskHint::default()
    };
    let mut size = |value: &Option<raw::SizeText>, field: &str| {
        let value = value.as_ref()?;
        let bytes = text::size(&value.0);
        if bytes.is_none() {
            faults.push(bad_size(&value.0, At::Value(number, at().then(field))));
            whole = false;
        }
        bytes
    };
    hint.min_size = size(&raw.min_size, "minSize");
    hint.max_size = size(&raw.max_size, "maxSize");
    if whole && hint == DiskHint::default() {
        let fault = Fault::error("empty-hint", At::Value(number, at()), "this says nothing about the disk, so it would match any");
        faults.push(fault.hint("state at least one of `serial`, `wwn`, `model`, `path`, `minSize` and `maxSize`"));
        return None;
    }
    whole.then_some(hint)
}

pub(crate) fn bad_size(text: &str, at: At) -> Fault {
    Fault::error("bad-size", at, format!("`{text}` is not a size"))
        .hint("write it like `2.1 GiB`, `64MiB`, `10 GB`, or as a number of bytes")
}

/// Profiles by name, merged with all that they extend.
pub(crate) type Profiles<'a> = BTreeMap<&'a str, Settings<'a>>;

impl ProfileSpec {
    pub(crate) fn stated(&self) -> Stated<'_> {
        Stated {
            image: self.image.as_ref(),
            boot: self.boot.as_ref(),
            power: self.power,
            disks: self.disks.as_ref(),
            configuration: self.configuration.as_ref(),
            on_config_change: self.on_config_change,
            firmware: &self.firmware,
            publishes: self.publishes.as_ref(),
        }
    }
}

/// A profile of which only its own fields were looked at.
pub(crate) struct Own<'a> {
    pub(crate) file: &'a str,
    pub(crate) number: usize,
    pub(crate) extends: &'a [String],
    pub(crate) settings: Settings<'a>,
}

impl<'a> Own<'a> {
    /// Checks one profile's own fields.
    pub(crate) fn read(
        file: &'a str,
        doc: &'a Doc,
        names: &Names<'_>,
        template_exists: impl Fn(&str) -> bool,
        faults: &mut Vec<(&'a str, Fault)>,
    ) -> Option<Self> {
        let Spec::Profile(spec) = &doc.spec else { return None };
        let mut found = Vec::new();
        for (n, name) in spec.extends.iter().enumerate() {
            found.extend(names.check(Kind::Profile, name, doc.number, || path_to!["spec", "extends", n]));
        }
        let settings = spec.stated().settings(doc.number, names, template_exists, &mut found);
        faults.extend(found.into_iter().map(|fault| (file, fault)));
        Some(Own { file, number: doc.number, extends: &spec.extends, settings })
    }
}

/// Merges all profiles. One that is part of a cycle keeps only its own values, and is told.
pub(crate) fn merge<'a>(own: &BTreeMap<&'a str, Own<'a>>, faults: &mut Vec<(&'a str, Fault)>) -> Profiles<'a> {
    let mut merged = Profiles::new();
    for name in own.keys() {
        merge_one(name, own, &mut Vec::new(), &mut merged, faults);
    }
    merged
}

fn merge_one<'a>(
    name: &'a str,
    own: &BTreeMap<&'a str, Own<'a>>,
    trail: &mut Vec<&'a str>,
    merged: &mut Profiles<'a>,
    faults: &mut Vec<(&'a str, Fault)>,
) {
    let Some(profile) = own.get(name).filter(|_| !merged.contains_key(name)) else { return };
    trail.push(name);
    let mut settings = Settings::default();
    for (n, base) in profile.extends.iter().map(String::as_str).enumerate() {
        let at = || At::Value(profile.number, path_to!["spec", "extends", n]);
        if let Some(begin) = trail.iter().position(|seen| *seen == base) {
            let fault = Fault::error("extends-cycle", at(), format!("profiles extend each other in a circle: {}", circle(&trail[begin..])));
            faults.push((profile.file, fault.hint("take one of them out of `extends`")));
            continue;
        }
        if trail.len() >= MAX_EXTENDS {
            faults.push((profile.file, Fault::error("too-deep", at(), format!("more than {MAX_EXTENDS} profiles extend one another"))));
            continue;
        }
        merge_one(base, own, trail, merged, faults);
        if let Some(base) = merged.get(base) {
            settings = settings.under(base);
        }
    }
    trail.pop();
    merged.insert(name, settings.under(&profile.settings));
}

/// `a → b → a`
pub(crate) fn circle(names: &[&str]) -> String {
    names.iter().chain(names.first()).copied().collect::<Vec<_>>().join(" → ")
}
