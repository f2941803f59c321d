//! Scripts: how the kernel hands one to its interpreter, read back from the frozen image.
//!
//! execve(2) puts the words of the `#!` line and the script's name into the place of argv\[0\]; an interpreter that is a
//! script itself is handed to its own in the same way; binfmt_misc puts its interpreter and the name. What follows are the
//! script's own arguments.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

use super::protected::{Stat, stat_in};
use crate::{
    gate::{files, process::Image},
    launch::spec::Identity,
    operation::Bytes,
};

/// Scripts that are interpreters of scripts; the kernel follows five `#!` lines (search_binary_handler, fs/exec.c).
const SCRIPTS_MAX: usize = 4;

/// Why the run of a script cannot be judged. Each is a denial.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("what was executed is not the protected script")]
    Another,
    #[error("its interpreter {0} is a script that the session can change; name another one in its #! line")]
    ChangeableInterpreter(String),
    #[error(
        "its #! line is one of env that ana does not follow; write `#!/usr/bin/env PROGRAM` or name the program"
    )]
    EnvLine,
    #[error("env finds no interpreter {0} in the PATH of the process; name the program in its #! line")]
    NotFound(String),
    #[error(
        "env finds {0}, which is no interpreter of the policy; add its name to `interpreters` or change the PATH"
    )]
    NoInterpreter(String),
}

/// How a frozen image runs a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The script's name, as its interpreter was given it.
    pub name: Vec<u8>,
    pub arguments: Vec<Vec<u8>>,
    /// The image is env's: the program that env is to find and to execute next.
    pub env: Option<Vec<u8>>,
}

/// A script's first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shebang {
    pub interpreter: PathBuf,
    /// Everything behind the interpreter is one argument (execve(2)).
    pub argument: Option<Vec<u8>>,
}

impl Shebang {
    fn words(self) -> Vec<Vec<u8>> {
        let interpreter = self.interpreter.into_os_string().into_encoded_bytes();
        [Some(interpreter), self.argument].into_iter().flatten().collect()
    }

    /// What env is to execute, if it is the interpreter.
    pub(super) fn env(&self) -> Option<Result<Vec<u8>, ScriptError>> {
        (self.interpreter.file_name() == Some(OsStr::new("env")))
            .then(|| program_of_env(self.argument.as_deref().unwrap_or_default()).ok_or(ScriptError::EnvLine))
    }
}

/// `None` for what does not start with `#!`.
pub(super) fn shebang(file: &File) -> Option<Shebang> {
    /// BINPRM_BUF_SIZE: the kernel looks no further.
    const LINE_MAX: usize = 256;
    let mut start = [0; LINE_MAX];
    let length = file.read_at(&mut start, 0).ok()?;
    let line = start[..length].strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = line.iter().position(|byte| !blank(byte))?;
    let to = line.iter().rposition(|byte| !blank(byte))? + 1;
    let line = &line[from..to];
    let end = line.iter().position(blank).unwrap_or(line.len());
    let argument = line[end..].iter().position(|byte| !blank(byte)).map(|at| line[end + at..].to_vec());
    Some(Shebang { interpreter: PathBuf::from(OsStr::from_bytes(&line[..end])), argument })
}

/// The program in the one argument of an `env` line: `python3`, `-S python3 -u`, `-S NAME=value python3`. `None` for what
/// env would read in another way than as words: other options, quotes, escapes, another PATH.
fn program_of_env(argument: &[u8]) -> Option<Vec<u8>> {
    let split =
        [b"-S".as_slice(), b"--split-string="].iter().find_map(|option| argument.strip_prefix(*option));
    let words = split.unwrap_or(argument);
    if words.iter().any(|byte| b"\\'\"$#".contains(byte)) {
        return None;
    }
    let mut words = words.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    // Without -S the argument is one word, blanks included: no program is called so.
    if split.is_none() && argument.iter().any(u8::is_ascii_whitespace) {
        return None;
    }
    let program = words.find(|word| !word.contains(&b'=') || word.starts_with(b"PATH="))?;
    (!program.starts_with(b"-") && !program.contains(&b'=')).then(|| program.to_vec())
}

/// The programs that may open a script because its first line names them, and by which names env would look for them.
pub(super) fn interpreters(file: &File) -> (Option<PathBuf>, Option<Vec<u8>>) {
    let Some(line) = shebang(file) else { return (None, None) };
    let env = line.env().and_then(Result::ok);
    (Some(line.interpreter), env)
}

/// Reads back how the image runs this script.
///
/// # Errors
/// It does not: another interpreter, a path that leads to another file; or it cannot be told what it will do.
pub(super) fn run_of(
    file: &File,
    pid: Pid,
    stat: Stat,
    image: &Image,
    user: &Identity,
) -> Result<Run, ScriptError> {
    let Some(line) = shebang(file) else { return by_format(pid, stat, image) };
    let env = line.env().transpose()?;
    let mut words = line.words();
    let run = |place: usize, env| {
        let name = image.argv.get(place).filter(|name| leads_to(name, pid, stat))?;
        Some(Run { name: name.clone(), arguments: image.argv.get(place + 1..)?.to_vec(), env })
    };
    if image.argv.starts_with(&words) {
        return run(words.len(), env).ok_or(ScriptError::Another);
    }
    for _ in 0..SCRIPTS_MAX {
        let interpreter = PathBuf::from(OsStr::from_bytes(words.first().ok_or(ScriptError::Another)?));
        let mut above = script_of_roots(&interpreter, image, user)?.words();
        above.append(&mut words);
        words = above;
        if image.argv.starts_with(&words) {
            return run(words.len(), None).ok_or(ScriptError::Another);
        }
    }
    Err(ScriptError::Another)
}

