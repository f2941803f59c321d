use super::{super::samples::*, *};

const CHALLENGE: [u8; 32] = [7; 32];

fn expected(offered: &[Passkey]) -> Expected<'_> {
    Expected { challenge: CHALLENGE, origin: RP_ID, rp_id: RP_ID, verify: Verify::Presence, offered }
}

fn check(token: &Token, data: &[u8], client_data: &[u8]) -> Result<Verified, AssertionError> {
    verify(&token.sign_parts(data, client_data), &expected(std::slice::from_ref(&token.passkey)))
}

fn good_data() -> Vec<u8> {
    authenticator_data(RP_ID, UP, 0)
}

fn good_client_data() -> Vec<u8> {
    client_data::encode(&CHALLENGE, RP_ID)
}

macro_rules! assert_refused {
    ($result:expr, $variant:pat) => {
        match $result {
            Err($variant) => {}
            other => panic!("expected {}, got {other:?}", stringify!($variant)),
        }
    };
}

#[test]
fn a_right_assertion_is_verified() {
    let token = Token::new("key");
    let verified = check(&token, &good_data(), &good_client_data()).unwrap();
    assert_eq!(verified.challenge(), &CHALLENGE);
    assert_eq!((verified.approver(), verified.passkey(), verified.user_verified()), ("bob", "key", false));
    assert_eq!(verified.public_key(), token.passkey.public_key);
}

#[test]
fn eddsa_is_verified_and_its_forgeries_are_not() {
    let token = EdToken::new("ed");
    let offered = [token.passkey.clone()];
    let good = token.sign_parts(&good_data(), &good_client_data());
    verify(&good, &expected(&offered)).unwrap();
    let mut bytes = unb64(&good.signature);
    // s + L: the same point equation, another encoding; verify_strict and the scalar's range refuse it.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0u16;
    for (byte, add) in bytes[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    let malleable = Assertion { signature: b64(&bytes), ..good.clone() };
    assert!(verify(&malleable, &expected(&offered)).is_err());
    for len in [0, 63, 65] {
        let short = Assertion { signature: b64(vec![1; len]), ..good.clone() };
        assert_refused!(verify(&short, &expected(&offered)), AssertionError::SignatureEncoding);
    }
}

/// RFC 8032, 7.1, TEST 2 and its neighbour with one bit changed.
#[test]
fn eddsa_agrees_with_the_rfc() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let public = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let mut signature = hex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    let key = PublicKey::from_b64(&passkey("rfc", okp(&public)).public_key).unwrap();
    assert_eq!(key.verify(&[0x72], &signature), Ok(()));
    assert_eq!(key.verify(&[0x73], &signature), Err(SignatureFault::Mismatch));
    signature[3] ^= 1;
    assert_eq!(key.verify(&[0x72], &signature), Err(SignatureFault::Mismatch));
}

#[test]
fn keys_that_are_no_keys_are_refused() {
    let mut point = [0; 32];
    point[0] = 1; // the identity: it "verifies" anything with R = sB
    assert_refused!(PublicKey::from_b64(&passkey("weak", okp(&point)).public_key), KeyError::Point);
    assert_refused!(PublicKey::from_b64(&passkey("short", okp(&[1; 31])).public_key), KeyError::Member("x"));
    assert_refused!(PublicKey::from_b64("!"), KeyError::Base64(_));
    assert_refused!(PublicKey::from_b64(&b64([0xa0])), KeyError::Cose(_));
    assert_refused!(PublicKey::from_b64(&b64([0; 256])), KeyError::Cose(_));
    assert_refused!(PublicKey::from_b64(&b64([0; 257])), KeyError::TooLong { len: 257 });
    let mut trailing = unb64(&Token::new("key").passkey.public_key);
    trailing.push(0);
    assert_refused!(PublicKey::from_b64(&b64(&trailing)), KeyError::Cose(_));
    let mut off_curve = unb64(&Token::new("key").passkey.public_key);
    *off_curve.last_mut().unwrap() ^= 1;
    assert_refused!(PublicKey::from_b64(&b64(&off_curve)), KeyError::Point);
}

