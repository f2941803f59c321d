//! Patterns for the arguments after argv\[0\].
//!
//! A pattern is a list of words. `**` stands for any number of arguments; every other word stands for exactly one,
//! in which `*` stands for any bytes. There is no escape: a `*` that has to be a literal one cannot be asked for.

/// One parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    words: Vec<Word>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// `**`
    Any,
    /// The pieces between the stars of a word; never empty. One piece: the argument itself.
    One(Vec<Vec<u8>>),
}

/// Why a word is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadWord {
    /// `**` inside a longer word.
    InnerStars,
    /// A NUL, which no argument can hold.
    Nul,
}

impl Pattern {
    /// Reads the words; an error comes with the place of the word.
    pub(super) fn new(words: &[&str]) -> Result<Self, (usize, BadWord)> {
        let parsed = words.iter().enumerate().map(|(place, word)| match *word {
            "**" => Ok(Word::Any),
            word if word.contains("**") => Err((place, BadWord::InnerStars)),
            word if word.contains('\0') => Err((place, BadWord::Nul)),
            word => Ok(Word::One(word.split('*').map(|piece| piece.as_bytes().to_vec()).collect())),
        });
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        Ok(Self { words: parsed.collect::<Result<_, _>>()?, text: format!("[{}]", quoted.join(", ")) })
    }

    /// As it stands in the policy, one line.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the arguments match. At most (bytes of the pattern) × (bytes of the arguments) steps: after a `**`
    /// the earliest match of what follows is as good as any, so that only the last `**` is ever taken up again.
    pub(super) fn matches<A: AsRef<[u8]>>(&self, arguments: &[A]) -> bool {
        let (mut word, mut at) = (0, 0);
        let mut resume: Option<(usize, usize)> = None;
        loop {
            match self.words.get(word) {
                Some(Word::Any) => {
                    word += 1;
                    resume = Some((word, at));
                    continue;
                }
                Some(Word::One(pieces)) => match arguments.get(at) {
                    None => return false,
                    Some(argument) if fits(pieces, argument.as_ref()) => {
                        (word, at) = (word + 1, at + 1);
                        continue;
                    }
                    Some(_) => {}
                },
                None if at == arguments.len() => return true,
                None => {}
            }
            let Some((after, from)) = resume else { return false };
            if from >= arguments.len() {
                return false;
            }
            resume = Some((after, from + 1));
            (word, at) = (after, from + 1);
        }
    }

    /// True only if everything that `other` matches is matched by this one too. It may miss cases; it never claims
    /// one that is not so.
    pub(super) fn covers(&self, other: &Self) -> bool {
        covers(
            &self.words,
            &other.words,
            |word| *word == Word::Any,
            |mine, theirs| match (mine, theirs) {
                (Word::One(mine), Word::One(theirs)) => word_covers(mine, theirs),
                (Word::Any, _) | (_, Word::Any) => false,
            },
        )
    }
}