/// The first line of an interpreter that is a script. What it does with the other script is its author's affair, so it must
/// be nobody's whom ana does not trust.
fn script_of_roots(path: &Path, image: &Image, user: &Identity) -> Result<Shebang, ScriptError> {
    let shown = || Bytes::from(path.as_os_str().as_bytes()).escaped();
    let changeable = || ScriptError::ChangeableInterpreter(shown());
    if image.foreign_namespaces.iter().any(|kind| kind == "mnt") || !path.is_absolute() {
        return Err(changeable());
    }
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let found = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let found = found.map_err(|_gone| ScriptError::Another)?;
    let real = files::path_of(std::os::fd::AsFd::as_fd(&found)).map_err(|_gone| ScriptError::Another)?;
    if files::not_fixed(&found, path, user) || files::not_fixed(&found, &real, user) {
        return Err(changeable());
    }
    // Nobody but root could put another file there.
    let file = Some(real).filter(|real| fs::metadata(real).is_ok_and(|meta| meta.is_file()));
    let file = file.and_then(|real| File::open(real).ok()).ok_or(ScriptError::Another)?;
    shebang(&file).ok_or(ScriptError::Another)
}

/// binfmt_misc: `interpreter name [argv0] arguments` (Documentation/admin-guide/binfmt-misc.rst); whether argv\[0\] is kept
/// is in the auxiliary vector.
fn by_format(pid: Pid, stat: Stat, image: &Image) -> Result<Run, ScriptError> {
    let name = image.argv.get(1).filter(|name| leads_to(name, pid, stat)).ok_or(ScriptError::Another)?;
    let kept = keeps_argv0(pid).map_err(|_gone| ScriptError::Another)?;
    let arguments = image.argv.get(if kept { 3 } else { 2 }..).unwrap_or_default().to_vec();
    Ok(Run { name: name.clone(), arguments, env: None })
}

/// AT_FLAGS_PRESERVE_ARGV0 in AT_FLAGS (linux/binfmts.h, getauxval(3)).
fn keeps_argv0(pid: Pid) -> std::io::Result<bool> {
    const AT_FLAGS: u64 = 8;
    const PRESERVE_ARGV0: u64 = 1;
    let mut vector = Vec::new();
    File::open(format!("/proc/{pid}/auxv"))?.take(4096).read_to_end(&mut vector)?;
    let (words, _) = vector.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    let flags = pairs.iter().find(|pair| u64::from_ne_bytes(pair[0]) == AT_FLAGS);
    Ok(flags.is_some_and(|pair| u64::from_ne_bytes(pair[1]) & PRESERVE_ARGV0 != 0))
}

/// Whether the name leads the process to this file. The descriptor of an execveat is named /dev/fd/N, and belongs to the
/// process.
fn leads_to(name: &[u8], pid: Pid, stat: Stat) -> bool {
    let named = Path::new(OsStr::from_bytes(name));
    let process = Path::new("/proc").join(pid.to_string());
    let seen = match (named.strip_prefix("/dev/fd"), named.strip_prefix("/")) {
        (Ok(number), _) => process.join("fd").join(number),
        (_, Ok(absolute)) => process.join("root").join(absolute),
        (_, Err(_relative)) => process.join("cwd").join(named),
    };
    fs::metadata(seen).is_ok_and(|found| stat_in(&found) == stat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        let path = format!("/tmp/ana-shebang-{}", std::process::id());
        let line = |text: &str| {
            fs::write(&path, text).unwrap();
            shebang(&File::open(&path).unwrap())
        };
        let expected = |interpreter: &str, argument: Option<&str>| {
            let argument = argument.map(|text| text.as_bytes().to_vec());
            Some(Shebang { interpreter: interpreter.into(), argument })
        };
        assert_eq!(line("#!/bin/sh\necho"), expected("/bin/sh", None));
        assert_eq!(line("#! /usr/bin/env  -S a  b \n"), expected("/usr/bin/env", Some("-S a  b")));
        assert_eq!(line("#!/bin/sh \t\n"), expected("/bin/sh", None));
        assert_eq!(line("echo"), None);
        assert_eq!(line("#!"), None);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_env_would_execute() {
        let program = |argument: &str| {
            program_of_env(argument.as_bytes()).map(|program| String::from_utf8(program).unwrap())
        };
        assert_eq!(program("python3").as_deref(), Some("python3"));
        assert_eq!(program("-S python3 -u").as_deref(), Some("python3"));
        assert_eq!(program("-Spython3 -u").as_deref(), Some("python3"));
        assert_eq!(program("--split-string=A=b /opt/x -u").as_deref(), Some("/opt/x"));
        for odd in
            ["", "-S", "-i", "-S -i python3", "-S PATH=/x python3", "-S 'a b'", "-S ${X}", "a b", "-S a\\ b"]
        {
            assert_eq!(program(odd), None, "{odd}");
        }
    }
}
