//! A question comes and goes: what the terminal is like afterwards, and what more of the agent's makes of it.

use proptest::prelude::*;

use super::{Screen, Way};
use crate::sys::terminal::Size;

const ROWS: u16 = 12;
const COLUMNS: u16 = 40;

fn size() -> Size {
    Size { rows: ROWS, columns: COLUMNS, x_pixels: 0, y_pixels: 0 }
}

/// What a terminal was told that the crate vt100 does not keep: everything that it does not handle.
#[derive(Default)]
struct Rest(Vec<String>);

impl vt100::Callbacks for Rest {
    fn unhandled_csi(
        &mut self,
        _: &mut vt100::Screen,
        first: Option<u8>,
        second: Option<u8>,
        params: &[&[u16]],
        last: char,
    ) {
        self.0.push(format!("{first:?} {second:?} {params:?} {last}"));
    }
}

type Terminal = vt100::Parser<Rest>;

fn terminal() -> Terminal {
    let (rows, columns) = (ROWS.try_into().unwrap(), COLUMNS.try_into().unwrap());
    vt100::Parser::new_with_callbacks(rows, columns, 0, Rest::default())
}

/// Everything that can be seen of a terminal.
fn state(terminal: &Terminal) -> String {
    let screen = terminal.screen();
    let modes = (screen.input_mode_formatted(), screen.hide_cursor(), screen.alternate_screen());
    format!(
        "{}\nat {:?}\n{:?}\n{:?}",
        screen.contents(),
        screen.cursor_position(),
        screen.attributes_formatted(),
        modes
    ) + &screen.contents_formatted()
}

/// The agent writes, a question comes and goes in between, and the agent goes on.
struct Story {
    screen: Screen,
    asked: Terminal,
    /// The same without a question.
    unasked: Terminal,
}

impl Story {
    fn of(before: &[u8]) -> Self {
        let mut story = Self { screen: Screen::new(Some(size())), asked: terminal(), unasked: terminal() };
        story.agent(before);
        story
    }

    fn agent(&mut self, output: &[u8]) {
        let passed = self.screen.feed(output);
        self.asked.process(&passed);
        self.unasked.process(&passed);
    }

    fn ask(&mut self, way: Way) {
        let open = self.screen.open(way);
        self.asked.process(open.as_bytes());
        let screen = self.asked.screen();
        assert!(!screen.hide_cursor(), "{open:?}");
        assert!(screen.bracketed_paste() || way == Way::Plain, "{open:?}");
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        assert!(!screen.application_cursor() && !screen.application_keypad());
        assert_eq!(screen.attributes_formatted(), "\x1b[m");
        if way == Way::Page {
            assert_eq!((screen.contents().as_str(), screen.cursor_position()), ("", (0, 0)), "{open:?}");
            self.asked.process(b"\x1b[2;1H\x1b[m\x1b[Kquestion\x1b[12;1H? a\x1b[?25h");
        } else {
            self.asked.process(b"question\r\n? a\r\nsigned\r\n");
        }
        self.asked.process(self.screen.close(way).as_bytes());
    }

    /// What is seen with the question and without.
    fn states(&self) -> (String, String) {
        (state(&self.asked), state(&self.unasked))
    }
}