/// Coordinates say nothing about the curve that they are on.
#[test]
fn a_key_of_another_curve_is_refused() {
    use coset::{CborSerializable, CoseKey, Label, cbor::Value, iana, iana::EnumI64};
    let es = unb64(&Token::new("key").passkey.public_key);
    let ed = unb64(&EdToken::new("key").passkey.public_key);
    for (key, other) in [(es, iana::EllipticCurve::P_384), (ed, iana::EllipticCurve::Ed448)] {
        let with = |curve: Option<Value>| {
            let mut key = CoseKey::from_slice(&key).unwrap();
            // -1 is "crv" of both kinds of keys (RFC 9053, 7.1 and 7.2).
            key.params.retain(|(label, _)| *label != Label::Int(-1));
            key.params.extend(curve.map(|curve| (Label::Int(-1), curve)));
            PublicKey::from_b64(&b64(key.to_vec().unwrap()))
        };
        assert_refused!(with(Some(other.to_i64().into())), KeyError::Unsupported);
        assert_refused!(with(Some(Value::Text("P-256".to_owned()))), KeyError::Member("crv"));
        assert_refused!(with(None), KeyError::Member("crv"));
    }
}

#[test]
fn another_passkey_is_refused() {
    let (token, stranger) = (Token::new("key"), Token::new("stranger"));
    let offered = [token.passkey.clone()];
    let assertion = stranger.sign_parts(&good_data(), &good_client_data());
    assert_refused!(verify(&assertion, &expected(&offered)), AssertionError::UnknownPasskey { .. });
    assert_refused!(verify(&assertion, &expected(&[])), AssertionError::UnknownPasskey { .. });
    // The stranger's signature under the enrolled id.
    let forged = Assertion { credential_id: token.passkey.credential_id.clone(), ..assertion };
    assert_refused!(verify(&forged, &expected(&offered)), AssertionError::Signature { .. });
}

#[test]
fn the_key_decides_the_algorithm() {
    let (es, ed) = (Token::new("es"), EdToken::new("ed"));
    let offered = [es.passkey.clone(), ed.passkey.clone()];
    let mut assertion = ed.sign_parts(&good_data(), &good_client_data());
    assertion.credential_id = es.passkey.credential_id.clone();
    assert_refused!(verify(&assertion, &expected(&offered)), AssertionError::SignatureEncoding);
}

