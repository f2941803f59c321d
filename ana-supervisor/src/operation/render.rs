//! What people see of an operation: one line, and the prompt's body. Both are pure ASCII without control
//! characters (but for the prompt's own line ends and colours), whatever the agent put into its arguments; nothing
//! is ever shortened.

use anstyle::{AnsiColor, Style};

use super::{ArgumentFile, Bytes, Change, Connect, Exec, File, Kind, Operation, Verify};

mod connect;

const COMMAND: Style = Style::new().bold();
const WARNING: Style = AnsiColor::Red.on_default().bold();
/// Below this a line would hold nothing but its own indentation.
const WIDTH_MIN: usize = 24;
/// The column of the values; labels stand left of it, and only labels can.
const COLUMN: usize = 13;

impl Operation {
    /// The command on one line as a person would type it, quoted for a shell: plain words as they are, others in
    /// `'…'`, anything outside printable ASCII in `$'…'`. A program that was started under another name is shown as
    /// `exec -a NAME PROGRAM …`; a script that does not stand among the words is named in a comment behind them. Of a
    /// connection: where it goes; of a grant: what it covers, and until when.
    pub fn summary(&self) -> String {
        match &self.kind {
            Kind::Exec(exec) => exec.command(),
            Kind::Connect(connect) => connect.summary(),
            Kind::ConnectGrant(grant) => grant.summary(),
        }
    }

    /// The whole body of the prompt (DESIGN: the command first, then one argument a line, then everything the
    /// decision rests on), wrapped at `width` columns and never cut. Continuation lines are indented, so that no
    /// argument can imitate a label. Colour only where `color` says so.
    pub fn prompt(&self, width: usize, color: bool) -> String {
        let mut page = Page { text: String::new(), width: width.max(WIDTH_MIN), color };
        page.put("", COLUMN, &self.summary(), Some(COMMAND));
        page.text.push('\n');
        match &self.kind {
            Kind::Exec(exec) => {
                page.arguments(&exec.argv);
                page.text.push('\n');
                page.field("rule", &ascii(&self.rule));
                page.exec(exec);
                page.field("asked by", &self.chain());
                page.field("directory", &exec.cwd.escaped());
                page.environment(exec);
                page.identity(exec, self.uid);
            }
            Kind::Connect(connect) => {
                page.field("rule", &ascii(&self.rule));
                self.connection(&mut page, connect);
            }
            Kind::ConnectGrant(grant) => {
                page.field("rule", &ascii(&self.rule));
                page.grant(grant);
                self.connection(&mut page, &grant.connect);
            }
        }
        page.field("session", &ascii(&self.session));
        page.field("host", &ascii(&self.host));
        page.field(
            "passkey",
            match self.verify {
                Verify::Presence => "presence (a touch)",
                Verify::Pin => "presence and PIN",
            },
        );
        page.field("expires", &format!("{}: nobody answers, it is denied", ascii(&self.expires_at)));
        page.field("operation", &ascii(&self.id));
        page.text
    }

    fn connection(&self, page: &mut Page, connect: &Connect) {
        page.connect(connect);
        page.field("asked by", &self.chain());
        match &connect.cwd {
            Some(cwd) => page.field("directory", &cwd.escaped()),
            None => page.field("directory", "could not be read"),
        }
        page.field("user", &format!("uid {}", self.uid));
    }

    fn chain(&self) -> String {
        let mut chain = format!("process {}", self.requester.pid);
        for ancestor in &self.requester.ancestry {
            chain.push_str(&format!(" < {} ({})", ancestor.exe.escaped(), ancestor.pid));
        }
        chain
    }
}

impl Exec {
    fn command(&self) -> String {
        let words = |from: usize| -> String {
            self.argv[from..].iter().map(|word| shell_quoted(&word.0)).collect::<Vec<_>>().join(" ")
        };
        let Some(script) = &self.script else {
            let Some(name) = self.argv.first() else {
                return format!(
                    "{}  # without any argument, not even its name",
                    shell_quoted(&self.program.path.0)
                );
            };
            if basename(&name.0) == basename(&self.program.path.0) {
                return words(0);
            }
            let renamed = format!("exec -a {} {}", shell_quoted(&name.0), shell_quoted(&self.program.path.0));
            return if self.argv.len() > 1 { format!("{renamed} {}", words(1)) } else { renamed };
        };
        // The kernel puts the interpreter, at most one option of it and the script's path before the arguments that
        // were typed.
        let typed = (1..self.argv.len().min(3))
            .find(|&at| !script.opened && basename(&self.argv[at].0) == basename(&script.file.path.0));
        match typed {
            Some(at) => words(at),
            None => format!("{}  # script: {}", words(0), shell_quoted(&script.file.path.0)),
        }
    }
}

