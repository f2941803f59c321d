use super::{
    super::{LOOK_MAX, NameSource, Peek, Protocol, look},
    any_prefix, captured, name, shown,
};

/// A ClientHello with these extensions, in one record.
fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    records(&message(extensions), 1 << 14)
}

fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let mut block = Vec::new();
    for (kind, data) in extensions {
        block.extend(kind.to_be_bytes());
        block.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        block.extend(data);
    }
    body.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    body.extend(block);
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let [high, low] = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1, high, low], part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

fn sni(names: &[&str]) -> (u16, Vec<u8>) {
    let mut list = Vec::new();
    for name in names {
        list.push(0);
        list.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        list.extend(name.as_bytes());
    }
    (0, [&u16::try_from(list.len()).unwrap().to_be_bytes()[..], &list].concat())
}

fn protocol(bytes: &[u8]) -> Protocol {
    shown(bytes).protocol
}

#[test]
fn real_clients_show_their_names() {
    let cases: [(&[u8], Option<&str>, &[&str]); 6] = [
        (captured!("curl"), Some("api.stripe.com"), &["h2", "http/1.1"]),
        (captured!("curl-http1"), Some("api.stripe.com"), &["http/1.1"]),
        (captured!("openssl"), Some("example.net"), &["h2", "http/1.1"]),
        (captured!("openssl-nosni"), None, &[]),
        (captured!("node"), Some("node.example"), &["h2", "http/1.1"]),
        (captured!("python"), Some("python.example"), &[]),
    ];
    for (bytes, expected, alpn) in cases {
        let shown = shown(bytes);
        assert_eq!((name(&shown), shown.protocol, shown.tls), (expected, Protocol::Tls, true));
        assert_eq!(shown.source, expected.map(|_| NameSource::Sni));
        assert_eq!(shown.alpn, alpn);
        assert!(!shown.encrypted);
        any_prefix(bytes);
        // What the client says next makes no difference.
        assert_eq!(look(&[bytes, b"\x14\x03\x03\0\x01\x01more"].concat(), false), Peek::Done(shown));
    }
}

#[test]
fn a_hello_in_many_records_is_put_together() {
    let message = message(&[sni(&["api.example"]), (21, vec![0; 20_000])]);
    assert!(message.len() > 16 << 10);
    for size in [1, 2, 3, 5, 100, 4096, 1 << 14] {
        let bytes = records(&message, size);
        if bytes.len() < LOOK_MAX {
            assert_eq!(name(&shown(&bytes)), Some("api.example"), "records of {size} bytes");
        } else {
            assert_eq!(protocol(&bytes), Protocol::Garbage);
        }
    }
    any_prefix(&records(&super::hello::message(&[sni(&["api.example"])]), 3));
}

#[test]
fn grease_and_unknown_extensions_are_passed_over() {
    let grease = (0x0a0a, vec![]);
    let alpn = (16, vec![0, 9, 2, 0xaa, 0xaa, 5, b'h', b't', b't', b'p', b'x']);
    let shown = shown(&hello(&[
        grease.clone(),
        sni(&["A.Example."]),
        alpn,
        (0x1234, vec![1; 300]),
        (0xfafa, vec![0]),
    ]));
    assert_eq!(name(&shown), Some("a.example"));
    assert_eq!(shown.alpn, ["\\xaa\\xaa", "httpx"]);
}

#[test]
fn an_encrypted_hello_is_said_to_be_one() {
    let outer = (0xfe0d, vec![0, 0, 1, 0, 1, 7, 0, 0]);
    let shown = shown(&hello(&[sni(&["public.example"]), outer]));
    assert!(shown.encrypted && name(&shown) == Some("public.example"));
    assert!(super::shown(&hello(&[(0xffce, vec![1])])).encrypted);
}

#[test]
fn what_is_no_name_is_not_shown() {
    for no_name in
        ["", ".", "a..b", "a b", "a\n", "\u{1b}[2J", "bücher.example", "-\0", "127.1", "a.0x7f", "a/b"]
    {
        let shown = shown(&hello(&[sni(&[no_name])]));
        assert_eq!((name(&shown), shown.source, shown.protocol), (None, None, Protocol::Tls), "{no_name:?}");
    }
    let long = format!("{}.example", "a".repeat(64));
    assert_eq!(name(&shown(&hello(&[sni(&[&long])]))), None);
    let address = shown(&hello(&[sni(&["192.0.2.7"])]));
    assert_eq!((name(&address), address.address), (None, Some("192.0.2.7".parse().unwrap())));
}

#[test]
fn what_says_two_things_is_garbage() {
    assert_eq!(protocol(&hello(&[sni(&["a.example", "b.example"])])), Protocol::Garbage);
    assert_eq!(protocol(&hello(&[sni(&["a.example"]), sni(&["b.example"])])), Protocol::Garbage);
    assert_eq!(protocol(&hello(&[(0, vec![])])), Protocol::Garbage);
    assert_eq!(protocol(&hello(&[(0, vec![0, 9, 0, 0, 1, b'a'])])), Protocol::Garbage);
}

#[test]
fn broken_tls_is_garbage_and_other_bytes_are_not_tls() {
    // Another record, another message, an empty record, a record that is too long, a hello that is too long.
    for bytes in [
        &b"\x16\x03\x01\0\x02\x01\0\x15\x03"[..],
        b"\x16\x03\x01\0\x04\x02",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\0\x04\x01\xff\0\0",
    ] {
        assert_eq!(protocol(bytes), Protocol::Garbage, "{bytes:?}");
    }
    for bytes in [&b"\x16\x02"[..], b"\x16\x03\x09", b"\x16a", b"\0\0\0\x08\x04\xd2\x16\x2f", b"\x80\x2e\x01"]
    {
        assert_eq!(protocol(bytes), Protocol::Other, "{bytes:?}");
    }
}

#[test]
fn at_the_end_there_is_always_an_answer() {
    let hello = captured!("curl");
    assert_eq!(look(&hello[..100], false), Peek::More);
    let Peek::Done(shown) = look(&hello[..100], true) else { panic!("no answer") };
    assert_eq!(shown.protocol, Protocol::Garbage);
    let Peek::Done(shown) = look(b"", true) else { panic!("no answer") };
    assert_eq!(shown.protocol, Protocol::Silent);
    // A record after the other, and never an end.
    let endless = records(&[&[1, 0, 0xff, 0xff][..], &vec![0; LOOK_MAX]].concat(), 1000);
    assert_eq!(protocol(&endless), Protocol::Garbage);
}
