//! A set of signers: whose signature counts at one commit.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    allowed::{Allowed, AllowedKey, BadLine, allowed_signers, revoked_keys},
    key::SshKey,
    object::Object,
    openpgp::{Certificate, Found, PgpSignature, certificates},
    pattern::{matches_list, matches_path},
    refused::Refused,
    sshsig::{BadSignature, SshSignature},
};
use crate::model::{PathRule, Signatures, Signer};

/// Whose signature counts, for what, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    allowed: Allowed,
    revoked: BTreeSet<SshKey>,
    openpgp: Vec<Certificate>,
    merge_only: Vec<String>,
    paths: Vec<PathRule>,
}

/// What is wrong in the files that a set of signers is made of, by file.
pub type BadFiles = BTreeMap<String, Vec<BadLine>>;

impl Signers {
    /// Reads the files that a fleet names. What is wrong in them allows nobody; a set with faults is for telling them.
    pub fn read(stated: &Signatures, file: impl Fn(&str) -> Option<Vec<u8>>) -> (Self, BadFiles) {
        let mut bad = BadFiles::new();
        let mut signers = Self { merge_only: stated.merge_only.clone(), paths: stated.paths.clone(), ..Self::default() };
        if let Some(path) = &stated.allowed_signers
            && let Some(bytes) = file(path)
        {
            let (allowed, wrong) = allowed_signers(&bytes);
            signers.allowed = allowed;
            bad.entry(path.clone()).or_default().extend(wrong);
        }
        if let Some(path) = &stated.revoked_keys
            && let Some(bytes) = file(path)
        {
            let (revoked, wrong) = revoked_keys(&bytes);
            signers.revoked.extend(revoked);
            bad.entry(path.clone()).or_default().extend(wrong);
        }
        for path in &stated.openpgp_keys {
            if let Some(bytes) = file(path) {
                let (found, wrong) = certificates(&bytes);
                signers.openpgp.extend(found);
                bad.entry(path.clone()).or_default().extend(wrong);
            }
        }
        bad.retain(|_, lines| !lines.is_empty());
        (signers, bad)
    }

    /// A set that is nothing but a file of allowed signers.
    pub fn of_file(bytes: &[u8]) -> (Self, Vec<BadLine>) {
        let (allowed, bad) = allowed_signers(bytes);
        (Self { allowed, ..Self::default() }, bad)
    }

    /// Whether nobody can sign commits, whatever the time.
    pub fn is_empty(&self) -> bool {
        let signs = |(key, lines): (&SshKey, &Vec<AllowedKey>)| !self.revoked.contains(key) && lines.iter().any(AllowedKey::signs_commits);
        !self.allowed.iter().any(signs) && !self.openpgp.iter().any(Certificate::is_usable)
    }

    /// Whose signature a commit carries, at the time that its committer states.
    pub(super) fn signer(&self, object: &Object) -> Result<Signer, Refused> {
        let armored = object.signature.as_deref().ok_or(Refused::Unsigned)?;
        if armored.starts_with(b"-----BEGIN SSH SIGNATURE-----") {
            let key = SshSignature::parse(armored)?.verify(&object.payload)?;
            return self.ssh(&key, object.committed);
        }
        if armored.starts_with(b"-----BEGIN PGP SIGNATURE-----") {
            return self.openpgp(&PgpSignature::parse(armored)?, object);
        }
        Err(match armored {
            armored if armored.starts_with(b"-----BEGIN SIGNED MESSAGE") => Refused::Kind("X.509"),
            _ => Refused::Kind("an unknown kind"),
        })
    }

    fn openpgp(&self, signature: &PgpSignature, object: &Object) -> Result<Signer, Refused> {
        let committed = object.committed;
        let found = self.openpgp.iter().filter_map(|own| Some((own, own.judge(signature, &object.payload, committed)?)));
        let Some((own, (key, found))) = found.max_by_key(|(_, (_, found))| *found) else {
            return Err(Refused::Stranger { key: signature.claimed() });
        };
        let who = own.principals.iter().cloned().collect::<Vec<_>>();
        match found {
            Found::Good => Ok(Signer { principals: who, key }),
            Found::Wrong => Err(BadSignature::Wrong(key).into()),
            Found::Revoked => Err(Refused::Revoked { key }),
            Found::NotYet(from) => Err(Refused::NotYet { key, who: who.join(","), from, committed }),
            Found::Expired(until) => Err(Refused::Expired { key, who: who.join(","), until, committed }),
        }
    }

    fn ssh(&self, key: &SshKey, committed: i64) -> Result<Signer, Refused> {
        let shown = key.fingerprint();
        let Some(lines) = self.allowed.get(key) else {
            let revoked = self.revoked.contains(key);
            return Err(if revoked { Refused::Revoked { key: shown } } else { Refused::Stranger { key: shown } });
        };
        if self.revoked.contains(key) {
            return Err(Refused::Revoked { key: shown });
        }
        let valid = |line: &&AllowedKey| {
            line.signs_commits() && line.valid_after.is_none_or(|at| committed >= at) && line.valid_before.is_none_or(|at| committed <= at)
        };
        let principals: BTreeSet<&String> = lines.iter().filter(valid).flat_map(|line| &line.principals).collect();
        if principals.is_empty() {
            return Err(self.why_not(shown, lines, committed));
        }
        Ok(Signer { principals: principals.into_iter().cloned().collect(), key: shown })
    }

    /// Why a key that is listed does not count: what is said of the last line that has it.
    fn why_not(&self, key: String, lines: &[AllowedKey], committed: i64) -> Refused {
        let for_commits = lines.iter().rfind(|line| line.signs_commits());
        let Some(line) = for_commits else { return Refused::NotForCommits { key, line: lines.first().map_or(0, |line| line.line) } };
        let who = line.principals.join(",");
        match (line.valid_after, line.valid_before) {
            (Some(from), _) if committed < from => Refused::NotYet { key, who, from, committed },
            (_, until) => Refused::Expired { key, who, until: until.unwrap_or(committed), committed },
        }
    }

    /// Whether this signer may make merges, and nothing else.
    pub(super) fn is_merge_only(&self, signer: &Signer) -> bool {
        let list = || self.merge_only.iter().map(String::as_str);
        signer.principals.iter().any(|principal| matches_list(list(), principal))
    }

    /// Whether what a commit changes matters to its signer.
    pub(super) fn has_path_rules(&self) -> bool {
        !self.paths.is_empty()
    }

    /// The first path that somebody else has to sign.
    pub(super) fn foreign_path(&self, signer: &Signer, changed: &[String]) -> Option<Refused> {
        let may = |rule: &&PathRule| {
            let list = || rule.signers.iter().map(String::as_str);
            signer.principals.iter().any(|principal| matches_list(list(), principal))
        };
        let others: Vec<&PathRule> = self.paths.iter().filter(|rule| !may(rule)).collect();
        changed.iter().find_map(|path| {
            let rule = others.iter().find(|rule| rule.paths.iter().any(|glob| matches_path(glob, path)))?;
            Some(Refused::Path { signer: signer.clone(), path: path.clone(), needs: rule.signers.join(", ") })
        })
    }
}
