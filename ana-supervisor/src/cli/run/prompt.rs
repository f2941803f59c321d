//! The questions of an interactive session: one at a time, on the person's terminal.

use std::{collections::VecDeque, fs::File, io, os::fd::BorrowedFd, time::Duration};

use super::{page::Page, screen::Way, terminal::put};
use crate::{
    api::{client::Client, wire::Request},
    approval::authenticator::Options,
    cli::{
        dialog::{Dialog, Outcome, Verdict},
        inline::Inline,
        keys::Keys,
        question,
    },
    sys::terminal::Size,
};

/// The questions, in the order in which they came. The first is the one on the screen.
#[derive(Default)]
pub(super) struct Questions {
    waiting: VecDeque<Dialog>,
    shown: Option<Shown>,
    keys: Keys,
    /// How many were asked since nothing waited.
    before: usize,
    /// The last one has gone by itself.
    gone: bool,
    /// Answers that the supervisor has not replied to, in their order: of which operation, and whether it was signed.
    sent: VecDeque<(String, bool)>,
}

/// How the first question is on the screen.
enum Shown {
    /// Printed; with the width of the terminal.
    Inline(Inline, usize),
    Page(Page, Vec<String>),
}

/// What keys or the passkey have brought.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The question is over; the terminal is the agent's again, or the next question's.
    pub(super) over: bool,
    /// Ctrl-Z.
    pub(super) suspend: bool,
    /// For the agent: the terminal's answers to it.
    pub(super) reports: Vec<u8>,
}

impl Questions {
    /// One more; whether it has to be put on the screen.
    pub(super) fn push(&mut self, options: Box<Options>, key: Option<File>) -> io::Result<()> {
        self.waiting.push_back(Dialog::new(options, key));
        self.fill()?;
        Ok(())
    }

    /// A question is on the screen.
    pub(super) fn open(&self) -> bool {
        self.shown.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn asked(&self) -> Option<&Dialog> {
        self.waiting.front().filter(|_| self.open())
    }

    /// Whether the next question fits on a screen of this size, below what is there.
    pub(super) fn is_tall(&self, size: Option<Size>) -> bool {
        let (rows, columns) = size.map_or((24, 80), |size| (size.rows, size.columns));
        let tall = |question: &Dialog| {
            question::is_tall(question.options(), usize::from(columns.max(1)), usize::from(rows))
        };
        self.waiting.front().is_some_and(tall)
    }

    /// Puts the first question on the screen. `tall`: what [`Questions::is_tall`] says of it.
    pub(super) fn show(&mut self, way: Way, size: Option<Size>, tall: bool) -> io::Result<()> {
        let (rows, columns) = size.map_or((24, 80), |size| (size.rows, size.columns));
        let place = (self.before + 1, self.before + self.waiting.len());
        let gone = std::mem::take(&mut self.gone);
        let Some(question) = self.waiting.front_mut() else { return Ok(()) };
        self.keys = Keys::default();
        match gone {
            true => question.show_instead(),
            false => question.show(),
        }
        question.set_tall(tall && way != Way::Page);
        if way == Way::Page {
            self.shown = Some(Shown::Page(Page::new(rows, columns), Vec::new()));
            return self.fill();
        }
        let (plain, width) = (way == Way::Plain, usize::from(columns.max(1)));
        let text = question::text(question.options(), place, width, !plain && question::color(true));
        put(text.replace('\n', "\r\n").as_bytes())?;
        self.shown = Some(Shown::Inline(Inline::new(plain), width));
        self.draw()
    }

    /// The page's text, with as many questions as wait now.
    fn fill(&mut self) -> io::Result<()> {
        let place = (self.before + 1, self.before + self.waiting.len());
        let (Some(question), Some(Shown::Page(page, drawn))) = (self.waiting.front(), &mut self.shown) else {
            return Ok(());
        };
        page.fill(&question::text(question.options(), place, page.columns(), question::color(true)));
        drawn.clear();
        self.draw()
    }

    /// Draws what has changed.
    pub(super) fn draw(&mut self) -> io::Result<()> {
        let Some(question) = self.waiting.front() else { return Ok(()) };
        match &mut self.shown {
            None => Ok(()),
            Some(Shown::Inline(inline, width)) => {
                let lines = question.lines(*width, inline.plain());
                put(inline.draw(lines, *width).as_bytes())
            }
            Some(Shown::Page(page, drawn)) => {
                let lines = question.lines(page.columns(), false);
                if lines == *drawn {
                    return Ok(());
                }
                put(page.draw(&lines).as_bytes())?;
                *drawn = lines;
                Ok(())
            }
        }
    }

    pub(super) fn resize(&mut self, size: Size) -> io::Result<()> {
        match &mut self.shown {
            Some(Shown::Page(page, _)) => page.resize(size.rows, size.columns),
            Some(Shown::Inline(_, width)) => *width = usize::from(size.columns.max(1)),
            None => {}
        }
        self.fill()
    }

    /// So many more operations like this one wait: the line where the answer is typed says so.
    pub(super) fn alike(&mut self, id: &str, more: usize) -> io::Result<()> {
        if let Some(question) = self.waiting.iter_mut().find(|question| question.id() == id) {
            question.set_more(more);
        }
        self.draw()
    }

    /// When to call [`Questions::tick`] at the latest.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let question = self.asked()?;
        question.unsettled().into_iter().chain(question.timeout()).min()
    }

