//! HTTP/1: the head of a request (RFC 9112).

use super::{
    NameSource, Peek, Protocol, Shown,
    name::{Host, authority},
};

/// No method has more letters.
const METHOD_MAX: usize = 24;
/// The most header lines.
const HEADERS_MAX: usize = 128;

/// The bytes may be HTTP/1 or anything else but TLS.
pub(super) fn look(bytes: &[u8]) -> Peek {
    // Servers ignore empty lines before a request (RFC 9112 §2.2).
    let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let request = bytes.get(empty..).unwrap_or_default();
    match first_line(request) {
        Line::More => return Peek::More,
        Line::Other => return Peek::Done(Shown::only(Protocol::Other)),
        Line::Http => {}
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let shown = match parsed.parse(request) {
        Ok(httparse::Status::Partial) => return Peek::More,
        Ok(httparse::Status::Complete(head)) => read(&parsed, empty + head),
        Err(_malformed) => None,
    };
    Peek::Done(shown.unwrap_or_else(|| Shown::only(Protocol::Garbage)))
}

enum Line {
    More,
    /// Not the first line of an HTTP/1 request.
    Other,
    Http,
}

/// Looks at each byte as soon as it is there: a client of another protocol may wait for its server after a few of them.
fn first_line(bytes: &[u8]) -> Line {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let method = bytes.iter().take_while(|byte| token(byte)).count();
    if method > METHOD_MAX {
        return Line::Other;
    }
    match bytes.get(method) {
        None => return Line::More,
        Some(b' ') if method > 0 => {}
        Some(_) => return Line::Other,
    }
    let printable = |byte: &u8| *byte >= b' ' && *byte != 0x7f;
    let length = bytes.iter().take_while(|byte| printable(byte)).count();
    let line = bytes.get(..length).unwrap_or_default();
    let whole = match bytes.get(length..).unwrap_or_default() {
        [] | [b'\r'] => return Line::More,
        [b'\n', ..] | [b'\r', b'\n', ..] => line,
        _ => return Line::Other,
    };
    match whole.ends_with(b" HTTP/1.1") || whole.ends_with(b" HTTP/1.0") {
        true => Line::Http,
        false => Line::Other,
    }
}

/// `None`: malformed, or it names two hosts.
fn read(request: &httparse::Request<'_, '_>, head: usize) -> Option<Shown> {
    let target = request.path?.as_bytes();
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().map(|header| header.value);
    if hosts.next().is_some() {
        return None;
    }
    let body = body(request);
    if request.method? == "CONNECT" {
        // Its bytes behind the head are the tunnel's.
        if body != Some(0) {
            return None;
        }
        let shown = Shown { head, ..Shown::only(Protocol::Connect) };
        let shown = named(shown, authority(target)?, NameSource::Connect);
        let complete = shown.source.is_some() && shown.target_port.is_some();
        return complete.then_some(shown);
    }
    let shown = Shown { head, body, ..Shown::only(Protocol::Http) };
    if target.starts_with(b"/") || target == b"*" {
        return match host {
            Some(host) => Some(named(shown, authority(host)?, NameSource::Host)),
            None => Some(shown),
        };
    }
    body?;
    let place = authority(of_uri(target)?)?;
    // Which of the two counts is the server's choice.
    if let Some(host) = host
        && authority(host)?.0 != place.0
    {
        return None;
    }
    Some(named(Shown { absolute: true, ..shown }, place, NameSource::Host))
}

/// How long the request's content is (RFC 9112 §6.3). `None`: it is not told in advance (Transfer-Encoding), is told twice,
/// or stands where some servers expect none and would take it for the next request.
fn body(request: &httparse::Request<'_, '_>) -> Option<u64> {
    let headers = |name: &'static str| {
        let same = move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        request.headers.iter().filter(same)
    };
    if headers("transfer-encoding").next().is_some() {
        return None;
    }
    let mut lengths = headers("content-length");
    let Some(length) = lengths.next() else { return Some(0) };
    if lengths.next().is_some() || length.value.is_empty() || !length.value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = std::str::from_utf8(length.value).ok()?.parse().ok()?;
    let expected = !matches!(request.method?, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "CONNECT");
    (expected || length == 0).then_some(length)
}

/// The host and port of an absolute URI.
fn of_uri(uri: &[u8]) -> Option<&[u8]> {
    let at = uri.windows(3).position(|three| three == b"://")?;
    let (scheme, rest) = (uri.get(..at)?, uri.get(at + 3..)?);
    if !scheme.iter().all(u8::is_ascii_alphabetic) {
        return None;
    }
    let place = rest.split(|byte| matches!(byte, b'/' | b'?' | b'#')).next()?;
    // A password before the host, or what is meant to look like a host.
    place.rsplit(|&byte| byte == b'@').next()
}

fn named(shown: Shown, (host, target_port): (Host, Option<u16>), source: NameSource) -> Shown {
    let shown = Shown { target_port, ..shown };
    match host {
        Host::Name(name) => Shown { name: Some(name), source: Some(source), ..shown },
        Host::Address(address) => Shown { address: Some(address), source: Some(source), ..shown },
        Host::Neither => shown,
    }
}
