use proptest::prelude::*;

use super::{
    super::{Name, Peek, look},
    any_prefix, captured,
};

const CAPTURED: [&[u8]; 6] = [
    captured!("curl"),
    captured!("node"),
    captured!("openssl"),
    captured!("curl-proxy"),
    captured!("curl-connect"),
    captured!("curl-get"),
];

/// A real client's bytes with some of them changed.
fn changed() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (0..CAPTURED.len(), prop::collection::vec(change, 0..6)).prop_map(|(which, changes)| {
        let mut bytes = CAPTURED[which].to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// What reads like a request's head.
fn request() -> impl Strategy<Value = Vec<u8>> {
    "(GET|CONNECT|P@ST) (/|http://)?[a-c.:0-9@\\[\\]]{0,12} HTTP/1.[01]\r?\n(Host: [a-c.:0-9]{0,8}\r?\n){0,2}(X ?:.{0,5}\r?\n)?\r?\n?"
        .prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        any_prefix(&bytes);
        prop_assert!(look(&bytes, true) != Peek::More);
    }

    #[test]
    fn any_changed_hello(bytes in changed()) {
        any_prefix(&bytes);
    }

    #[test]
    fn any_request(bytes in request()) {
        any_prefix(&bytes);
    }

    #[test]
    fn a_name_is_what_it_is_parsed_from(text in "[a-cA-C0-9._-]{0,20}") {
        if let Some(name) = Name::parse(text.as_bytes()) {
            prop_assert_eq!(Name::parse(name.as_str().as_bytes()), Some(name.clone()));
            prop_assert_eq!(serde_json::from_str::<Name>(&serde_json::to_string(&name).unwrap()).unwrap(), name);
        }
    }
}

#[test]
fn a_name_from_outside_is_checked() {
    for text in ["\"A.example\"", "\"a.example.\"", "\"\"", "\"a b\"", "\"1.2.3.4\""] {
        assert!(serde_json::from_str::<Name>(text).is_err(), "{text}");
    }
}
