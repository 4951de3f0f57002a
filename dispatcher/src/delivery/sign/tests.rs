//! Signatures against the vectors of the specification and the reference library.

use proptest::prelude::*;
use runtime::clock::Entropy;
use runtime::secret::ExposeSecret as _;

use super::*;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
const TIMESTAMP: i64 = 1_649_367_553;
const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32]).unwrap()
}

fn check(keys: &[SigningKey], signature: &str, now: i64) -> Result<(), VerifyError> {
    let timestamp = TIMESTAMP.to_string();
    let keys: Vec<_> = keys.iter().map(SigningKey::verifying).collect();
    verify(
        &keys,
        &Received {
            id: ID,
            timestamp: &timestamp,
            signature,
            body: BODY,
        },
        now,
    )
}

#[test]
fn the_specifications_vector_is_reproduced() {
    // WH-4, WH-5
    let keys = [SigningKey::parse(SECRET).unwrap()];
    assert_eq!(sign(&keys, ID, TIMESTAMP, BODY), SIGNATURE);
    assert_eq!(check(&keys, SIGNATURE, TIMESTAMP), Ok(()));
}

#[test]
fn rotation_signs_with_every_key_and_either_verifies() {
    // WH-3
    let header = sign(&[key(1), key(2)], ID, TIMESTAMP, BODY);
    assert_eq!(header.split(' ').count(), 2);
    assert_eq!(check(&[key(1)], &header, TIMESTAMP), Ok(()));
    assert_eq!(check(&[key(2)], &header, TIMESTAMP), Ok(()));
    assert_eq!(
        check(&[key(3)], &header, TIMESTAMP),
        Err(VerifyError::NoMatch)
    );
    assert_eq!(sign(&[], ID, TIMESTAMP, BODY), "");
}

#[test]
fn asymmetric_keys_sign_what_their_public_keys_verify() {
    // WH-6
    const SECRET: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    let keys = [SigningKey::parse(SECRET).unwrap()];
    let header = sign(&keys, ID, TIMESTAMP, BODY);
    let timestamp = TIMESTAMP.to_string();
    let mut received = Received {
        id: ID,
        timestamp: &timestamp,
        signature: &header,
        body: BODY,
    };
    let public = [VerifyingKey::parse(PUBLIC).unwrap()];
    assert_eq!(verify(&public, &received, TIMESTAMP), Ok(()));
    received.id = "msg_other";
    assert_eq!(
        verify(&public, &received, TIMESTAMP),
        Err(VerifyError::NoMatch)
    );
    // The content is id, timestamp and body, and the signature plain ed25519 (RFC 8032).
    let content = [ID, ".", &timestamp, ".", std::str::from_utf8(BODY).unwrap()].concat();
    let signature = STANDARD
        .decode(header.strip_prefix("v1a,").unwrap())
        .unwrap();
    let key = ed25519::PublicKey::parse(PUBLIC).unwrap();
    assert!(key.verifies(content.as_bytes(), &signature));
}

#[test]
fn a_rotation_between_versions_signs_with_both() {
    // WH-3
    let (secret, _) = ed25519::SecretKey::generate(&Entropy::seeded(3)).unwrap();
    let asymmetric = SigningKey::parse(secret.expose_secret()).unwrap();
    let header = sign(&[asymmetric.clone(), key(1)], ID, TIMESTAMP, BODY);
    let versions: Vec<_> = header.split(' ').map(|one| one.split(',').next()).collect();
    assert_eq!(versions, [Some("v1a"), Some("v1")]);
    assert_eq!(check(&[asymmetric], &header, TIMESTAMP), Ok(()));
    assert_eq!(check(&[key(1)], &header, TIMESTAMP), Ok(()));
    assert_eq!(
        check(&[key(2)], &header, TIMESTAMP),
        Err(VerifyError::NoMatch)
    );
}

#[test]
fn verifying_follows_the_tolerance_and_ignores_unknown_versions() {
    // WH-8
    let keys = [SigningKey::parse(SECRET).unwrap()];
    let mixed = format!("v1a,abcd v2,{SIGNATURE} {SIGNATURE} v1,nonsense");
    assert_eq!(check(&keys, &mixed, TIMESTAMP + 300), Ok(()));
    assert_eq!(check(&keys, SIGNATURE, TIMESTAMP - 300), Ok(()));
    assert_eq!(
        check(&keys, SIGNATURE, TIMESTAMP + 301),
        Err(VerifyError::TooOld)
    );
    assert_eq!(
        check(&keys, SIGNATURE, TIMESTAMP - 301),
        Err(VerifyError::TooNew)
    );
    assert_eq!(
        check(&keys, "v1a,abcd", TIMESTAMP),
        Err(VerifyError::NoMatch)
    );
    assert_eq!(check(&keys, "", TIMESTAMP), Err(VerifyError::NoMatch));
    assert_eq!(check(&[], SIGNATURE, TIMESTAMP), Err(VerifyError::NoMatch));
    let odd = Received {
        id: ID,
        timestamp: "soon",
        signature: SIGNATURE,
        body: BODY,
    };
    let keys = [keys[0].verifying()];
    assert_eq!(verify(&keys, &odd, TIMESTAMP), Err(VerifyError::Timestamp));
}

#[test]
fn secrets_are_checked_and_never_shown() {
    let parse = |text: &str| SigningKey::parse(text).map(|_| ());
    let secret = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
    assert_eq!(
        parse("C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        Err(KeyError::Prefix)
    );
    assert_eq!(parse("whsec_!!"), Err(KeyError::Base64));
    assert_eq!(parse(&secret(23)), Err(KeyError::Length(23)));
    assert_eq!(parse(&secret(24)), Ok(()));
    assert_eq!(parse(&secret(64)), Ok(()));
    assert_eq!(parse(&secret(65)), Err(KeyError::Length(65)));
    assert_eq!(
        parse("whsk_AAAA"),
        Err(KeyError::Asymmetric(ed25519::Error::Length(3)))
    );
    assert_eq!(format!("{:?}", key(1)), "SigningKey(redacted)");
    assert_eq!(
        format!("{:?}", key(1).verifying()),
        "VerifyingKey(redacted)"
    );
}

#[test]
fn the_key_schedule_is_wiped_when_dropped() {
    // HMAC's states are digests; the feature that wipes them must stay switched on.
    const fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Sha256>();
}

proptest! {
    #[test]
    fn the_reference_crate_agrees(
        secret in proptest::collection::vec(any::<u8>(), 24..=64),
        id in "msg_[0-9a-z]{26}",
        timestamp in 0_i64..4_000_000_000,
        body in ".{0,200}",
    ) {
        let reference = standardwebhooks::Webhook::from_bytes(secret.clone()).unwrap();
        let expected = reference.sign(&id, timestamp, body.as_bytes()).unwrap();
        let keys = [SigningKey::from_bytes(&secret).unwrap()];
        prop_assert_eq!(sign(&keys, &id, timestamp, body.as_bytes()), expected);
    }

    #[test]
    fn a_changed_byte_is_noticed(body in proptest::collection::vec(any::<u8>(), 1..100), at: usize) {
        let keys = [key(9)];
        let signature = sign(&keys, ID, TIMESTAMP, &body);
        let mut changed = body;
        let at = at % changed.len();
        changed[at] ^= 1;
        let timestamp = TIMESTAMP.to_string();
        let received =
            Received { id: ID, timestamp: &timestamp, signature: &signature, body: &changed };
        let keys = [keys[0].verifying()];
        prop_assert_eq!(verify(&keys, &received, TIMESTAMP), Err(VerifyError::NoMatch));
    }
}
