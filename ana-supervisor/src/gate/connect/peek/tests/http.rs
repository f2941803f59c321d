use super::{
    super::{LOOK_MAX, NameSource, Peek, Protocol, look},
    any_prefix, captured, name, shown,
};

#[test]
fn real_clients_name_their_host() {
    let get = shown(captured!("curl-get"));
    assert_eq!((name(&get), get.source), (Some("plain.example"), Some(NameSource::Host)));
    assert_eq!((get.protocol, get.target_port, get.absolute), (Protocol::Http, None, false));
    let proxy = shown(captured!("curl-proxy"));
    assert_eq!((name(&proxy), proxy.target_port, proxy.absolute), (Some("plain.example"), Some(8080), true));
    assert_eq!((proxy.head, proxy.body), (captured!("curl-proxy").len(), Some(0)));
    let connect = shown(captured!("curl-connect"));
    assert_eq!((name(&connect), connect.source), (Some("secret.example"), Some(NameSource::Connect)));
    assert_eq!((connect.protocol, connect.target_port), (Protocol::Connect, Some(443)));
    assert_eq!(connect.head, captured!("curl-connect").len());
    let address = shown(captured!("curl-connect-ip"));
    assert_eq!((name(&address), address.address), (None, Some("192.0.2.7".parse().unwrap())));
    let prior = shown(captured!("curl-h2c"));
    assert_eq!((name(&prior), prior.protocol), (None, Protocol::Other));
    for bytes in [
        &captured!("curl-get")[..],
        captured!("curl-proxy"),
        captured!("curl-connect"),
        captured!("curl-h2c"),
    ] {
        any_prefix(bytes);
    }
}

#[test]
fn hosts_are_read_as_servers_read_them() {
    for (request, expected, port) in [
        ("GET / HTTP/1.1\r\nHost: A.Example\r\n\r\n", Some("a.example"), None),
        ("GET / HTTP/1.1\nhost:a.example.:81\n\n", Some("a.example"), Some(81)),
        ("\r\n\r\nGET / HTTP/1.1\r\nX: y\r\nHOST: a.example:\r\n\r\n", Some("a.example"), None),
        ("GET / HTTP/1.0\r\n\r\n", None, None),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example"), None),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", None, None),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", None, None),
        ("GET HTTP://u:p@A.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example"), None),
        ("GET http://b.example@a.example?c HTTP/1.1\r\n\r\n", Some("a.example"), None),
        ("GET http://[::1]:80/ HTTP/1.1\r\nHost: [::1]\r\n\r\n", None, Some(80)),
    ] {
        let shown = shown(request.as_bytes());
        assert_eq!(
            (name(&shown), shown.target_port, shown.protocol),
            (expected, port, Protocol::Http),
            "{request}"
        );
        any_prefix(request.as_bytes());
    }
}

#[test]
fn the_end_of_a_request_is_known_or_it_is_garbage_for_a_proxy() {
    for (method, headers, body) in [
        ("GET", "", Some(0)),
        ("GET", "Content-Length: 0\r\n", Some(0)),
        ("POST", "content-LENGTH:  17 \r\n", Some(17)),
        ("DELETE", "Content-Length: 3\r\n", Some(3)),
        ("PUT", "Content-Length: 18446744073709551615\r\n", Some(u64::MAX)),
        // Not every server reads these.
        ("GET", "Content-Length: 3\r\n", None),
        ("HEAD", "Content-Length: 3\r\n", None),
        ("POST", "Content-Length: 18446744073709551616\r\n", None),
        ("POST", "Content-Length: +3\r\n", None),
        ("POST", "Content-Length: 3, 3\r\n", None),
        ("POST", "Content-Length:\r\n", None),
        ("POST", "Content-Length: 3\r\nContent-Length: 3\r\n", None),
        ("POST", "Transfer-Encoding: chunked\r\n", None),
        ("POST", "Content-Length: 3\r\ntransfer-encoding: identity\r\n", None),
    ] {
        let origin = format!("{method} / HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n");
        let found = shown(origin.as_bytes());
        assert_eq!(
            (found.protocol, found.body, found.head),
            (Protocol::Http, body, origin.len()),
            "{origin}"
        );
        let absolute = origin.replace(" / ", " http://a.example/ ");
        let found = shown(absolute.as_bytes());
        match body {
            Some(_) => assert_eq!((found.absolute, found.body, found.head), (true, body, absolute.len())),
            None => assert_eq!(found, super::super::Shown::only(Protocol::Garbage), "{absolute}"),
        }
        any_prefix(absolute.as_bytes());
    }
    for header in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
        let connect = format!("CONNECT a.example:443 HTTP/1.1\r\n{header}\r\n\r\n");
        assert_eq!(shown(connect.as_bytes()).protocol, Protocol::Garbage, "{header}");
    }
}

#[test]
fn what_names_two_hosts_or_is_malformed_is_garbage() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example:80:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example:65536\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a.example\r\n\r\n",
        "GET a.example HTTP/1.1\r\n\r\n",
        "CONNECT a.example HTTP/1.1\r\n\r\n",
        "CONNECT :443 HTTP/1.1\r\n\r\n",
        "CONNECT a\u{7f}b:443 HTTP/1.1\r\n\r\n",
    ] {
        assert!(
            matches!(shown(request.as_bytes()).protocol, Protocol::Garbage | Protocol::Other),
            "{request}"
        );
        assert_eq!(shown(request.as_bytes()).name, None, "{request}");
        any_prefix(request.as_bytes());
    }
}

#[test]
fn other_protocols_are_known_by_their_first_bytes() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
        "EHLO a.example\r\n",
        "PING\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "\u{1}\u{2}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/0.9\r\n",
        "AVERYLONGWORDTHATISNOMETHOD",
    ] {
        assert_eq!(shown(bytes.as_bytes()).protocol, Protocol::Other, "{bytes}");
        any_prefix(bytes.as_bytes());
    }
}

#[test]
fn a_head_without_end_is_garbage() {
    let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
    head.resize(LOOK_MAX - 1, b'a');
    assert_eq!(look(&head, false), Peek::More);
    head.push(b'a');
    assert_eq!(shown(&head).protocol, Protocol::Garbage);
    // A whole one that ends later counts as little, and so does what came before TLS.
    head.extend_from_slice(b"\r\nHost: a.example\r\n\r\n");
    assert_eq!(shown(&head).protocol, Protocol::Garbage);
    let garbage = [vec![b'x'; LOOK_MAX], captured!("curl").to_vec()].concat();
    assert_eq!(shown(&garbage).protocol, Protocol::Other);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(129));
    assert_eq!(shown(many.as_bytes()).protocol, Protocol::Garbage);
}
