//! Files of signers and a commit, all of the fuzzer's: parts are separated by two NUL bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rackwright::{
    manifest::FleetSettings,
    model::{CommitId, FileEntry, Signatures},
    trust::{Commits, Object, Question, Signers, SignersAt, Stated, Unread, judge},
};

struct One<'a>(&'a [u8], [CommitId; 1]);

impl Commits for One<'_> {
    fn ids(&self) -> &[CommitId] {
        &self.1
    }

    fn parents(&self, _: CommitId) -> Result<Vec<CommitId>, Unread> {
        Ok(Object::parse(self.0).map(|object| object.parents).unwrap_or_default())
    }

    fn raw(&self, _: CommitId) -> Result<Vec<u8>, Unread> {
        Ok(self.0.to_vec())
    }

    fn changed(&self, _: CommitId) -> Result<Vec<String>, Unread> {
        Ok(Vec::new())
    }

    fn file(&self, _: CommitId, _: &str) -> Result<Option<FileEntry>, Unread> {
        Ok(None)
    }

    fn is_automatic_merge(&self, _: CommitId) -> Result<bool, Unread> {
        Ok(true)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|pair| pair == [0, 0]).filter(|_| parts.len() < 3) {
        parts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    parts.push(rest);
    let stated = Signatures {
        allowed_signers: Some("0".to_owned()),
        revoked_keys: Some("1".to_owned()),
        openpgp_keys: vec!["2".to_owned()],
        ..Signatures::default()
    };
    let (signers, bad) = Signers::read(&stated, |path| parts.get(path.parse::<usize>().ok()?).map(|part| part.to_vec()));
    for line in bad.values().flatten() {
        assert!(line.line > 0 && !line.message.is_empty());
    }
    let at_base = SignersAt { stated: Stated::Signers(signers.into()), ..SignersAt::default() };
    let question = Question { base: None, at_base, host: None };
    let judged = judge(&One(parts.last().copied().unwrap_or_default(), [CommitId([1; 20])]), &FleetSettings, &question);
    // It would take a forged signature.
    assert!(judged.is_ok_and(|judged| judged.signer().is_none()));
});