/// Pieces of output as programs write them.
fn piece() -> impl Strategy<Value = String> {
    let fixed = [
        "\x1b[H",
        "\x1b[5;7H",
        "\x1b[12;40H",
        "\x1b[2J",
        "\x1b[K",
        "\x1b[3A",
        "\x1b[2C",
        "\x1b[L",
        "\x1b[M",
        "\x1b[?1049h",
        "\x1b[?1049l",
        "\x1b[?25l",
        "\x1b[?25h",
        "\x1b[?1h",
        "\x1b[?1l",
        "\x1b=",
        "\x1b>",
        "\x1b[?2004h",
        "\x1b[?2004l",
        "\x1b[?1000h",
        "\x1b[?1003h",
        "\x1b[?1003l\x1b[?1002l\x1b[?1000l",
        "\x1b[?1006h",
        "\x1b[?1006l",
        "\x1b[3;9r",
        "\x1b[r",
        "\r\x1b7",
        "\x1b8",
        "\x1bM",
        "\x1b[S",
        "\x1b[4 q",
        "\x1b[1;31m",
        "\x1b[44m",
        "\x1b[m",
        "\x1b[7;3m",
        "\x1b[38;5;200m",
        "\x1b[48;2;1;2;3m",
        "\r\n",
        "\r",
        "\n",
        "\x08",
        "\t",
        "\x1b[?6h",
        "\x1b[?6l",
        "\x1b]0;title\x07",
        "\u{e9}\u{4e2d}",
    ];
    prop_oneof![
        3 => prop::sample::select(fixed.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{1,50}",
    ]
}

/// No cursor is restored that was not saved on the same screen, and screens are entered and left in turns: terminals differ in
/// what else means.
fn output() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..30).prop_map(|pieces| {
        let (mut saved, mut alternate) = (false, false);
        // One region for both screens and a saved cursor for each, as xterm has it; in vt100 it is the other way round.
        let both = pieces.iter().any(|piece| piece.contains("1049"));
        let apart = ["\x1b[?6h", "\x1b[3;9r", "\r\x1b7"];
        // A place saved relative to one region means another in the next.
        let saves = pieces.iter().any(|piece| piece.ends_with("\x1b7"));
        let pieces = pieces
            .into_iter()
            .filter(|piece| !(both && apart.contains(&piece.as_str()) || saves && piece == "\x1b[?6h"));
        let sane = pieces.filter(|piece| {
            saved = (saved || piece == "\r\x1b7") && !piece.contains("1049");
            let switches = piece.contains("1049") && alternate == piece.ends_with('l');
            alternate ^= switches;
            if piece.contains("1049") { switches } else { saved || piece != "\x1b8" }
        });
        sane.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A page leaves nothing behind: neither what can be seen, nor in what the agent does next.
    #[test]
    fn after_a_page_everything_is_as_before(before in output(), after in output()) {
        prop_assume!(!(before.contains("\x1b[?6h") || before.contains("\x1b[3;9r")) || !after.contains("1049"));
        let mut story = Story::of(before.as_bytes());
        // Behind the last column without a letter in it: nothing gets it there again.
        let at_end = |terminal: &Terminal| {
            let (row, column) = terminal.screen().cursor_position();
            column == COLUMNS && !terminal.screen().cell(row, column - 1).is_some_and(vt100::Cell::has_contents)
        };
        prop_assume!(!at_end(&story.unasked));
        story.ask(Way::Page);
        let (asked, unasked) = story.states();
        prop_assert_eq!(asked, unasked, "{:?}", before);
        // On the primary screen, 1049 itself saves the cursor: one that was restored already is not brought back.
        let state = &story.screen.state;
        let open = state.saved[usize::from(state.alternate)].as_ref().is_some_and(|saved| saved.open);
        let after = match (open, state.alternate) {
            (true, false) => format!("\x1b8{after}"),
            (_, true) => format!("\x1b[?1049l{after}"),
            (false, false) => after,
        };
        story.agent(after.as_bytes());
        let (asked, unasked) = story.states();
        prop_assert_eq!(asked, unasked, "{:?} then {:?}", before, after);
    }

    /// After an inline question the agent's line is there again, its cursor in it, and its modes.
    #[test]
    fn after_a_line_the_agents_line_goes_on(
        lines in prop::collection::vec("[ -~]{0,50}", 0..4), begun in "[ -~]{0,90}", back in 0_usize..3,
        modes in prop::sample::select(vec!["", "\x1b[?2004h", "\x1b[?25l\x1b[?1h", "\x1b[1;32m", "\x1b=\x1b[44m"]),
        next in "[ -~]{0,20}",
    ) {
        let before = format!("{}{modes}{begun}{}", lines.iter().map(|l| format!("{l}\r\n")).collect::<String>(),
            "\x08".repeat(back));
        let mut story = Story::of(before.as_bytes());
        prop_assert_eq!(story.screen.way(false), Way::Inline);
        story.ask(Way::Inline);
        story.agent(next.as_bytes());
        for terminal in [&mut story.asked, &mut story.unasked] {
            // The rows of the agent's line, its attributes included.
            let screen = terminal.screen();
            prop_assert_eq!(screen.hide_cursor(), modes.contains("?25l"));
        }
        let row = |terminal: &Terminal| {
            let screen = terminal.screen();
            let (row, column) = screen.cursor_position();
            let text = screen.rows_formatted(0, COLUMNS).nth(usize::from(row)).unwrap_or_default();
            (text, column, screen.attributes_formatted(), screen.input_mode_formatted())
        };
        prop_assert_eq!(row(&story.asked), row(&story.unasked), "{:?}", before);
    }

    /// The agent writes what it likes; nobody panics, and nothing takes long.
    #[test]
    fn no_output_panics(
        output in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\x1b[;?0123456789HJKmrhlbu".to_vec())], 0..400),
        rows in 0_u16..6, columns in 0_u16..6,
    ) {
        let mut screen = Screen::new(Some(Size { rows, columns, x_pixels: 0, y_pixels: 0 }));
        for half in output.chunks(output.len().div_ceil(2).max(1)) {
            screen.feed(half);
            for way in [Way::Page, Way::Inline, Way::Plain] {
                screen.open(way);
                screen.close(way);
            }
            screen.resize(Size { rows: columns, columns: rows, x_pixels: 0, y_pixels: 0 });
        }
        screen.undo();
    }
}

#[test]
fn what_prints_lines_is_asked_inline() {
    for lines in [
        "",
        "a\r\n",
        "\x1b[31mred\x1b[m",
        "50%\r51%",
        "\x1b[2K\x1b[1Gnpm",
        "\x1b[?2004h$ ls\x1b[C\x08",
        "\x1b]0;title\x07",
        "\x1b[H\x1b[2J\x1b[3J$ ",
        "\x1b[c",
        "\x1b[?1049h\x1b[5;5Hvim\x1b[?1049l$ ",
        "\x1b[5;5H\x1bc",
    ] {
        assert_eq!(Story::of(lines.as_bytes()).screen.way(false), Way::Inline, "{lines:?}");
    }
    for drawn in [
        "\x1b[5;5H",
        "\x1b[A",
        "\r\x1b7",
        "x\x1b[2J",
        "\x1b[3;9r",
        "\x1b[?1049h",
        "\x1b[?1047h",
        "\x1bPq\x1b\\",
        "\x1b_Gf=32\x1b\\",
        "\x1b[6n",
        "\u{9b}5A",
        "\x1b]1337;File=:\x07",
        "\x1b[1;1;2;2$z",
    ] {
        let story = Story::of(drawn.as_bytes());
        assert_eq!(story.screen.way(false), Way::Page, "{drawn:?}");
        assert_eq!(story.screen.way(true), Way::Plain);
    }
}

/// What the crate vt100 does not know of is left and set again, too.
#[test]
fn all_modes_are_left_and_set_again() {
    let set = "\x1b[?1004h\x1b[?2026h\x1b[>1u\x1b[=5u\x1b[>4;2m\x1b[?2031h\x1b(0\x1b[1\"q\x1b]11;#000\x1b\\\x1b]4;1;red\x07\
               \x1b]8;;http://a\x07\x1b[4h\x1b[9;53m\x1b[5;5H";
    let mut screen = Screen::new(Some(size()));
    screen.feed(set.as_bytes());
    let open = screen.open(Way::Page);
    for left in [
        "\x1b[?1004l",
        "\x1b[?2026l",
        "\x1b[>0u",
        "\x1b[>4m",
        "\x1b[?2031l",
        "\x1b(B",
        "\x1b[0\"q",
        "\x1b]111\x1b\\",
        "\x1b]104\x1b\\",
        "\x1b]8;;\x1b\\",
        "\x1b[4l",
        "\x1b[m",
    ] {
        assert!(open.contains(left), "{left:?} is missing in {open:?}");
    }
    let close = screen.close(Way::Page);
    for back in [
        "\x1b[?1004h",
        "\x1b[?2026h",
        "\x1b[<1u",
        "\x1b[>4;2m",
        "\x1b[?2031h",
        "\x1b(0",
        "\x1b[1\"q",
        "\x1b]11;#000\x1b\\",
        "\x1b]4;1;red\x1b\\",
        "\x1b]8;;http://a\x1b\\",
        "\x1b[4h",
        "\x1b[9m\x1b[53m",
    ] {
        assert!(close.contains(back), "{back:?} is missing in {close:?}");
    }
    assert!(!close.contains("1000h"), "{close:?}");
    screen.feed(b"\x1bc");
    assert_eq!(screen.close(Way::Page).replace("\x1b[?1049l", ""), "\x1b[?2004l\x1b[m");
}

/// Numbers that no screen has keep nobody busy.
#[test]
fn large_numbers_are_cheap() {
    let mut screen = Screen::new(Some(size()));
    let start = std::time::Instant::now();
    screen.feed(&b"x\x1b[65535b\x1b[65535S\x1b[65535L\x1b[65535@\x1b[65535I".repeat(2000));
    // Minutes, without a limit.
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_killed_agent_leaves_nothing() {
    let mut story = Story::of(b"$ \x1b[?1049h\x1b[?25l\x1b[?1003h\x1b[>1u\x1b[3;5r\x1b[31mx");
    story.asked.process(story.screen.undo().as_bytes());
    let screen = story.asked.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor());
    assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
    assert_eq!(Story::of(b"plain\r\n\x1b[31mred\x1b[m").screen.undo(), "");
}

/// What is written would stay within a part of the screen, with the agent's words around it.
#[test]
fn a_question_is_never_confined() {
    let confined: [&[u8]; 7] = [
        b"\x1b[11;12r\x1b[H\x1b[2Jforged\r\n",
        b"\x1b[?1049h\x1b[11;12r\x1b[?1049lforged\r\n",
        b"\x1b[?69h\x1b[1;5s\x1b[H\x1b[2Jforged\r\n",
        b"\x1b[?6h\x1b[H\x1b[2Jforged\r\n",
        b"\xc2\x9b11;12r\x1b[H\x1b[2Jforged\r\n",
        b"\x1b]0;\xc2\x9b11;12r\x07\x1b[H\x1b[2Jforged\r\n",
        b"\x1b]0;\x9c\x1b[H\x07\x1b[H\x1b[2Jforged\r\n",
    ];
    for output in confined {
        for (plain, way) in [(false, Way::Page), (true, Way::Plain)] {
            let mut story = Story::of(output);
            assert_eq!(story.screen.way(plain), way, "{:?}", String::from_utf8_lossy(output));
            let open = story.screen.open(way);
            assert!(open.contains("\x1b[r\x1b[?69l\x1b[?6l"), "{open:?}");
            story.asked.process(open.as_bytes());
            let contents = story.asked.screen().contents();
            assert!(!contents.contains("forged"), "{contents:?}");
        }
    }
    // A region that a change of the size may have left.
    let mut screen = Screen::new(Some(size()));
    screen.feed(b"\x1b[3;4r");
    screen.resize(size());
    screen.feed(b"\x1b[H\x1b[2J");
    assert_eq!(screen.way(false), Way::Page);
    screen.feed(b"\x1b[r\x1b[H\x1b[2J");
    assert_eq!(screen.way(false), Way::Inline);
}

/// Plainly: without any control sequence, as long as the agent needs none.
#[test]
fn plain_is_plain() {
    let mut story = Story::of(b"one\r\ntwo \x1b[31mthree\x1b[m\x08\x08");
    let open = story.screen.open(Way::Plain);
    assert_eq!(open, "\r\n");
    let close = story.screen.close(Way::Plain);
    assert_eq!(close, "two three\rtwo thr");
    // What was drawn is scrolled away.
    story.agent(b"\x1b[Hdrawn");
    let open = story.screen.open(Way::Plain);
    assert_eq!(open.matches('\n').count(), usize::from(ROWS) * 2);
    assert!(!open.contains('\x1b'), "{open:?}");
}
