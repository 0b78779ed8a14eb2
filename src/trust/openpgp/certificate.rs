//! A file of public keys → who signs with which key, and how long.

use std::collections::BTreeSet;

use super::{
    PgpSignature,
    key::{PublicKey, Signature},
    packet::{PUBLIC_KEY, PUBLIC_SUBKEY, SECRET_KEY, SECRET_SUBKEY, SIGNATURE, USER_ID, dearmor, packets},
};
use crate::trust::allowed::BadLine;

/// The flag of a key that may sign (RFC 9580, section 5.2.3.29).
const SIGNS: u8 = 2;

/// A primary key with what it vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::trust) struct Certificate {
    /// Addresses of its user IDs.
    pub(in crate::trust) principals: BTreeSet<String>,
    /// Keys that sign.
    keys: Vec<SigningKey>,
    revoked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SigningKey {
    key: PublicKey,
    /// Until when it is valid, in seconds since 1970.
    until: Option<i64>,
    revoked: bool,
}

/// What is found out about the key of a signature. The last one counts where several copies of a key differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::trust) enum Found {
    /// Its signature does not fit.
    Wrong,
    /// It is valid from then on.
    NotYet(i64),
    /// It was valid until then.
    Expired(i64),
    /// It is good.
    Good,
    /// It was revoked: whatever another copy of the same key says.
    Revoked,
}

impl Certificate {
    /// What this certificate says of a signature over `payload`; `None`: it is not by one of its keys.
    pub(in crate::trust) fn judge(&self, signature: &PgpSignature, payload: &[u8], committed: i64) -> Option<(String, Found)> {
        let signature = &signature.0;
        let claimed = |own: &&SigningKey| signature.issuer.is_none_or(|issuer| own.key.fingerprint.ends_with(&issuer));
        let (mut wrong, mut verified) = (None, None);
        for own in self.keys.iter().filter(claimed) {
            if own.key.verifies(signature, payload) { verified = Some(own) } else { wrong = Some(own) }
        }
        let shown = |own: &SigningKey| hex::encode_upper(own.key.fingerprint);
        let Some(own) = verified else {
            // Without a name on it, it may be anybody's.
            return wrong.filter(|_| signature.issuer.is_some()).map(|own| (shown(own), Found::Wrong));
        };
        let ended = [own.until, signature.lasts.map(|lasts| signature.created.saturating_add(lasts))];
        let until = ended.into_iter().flatten().min();
        let found = match until {
            _ if self.revoked || own.revoked => Found::Revoked,
            _ if committed < own.key.created => Found::NotYet(own.key.created),
            Some(until) if committed > until => Found::Expired(until),
            _ => Found::Good,
        };
        Some((shown(own), found))
    }

    /// Whether any of its keys may ever sign.
    pub(in crate::trust) fn is_usable(&self) -> bool {
        !self.revoked && self.keys.iter().any(|own| !own.revoked)
    }
}

/// Reads a file of armored public keys. Those in it that are of no use allow nobody; a file with no other is wrong, which is told of its
/// first line.
pub(in crate::trust) fn certificates(bytes: &[u8]) -> (Vec<Certificate>, Vec<BadLine>) {
    let bad = |message: &str, hint| (Vec::new(), vec![BadLine::new(1, message, hint)]);
    let export = "write what `gpg --armor --export ADDRESS` prints";
    let Ok(text) = std::str::from_utf8(bytes) else { return bad("this is not an armored OpenPGP key", export) };
    if text.contains("BEGIN PGP PRIVATE KEY") {
        return bad("this is a private key, and whoever can read this repository has it now", "revoke it, and make another one");
    }
    let Some(blocks) = dearmor(text, "PUBLIC KEY BLOCK").filter(|blocks| !blocks.is_empty()) else {
        return bad("this is not an armored OpenPGP key", export);
    };
    let (mut found, mut useless) = (Vec::new(), None);
    for block in &blocks {
        let Some(packets) = packets(block) else { return bad("this OpenPGP key is damaged", export) };
        if packets.iter().any(|packet| matches!(packet.tag, SECRET_KEY | SECRET_SUBKEY)) {
            return bad("this is a private key, and whoever can read this repository has it now", "revoke it, and make another one");
        }
        for own in packets.chunk_by(|_, next| next.tag != PUBLIC_KEY) {
            let parts: Vec<(u8, &[u8])> = own.iter().map(|packet| (packet.tag, packet.body)).collect();
            match certificate(&parts) {
                Ok(certificate) => found.push(certificate),
                Err(why) => useless = Some(why),
            }
        }
    }
    match useless {
        None if found.is_empty() => bad("this OpenPGP key is empty", export),
        Some(why) if found.is_empty() => bad(why, "use a key of RSA with 2048 bits or more, Ed25519, P-256 or P-384"),
        _ => (found, Vec::new()),
    }
}

