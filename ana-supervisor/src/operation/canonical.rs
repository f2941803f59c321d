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

    use super::super::{
        Ancestor, Bytes, Change, Connect, ConnectGrant, GrantScope, Ids, Kind, Listener, NameSource,
        Operation, Transport, Variable, example, example_connect, example_grant, example_script, exec_of,
    };

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
        let all = [(example_script(), 15), (example_connect(), 8), (example_grant(), 10)];
        let found = all.into_iter().flat_map(|(operation, least)| {
            let whole = serde_json::to_value(operation).unwrap();
            let mut places = Vec::new();
            objects(&whole, String::new(), &mut places);
            assert!(places.len() > least, "{places:?}");
            places.into_iter().map(move |place| (whole.clone(), place))
        });
        for (whole, place) in found {
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
        let grant = serde_json::to_string(&example_grant()).unwrap();
        let keys = ["rule", "kind", "exec", "id"].map(|key| (key, &text));
        for (key, text) in keys.into_iter().chain([("connect_grant", &grant), ("kind", &grant)]) {
            let value = serde_json::from_str::<serde_json::Value>(text).unwrap()[key].clone();
            let twice = format!("{{{}:{value},{}", serde_json::json!(key), &text[1..]);
            assert!(serde_json::from_str::<Operation>(&twice).is_err(), "accepted {key} twice");
        }
    }

    /// The keys of one kind only, with a value, and of the kind that is named.
    #[test]
    fn kinds_do_not_mix() {
        let keys = ["exec", "connect", "connect_grant"];
        for operation in [example(), example_connect(), example_grant()] {
            let whole = serde_json::to_value(&operation).unwrap();
            assert_eq!(serde_json::from_value::<Operation>(whole.clone()).unwrap(), operation);
            assert_eq!(whole["kind"], operation.kind.word());
            let own = keys.into_iter().find(|key| whole.get(*key).is_some()).unwrap();
            for other in keys.into_iter().filter(|key| *key != own) {
                for value in [serde_json::Value::Null, whole[own].clone(), serde_json::json!({})] {
                    let mut more = whole.clone();
                    more[other] = value;
                    assert!(serde_json::from_value::<Operation>(more).is_err(), "{own} with {other}");
                }
            }
            for word in ["exec", "connect", "connect-grant", "connect_grant", "open", ""] {
                let mut renamed = whole.clone();
                renamed["kind"] = word.into();
                let read = serde_json::from_value::<Operation>(renamed);
                assert_eq!(read.is_ok(), word == operation.kind.word(), "{own} as {word:?}");
            }
            for value in [serde_json::Value::Null, serde_json::json!([]), serde_json::json!("x")] {
                let mut broken = whole.clone();
                broken[own] = value;
                assert!(serde_json::from_value::<Operation>(broken).is_err(), "{own}");
            }
        }
    }

    /// Byte for byte what versions before the connect gate wrote and signed: their evidence still verifies.
    #[test]
    fn the_form_of_an_exec_never_changes() {
        let forms = include_str!("exec-forms.txt");
        let mut written = String::new();
        for operation in [example(), example_script()] {
            written.push_str(&String::from_utf8(operation.canonical().unwrap()).unwrap());
            written.push('\n');
            written.push_str(&serde_json::to_string(&operation).unwrap());
            written.push('\n');
        }
        assert_eq!(written, forms);
        for form in forms.lines() {
            let read: Operation = serde_json::from_str(form).unwrap();
            assert!(read == example() || read == example_script());
        }
    }

    #[test]
    fn a_missing_key_is_refused() {
        for operation in [example(), example_connect(), example_grant()] {
            let whole = serde_json::to_value(operation).unwrap();
            for key in whole.as_object().unwrap().keys() {
                let mut less = whole.clone();
                less.as_object_mut().unwrap().remove(key);
                assert!(serde_json::from_value::<Operation>(less).is_err(), "accepted without {key}");
            }
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

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a.\\x00\u{1f}\"\\\\\u{2028}]{0,3}", ".{0,3}"]
    }

    fn connections() -> impl Strategy<Value = Connect> {
        let source = prop::sample::select(vec![
            NameSource::Sni,
            NameSource::Host,
            NameSource::Connect,
            NameSource::Dns,
        ]);
        let listener = (bytes(), any::<i32>(), any::<u32>(), name())
            .prop_map(|(program, pid, uid, address)| Listener { program, pid, uid, address });
        let names = (prop::option::of(name()), prop::option::of(source), prop::collection::vec(name(), 0..3));
        let lists = (prop::collection::vec(name(), 0..3), lookalikes(), prop::option::of(bytes()));
        let more = (prop::option::of(listener), prop::option::of(name()), any::<[bool; 5]>());
        (name(), any::<u16>(), names, lists, more).prop_map(|(address, port, names, lists, more)| {
            let program = exec_of(&mut example()).program.clone();
            let [udp, tls, encrypted_hello, confirmed, known] = more.2;
            Connect {
                address,
                port,
                transport: if udp { Transport::Udp } else { Transport::Tcp },
                name: names.0,
                name_source: names.1,
                confirmed,
                names: names.2,
                tls,
                alpn: lists.0,
                encrypted_hello,
                listener: more.0,
                through: more.1,
                program: known.then_some(program),
                argv: lists.1.into_iter().map(Bytes).collect(),
                cwd: lists.2,
            }
        })
    }

    /// Of all kinds, with little else in them, so that two are often almost alike.
    fn kinds() -> impl Strategy<Value = Kind> {
        let scope = (prop::option::of(name()), prop::option::of(name()), any::<u16>(), name())
            .prop_map(|(name, address, port, rule)| GrantScope { name, address, port, rule });
        let grant = (connections(), scope, name()).prop_map(|(connect, scope, until)| ConnectGrant {
            connect,
            scope,
            until,
        });
        prop_oneof![
            1 => lookalikes().prop_map(|argv| with_argv(&argv).kind),
            3 => connections().prop_map(|connect| Kind::Connect(Box::new(connect))),
            3 => grant.prop_map(|grant| Kind::ConnectGrant(Box::new(grant))),
        ]
    }

    fn of_kind(kind: Kind) -> Operation {
        Operation { kind, ..example() }
    }

    proptest! {
        #[test]
        fn no_two_connections_share_a_form(a in kinds(), b in kinds()) {
            let same = of_kind(a.clone()).canonical().unwrap() == of_kind(b.clone()).canonical().unwrap();
            prop_assert_eq!(same, a == b);
        }

        #[test]
        fn one_change_is_another_form(kind in connections(), which in 0usize..8, text in name()) {
            let mut other = kind.clone();
            match which {
                0 => other.name = Some(text),
                1 => other.names.push(text),
                2 => other.alpn.insert(0, text),
                3 => other.through = Some(text),
                4 => other.address = text,
                5 => other.argv.push(Bytes(text.into_bytes())),
                6 => other.cwd = Some(Bytes(text.into_bytes())),
                _ => other.name_source = None,
            }
            let form = |connect: &Connect| of_kind(Kind::Connect(Box::new(connect.clone()))).canonical().unwrap();
            prop_assert_eq!(form(&kind) == form(&other), kind == other);
        }

        #[test]
        fn another_implementation_agrees_on_connections(kind in kinds()) {
            let operation = of_kind(kind);
            let form = operation.canonical().unwrap();
            prop_assert_eq!(&form, &serde_jcs::to_vec(&operation).unwrap());
            prop_assert_eq!(serde_json::from_slice::<Operation>(&form).unwrap(), operation);
        }

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
