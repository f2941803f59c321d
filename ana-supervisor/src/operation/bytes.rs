//! Bytes that are not the program's own text: arguments, paths, names of variables.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Arbitrary bytes, carried in JSON as `{"b64": <base64url>, "text": <escaped>}`: the first is the identity, the
/// second is what people read. A value whose two halves disagree does not parse.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

/// Bytes: base64url is the identity, the escaped text is for people.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Form {
    b64: String,
    text: String,
}

impl Bytes {
    /// Printable ASCII as it is, everything else as `\xNN` (and `\\` for a backslash): injective, safe on a terminal.
    pub fn escaped(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for &byte in &self.0 {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b' '..=b'~' => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\x{byte:02x}")),
            }
        }
        text
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Form::json_schema(generator)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Form { b64: BASE64_URL_SAFE_NO_PAD.encode(&self.0), text: self.escaped() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = Form::deserialize(deserializer)?;
        let bytes = Self(BASE64_URL_SAFE_NO_PAD.decode(&form.b64).map_err(D::Error::custom)?);
        if bytes.escaped() != form.text {
            return Err(D::Error::custom("the text does not render the bytes"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Bytes;

    #[test]
    fn escaping_leaves_printable_ascii_and_nothing_else() {
        assert_eq!(Bytes(b"a b~".to_vec()).escaped(), "a b~");
        assert_eq!(Bytes(b"\x1b[2J\\\n\xc3\xa9\x7f".to_vec()).escaped(), r"\x1b[2J\\\x0a\xc3\xa9\x7f");
    }

    #[test]
    fn halves_that_disagree_do_not_parse() {
        for text in [
            r#"{"b64":"Z2l0","text":"ls"}"#,
            r#"{"b64":"Z2l0"}"#,
            r#"{"text":"git"}"#,
            r#"{"b64":"Z2l0=","text":"git"}"#,
            r#"{"b64":"Z2l1","text":"git"}"#,
            r#"{"b64":"Z2l0","text":"git","more":1}"#,
            r#""git""#,
        ] {
            assert!(serde_json::from_str::<Bytes>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_second_spelling_of_the_same_bytes_does_not_parse() {
        // "Zh" decodes to "f" only if the four spare bits are ignored.
        assert!(serde_json::from_str::<Bytes>(r#"{"b64":"Zg","text":"f"}"#).is_ok());
        assert!(serde_json::from_str::<Bytes>(r#"{"b64":"Zh","text":"f"}"#).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let value = Bytes(bytes);
            let text = serde_json::to_string(&value).unwrap();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), value);
        }

        #[test]
        fn escaping_is_injective(a in prop::collection::vec(any::<u8>(), 0..4), b in prop::collection::vec(any::<u8>(), 0..4)) {
            let same = Bytes(a.clone()).escaped() == Bytes(b.clone()).escaped();
            prop_assert_eq!(same, a == b);
        }
    }
}
