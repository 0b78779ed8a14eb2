//! Who may sign commits: the Fleet's `signatures`, and the files that it names.

use std::{collections::BTreeSet, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    fault::{At, Fault, path_to},
    parse::{self, Role},
    raw::{FleetSpec, Kind, Spec},
    spans::Place,
    text::nearest,
    world::Source,
};
use crate::{
    model::{FileEntry, FileKind, Files, PathRule, Signatures},
    trust::{self, Settings, Signers, SignersAt, Stated},
};

type Faults<'a> = Vec<(&'a str, Fault)>;

/// Who may sign commits. Each commit is judged by the signers of its parent.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SignaturesSpec {
    /// The file of allowed signers, in the format of OpenSSH (`man ssh-keygen`, ALLOWED SIGNERS), such as `signers/allowed_signers`.
    pub(crate) allowed_signers: Option<String>,
    /// A list of public keys whose signatures count no more, one a line as in a `.pub` file.
    pub(crate) revoked_keys: Option<String>,
    /// Files of armored OpenPGP public keys, as `gpg --armor --export ADDRESS` prints them. Their user IDs' addresses are the principals.
    #[serde(default)]
    pub(crate) openpgp_keys: Vec<String>,
    /// Patterns of principals, such as a forge's key, that may make merges of two branches as Git makes them by itself, and nothing else.
    #[serde(default)]
    pub(crate) merge_only: Vec<String>,
    /// Who must sign what changes certain files. A commit must satisfy each rule that one of its paths matches.
    #[serde(default)]
    pub(crate) paths: Vec<PathSpec>,
}

/// Who must sign what changes certain files.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PathSpec {
    /// Paths, such as `machines/storage/**`: `**` stands for any folders, `*` and `?` stay within a name.
    #[schemars(extend("minItems" = 1))]
    pub(crate) r#match: Vec<String>,
    /// Patterns of principals, such as `*@storage.example.org`; one that begins with `!` excludes.
    #[schemars(extend("minItems" = 1))]
    pub(crate) signers: Vec<String>,
}

/// What a Fleet states, with what is wrong in it and in the files that it names.
pub(crate) fn signatures<'a>(source: Source<'a>, spec: &'a FleetSpec, files: &'a Files, faults: &mut Faults<'a>) -> Option<Signatures> {
    let stated = stated(source.file, spec)?;
    let own = spec.signatures.as_ref()?;
    let mut fault = |at, code, message: String, hint: Option<String>| {
        faults.push((source.file, Fault::error(code, At::Value(source.doc.number, at), message).maybe_hint(hint)));
    };
    let at = |field: &str| path_to!["spec", "signatures", field];
    let named = [("allowedSigners", own.allowed_signers.as_ref()), ("revokedKeys", own.revoked_keys.as_ref())];
    let named = named.into_iter().filter_map(|(field, path)| Some((at(field), path?)));
    let keys = own.openpgp_keys.iter().enumerate().map(|(n, path)| (at("openpgpKeys").then(n), path));
    for (at, path) in named.chain(keys) {
        if let Err((message, hint)) = regular(files, path) {
            fault(at, "dangling-signers", message, hint);
        }
    }
    for (n, pattern) in own.merge_only.iter().enumerate().filter(|(_, text)| text.trim().is_empty()) {
        fault(path_to!["spec", "signatures", "mergeOnly", n], "bad-signer", format!("`{pattern}` names nobody"), None);
    }
    for (n, rule) in own.paths.iter().enumerate() {
        let at = |field: &str| path_to!["spec", "signatures", "paths", n, field];
        for (m, glob) in rule.r#match.iter().enumerate() {
            if let Some(hint) = trust::bad_glob(glob) {
                fault(at("match").then(m), "bad-path", format!("`{glob}` is not a path of this repository"), Some(hint.to_owned()));
            }
        }
        if rule.r#match.is_empty() {
            fault(at("match"), "bad-path", "this rule is about no path".to_owned(), None);
        }
        if !rule.signers.iter().any(|pattern| !pattern.trim().is_empty() && !pattern.starts_with('!')) {
            let message = "nobody can sign what this rule is about".to_owned();
            fault(
                at("signers"),
                "bad-signer",
                message,
                Some("name principals, such as `anna@example.org` or `*@storage.example.org`".into()),
            );
        }
    }
    bad_files(source, &stated, files, faults);
    Some(stated)
}

/// What is wrong in the files that are named, at their own lines.
fn bad_files<'a>(source: Source<'a>, stated: &Signatures, files: &'a Files, faults: &mut Faults<'a>) {
    let (signers, bad) = read(stated, |path| files.get(path).cloned());
    for (path, lines) in &bad {
        for line in lines {
            let at = At::Place(Place { line: line.line, column: 1, length: 1 });
            let fault = Fault::error("bad-signer", at, line.message.clone()).maybe_hint(line.hint.map(str::to_owned));
            faults.push((source.file, Fault { file: Some(path.clone()), ..fault }));
        }
    }
    if bad.is_empty() && signers.is_empty() && stated.files().all(|path| regular(files, path).is_ok()) {
        let at = At::Value(source.doc.number, path_to!["spec", "signatures"]);
        let fault = Fault::error("no-signers", at, "nobody could sign the next commit");
        faults.push((source.file, fault.hint("list at least one key that is not revoked, or take `signatures` away")));
    }
}