/// One prompt in the making.
struct Page {
    text: String,
    width: usize,
    color: bool,
}

impl Page {
    /// `head` and then `body`, broken wherever the line is full; the following lines start `indent` columns in.
    fn put(&mut self, head: &str, indent: usize, body: &str, style: Option<Style>) {
        let mut rest = body;
        let mut lead = head.to_owned();
        loop {
            let room = self.width.saturating_sub(lead.len()).max(1);
            // Everything that comes here is ASCII; a character boundary is looked for all the same.
            let mut end = room.min(rest.len());
            while !rest.is_char_boundary(end) {
                end += 1;
            }
            let (line, more) = rest.split_at(end);
            self.text.push_str(&lead);
            match style.filter(|_| self.color) {
                Some(style) => self.text.push_str(&format!("{style}{line}{style:#}")),
                None => self.text.push_str(line),
            }
            self.text.push('\n');
            if more.is_empty() {
                return;
            }
            rest = more;
            lead = " ".repeat(indent);
        }
    }

    fn field(&mut self, label: &str, value: &str) {
        self.put(&format!("{label:<COLUMN$}"), COLUMN, value, None);
    }

    fn warn(&mut self, label: &str, value: &str) {
        self.put(&format!("{label:<COLUMN$}"), COLUMN, value, Some(WARNING));
    }

    fn arguments(&mut self, argv: &[Bytes]) {
        let digits = argv.iter().map(|argument| argument.0.len()).max().unwrap_or(0).to_string().len();
        let places = argv.len().saturating_sub(1).to_string().len();
        for (place, argument) in argv.iter().enumerate() {
            let length = argument.0.len();
            let unit = if length == 1 { "byte " } else { "bytes" };
            let head = format!("  [{place:places$}] {length:digits$} {unit}  ");
            self.put(&head, COLUMN, &shell_quoted(&argument.0), None);
        }
    }

    fn exec(&mut self, exec: &Exec) {
        self.file("program", &exec.program);
        if let Some(script) = &exec.script {
            self.file("script", &script.file);
            if script.opened {
                self.field("", "opened by the interpreter, not run through its #! line");
            }
        }
        self.argument_files(&exec.argument_files);
        if exec.exclusive {
            self.field("exclusive", "nothing else of the session runs until it has ended");
        }
    }

    fn file(&mut self, label: &str, file: &File) {
        self.field(label, &file.path.escaped());
        self.field("", &format!("dev {} inode {}", ascii(&file.dev), ascii(&file.inode)));
        self.field("", &format!("sha256 {}", ascii(&file.sha256)));
        if file.not_fixed {
            self.warn("", "NOT FIXED: the session can still change it");
        }
    }

    /// One line each; the path comes last, so that it cannot pretend to be anything else.
    fn argument_files(&mut self, files: &[ArgumentFile]) {
        let mut label = "files";
        for file in files {
            let path = shell_quoted(&file.path.0);
            let state = if file.not_fixed { "NOT FIXED" } else { "fixed" };
            let content = match &file.sha256 {
                Some(hash) => format!("sha256 {}", ascii(hash)),
                None => "could not be read".to_owned(),
            };
            let line = format!("[{}] {content} {state} {path}", file.index);
            let sure = file.sha256.is_some() && !file.not_fixed;
            if sure {
                self.field(label, &line)
            } else {
                self.warn(label, &line)
            }
            label = "";
        }
    }

    fn environment(&mut self, exec: &Exec) {
        if exec.environment.changed.is_empty() {
            return self.field("environment", "as the session started");
        }
        let mut label = "environment";
        for variable in &exec.environment.changed {
            let change = match variable.change {
                Change::Added => "added",
                Change::Changed => "changed",
                Change::Removed => "removed",
            };
            self.field(label, &format!("{change} {}", shell_quoted(&variable.name.0)));
            label = "";
        }
    }

