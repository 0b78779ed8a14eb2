//! Which names there are, so that a reference to one that isn't there can be told, with the one that was probably meant.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fault::{At, Fault, Path},
    raw::Kind,
    text::nearest,
};
use crate::model::{FileKind, Files};

/// The names of all documents, and the paths of all files that could be templates.
#[derive(Default)]
pub(crate) struct Names<'a> {
    known: BTreeMap<Kind, BTreeSet<&'a str>>,
    files: Option<&'a Files>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(files: &'a Files) -> Self {
        Self { known: BTreeMap::new(), files: Some(files) }
    }

    /// Adds a name; also that of a document which can't be read, because who refers to it is not to blame.
    pub(crate) fn add(&mut self, kind: Kind, name: &'a str) {
        self.known.entry(kind).or_default().insert(name);
    }

    /// Whether there is a `kind` called `name`, or a document that can't be read and says so.
    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        self.known.get(&kind).is_some_and(|known| known.contains(name))
    }

    /// A fault if there is no `kind` called `name`.
    pub(crate) fn check(&self, kind: Kind, name: &str, number: usize, at: impl FnOnce() -> Path) -> Option<Fault> {
        let known = self.known.get(&kind);
        if known.is_some_and(|known| known.contains(name)) {
            return None;
        }
        let (noun, known) = (kind.noun(), known.into_iter().flatten().copied());
        let code = match kind {
            Kind::Image => "dangling-image",
            Kind::Network => "dangling-network",
            Kind::Profile => "dangling-profile",
            Kind::Rollout => "dangling-rollout",
            Kind::Secret => "dangling-secret",
            Kind::Fleet | Kind::Machine => "dangling-name",
        };
        let hint = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        let fault = Fault::error(code, At::Value(number, at()), format!("there is no {noun} named `{name}`"));
        Some(fault.hint(format!("add a document of kind {} with that name", kind.name())).maybe_hint(hint))
    }

    /// The file whose path is nearest to `path`.
    pub(crate) fn nearest_template(&self, path: &str) -> Option<&'a str> {
        let files = self.files?.iter().filter(|(_, entry)| entry.kind == FileKind::Regular);
        // Other manifests look alike (`machines/web-01.yaml`), and there are many.
        let templates = files.map(|(path, _)| path.as_str()).filter(|path| path.split('/').any(|part| part == "templates"));
        nearest(path, templates)
    }
}
