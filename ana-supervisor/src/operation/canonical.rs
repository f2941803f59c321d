//! The canonical form of an operation (RFC 8785) and the challenge that a passkey signs.

use sha2::{Digest, Sha256};

use super::Operation;

/// Why an operation has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// The serializer refused the value; [`Operation`] holds nothing that it refuses.
    #[error("the operation cannot be put into its canonical form")]
    Serialize(#[source] serde_json::Error),
}

impl Operation {
    /// The bytes that are hashed: the operation as JSON under RFC 8785 (sorted keys, no spaces, one spelling of
    /// every number and string).
    ///
    /// # Errors
    /// [`CanonicalError`] when the value does not serialize; nothing may then be asked or released.
    pub fn canonical(&self) -> Result<Vec<u8>, CanonicalError> {
        serde_json_canonicalizer::to_vec(self).map_err(CanonicalError::Serialize)
    }

    /// SHA-256 of [`Operation::canonical`]: the WebAuthn challenge. Whoever renders the operation recomputes it
    /// from what was rendered, so that what is seen is what is signed.
    ///
    /// # Errors
    /// As [`Operation::canonical`].
    pub fn challenge(&self) -> Result<[u8; 32], CanonicalError> {
        Ok(Sha256::digest(self.canonical()?).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Ancestor, Bytes, Change, Ids, Operation, Variable, example, example_script, exec_of};

    fn with_argv(argv: &[Vec<u8>]) -> Operation {
        let mut operation = example();
        let exec = exec_of(&mut operation);
        exec.argv = argv.iter().map(|argument| Bytes(argument.clone())).collect();
        operation
    }

    #[test]
    fn the_form_is_sorted_and_carries_the_kind() {
        let form = String::from_utf8(example().canonical().unwrap()).unwrap();
        assert!(form.starts_with(r#"{"boot_id":"#), "{form}");
        assert!(form.contains(r#""kind":"exec""#), "{form}");
        assert!(form.contains(r#"{"b64":"Z2l0","text":"git"}"#), "{form}");
        assert!(!form.contains(": "), "{form}");
    }

    #[test]
    fn json_round_trips_to_the_same_challenge() {
        let operation = example();
        let text = serde_json::to_string_pretty(&operation).unwrap();
        let back: Operation = serde_json::from_str(&text).unwrap();
        assert_eq!(back, operation);
        assert_eq!(back.challenge().unwrap(), operation.challenge().unwrap());
    }

    /// Every object of the form, wherever it is nested, refuses a key that it does not know: a client that
    /// renders what it parsed cannot leave anything out.
    #[test]
    fn unknown_keys_are_refused_at_every_depth() {
        fn objects(value: &serde_json::Value, at: String, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    found.push(at.clone());
                    map.iter().for_each(|(key, inner)| objects(inner, format!("{at}/{key}"), found));
                }
                serde_json::Value::Array(list) => {
                    list.iter().enumerate().for_each(|(i, inner)| objects(inner, format!("{at}/{i}"), found));
                }
                serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::String(_) => {}
            }
        }
        let whole = serde_json::to_value(example_script()).unwrap();
        let mut places = Vec::new();
        objects(&whole, String::new(), &mut places);
        assert!(places.len() > 15, "{places:?}");
        for place in places {
            let mut changed = whole.clone();
            changed.pointer_mut(&place).unwrap()["surprise"] = true.into();
            let parsed = serde_json::from_value::<Operation>(changed.clone());
            assert!(parsed.is_err(), "accepted an unknown key in {place:?}");
            let parsed = serde_json::from_str::<Operation>(&changed.to_string());
            assert!(parsed.is_err(), "accepted an unknown key in the text at {place:?}");
        }
    }

    #[test]
    fn repeated_keys_are_refused() {
        let text = serde_json::to_string(&example()).unwrap();
        for key in ["rule", "kind", "exec", "id"] {
            let value = serde_json::to_value(example()).unwrap()[key].clone();
            let twice = format!("{{{}:{value},{}", serde_json::json!(key), &text[1..]);
            assert!(serde_json::from_str::<Operation>(&twice).is_err(), "accepted {key} twice");
        }
    }

    #[test]
    fn a_missing_key_is_refused() {
        let whole = serde_json::to_value(example()).unwrap();
        for key in whole.as_object().unwrap().keys() {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(key);
            assert!(serde_json::from_value::<Operation>(less).is_err(), "accepted without {key}");
        }
    }

    #[test]
    fn every_field_changes_the_challenge() {
        let operation = example();
        let before = operation.challenge().unwrap();
        let changes: [fn(&mut Operation); 6] = [
            |o| o.nonce.push('x'),
            |o| o.rule.push('x'),
            |o| o.expires_at.push('x'),
            |o| o.requester.pid += 1,
            |o| o.verify = super::super::Verify::Pin,
            |o| {
                let exec = exec_of(o);
                exec.program.not_fixed = !exec.program.not_fixed;
            },
        ];
        for change in changes {
            let mut other = operation.clone();
            change(&mut other);
            assert_ne!(other.challenge().unwrap(), before);
        }
    }

    /// Bytes that look alike once they are escaped: a backslash, the digits behind it, quotes, halves of characters.
    fn lookalikes() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop::sample::select(b"\\x8n\"' \0\n\x80\xff\xc3\xa9".to_vec());
        prop::collection::vec(prop::collection::vec(byte, 0..3), 0..3)
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes)
    }

    /// Every field that somebody outside can choose, with strings of any characters.
    fn operations() -> impl Strategy<Value = Operation> {
        let names = (
            ".{0,6}",
            "\\PC{0,6}",
            "[\u{0}-\u{1f}\"\\\\\u{7f}\u{2028}\u{d7ff}\u{e000}\u{fb33}\u{10000}]{0,6}",
        );
        let change = prop::sample::select(vec![Change::Added, Change::Changed, Change::Removed]);
        let variable = (bytes(), change, prop::option::of(".{0,4}"))
            .prop_map(|(name, change, sha256)| Variable { name, change, sha256 });
        let exec = (
            prop::collection::vec(variable, 0..3),
            any::<[u32; 4]>(),
            prop::collection::vec(".{0,4}", 0..3),
            any::<[bool; 3]>(),
        );
        let above = prop::collection::vec((any::<i32>(), bytes()), 0..3);
        (names, (bytes(), bytes()), exec, above, any::<u32>()).prop_map(|(names, paths, exec, above, v)| {
            let mut operation = if exec.3[0] { example_script() } else { example() };
            (operation.rule, operation.host, operation.id) = names;
            operation.v = v;
            operation.requester.ancestry = above
                .into_iter()
                .map(|(pid, exe)| Ancestor { pid, start_time: pid.to_string(), exe })
                .collect();
            let inner = exec_of(&mut operation);
            (inner.cwd, inner.program.path) = paths;
            inner.program.not_fixed = exec.3[1];
            if let Some(script) = &mut inner.script {
                script.opened = exec.3[2];
            }
            inner.environment.changed = exec.0;
            let [uid, euid, gid, egid] = exec.1;
            inner.ids = Ids { uid, euid, gid, egid, capabilities: None };
            inner.foreign_namespaces = exec.2;
            operation
        })
    }

    proptest! {
        #[test]
        fn lookalikes_do_not_share_a_form(a in lookalikes(), b in lookalikes()) {
            let (left, right) = (with_argv(&a).canonical().unwrap(), with_argv(&b).canonical().unwrap());
            prop_assert_eq!(left == right, a == b);
        }

        #[test]
        fn no_two_operations_share_a_form(a in operations(), b in operations()) {
            prop_assert_eq!(a.canonical().unwrap() == b.canonical().unwrap(), a == b);
        }

        #[test]
        fn another_implementation_agrees_on_everything(operation in operations()) {
            let form = operation.canonical().unwrap();
            prop_assert_eq!(&form, &serde_jcs::to_vec(&operation).unwrap());
            prop_assert_eq!(serde_json::from_slice::<Operation>(&form).unwrap(), operation);
        }

        #[test]
        fn no_two_argvs_share_a_form(
            a in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..4),
            b in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..4),
        ) {
            let (left, right) = (with_argv(&a).canonical().unwrap(), with_argv(&b).canonical().unwrap());
            prop_assert_eq!(left == right, a == b);
        }

        #[test]
        fn a_split_of_the_same_bytes_is_another_form(bytes in prop::collection::vec(any::<u8>(), 2..12), at in 1usize..11) {
            let at = at.min(bytes.len() - 1);
            let split = [bytes[..at].to_vec(), bytes[at..].to_vec()];
            prop_assert_ne!(with_argv(std::slice::from_ref(&bytes)).canonical().unwrap(), with_argv(&split).canonical().unwrap());
        }

        #[test]
        fn another_implementation_agrees(
            argv in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5),
            rule in "\\PC{0,20}", host in ".{0,12}", pid in any::<i32>(), uid in any::<u32>(),
        ) {
            let mut operation = with_argv(&argv);
            operation.rule = rule;
            operation.host = host;
            operation.requester.pid = pid;
            operation.uid = uid;
            prop_assert_eq!(operation.canonical().unwrap(), serde_jcs::to_vec(&operation).unwrap());
            let back: Operation = serde_json::from_slice(&operation.canonical().unwrap()).unwrap();
            prop_assert_eq!(back, operation);
        }
    }
}
