//! The kinds of operations, and their form in JSON: `"kind": "exec", "exec": {…}`, side by side with the other keys of
//! an operation. Written by hand because every kind has a key of its own, which no form of serde's enums has.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser::SerializeStruct};

use super::{Connect, ConnectGrant, Exec};

/// The kind's own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Exec(Box<Exec>),
    Connect(Box<Connect>),
    ConnectGrant(Box<ConnectGrant>),
}

impl Kind {
    /// What stands behind `"kind"`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Connect(_) => "connect",
            Self::ConnectGrant(_) => "connect-grant",
        }
    }

    pub fn exec(&self) -> Option<&Exec> {
        match self {
            Self::Exec(exec) => Some(exec),
            Self::Connect(_) | Self::ConnectGrant(_) => None,
        }
    }

    /// The connection: of a grant, the one that asked for it.
    pub fn connect(&self) -> Option<&Connect> {
        match self {
            Self::Exec(_) => None,
            Self::Connect(connect) => Some(connect),
            Self::ConnectGrant(grant) => Some(&grant.connect),
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Exec,
    Connect,
    ConnectGrant,
}

/// The keys of all kinds; those of another kind than the word's are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    kind: Word,
    #[serde(default, deserialize_with = "present")]
    exec: Option<Box<Exec>>,
    #[serde(default, deserialize_with = "present")]
    connect: Option<Box<Connect>>,
    #[serde(default, deserialize_with = "present")]
    connect_grant: Option<Box<ConnectGrant>>,
}

/// A key that is there has a value: `null` is none.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("Kind", 2)?;
        form.serialize_field("kind", self.word())?;
        match self {
            Self::Exec(exec) => form.serialize_field("exec", exec)?,
            Self::Connect(connect) => form.serialize_field("connect", connect)?,
            Self::ConnectGrant(grant) => form.serialize_field("connect_grant", grant)?,
        }
        form.end()
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Form { kind, exec, connect, connect_grant } = Form::deserialize(deserializer)?;
        match (kind, exec, connect, connect_grant) {
            (Word::Exec, Some(exec), None, None) => Ok(Self::Exec(exec)),
            (Word::Connect, None, Some(connect), None) => Ok(Self::Connect(connect)),
            (Word::ConnectGrant, None, None, Some(grant)) => Ok(Self::ConnectGrant(grant)),
            (Word::Exec | Word::Connect | Word::ConnectGrant, ..) => {
                Err(D::Error::custom("the fields are not those of the kind"))
            }
        }
    }
}

/// Only its schema is of use.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "described, not made")]
enum Described {
    Exec { kind: ExecWord, exec: Exec },
    Connect { kind: ConnectWord, connect: Connect },
    ConnectGrant { kind: ConnectGrantWord, connect_grant: ConnectGrant },
}

macro_rules! word {
    ($name:ident, $word:literal) => {
        struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "const": $word })
            }
        }
    };
}

word!(ExecWord, "exec");
word!(ConnectWord, "connect");
word!(ConnectGrantWord, "connect-grant");

impl JsonSchema for Kind {
    fn schema_name() -> Cow<'static, str> {
        "Kind".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Described::json_schema(generator)
    }
}