#[test]
fn client_data_has_to_be_exact() {
    let token = Token::new("key");
    let right = b64(CHALLENGE);
    let with = |text: String| check(&token, &good_data(), text.as_bytes());
    let object = |kind: &str, challenge: &str, origin: &str, more: &str| {
        with(format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"{more}}}"#))
    };
    object("webauthn.get", &right, RP_ID, "").unwrap();
    object("webauthn.get", &right, RP_ID, r#","crossOrigin":false,"new_member":[1,{"origin":"x"}]"#).unwrap();
    assert_refused!(object("webauthn.create", &right, RP_ID, ""), AssertionError::Type { .. });
    assert_refused!(object("webauthn.get", &b64([8; 32]), RP_ID, ""), AssertionError::Challenge);
    assert_refused!(object("webauthn.get", &format!("{right}="), RP_ID, ""), AssertionError::Challenge);
    assert_refused!(object("webauthn.get", "", RP_ID, ""), AssertionError::Challenge);
    for origin in
        ["", "ana:build-2.example", "ana:build-1.example/", "ANA:build-1.example", "https://build-1.example"]
    {
        assert_refused!(object("webauthn.get", &right, origin, ""), AssertionError::Origin { .. });
    }
    assert_refused!(
        object("webauthn.get", &right, RP_ID, r#","crossOrigin":true"#),
        AssertionError::CrossOrigin
    );
    assert_refused!(
        object("webauthn.get", &right, RP_ID, r#","topOrigin":"https://evil.example""#),
        AssertionError::CrossOrigin
    );
    assert_refused!(
        object("webauthn.get", &right, RP_ID, r#","origin":"ana:build-1.example""#),
        AssertionError::ClientData(_)
    );
    assert_refused!(with("{}".to_owned()), AssertionError::Type { found: None });
    assert_refused!(with("[]".to_owned()), AssertionError::ClientData(_));
    assert_refused!(with(format!("[{}", "[".repeat(2000))), AssertionError::ClientData(_));
}

#[test]
fn authenticator_data_has_to_be_exact() {
    let token = Token::new("key");
    let with = |data: &[u8]| check(&token, data, &good_client_data());
    let flags = |flags: u8| with(&authenticator_data(RP_ID, flags, 0));
    for len in 0..37 {
        assert_refused!(with(&good_data()[..len]), AssertionError::AuthenticatorDataShort { .. });
    }
    assert_refused!(with(&authenticator_data("ana:other", UP, 0)), AssertionError::RpId { .. });
    assert_refused!(with(&authenticator_data("localhost", UP, 0)), AssertionError::RpId { .. });
    assert_refused!(flags(0), AssertionError::NotPresent);
    assert_refused!(flags(UV), AssertionError::NotPresent);
    assert_refused!(flags(UP | 0x02), AssertionError::ReservedFlags { flags: 0x02 });
    assert_refused!(flags(UP | 0x20), AssertionError::ReservedFlags { flags: 0x20 });
    assert_refused!(flags(UP | AT), AssertionError::AttestedData);
    assert_refused!(flags(UP | BS), AssertionError::BackupState);
    assert_refused!(flags(UP | BE), AssertionError::BackupEligibility { enrolled: false });
    assert_refused!(flags(UP | ED), AssertionError::Extensions);
    assert!(flags(UP | UV).unwrap().user_verified());
    let with_tail =
        |flag: u8, tail: &[u8]| with(&[authenticator_data(RP_ID, UP | flag, 0), tail.to_vec()].concat());
    assert_refused!(with_tail(0, &[0]), AssertionError::TrailingBytes { extra: 1 });
    assert_refused!(with_tail(0, &[0xa0]), AssertionError::TrailingBytes { extra: 1 });
    with_tail(ED, &[0xa0]).unwrap();
    with_tail(ED, b"\xa1\x63abc\xf5").unwrap();
    assert_refused!(with_tail(ED, &[0xa0, 0]), AssertionError::TrailingBytes { extra: 1 });
    assert_refused!(with_tail(ED, &[0x80]), AssertionError::Extensions);
    assert_refused!(with_tail(ED, b"\xa1\x63ab"), AssertionError::Extensions);
    assert_refused!(with_tail(ED, &[0x81; 900]), AssertionError::Extensions);
}

#[test]
fn backup_eligibility_is_the_enrolments() {
    let mut token = Token::new("key");
    (token.passkey.be, token.passkey.bs) = (true, true);
    let flags = |flags: u8| check(&token, &authenticator_data(RP_ID, flags, 0), &good_client_data());
    flags(UP | BE | BS).unwrap();
    flags(UP | BE).unwrap();
    assert_refused!(flags(UP), AssertionError::BackupEligibility { enrolled: true });
}

#[test]
fn a_rule_that_asks_for_a_pin_gets_one() {
    let token = Token::new("key");
    let offered = [token.passkey.clone()];
    let expected = Expected { verify: Verify::Pin, ..expected(&offered) };
    let sign = |flags| token.sign_parts(&authenticator_data(RP_ID, flags, 0), &good_client_data());
    assert_refused!(verify(&sign(UP), &expected), AssertionError::NotVerified);
    assert!(verify(&sign(UP | UV), &expected).unwrap().user_verified());
}

#[test]
fn the_counter_has_to_grow() {
    let mut token = Token::new("key");
    for (stored, found, good) in [
        (0, 0, true),
        (0, 1, true),
        (5, 6, true),
        (5, 5, false),
        (5, 4, false),
        (5, 0, false),
        (0, u32::MAX, true),
    ] {
        token.passkey.sign_count = stored;
        let result = check(&token, &authenticator_data(RP_ID, UP, found), &good_client_data());
        assert_eq!(result.is_ok(), good, "{stored} -> {found}: {result:?}");
        if !good {
            assert_refused!(result, AssertionError::SignCount { .. });
        }
    }
}

#[test]
fn der_has_one_form() {
    let token = Token::new("key");
    let offered = [token.passkey.clone()];
    let good = token.sign_parts(&good_data(), &good_client_data());
    let der = unb64(&good.signature);
    let (r_len, s_at) = (usize::from(der[3]), 4 + usize::from(der[3]));
    let (r, s) = (der[4..4 + r_len].to_vec(), der[s_at + 2..].to_vec());
    let len = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let integer = |bytes: &[u8]| [&[0x02, len(bytes)], bytes].concat();
    let sequence = |parts: &[Vec<u8>]| {
        let body = parts.concat();
        [vec![0x30, len(&body)], body].concat()
    };
    assert_eq!(sequence(&[integer(&r), integer(&s)]), der, "the test's own encoder");
    let long_form = [vec![0x30, 0x81, der[1]], der[2..].to_vec()].concat();
    let raw = [[0; 32], [0; 32]].concat();
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("raw r and s", raw),
        ("trailing byte", [der.clone(), vec![0]].concat()),
        ("truncated", der[..der.len() - 1].to_vec()),
        ("long length", long_form),
        ("indefinite length", [vec![0x30, 0x80], der[2..].to_vec(), vec![0, 0]].concat()),
        ("padded r", sequence(&[integer(&[vec![0], vec![0; 1], r.clone()].concat()), integer(&s)])),
        ("three integers", sequence(&[integer(&r), integer(&s), integer(&[1])])),
        ("one integer", sequence(&[integer(&r)])),
        ("r is zero", sequence(&[integer(&[0]), integer(&s)])),
        ("s is zero", sequence(&[integer(&r), integer(&[0])])),
        ("r is negative", sequence(&[integer(&[0xff; 32]), integer(&s)])),
        ("r beyond the order", sequence(&[integer(&[vec![0], vec![0xff; 32]].concat()), integer(&s)])),
        ("s is 33 bytes", sequence(&[integer(&r), integer(&[vec![1], vec![0; 32]].concat())])),
        ("a set", [vec![0x31], der[1..].to_vec()].concat()),
    ];
    for (name, signature) in wrong {
        let assertion = Assertion { signature: b64(signature), ..good.clone() };
        match verify(&assertion, &expected(&offered)) {
            Err(AssertionError::SignatureEncoding) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    let swapped = Assertion { signature: b64(sequence(&[integer(&s), integer(&r)])), ..good };
    assert_refused!(verify(&swapped, &expected(&offered)), AssertionError::Signature { .. });
}

#[test]
fn every_single_bit_counts() {
    for (name, token_passkey, good) in [
        {
            let token = Token::new("es");
            ("ES256", token.passkey.clone(), token.sign_parts(&good_data(), &good_client_data()))
        },
        {
            let token = EdToken::new("ed");
            ("EdDSA", token.passkey.clone(), token.sign_parts(&good_data(), &good_client_data()))
        },
    ] {
        let offered = [token_passkey];
        verify(&good, &expected(&offered)).unwrap();
        let mut tried = 0;
        for field in 0..4 {
            let bytes = unb64(field_of(&good, field));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let assertion = with_field(&good, field, b64(&changed));
                let result = verify(&assertion, &expected(&offered));
                assert!(result.is_err(), "{name}: field {field}, bit {bit} was taken");
                tried += 1;
            }
        }
        assert!(tried > 1500, "{tried}");
    }
}

fn field_of(assertion: &Assertion, field: usize) -> &str {
    match field {
        0 => &assertion.credential_id,
        1 => &assertion.authenticator_data,
        2 => &assertion.client_data_json,
        _ => &assertion.signature,
    }
}

fn with_field(assertion: &Assertion, field: usize, text: String) -> Assertion {
    let mut changed = assertion.clone();
    match field {
        0 => changed.credential_id = text,
        1 => changed.authenticator_data = text,
        2 => changed.client_data_json = text,
        _ => changed.signature = text,
    }
    changed
}

#[test]
fn texts_have_one_form_and_a_limit() {
    let token = Token::new("key");
    let offered = [token.passkey.clone()];
    let good = token.sign_parts(&good_data(), &good_client_data());
    for field in 0..4 {
        for text in ["=", "a", "\u{e9}", "++//", "aa aa", "AB"] {
            let result = verify(&with_field(&good, field, text.to_owned()), &expected(&offered));
            assert_refused!(result, AssertionError::Base64 { .. });
        }
        let long = verify(&with_field(&good, field, "A".repeat(1 << 20)), &expected(&offered));
        assert_refused!(long, AssertionError::TooLong { .. });
    }
    // The longest that there may be is looked for; one byte more is not.
    let of_length = |len| verify(&with_field(&good, 0, b64(vec![7; len])), &expected(&offered));
    assert_refused!(of_length(CREDENTIAL_ID_MAX), AssertionError::UnknownPasskey { .. });
    assert_refused!(of_length(CREDENTIAL_ID_MAX + 1), AssertionError::TooLong { max: CREDENTIAL_ID_MAX, .. });
}

#[test]
fn json_has_these_four_members() {
    let good = Token::new("key").sign(&CHALLENGE);
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Assertion>(&text).unwrap(), good);
    assert!(serde_json::from_str::<Assertion>(&text.replace('}', r#","user_handle":"x"}"#)).is_err());
    assert!(serde_json::from_str::<Assertion>(r#"{"credential_id":"x"}"#).is_err());
}
