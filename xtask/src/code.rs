//! As much of Rust's syntax as the house rules need.

use std::collections::BTreeSet;

/// The same text, line by line, with comments and literals blanked.
pub(crate) fn without_text(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let length = match text_length(rest, code.chars().next_back()) {
            Some(length) => {
                code.extend(rest[..length].chars().filter(|c| *c == '\n').chain([' ']));
                length
            }
            None => {
                code.push(next);
                next.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    code
}

/// The length of the comment or literal that `rest` starts with.
fn text_length(rest: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if let Some(raw) =
        rest.strip_prefix('r').filter(|_| !in_word || before == Some('b') || before == Some('c'))
    {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let open = 1 + hashes + 1;
            return Some(rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len()));
        }
    }
    match rest.as_bytes() {
        [b'"', ..] => Some(quoted(rest, b'"')),
        // A lifetime has no closing quote after one character.
        [b'\'', b'\\', ..] => Some(quoted(rest, b'\'')),
        [b'\'', ..] => {
            let inside = rest[1..].chars().next()?;
            rest[1 + inside.len_utf8()..].starts_with('\'').then(|| inside.len_utf8() + 2)
        }
        _ => None,
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The modules of the crate that are named as `crate::module` or in `crate::{…}`.
pub(crate) fn uses_of_crate(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.trim_start().strip_prefix('{') {
            Some(list) => used.extend(first_names(list)),
            None => used.extend(name_at(rest)),
        }
    }
    used
}

/// The first name of each entry of a use list, up to its closing brace.
fn first_names(list: &str) -> Vec<String> {
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0_usize, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if depth == 0 && fresh && !c.is_whitespace() => {
                names.extend(name_at(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(rest: &str) -> Option<String> {
    let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let source = "a /* b /* c */ \n d */ e // f\nlet g = \"h \\\" i\\\\\"; 'j' k<'l> '\\'' r#\"m \" n\"# br\"o\" p '\"' q";
        let code = without_text(source);
        let words: Vec<_> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "e", "let", "g", "=", ";", "k<'l>", "b", "p", "q"]);
        assert_eq!(code.lines().count(), source.lines().count());
    }

    #[test]
    fn lists_of_uses_are_read() {
        let code = "use crate::{a::{b, c}, d, e::f};\nuse crate::g::h; crate::i()";
        assert_eq!(uses_of_crate(code).into_iter().collect::<Vec<_>>(), ["a", "d", "e", "g", "i"]);
    }
}
