//! What ssh-keygen can't be asked for here: security keys, and damaged bytes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use sha2::{Digest as _, Sha256};

use super::{
    bytes::put,
    key::{BadKey, SshKey},
    *,
};

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.iter().for_each(|part| put(&mut bytes, part));
    bytes
}

fn number(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
    if bytes[0] & 0x80 != 0 { [&[0], bytes].concat() } else { bytes.to_vec() }
}

#[test]
fn a_security_key_signs_what_it_was_touched_for() {
    let random = SystemRandom::new();
    let ed = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let names: [&[u8]; 2] = [b"sk-ssh-ed25519@openssh.com", b"sk-ecdsa-sha2-nistp256@openssh.com"];
    let keys =
        [strings(&[names[0], ed.public_key().as_ref(), b"ssh:"]), strings(&[names[1], b"nistp256", ec.public_key().as_ref(), b"ssh:"])];
    let sign = |kind: usize, application: &[u8], flags: u8, message: &[u8]| {
        let tail = [&[flags][..], &7_u32.to_be_bytes()].concat();
        let told = [Sha256::digest(application).as_slice(), &tail, Sha256::digest(message).as_slice()].concat();
        let bytes = if kind == 0 {
            ed.sign(&told).as_ref().to_vec()
        } else {
            let both = ec.sign(&random, &told).unwrap();
            strings(&[&number(&both.as_ref()[..32]), &number(&both.as_ref()[32..])])
        };
        [strings(&[names[kind], &bytes]), tail].concat()
    };
    for (kind, blob) in keys.iter().enumerate() {
        let key = SshKey::from_blob(blob).unwrap();
        assert!(key.verifies(&sign(kind, b"ssh:", 1, b"commit"), b"commit"));
        assert!(key.verifies(&sign(kind, b"ssh:", 5, b"commit"), b"commit"), "touched, and a PIN was asked for");
        assert!(!key.verifies(&sign(kind, b"ssh:", 1, b"commit"), b"another"));
        assert!(!key.verifies(&sign(kind, b"ssh:", 4, b"commit"), b"commit"), "nobody touched it");
        assert!(!key.verifies(&sign(kind, b"web:", 1, b"commit"), b"commit"), "made for something else");
        let mut longer = sign(kind, b"ssh:", 1, b"commit");
        longer.push(0);
        assert!(!key.verifies(&longer, b"commit"));
        let other = SshKey::from_blob(&keys[1 - kind]).unwrap();
        assert!(!other.verifies(&sign(kind, b"ssh:", 1, b"commit"), b"commit"));
    }
}

#[test]
fn keys_that_prove_little_or_nothing_are_none() {
    let rsa = |bytes: usize| strings(&[b"ssh-rsa", &[1, 0, 1], &[&[0, 0x80][..], &vec![1; bytes - 1]].concat()]);
    assert_eq!(SshKey::from_blob(&rsa(128)), Err(BadKey::RsaBits(1024)));
    assert_eq!(SshKey::from_blob(&rsa(2048)), Err(BadKey::RsaBits(16384)));
    assert!(SshKey::from_blob(&rsa(256)).is_ok());
    let p521 = strings(&[b"ecdsa-sha2-nistp521", b"nistp521", &[4; 133]]);
    assert_eq!(SshKey::from_blob(&p521), Err(BadKey::Unsupported("ecdsa-sha2-nistp521".to_owned())));
    assert_eq!(SshKey::from_blob(&strings(&[b"ssh-ed25519-cert-v01@openssh.com", b"x"])), Err(BadKey::Certificate));
    for bad in [
        strings(&[b"ssh-ed25519", &[1; 31]]),
        [strings(&[b"ssh-ed25519", &[1; 32]]), vec![0]].concat(),
        strings(&[b"ecdsa-sha2-nistp256", b"nistp384", &[4; 65]]),
        strings(&[b"ecdsa-sha2-nistp256", b"nistp256", &[2; 65]]),
        strings(&[b"ssh-rsa", &[1, 0, 1], &[0, 0, 1]]),
        strings(&[b"ssh-rsa"]),
        strings(&[b"\xff"]),
        vec![0, 0, 0, 200, 1],
        Vec::new(),
    ] {
        assert_eq!(SshKey::from_blob(&bad), Err(BadKey::NotAKey), "{bad:?}");
    }
}

#[test]
fn a_signature_with_a_byte_more_or_less_is_none() {
    let key = strings(&[b"ssh-ed25519", &[1; 32]]);
    let whole = [b"SSHSIG\0\0\0\x01".to_vec(), strings(&[&key, b"git", b"", b"sha512", &strings(&[b"ssh-ed25519", &[2; 64]])])].concat();
    let armored = |bytes: &[u8]| format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", STANDARD.encode(bytes));
    let parsed = SshSignature::parse(armored(&whole).as_bytes()).unwrap();
    assert!(matches!(parsed.verify(b"x"), Err(BadSignature::Wrong(_))));
    for end in 0..whole.len() {
        assert!(SshSignature::parse(armored(&whole[..end]).as_bytes()).is_err(), "cut to {end} bytes");
    }
    assert!(SshSignature::parse(armored(&[&whole[..], b"x"].concat()).as_bytes()).is_err());
    let md5 = whole.windows(6).position(|part| part == b"sha512").map(|at| [&whole[..at], b"sha384", &whole[at + 6..]].concat()).unwrap();
    assert_eq!(
        SshSignature::parse(armored(&md5).as_bytes()).unwrap_err(),
        BadSignature::Malformed("its hash is neither sha256 nor sha512")
    );
    let second = [&whole[..9], &[2], &whole[10..]].concat();
    assert_eq!(SshSignature::parse(armored(&second).as_bytes()).unwrap_err(), BadSignature::Malformed("it is not of version 1"));
}

#[test]
fn revoked_keys_are_public_keys_and_nothing_else() {
    let key = STANDARD.encode(strings(&[b"ssh-ed25519", &[1; 32]]));
    let (revoked, bad) = revoked_keys(format!("# lost\n\nssh-ed25519 {key} of anna\nssh-ed25519 AAAA\nSHA256:x\n").as_bytes());
    assert_eq!((revoked.len(), bad.iter().map(|bad| bad.line).collect::<Vec<_>>()), (1, vec![4, 5]));
    let (revoked, bad) = revoked_keys(b"SSHKRL\n\0\0\0\0\x01");
    assert!(revoked.is_empty() && bad[0].message.contains("KRL"), "{bad:?}");
}