    /// Something is being typed that is not shown.
    pub(super) fn secret(&self) -> bool {
        self.asked().is_some_and(Dialog::secret)
    }

    /// What the passkey has to say.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.asked().and_then(Dialog::fd)
    }

    /// What was typed up to now was not meant for the question; from here on it counts.
    pub(super) fn is_due_to_settle(&self) -> bool {
        self.asked().is_some_and(|question| question.unsettled() == Some(Duration::ZERO))
    }

    pub(super) fn settle(&mut self) {
        if let Some(question) = self.waiting.front_mut() {
            question.settle();
        }
    }

    /// Keys were pressed.
    pub(super) fn typed(&mut self, bytes: &[u8], client: &Client) -> anyhow::Result<News> {
        let mut news = News::default();
        for (key, bytes) in self.keys.take(bytes) {
            let unread = match &self.shown {
                Some(Shown::Page(page, _)) => page.unread(),
                _ => None,
            };
            let Some(question) = self.waiting.front_mut().filter(|_| self.shown.is_some()) else { break };
            let signing = question.signing();
            let outcome = question.press(key, &bytes, unread);
            let begun = !signing && question.signing();
            self.react(outcome, &mut news, client)?;
            // What was typed ahead of what the passkey asks for was not meant for it.
            if begun {
                break;
            }
        }
        self.draw()?;
        Ok(news)
    }

    /// Time passed, or the passkey has said something.
    pub(super) fn tick(&mut self, heard: bool, client: &Client) -> anyhow::Result<News> {
        let mut news = News::default();
        if let Some(question) = self.waiting.front_mut().filter(|question| question.signing()) {
            let outcome = if heard { question.hear() } else { question.tick() };
            self.react(outcome, &mut news, client)?;
            self.draw()?;
        }
        Ok(news)
    }

    /// SIGINT: a no.
    pub(super) fn interrupt(&mut self, client: &Client) -> anyhow::Result<()> {
        self.react(Outcome::Over(Verdict::Interrupted), &mut News::default(), client)?;
        Ok(self.draw()?)
    }

    fn react(&mut self, outcome: Outcome, news: &mut News, client: &Client) -> anyhow::Result<()> {
        match outcome {
            Outcome::Open => {}
            Outcome::Suspend => news.suspend = true,
            Outcome::Report(report) => news.reports.extend(report),
            Outcome::Look(look) => {
                if let Some(Shown::Page(page, drawn)) = &mut self.shown
                    && page.look(look)
                {
                    drawn.clear();
                }
            }
            Outcome::Over(verdict) => news.over |= self.decide(verdict, client)?,
        }
        Ok(())
    }

    /// Whether the question is over at once.
    fn decide(&mut self, verdict: Verdict, client: &Client) -> anyhow::Result<bool> {
        let Some(question) = self.waiting.front_mut() else { return Ok(false) };
        let id = question.id().to_owned();
        match verdict {
            Verdict::Signed(assertion) => {
                client.send(&Request::Sign { id: id.clone(), assertion: *assertion })?;
                question.answered("signed; it is being checked");
                self.sent.push_back((id, true));
            }
            Verdict::Denied(reason) => self.deny(id, reason, client)?,
            Verdict::Interrupted => self.deny(id, String::new(), client)?,
            Verdict::Later => {
                self.close(&format!("ana: it still waits: ana approve {id}"))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn deny(&mut self, id: String, reason: String, client: &Client) -> anyhow::Result<()> {
        let Some(question) = self.waiting.front_mut() else { return Ok(()) };
        // Asked twice, the supervisor would refuse the second.
        if self.sent.iter().all(|(sent, _)| *sent != id) {
            client.send(&Request::Deny { id: id.clone(), reason })?;
            // Its key goes dark.
            question.leave();
            question.answered("being denied");
            self.sent.push_back((id, false));
        }
        Ok(())
    }

    /// The supervisor has taken the oldest answer; whether the question on the screen is over by that.
    pub(super) fn done(&mut self) -> io::Result<bool> {
        let Some((id, signed)) = self.sent.pop_front() else { return Ok(false) };
        let Some(question) = self.asked().filter(|question| question.id() == id) else { return Ok(false) };
        let summary = question.options().operation.summary();
        let words = match (signed, question.more()) {
            (true, _) => format!("ana: signed: {summary}"),
            (false, 0) => format!("ana: denied: {summary}"),
            (false, more) => format!("ana: denied: {summary} (and {more} more like it)"),
        };
        self.close(&words)?;
        Ok(true)
    }

    /// It has not; whether somebody was told.
    pub(super) fn refused(&mut self, why: &str) -> io::Result<bool> {
        let Some((id, _)) = self.sent.pop_front() else { return Ok(false) };
        match self.waiting.front_mut().filter(|question| question.id() == id && self.shown.is_some()) {
            Some(question) => question.refused(why),
            None => return Ok(false),
        }
        self.draw()?;
        Ok(true)
    }

    /// The operation is over: answered elsewhere, expired, or its process has ended. Whether it was on the screen.
    pub(super) fn withdraw(&mut self, id: &str) -> io::Result<bool> {
        if self.asked().is_some_and(|question| question.id() == id) {
            self.close("ana: the question is over: answered elsewhere, expired, or its process has ended")?;
            self.gone = !self.waiting.is_empty();
            return Ok(true);
        }
        self.waiting.retain(|question| question.id() != id);
        self.fill()?;
        Ok(false)
    }

    /// Takes the question from the screen. What was printed stays, and gets a last line.
    fn close(&mut self, words: &str) -> io::Result<()> {
        self.waiting.pop_front();
        self.before = if self.waiting.is_empty() { 0 } else { self.before + 1 };
        match self.shown.take() {
            Some(Shown::Inline(..)) => put(format!("\r\n{words}\r\n").as_bytes()),
            Some(Shown::Page(..)) | None => Ok(()),
        }
    }

    /// The terminal is needed for something else; the question will be shown again. Its passkey is not asked meanwhile.
    pub(super) fn hide(&mut self) -> io::Result<()> {
        if let Some(question) = self.waiting.front_mut() {
            question.leave();
        }
        match self.shown.take() {
            Some(Shown::Inline(..)) => put(b"\r\n"),
            Some(Shown::Page(..)) | None => Ok(()),
        }
    }
}
