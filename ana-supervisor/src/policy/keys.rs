//! Reading typed values out of a parsed TOML table, with every complaint put where it belongs.

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::{Place, Problem};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A holder of one source that collects what is wrong with it.
pub(super) struct Keys<'a> {
    pub(super) source: usize,
    /// The session user's home, for `~/`.
    pub(super) home: &'a Path,
    pub(super) problems: Vec<Problem>,
}

/// The longest wait: a day.
const TIMEOUT_MAX_S: u64 = 24 * 60 * 60;

impl Keys<'_> {
    pub(super) fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { source: self.source, span }
    }

    pub(super) fn complain(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn wrong_type(&mut self, value: &Value<'_>, key: &str, wanted: &str) {
        let found = value.get_ref().type_str();
        let article = |word: &str| if word.starts_with(['a', 'i', 'e', 'o', 'u']) { "an" } else { "a" };
        let message =
            format!("`{key}` must be {} {wanted}, this is {} {found}", article(wanted), article(found));
        self.complain(Problem::new(self.place(value.span()), message));
    }

    pub(super) fn unknown(&mut self, key: &Spanned<toml::de::DeString<'_>>, table: &str, known: &[&str]) {
        let name = key.get_ref();
        let problem = Problem::new(self.place(key.span()), format!("unknown key `{name}` in {table}"));
        self.complain(problem.help(format!("the keys of {table} are {}", known.join(", "))));
    }

    pub(super) fn table<'v, 'i>(&mut self, value: &'v Value<'i>, key: &str) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, key, "table");
        }
        table
    }

    pub(super) fn array<'v, 'i>(&mut self, value: &'v Value<'i>, key: &str) -> Option<&'v [Value<'i>]> {
        let array = value.get_ref().as_array();
        if array.is_none() {
            self.wrong_type(value, key, "array");
        }
        array.map(|array| &array[..])
    }

    pub(super) fn string<'v>(&mut self, value: &'v Value<'_>, key: &str) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(value, key, "string");
        }
        text
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>, key: &str) -> Option<bool> {
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(value, key, "boolean");
        }
        boolean
    }

    /// An integer of the range, both ends included.
    pub(super) fn integer(&mut self, value: &Value<'_>, key: &str, least: i64, most: i64) -> Option<i64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(value, key, "integer");
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let inside = number.filter(|number| (least..=most).contains(number));
        if inside.is_none() {
            let message = format!("`{key}` must lie between {least} and {most}");
            self.complain(Problem::new(self.place(value.span()), message));
        }
        inside
    }

    /// One of the words, with the value that it stands for.
    pub(super) fn word<T: Copy>(&mut self, value: &Value<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(value, key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let message = format!("`{key}` must be {}", all.join(" or "));
            self.complain(Problem::new(self.place(value.span()), message));
        }
        found
    }

    /// A list of strings, each with its place.
    pub(super) fn strings<'v>(&mut self, value: &'v Value<'_>, key: &str) -> Vec<(&'v str, Place)> {
        let mut strings = Vec::new();
        for item in self.array(value, key).unwrap_or_default() {
            let place = self.place(item.span());
            match item.get_ref().as_str() {
                Some(text) => strings.push((text, place)),
                None => self.complain(Problem::new(place, format!("`{key}` must be a list of strings"))),
            }
        }
        strings
    }

    /// `120s`, `5m` or `2h`; from a second to a day.
    pub(super) fn duration(&mut self, value: &Value<'_>, key: &str) -> Option<Duration> {
        let text = self.string(value, key)?;
        let seconds = seconds(text).filter(|seconds| (1..=TIMEOUT_MAX_S).contains(seconds));
        if seconds.is_none() {
            let message = format!("`{key}` must be a duration between \"1s\" and \"24h\"");
            let problem = Problem::new(self.place(value.span()), message);
            self.complain(problem.help("a number and its unit: \"90s\", \"5m\" or \"2h\""));
        }
        seconds.map(Duration::from_secs)
    }

    /// An absolute path, `~/` being the home, without detours.
    pub(super) fn path(&mut self, text: &str, place: &Place, key: &str) -> Option<PathBuf> {
        if text.starts_with("~/") && !self.home.is_absolute() {
            let message = format!("`{key}`: the session's user has no home for {text:?}");
            self.complain(Problem::new(place.clone(), message).help("write it from the root"));
            return None;
        }
        let path = match text.strip_prefix("~/") {
            Some(below) => self.home.join(below.trim_start_matches('/')),
            None => PathBuf::from(text),
        };
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let whole = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
        let wrong = if !path.is_absolute() {
            "is not absolute"
        } else if !plain || !whole || text.contains("/./") || path.file_name().is_none() {
            "has empty, `.` or `..` parts"
        } else if text.contains('\0') {
            "holds a NUL"
        } else {
            return Some(path);
        };
        let problem = Problem::new(place.clone(), format!("`{key}`: the path {text:?} {wrong}"));
        self.complain(
            problem.help("write it from the root, or from the session user's home: \"~/bin/tool\""),
        );
        None
    }
}

fn seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
