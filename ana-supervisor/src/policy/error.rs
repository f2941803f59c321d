//! What is wrong with a policy, and where: rendered as rustc does.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet, renderer::DecorStyle};

use super::Source;

/// Everything that is wrong with the sources of a policy; never empty. `Display` renders all of it, plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors {
    sources: Vec<Source>,
    problems: Vec<Problem>,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, with the name of the key or rule.
    pub message: String,
    /// The way out, where there is one to name.
    pub help: Option<String>,
    /// Where; absent only when there is no source at all.
    pub place: Option<Place>,
    /// Another place that has to do with it, and how.
    pub related: Option<(Place, String)>,
}

/// A stretch of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which source, counted from 0.
    pub source: usize,
    /// Bytes of its text.
    pub span: Range<usize>,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: Some(place), related: None }
    }

    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: None, related: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related = Some((place, label.into()));
        self
    }
}

/// The name, line and column (both from 1, the column in characters) of a byte of a source.
pub(super) fn position(source: &Source, at: usize) -> (usize, usize) {
    let before = source.text.get(..at).unwrap_or(&source.text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

impl PolicyErrors {
    pub(super) fn new(sources: &[Source], problems: Vec<Problem>) -> Self {
        Self { sources: sources.to_vec(), problems }
    }

    /// The errors in the order of the sources and their lines.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The name of the source, the line and the column of an error, both from 1.
    pub fn position(&self, problem: &Problem) -> Option<(&str, usize, usize)> {
        let place = problem.place.as_ref()?;
        let source = self.sources.get(place.source)?;
        let (line, column) = position(source, place.span.start);
        Some((&source.name, line, column))
    }

    /// All errors as rustc would print them, with colour if asked.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(110);
        let mut text = String::new();
        for problem in &self.problems {
            let mut group = Group::with_title(Level::ERROR.primary_title(problem.message.as_str()));
            if let Some(snippet) = problem.place.as_ref().and_then(|place| self.snippet(problem, place)) {
                group = group.element(snippet);
            }
            if let Some(elsewhere) = self.elsewhere(problem) {
                group = group.element(elsewhere);
            }
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            text.push_str(&renderer.render(&[group]));
            text.push_str("\n\n");
        }
        let count = self.problems.len();
        text.push_str(&format!(
            "error: the policy is not loaded: {count} {}\n",
            if count == 1 { "error" } else { "errors" }
        ));
        text
    }

    fn snippet<'a>(
        &'a self,
        problem: &'a Problem,
        place: &Place,
    ) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let source = self.sources.get(place.source)?;
        let mut snippet = Snippet::source(source.text.as_str())
            .path(source.name.as_str())
            .annotation(AnnotationKind::Primary.span(within(source, &place.span)));
        if let Some((other, label)) = &problem.related
            && other.source == place.source
        {
            let span = within(source, &other.span);
            snippet = snippet.annotation(AnnotationKind::Context.span(span).label(label.as_str()));
        }
        Some(snippet)
    }

    /// The related place, when it lies in another source than the error.
    fn elsewhere<'a>(&'a self, problem: &'a Problem) -> Option<Element<'a>> {
        let (other, label) = problem.related.as_ref()?;
        if problem.place.as_ref().is_some_and(|place| place.source == other.source) {
            return None;
        }
        let source = self.sources.get(other.source)?;
        let annotation = AnnotationKind::Context.span(within(source, &other.span)).label(label.as_str());
        Some(Snippet::source(source.text.as_str()).path(source.name.as_str()).annotation(annotation).into())
    }
}

/// A span that lies inside the text, on character boundaries, whatever the parser reported.
fn within(source: &Source, span: &Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(source.text.len());
        while !source.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(span.start), floor(span.end));
    start..end.max(start)
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for PolicyErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "a parser may report anything")]
    fn a_span_ends_on_characters_inside_the_text() {
        let source = Source { name: "policy.toml".to_owned(), text: "aé".to_owned() };
        for (span, good) in [(0..3, 0..3), (2..9, 1..3), (1..2, 1..1), (3..1, 3..3)] {
            assert_eq!(within(&source, &span), good, "{span:?}");
        }
    }
}