/// Whether one argument is the pieces in order, with anything between them.
fn fits(pieces: &[Vec<u8>], argument: &[u8]) -> bool {
    let [first, middle @ .., last] = pieces else {
        return pieces.first().is_some_and(|only| only == argument);
    };
    let Some(mut rest) = argument.strip_prefix(first.as_slice()) else { return false };
    for piece in middle.iter().filter(|piece| !piece.is_empty()) {
        let Some(at) = rest.windows(piece.len()).position(|window| window == piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// Inclusion of one argument's pattern in another's: the same question, letter by letter, with `*` for `**`.
fn word_covers(mine: &[Vec<u8>], theirs: &[Vec<u8>]) -> bool {
    fn letters(pieces: &[Vec<u8>]) -> Vec<Option<u8>> {
        let mut letters = Vec::new();
        for (place, piece) in pieces.iter().enumerate() {
            if place > 0 {
                letters.push(None);
            }
            letters.extend(piece.iter().copied().map(Some));
        }
        letters
    }
    covers(&letters(mine), &letters(theirs), Option::is_none, |mine, theirs| mine == theirs)
}

/// `mine` covers `theirs` if theirs, read as a text in which its own "any" is one letter like the others, matches
/// mine. Dynamic programming over the pairs of suffixes.
pub(super) fn covers<T>(
    mine: &[T],
    theirs: &[T],
    any: impl Fn(&T) -> bool,
    same: impl Fn(&T, &T) -> bool,
) -> bool {
    // row[j]: does mine[i..] cover theirs[j..], for the i of the loop.
    let mut row: Vec<bool> = (0..=theirs.len()).map(|j| j == theirs.len()).collect();
    for word in mine.iter().rev() {
        let below = row.clone();
        if any(word) {
            for j in (0..theirs.len()).rev() {
                row[j] = below[j] || row[j + 1];
            }
        } else {
            for j in 0..theirs.len() {
                row[j] = !any(&theirs[j]) && same(word, &theirs[j]) && below[j + 1];
            }
            row[theirs.len()] = false;
        }
    }
    row.first().copied().unwrap_or(false)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{BadWord, Pattern};

    fn pattern(words: &[&str]) -> Pattern {
        Pattern::new(words).unwrap()
    }

    /// The definition, word for word; exponential.
    pub(in crate::policy) fn naive(words: &[&str], arguments: &[&[u8]]) -> bool {
        match (words, arguments) {
            ([], []) => true,
            (["**", rest @ ..], _) => {
                naive(rest, arguments) || (!arguments.is_empty() && naive(words, &arguments[1..]))
            }
            ([word, rest @ ..], [argument, others @ ..]) => {
                naive_word(word.as_bytes(), argument) && naive(rest, others)
            }
            _ => false,
        }
    }

    fn naive_word(word: &[u8], argument: &[u8]) -> bool {
        match (word, argument) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                naive_word(rest, argument) || (!argument.is_empty() && naive_word(word, &argument[1..]))
            }
            ([letter, rest @ ..], [byte, others @ ..]) => letter == byte && naive_word(rest, others),
            _ => false,
        }
    }

    #[test]
    fn words_match_whole_arguments() {
        let cases: [(&[&str], &[&str], bool); 12] = [
            (&["push"], &["push"], true),
            (&["push"], &["push", "x"], false),
            (&["push"], &["pushx"], false),
            (&["push", "**"], &["push"], true),
            (&["push", "**", "--force", "**"], &["push", "a", "--force"], true),
            (&["push", "**", "--force", "**"], &["push", "a", "--forced"], false),
            (&["*"], &[], false),
            (&["*"], &[""], true),
            (&["a*c"], &["abc"], true),
            (&["a*c"], &["ab", "c"], false),
            (&["a*a"], &["a"], false),
            (&["**"], &[], true),
        ];
        for (words, arguments, expected) in cases {
            assert_eq!(pattern(words).matches(arguments), expected, "{words:?} {arguments:?}");
        }
        assert!(pattern(&["a*"]).matches(&[b"a\xff\n".as_slice()]));
    }

    #[test]
    fn bad_words() {
        assert_eq!(Pattern::new(&["ok", "a**"]), Err((1, BadWord::InnerStars)));
        assert_eq!(Pattern::new(&["***"]), Err((0, BadWord::InnerStars)));
        assert_eq!(Pattern::new(&["\0"]), Err((0, BadWord::Nul)));
    }

    #[test]
    fn coverage() {
        let cases: [(&[&str], &[&str], bool); 9] = [
            (&["**"], &["push", "**"], true),
            (&["push", "**"], &["push"], true),
            (&["push"], &["push", "**"], false),
            (&["*"], &["a*b"], true),
            (&["*"], &["**"], false),
            (&["a*"], &["ab*c"], true),
            (&["a*"], &["*a"], false),
            (&["**", "x", "**"], &["a", "x"], true),
            (&["push", "**", "--force", "**"], &["push", "--force-with-lease"], false),
        ];
        for (mine, theirs, expected) in cases {
            assert_eq!(pattern(mine).covers(&pattern(theirs)), expected, "{mine:?} {theirs:?}");
        }
    }

    /// Patterns that take a backtracking matcher longer than the age of the universe.
    #[test]
    fn hostile_arguments_do_not_take_long() {
        let words: Vec<&str> = ["**", "a"].into_iter().cycle().take(60).chain(["b"]).collect();
        let arguments = vec!["a"; 20_000];
        let start = std::time::Instant::now();
        assert!(!pattern(&words).matches(&arguments));
        let word = format!("{}b", "*a".repeat(40));
        assert!(!pattern(&[&word]).matches(&["a".repeat(128 << 10)]));
        // A fraction of a second; the bound only has to tell polynomial from exponential on a busy machine.
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
    }

    pub(in crate::policy) fn words() -> impl Strategy<Value = Vec<String>> {
        let pieces = prop::collection::vec("[ab]{1,2}", 0..3);
        let word = (any::<bool>(), pieces, any::<bool>()).prop_map(|(before, pieces, after)| {
            let star = |wanted: bool| if wanted && !pieces.is_empty() { "*" } else { "" };
            format!("{}{}{}", star(before), pieces.join("*"), star(after))
        });
        prop::collection::vec(
            prop_oneof![2 => Just("**".to_owned()), 1 => Just("*".to_owned()), 5 => word],
            0..5,
        )
    }

    pub(in crate::policy) fn arguments() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[ab]{0,4}", 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn as_the_definition_says(words in words(), arguments in arguments()) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let bytes: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
            prop_assert_eq!(pattern(&words).matches(&bytes), naive(&words, &bytes));
        }

        #[test]
        fn what_is_covered_never_matches_alone(mine in words(), theirs in words(), arguments in arguments()) {
            let mine = pattern(&mine.iter().map(String::as_str).collect::<Vec<_>>());
            let theirs = pattern(&theirs.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert!(mine.covers(&mine));
            if mine.covers(&theirs) && theirs.matches(&arguments) {
                prop_assert!(mine.matches(&arguments));
            }
        }
    }
}