    fn identity(&mut self, exec: &Exec, session_uid: u32) {
        let ids = &exec.ids;
        if [ids.uid, ids.euid] == [session_uid; 2] && ids.gid == ids.egid && ids.capabilities.is_none() {
            self.field("user", &format!("uid {session_uid}"));
        } else {
            self.field("user", &format!("session's uid {session_uid}"));
            self.warn(
                "",
                &format!("runs as uid {} euid {} gid {} egid {}", ids.uid, ids.euid, ids.gid, ids.egid),
            );
        }
        if let Some(capabilities) = &ids.capabilities {
            self.warn("", &format!("gains the capabilities {}", ascii(capabilities)));
        }
        if !exec.foreign_namespaces.is_empty() {
            let kinds: Vec<String> = exec.foreign_namespaces.iter().map(|kind| ascii(kind)).collect();
            self.warn("namespaces", &format!("not the session's: {}", kinds.join(", ")));
        }
    }
}

fn ascii(text: &str) -> String {
    Bytes::from(text).escaped()
}

fn basename(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// A command line as a person would type it, printable ASCII only.
pub fn shell_words(words: &[Bytes]) -> String {
    words.iter().map(|word| shell_quoted(&word.0)).collect::<Vec<_>>().join(" ")
}

/// One word for a POSIX shell (`$'…'` is in POSIX since 2024). No two words come out alike.
fn shell_quoted(word: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        return String::from_utf8_lossy(word).into_owned();
    }
    if word.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'\'') {
        return format!("'{}'", String::from_utf8_lossy(word));
    }
    let mut quoted = String::from("$'");
    for &byte in word {
        match byte {
            b'\n' => quoted.push_str("\\n"),
            b'\t' => quoted.push_str("\\t"),
            b'\r' => quoted.push_str("\\r"),
            b'\\' | b'\'' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Bytes, Ids, Operation, example, example_script, exec_of};
    use super::shell_quoted;

    fn with_argv(argv: &[&[u8]]) -> Operation {
        let mut operation = example();
        let exec = exec_of(&mut operation);
        exec.argv = argv.iter().map(|argument| Bytes::from(*argument)).collect();
        operation
    }

    #[test]
    fn summaries() {
        assert_eq!(example().summary(), "git push origin main");
        assert_eq!(with_argv(&[b"git", b"commit", b"-m", b"a b"]).summary(), "git commit -m 'a b'");
        assert_eq!(with_argv(&[b"git", b"", b"it's"]).summary(), r"git '' $'it\'s'");
        assert_eq!(with_argv(&[b"git", b"\x1b[2K\xc3\xa9\n"]).summary(), r"git $'\x1b[2K\xc3\xa9\n'");
        assert_eq!(with_argv(&[b"/opt/git", b"push"]).summary(), "/opt/git push");
        assert_eq!(with_argv(&[b"ls", b"push"]).summary(), "exec -a ls /usr/bin/git push");
        assert_eq!(with_argv(&[b""]).summary(), "exec -a '' /usr/bin/git");
        assert_eq!(with_argv(&[]).summary(), "/usr/bin/git  # without any argument, not even its name");
        assert_eq!(example_script().summary(), "./deploy.sh prod");
    }

    #[test]
    fn a_script_is_named_when_the_words_do_not_name_it() {
        let mut operation = example_script();
        let exec = exec_of(&mut operation);
        exec.argv = ["sh", "/dev/fd/3", "prod"].map(Bytes::from).to_vec();
        assert_eq!(operation.summary(), "sh /dev/fd/3 prod  # script: /srv/deploy.sh");
        let exec = exec_of(&mut operation);
        exec.argv = ["sh", "deploy.sh"].map(Bytes::from).to_vec();
        exec.script.as_mut().unwrap().opened = true;
        assert_eq!(operation.summary(), "sh deploy.sh  # script: /srv/deploy.sh");
    }

    #[test]
    fn the_prompt_in_full() {
        let mut operation = with_argv(&[b"git", b"push", b"origin", b"m\xc3\xa9"]);
        let exec = exec_of(&mut operation);
        exec.ids = Ids { uid: 1000, euid: 0, gid: 1000, egid: 1000, capabilities: None };
        exec.foreign_namespaces = vec!["mnt".into()];
        exec.program.not_fixed = true;
        let expected = r"git push origin $'m\xc3\xa9'

  [0] 3 bytes  git
  [1] 4 bytes  push
  [2] 6 bytes  origin
  [3] 3 bytes  $'m\xc3\xa9'

rule         git
program      /usr/bin/git
             dev 254:1 inode 131234
             sha256 n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg
             NOT FIXED: the session can still change it
asked by     process 4242 < /usr/bin/bash (4240) < /usr/bin/node (4200)
directory    /home/alice/project
environment  added GIT_SSH_COMMAND
user         session's uid 1000
             runs as uid 1000 euid 0 gid 1000 egid 1000
namespaces   not the session's: mnt
session      01J8ZQ4T00000000000000000S
host         workstation
passkey      presence (a touch)
expires      2026-03-01T12:02:00.000Z: nobody answers, it is denied
operation    01J8ZQ4T6M9B2N3C4D5E6F7G8H
";
        assert_eq!(operation.prompt(80, false), expected);
        let colored = operation.prompt(80, true);
        assert!(colored.starts_with("\x1b[1mgit push"), "{colored:?}");
    }

    #[test]
    fn a_script_that_is_not_fixed_says_so() {
        let prompt = example_script().prompt(80, false);
        assert!(prompt.contains("script       /srv/deploy.sh\n"), "{prompt}");
        assert!(prompt.contains("NOT FIXED"), "{prompt}");
        assert!(
            prompt.contains("  [0]  7 bytes  /bin/sh\n  [1]  2 bytes  -e\n  [2] 11 bytes  ./deploy.sh\n"),
            "{prompt}"
        );
    }

    #[test]
    fn every_argument_file_has_its_line() {
        let mut operation = example_script();
        let prompt = operation.prompt(200, false);
        let line = "files        [3] sha256 n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg NOT FIXED prod\n";
        assert!(prompt.contains(line), "{prompt}");
        let exec = exec_of(&mut operation);
        let mut unread = exec.argument_files[0].clone();
        (unread.path, unread.sha256) = ("a b fixed".into(), None);
        exec.argument_files[0].not_fixed = false;
        exec.exclusive = true;
        exec.argument_files.push(unread);
        let prompt = operation.prompt(200, false);
        assert!(
            prompt.contains("Cgg fixed prod\n             [3] could not be read NOT FIXED 'a b fixed'\n")
        );
    }

    #[test]
    fn an_argument_cannot_imitate_a_label_by_wrapping() {
        let faked = format!("{}rule         harmless", " ".repeat(20));
        for width in 24..90 {
            let prompt = with_argv(&[b"git", faked.as_bytes(), b"  [9] 4 bytes  true"]).prompt(width, false);
            assert!(!prompt.lines().any(|line| line.starts_with("  [9]")), "{prompt}");
            let rules = prompt.lines().filter(|line| line.starts_with("rule ")).count();
            assert_eq!(rules, 1, "{prompt}");
        }
    }

    #[test]
    fn megabytes_are_shown_whole() {
        let long = vec![b'x'; 2 << 20];
        let prompt = with_argv(&[b"git", &long]).prompt(40, false);
        assert_eq!(prompt.matches('x').count(), 2 * long.len() + prompt_without_long_x());
    }

    /// How many x the rest of the prompt holds.
    fn prompt_without_long_x() -> usize {
        with_argv(&[b"git", b""]).prompt(40, false).matches('x').count()
    }

    proptest! {
        #[test]
        fn nothing_but_printable_ascii_within_the_width(
            argv in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..5),
            rule in ".{0,30}", width in 40usize..120,
        ) {
            let words: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            let mut operation = with_argv(&words);
            operation.rule = rule;
            let prompt = operation.prompt(width, false);
            for line in prompt.lines() {
                prop_assert!(line.len() <= width, "{} columns: {line}", line.len());
                prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
            }
            let flat: String = prompt.lines().map(|line| line.strip_prefix("             ").unwrap_or(line)).collect();
            for argument in &argv {
                let quoted = shell_quoted(argument);
                prop_assert!(flat.contains(&quoted), "{quoted} is not whole in\n{prompt}");
            }
            prop_assert!(operation.summary().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }

        #[test]
        fn quoting_is_injective_and_a_shell_reads_it_back(
            a in prop::collection::vec(1u8.., 0..5), b in prop::collection::vec(1u8.., 0..5),
        ) {
            prop_assert_eq!(shell_quoted(&a) == shell_quoted(&b), a == b);
        }
    }

    /// Bash itself reads every quoted word back to the same bytes.
    #[test]
    fn bash_agrees() {
        let all: Vec<u8> = (1..=255).collect();
        for word in
            [all.as_slice(), b"", b"a b", b"it's", b"--x=$(id)`id`", b"\\", b"!", b"~", b"\x01f", b"*"]
        {
            let script = format!("printf %s {}", shell_quoted(word));
            let output =
                std::process::Command::new("bash").args(["-c", &script]).env("LC_ALL", "C").output().unwrap();
            assert_eq!(output.stdout, word, "{script}");
        }
    }
}
