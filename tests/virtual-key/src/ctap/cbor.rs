//! CBOR as CTAP2 writes it (CTAP 2.1, 8).

use ciborium::Value;

use super::Status;

/// Entries of a request's map, looked up by key.
pub(crate) struct Fields(Vec<(Value, Value)>);

impl Fields {
    /// A command's parameters. No bytes at all: no parameters.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<Self, Status> {
        if bytes.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let value: Value = ciborium::from_reader(&mut bytes).map_err(|_cbor| Status::INVALID_CBOR)?;
        if bytes.is_empty() { Self::of(&value) } else { Err(Status::INVALID_CBOR) }
    }

    pub(crate) fn of(value: &Value) -> Result<Self, Status> {
        value.as_map().cloned().map(Self).ok_or(Status::CBOR_UNEXPECTED_TYPE)
    }

    pub(crate) fn get(&self, key: impl Into<Value>) -> Option<&Value> {
        let key = key.into();
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    pub(crate) fn bytes(&self, key: impl Into<Value>) -> Result<Option<Vec<u8>>, Status> {
        self.typed(key, |value| value.as_bytes().cloned())
    }

    pub(crate) fn text(&self, key: impl Into<Value>) -> Result<Option<String>, Status> {
        self.typed(key, |value| value.as_text().map(str::to_owned))
    }

    pub(crate) fn number(&self, key: impl Into<Value>) -> Result<Option<i64>, Status> {
        self.typed(key, |value| value.as_integer().and_then(|number| number.try_into().ok()))
    }

    pub(crate) fn flag(&self, key: impl Into<Value>) -> Result<Option<bool>, Status> {
        self.typed(key, Value::as_bool)
    }

    pub(crate) fn array(&self, key: impl Into<Value>) -> Result<Option<Vec<Value>>, Status> {
        self.typed(key, |value| value.as_array().cloned())
    }

    pub(crate) fn map(&self, key: impl Into<Value>) -> Result<Option<Self>, Status> {
        self.get(key).map(Self::of).transpose()
    }

    /// The keys that are text.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().filter_map(|(name, _)| name.as_text().map(str::to_owned)).collect()
    }

    fn typed<T>(
        &self,
        key: impl Into<Value>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Status> {
        self.get(key).map(|value| read(value).ok_or(Status::CBOR_UNEXPECTED_TYPE)).transpose()
    }
}

/// What a command cannot do without.
pub(crate) fn required<T>(parameter: Option<T>) -> Result<T, Status> {
    parameter.ok_or(Status::MISSING_PARAMETER)
}

/// A map in CTAP2's canonical order: of keys, the shorter encoding first, then by bytes.
pub(crate) fn map<K: Into<Value>, V: Into<Value>>(entries: impl IntoIterator<Item = (K, V)>) -> Value {
    let mut entries: Vec<(Value, Value)> =
        entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    entries.sort_by_key(|(key, _)| {
        let bytes = encoded(key);
        let major = bytes.first().map(|first| first >> 5);
        (major, bytes.len(), bytes)
    });
    Value::Map(entries)
}

/// The bytes of a value.
pub(crate) fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A Vec takes everything, and every Value has an encoding.
    ciborium::into_writer(value, &mut bytes)
        .unwrap_or_else(|error| panic!("CBOR cannot be written: {error}"));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_in_canonical_order() {
        let key = map([(-2, 0), (-1, 0), (3, 0), (1, 0), (-3, 0)]);
        assert_eq!(encoded(&key), [0xa5, 1, 0, 3, 0, 0x20, 0, 0x21, 0, 0x22, 0]);
        let options = map([("clientPin", true), ("up", true), ("rk", false)]);
        let names = Fields::of(&options).unwrap().names();
        assert_eq!(names, ["rk", "up", "clientPin"]);
    }

    #[test]
    fn what_is_no_map_or_goes_on_after_it_is_refused() {
        assert_eq!(Fields::read(&[0x01]).err(), Some(Status::CBOR_UNEXPECTED_TYPE));
        assert_eq!(Fields::read(&[0xa0, 0x00]).err(), Some(Status::INVALID_CBOR));
        assert_eq!(Fields::read(&[0xa1, 0x00]).err(), Some(Status::INVALID_CBOR));
        assert!(Fields::read(&[]).unwrap().get(1).is_none());
    }

    #[test]
    fn a_parameter_of_another_type_is_refused() {
        let fields = Fields::of(&map([(1, "text")])).unwrap();
        assert_eq!(fields.bytes(1), Err(Status::CBOR_UNEXPECTED_TYPE));
        assert_eq!(fields.text(1), Ok(Some("text".to_owned())));
        assert_eq!(fields.text(2), Ok(None));
    }
}
