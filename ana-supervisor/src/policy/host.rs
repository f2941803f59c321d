//! Names of hosts: their one spelling, and patterns for them.

/// A name in its one spelling: lower case, without the trailing dot. `None` for what is no name that DNS could hold,
/// or one that resolvers read as an address ("192.0.2.1", "1.2", "0x7f.1").
pub fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let good = name.len() <= NAME_MAX && name.split('.').all(is_label) && !is_number(last);
    good.then_some(name)
}

/// RFC 1035, 2.3.4, as text without the trailing dot.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Letters, digits and hyphens, and the underscore that service names have.
fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// What inet_aton(3) and the WHATWG URL standard (5.1, "ends in a number") read as a part of an IPv4 address.
fn is_number(label: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits(label) || label.strip_prefix("0x").is_some_and(hex)
}

/// A pattern for names: labels, `*` for any one label, `**` for one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    text: String,
    labels: Vec<Label>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    Own(String),
    One,
    /// Any number of labels, none included: what follows the `One` of a `**`.
    Many,
}

/// Why a pattern is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHost {
    NotAscii,
    /// An address, or a name that is read as one.
    Address,
    /// A star inside a label.
    InnerStar,
    /// A scheme, a path, or a port.
    NotAName,
    /// An empty label, a foreign character, too long.
    Never,
}

impl HostPattern {
    pub(super) fn new(text: &str) -> Result<Self, BadHost> {
        if !text.is_ascii() {
            return Err(BadHost::NotAscii);
        }
        let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
        if unbracketed.parse::<std::net::IpAddr>().is_ok() {
            return Err(BadHost::Address);
        }
        if text.contains(['/', ':', '@']) {
            return Err(BadHost::NotAName);
        }
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let mut labels = Vec::new();
        for label in text.split('.') {
            match label {
                "*" => labels.push(Label::One),
                "**" => labels.extend([Label::One, Label::Many]),
                label if label.contains('*') => return Err(BadHost::InnerStar),
                label if is_label(label) => labels.push(Label::Own(label.to_owned())),
                _ => return Err(BadHost::Never),
            }
        }
        if labels.last().is_some_and(|last| matches!(last, Label::Own(last) if is_number(last))) {
            return Err(BadHost::Address);
        }
        if text.len() > NAME_MAX {
            return Err(BadHost::Never);
        }
        Ok(Self { text, labels: in_order(labels) })
    }

    /// As it stands in the policy, in lower case and without a trailing dot.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name itself, if it has no stars.
    pub fn exact(&self) -> Option<&str> {
        self.labels.iter().all(|label| matches!(label, Label::Own(_))).then_some(&*self.text)
    }

    /// Whether it is a pattern for this name, in any spelling. What is no name matches no pattern.
    pub fn matches(&self, name: &str) -> bool {
        host_name(name).is_some_and(|name| self.matches_normal(&name))
    }

    /// The same for a name in its one spelling.
    pub(super) fn matches_normal(&self, name: &str) -> bool {
        let labels: Vec<&str> = name.split('.').collect();
        // As in `Pattern::matches`: only the last `Many` is ever taken up again.
        let (mut word, mut at) = (0, 0);
        let mut resume: Option<(usize, usize)> = None;
        loop {
            match (self.labels.get(word), labels.get(at)) {
                (Some(Label::Many), _) => {
                    word += 1;
                    resume = Some((word, at));
                    continue;
                }
                (None, None) => return true,
                (Some(Label::One), Some(_)) => {
                    (word, at) = (word + 1, at + 1);
                    continue;
                }
                (Some(Label::Own(own)), Some(label)) if own == label => {
                    (word, at) = (word + 1, at + 1);
                    continue;
                }
                (Some(Label::Own(_) | Label::One), _) | (None, Some(_)) => {}
            }
            let Some((after, from)) = resume else { return false };
            if from >= labels.len() {
                return false;
            }
            resume = Some((after, from + 1));
            (word, at) = (after, from + 1);
        }
    }

    /// True exactly if every name that `other` matches is matched by this one too (names of any length).
    pub(super) fn covers(&self, other: &Self) -> bool {
        super::pattern::covers(
            &self.labels,
            &other.labels,
            |label| *label == Label::Many,
            |mine, theirs| *mine == Label::One || mine == theirs,
        )
    }
}

/// Within a run of stars first those that stand for one label, and then at most one for many: the same names.
fn in_order(labels: Vec<Label>) -> Vec<Label> {
    let mut ordered: Vec<Label> = Vec::with_capacity(labels.len());
    let mut many = false;
    for label in labels {
        match label {
            Label::Many => many = true,
            Label::One => ordered.push(Label::One),
            Label::Own(own) => {
                ordered.extend(std::mem::take(&mut many).then_some(Label::Many));
                ordered.push(Label::Own(own));
            }
        }
    }
    ordered.extend(many.then_some(Label::Many));
    ordered
}