fn stated(file: &str, spec: &FleetSpec) -> Option<Signatures> {
    let SignaturesSpec { allowed_signers, revoked_keys, openpgp_keys, merge_only, paths } = spec.signatures.as_ref()?;
    let paths = paths.iter().map(|rule| PathRule { paths: rule.r#match.clone(), signers: rule.signers.clone() });
    Some(Signatures {
        stated_in: file.to_owned(),
        allowed_signers: allowed_signers.clone(),
        revoked_keys: revoked_keys.clone(),
        openpgp_keys: openpgp_keys.clone(),
        merge_only: merge_only.clone(),
        paths: paths.collect(),
    })
}

/// Whether there is a file at `path`, and what to do if not.
fn regular(files: &Files, path: &str) -> Result<(), (String, Option<String>)> {
    match files.get(path) {
        Some(entry) if entry.kind == FileKind::Regular && entry.bytes.len() <= parse::MAX_BYTES => Ok(()),
        Some(entry) if entry.kind == FileKind::Regular => Err((format!("`{path}` is larger than 1 MiB"), None)),
        Some(_) => Err((format!("`{path}` is a link, and links are not followed"), Some("put the file itself there".to_owned()))),
        None => {
            let meant = nearest(path, files.keys().map(String::as_str)).map(|name| format!("did you mean `{name}`?"));
            let hint =
                meant.unwrap_or_else(|| "write its path from the top of the repository, such as `signers/allowed_signers`".to_owned());
            Err((format!("there is no file `{path}`"), Some(hint)))
        }
    }
}

fn read(stated: &Signatures, file: impl Fn(&str) -> Option<FileEntry>) -> (Signers, trust::BadFiles) {
    Signers::read(stated, |path| {
        let entry = file(path).filter(|entry| entry.kind == FileKind::Regular && entry.bytes.len() <= parse::MAX_BYTES)?;
        Some(entry.bytes.to_vec())
    })
}

/// Who may sign on top of a commit with these files, of which `stated` was read.
pub fn signers_at(stated: Option<&Signatures>, file: impl Fn(&str) -> Option<FileEntry>) -> SignersAt {
    let Some(stated) = stated else { return SignersAt::default() };
    let missing = stated.files().find(|path| file(path).is_none_or(|entry| entry.kind != FileKind::Regular)).map(str::to_owned);
    let (signers, bad) = read(stated, &file);
    let wrong = bad.iter().next().map(|(path, lines)| (path, lines.first()));
    let said = match (missing, wrong) {
        (Some(path), _) => Stated::Unreadable(format!("{path} is not there")),
        (None, Some((path, Some(line)))) => Stated::Unreadable(format!("{path}:{}: {}", line.line, line.message)),
        (None, _) if signers.is_empty() => Stated::Unreadable("nobody is allowed to sign".to_owned()),
        (None, _) => Stated::Signers(Arc::new(signers)),
    };
    let files = stated.files().map(str::to_owned).collect();
    SignersAt { settings: BTreeSet::from([stated.stated_in.clone()]), files, stated: said }
}

/// Finds the settings of a fleet in some of its files, for `trust`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FleetSettings;

/// What every document of kind Fleet has in its bytes, unless it is written with escapes.
const KIND: &[u8] = b"Fleet";

impl Settings for FleetSettings {
    fn may_state(&self, path: &str, file: &dyn Fn(&str) -> Option<FileEntry>) -> bool {
        let may = |entry: FileEntry| entry.bytes.contains(&b'\\') || entry.bytes.windows(KIND.len()).any(|word| word == KIND);
        parse::role(path) == Role::Manifest && file(path).is_some_and(may)
    }

    fn signers(&self, among: &BTreeSet<String>, file: &dyn Fn(&str) -> Option<FileEntry>) -> SignersAt {
        let mut found = Vec::new();
        let mut broken = None;
        for path in among {
            let Some(entry) = file(path) else { continue };
            if entry.kind != FileKind::Regular {
                broken = Some(path);
                continue;
            }
            let parsed = parse::parse(&entry);
            let specs = parsed.docs.into_iter().filter(|doc| doc.kind() == Kind::Fleet);
            found.extend(specs.map(|doc| (path, doc)));
            // Of a file that can't be read whole nobody knows what it says.
            if parsed.faults.iter().any(|fault| fault.severity == crate::model::Severity::Error) {
                broken = Some(path);
            }
        }
        let settings = || found.iter().map(|(path, _)| (*path).clone()).chain(broken.cloned()).collect();
        let unreadable = |why: String| SignersAt { settings: settings(), files: BTreeSet::new(), stated: Stated::Unreadable(why) };
        match (broken, found.as_slice()) {
            (Some(path), _) => unreadable(format!("{path} has errors")),
            (None, []) => SignersAt::default(),
            (None, [(path, doc)]) => {
                let stated = if let Spec::Fleet(spec) = &doc.spec { stated(path, spec) } else { None };
                let known = signers_at(stated.as_ref(), file);
                SignersAt { settings: settings(), ..known }
            }
            (None, [(one, _), (other, _), ..]) => unreadable(format!("{one} and {other} both state a Fleet")),
        }
    }
}
