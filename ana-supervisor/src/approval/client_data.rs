//! clientDataJSON: what a WebAuthn client signs together with the authenticator's data.
//!
//! Two parsers that disagree on a repeated member would disagree on what was signed, so one is refused here.

use std::{collections::HashSet, fmt};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::json;

/// The members that decide; unknown ones are allowed by the specification and carry no meaning here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientData {
    pub(super) kind: Option<String>,
    pub(super) challenge: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) cross_origin: bool,
    pub(super) top_origin: bool,
}

/// The bytes a client signs for an assertion, in the order in which WebAuthn serialises them.
pub(super) fn encode(challenge: &[u8; 32], origin: &str) -> Vec<u8> {
    encode_as("webauthn.get", challenge, origin)
}

/// The same for a new credential.
pub(super) fn encode_new(challenge: &[u8; 32], origin: &str) -> Vec<u8> {
    encode_as("webauthn.create", challenge, origin)
}

fn encode_as(kind: &str, challenge: &[u8; 32], origin: &str) -> Vec<u8> {
    let origin = json!(origin);
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(challenge);
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":{origin}}}"#).into_bytes()
}

/// One JSON object and nothing after it; a repeated member, however it is escaped, is an error.
pub(super) fn parse(bytes: &[u8]) -> Result<ClientData, serde_json::Error> {
    serde_json::from_slice(bytes)
}

impl<'de> Deserialize<'de> for ClientData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = ClientData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClientData, A::Error> {
        let mut seen = HashSet::new();
        let mut data = ClientData::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "type" => data.kind = Some(map.next_value()?),
                "challenge" => data.challenge = Some(map.next_value()?),
                "origin" => data.origin = Some(map.next_value()?),
                "crossOrigin" => data.cross_origin = map.next_value()?,
                "topOrigin" => {
                    map.next_value::<IgnoredAny>()?;
                    data.top_origin = true;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("the member {name:?} is there twice")));
            }
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_what_it_parses() {
        let bytes = encode(&[7; 32], "ana:host");
        assert_eq!(
            bytes,
            br#"{"type":"webauthn.get","challenge":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc","origin":"ana:host"}"#
        );
        let data = parse(&bytes).unwrap();
        assert_eq!(data.kind.as_deref(), Some("webauthn.get"));
        assert_eq!(data.origin.as_deref(), Some("ana:host"));
        assert!(!data.cross_origin && !data.top_origin);
    }

    #[test]
    fn unknown_members_are_tolerated() {
        let data = parse(br#"{"type":"x","other_keys_can_be_added_here":{"a":[1,{"b":null}]},"origin":"o"}"#)
            .unwrap();
        assert_eq!(data.origin.as_deref(), Some("o"));
    }

    #[test]
    fn a_member_twice_is_refused_even_escaped() {
        for text in [
            r#"{"origin":"a","origin":"b"}"#,
            r#"{"origin":"a","origin":"a"}"#,
            r#"{"origin":"a","or\u0069gin":"b"}"#,
            r#"{"unknown":1,"unknown":1}"#,
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("twice"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in [
            "",
            "[]",
            "null",
            r#""webauthn.get""#,
            r#"{"type":"x""#,
            r#"{"type":"x"}{}"#,
            r#"{"type":1}"#,
            r#"{"crossOrigin":"false"}"#,
            r#"{"crossOrigin":null}"#,
            "\u{feff}{}",
            r#"{"type":"x",}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?} was taken");
        }
        assert!(parse(b"{\"type\":\"\xff\"}").is_err());
        let error = parse(b"[]").unwrap_err();
        assert!(error.to_string().contains("expected a JSON object"), "{error}");
    }
}
