//! How lines and segments hang together: names of segments, the parts of a line, the hash that links two lines.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};

use super::{LOCK, key};
use crate::state::{Folder, StateError};

/// The three parts of a compact JWS, decoded.
pub(crate) struct Line<'a> {
    /// What the signature covers: the first two parts as they are written.
    pub(crate) signed: &'a [u8],
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Line<'a> {
    /// Splits a line (without its newline). Each part has one spelling only.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, &'static str> {
        let mut parts = line.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("it is not three parts with a dot between them");
        };
        let signed = line.get(..header.len() + 1 + payload.len()).unwrap_or_default();
        Ok(Self { signed, header: decode(header)?, payload: decode(payload)?, signature: decode(signature)? })
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, &'static str> {
    let bytes = B64.decode(part).ok().ok_or("a part is not base64url")?;
    // The decoder refuses stray bits at the end too; a second way to write a line would be a change unseen.
    if B64.encode(&bytes).as_bytes() != part {
        return Err("a part is not canonical base64url");
    }
    Ok(bytes)
}

/// What a record names as `prev`.
pub(crate) fn link(previous_line: &[u8]) -> String {
    key::hash(previous_line)
}

/// The name of a segment.
pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:06}.jsonl")
}

/// The number of a segment, `None` for a name that is not a segment's.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".jsonl")?;
    let number: u32 = digits.parse().ok()?;
    (number > 0 && segment_name(number) == name).then_some(number)
}

/// The segments' numbers in order.
///
/// # Errors
/// The folder cannot be listed; or (the inner error) it holds a name that does not belong there.
pub(crate) fn segments(folder: &Folder) -> Result<Result<Vec<u32>, String>, StateError> {
    let mut numbers = Vec::new();
    for name in folder.names()? {
        match segment_number(&name) {
            Some(number) => numbers.push(number),
            None if name == LOCK => {}
            None => return Ok(Err(name)),
        }
    }
    numbers.sort_unstable();
    Ok(Ok(numbers))
}