/// A part of a certificate: what is signed, and the signatures that follow it.
struct Part<'a> {
    tag: u8,
    body: &'a [u8],
    signatures: Vec<Signature>,
}

fn certificate(packets: &[(u8, &[u8])]) -> Result<Certificate, &'static str> {
    let parts = parts(packets).ok_or("this OpenPGP key does not begin with a key")?;
    let (first, rest) = parts.split_first().ok_or("this OpenPGP key is empty")?;
    if first.tag != PUBLIC_KEY {
        return Err("this OpenPGP key does not begin with a key");
    }
    let primary = PublicKey::parse(first.body).ok_or("this OpenPGP key is not of version 4")?;
    if !primary.can_sign() {
        return Err("signatures by this type of OpenPGP key can't be verified");
    }
    let itself = primary.hashed();
    let (mut principals, mut says) = (BTreeSet::new(), own(&primary, first, &[0x1f], &itself));
    for part in rest.iter().filter(|part| part.tag == USER_ID) {
        let length = u32::try_from(part.body.len()).unwrap_or(u32::MAX);
        let data = [&itself[..], &[0xb4], &length.to_be_bytes(), part.body].concat();
        let certified = own(&primary, part, &[0x10, 0x11, 0x12, 0x13], &data);
        if !certified.is_empty() && !revokes(&primary, part, 0x30, &data) {
            principals.extend(address(part.body));
        }
        says.extend(certified);
    }
    let newest = says.into_iter().max_by_key(|signature| signature.created);
    let mut keys = Vec::new();
    if let Some(newest) = newest.filter(|newest| newest.flags.is_none_or(|flags| flags & SIGNS != 0)) {
        keys.push(SigningKey { until: until(&primary, newest), revoked: false, key: primary.clone() });
    }
    let ends = newest.and_then(|newest| until(&primary, newest));
    let subkeys = rest.iter().filter(|part| part.tag == PUBLIC_SUBKEY);
    keys.extend(subkeys.filter_map(|part| subkey(&primary, ends, part)));
    if principals.is_empty() {
        return Err("this OpenPGP key has no user ID with an address that it vouches for with SHA-256 or better");
    }
    if keys.is_empty() {
        return Err("this OpenPGP key has no key that signs");
    }
    Ok(Certificate { principals, keys, revoked: revokes(&primary, first, 0x20, &itself) })
}

fn parts<'a>(packets: &[(u8, &'a [u8])]) -> Option<Vec<Part<'a>>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (tag, body) in packets {
        if *tag == SIGNATURE {
            parts.last_mut()?.signatures.extend(Signature::parse(body));
        } else {
            parts.push(Part { tag: *tag, body, signatures: Vec::new() });
        }
    }
    Some(parts)
}

/// What the primary key itself says of a part.
fn own<'a>(primary: &PublicKey, part: &'a Part<'_>, kinds: &[u8], data: &[u8]) -> Vec<&'a Signature> {
    let good = |signature: &&Signature| kinds.contains(&signature.kind) && !signature.strange && primary.verifies(signature, data);
    part.signatures.iter().filter(good).collect()
}

/// Whether it takes a part back: also where something in that is not understood.
fn revokes(primary: &PublicKey, part: &Part<'_>, kind: u8, data: &[u8]) -> bool {
    part.signatures.iter().any(|signature| signature.kind == kind && primary.verifies(signature, data))
}

/// A subkey that signs; no subkey outlives its key, which `ends` then.
fn subkey(primary: &PublicKey, ends: Option<i64>, part: &Part<'_>) -> Option<SigningKey> {
    let key = PublicKey::parse(part.body).filter(PublicKey::can_sign)?;
    let data = [primary.hashed(), key.hashed()].concat();
    let binding = own(primary, part, &[0x18], &data).into_iter().max_by_key(|signature| signature.created)?;
    let signs = binding.flags.is_some_and(|flags| flags & SIGNS != 0) && agrees(&key, binding, &data);
    let until = [until(&key, binding), ends].into_iter().flatten().min();
    signs.then(|| SigningKey { until, revoked: revokes(primary, part, 0x28, &data), key })
}

/// Whether a subkey says itself that it belongs there: nobody takes another's signatures for his own.
fn agrees(key: &PublicKey, binding: &Signature, data: &[u8]) -> bool {
    let back = binding.back.as_deref().and_then(Signature::parse);
    back.is_some_and(|back| back.kind == 0x19 && !back.strange && key.verifies(&back, data))
}

fn until(key: &PublicKey, says: &Signature) -> Option<i64> {
    says.key_lasts.map(|lasts| key.created.saturating_add(lasts))
}

/// The address of a user ID such as `Anna <anna@example.org>`.
fn address(user_id: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(user_id).ok()?.trim();
    let inner = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')).map_or(text, |(_, address)| address);
    let plain = inner.contains('@')
        && !inner.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',' | '*' | '?' | '!'));
    plain.then(|| inner.to_owned())
}
