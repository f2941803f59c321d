//! `ana policy explain exec -- CMD…`: the verdict on a command without running it.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Output, PolicyCommandError, files, json};
use crate::{
    operation::{Bytes, Verify},
    policy::{Action, Policy, Verdict},
};

/// The kernel follows `#!` lines no deeper than this.
const SCRIPTS_MAX: usize = 5;
/// The kernel reads no more of a `#!` line (BINPRM_BUF_SIZE).
const LINE_MAX: u64 = 256;

/// What `--json` prints.
#[derive(Serialize, JsonSchema)]
pub(in crate::cli) struct Explained {
    action: Action,
    /// Absent when no rule lists the program.
    rule: Option<String>,
    because: String,
    /// What would be executed.
    program: String,
    /// The listed files that it is.
    listed: Vec<String>,
    timeout_seconds: Option<u64>,
    verify: Option<Verify>,
    /// Nothing else of the session runs while the program does.
    exclusive: bool,
    warnings: Vec<String>,
}

pub(super) fn explain(
    policy: &Policy,
    command: &[OsString],
    as_json: bool,
) -> Result<Output, PolicyCommandError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let name = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    let program = if name.as_bytes().contains(&b'/') {
        PathBuf::from(name)
    } else {
        files::in_path(name, &path)
            .ok_or_else(|| PolicyCommandError::NotFound(name.to_string_lossy().into_owned()))?
    };
    let warnings = files::path_warning(policy, program.file_name().unwrap_or_default(), &path);
    let argv: Vec<Vec<u8>> = command.iter().map(|word| word.clone().into_vec()).collect();
    let decided = decide(policy, &program, argv)?;
    let explained = Explained {
        action: decided.verdict.as_ref().map_or(Action::Allow, |verdict| verdict.action),
        rule: decided.verdict.as_ref().map(|verdict| verdict.rule.clone()),
        because: decided.verdict.as_ref().map_or("no rule lists this program".into(), |v| v.because.clone()),
        program: Bytes::from(program.as_os_str().as_bytes()).escaped(),
        listed: decided.listed.iter().map(|file| file.display().to_string()).collect(),
        timeout_seconds: decided.verdict.as_ref().map(|verdict| verdict.timeout.as_secs()),
        verify: decided.verdict.as_ref().map(|verdict| verdict.verify),
        exclusive: decided.verdict.as_ref().is_some_and(|verdict| verdict.exclusive),
        warnings: warnings.iter().map(ToString::to_string).collect(),
    };
    Ok(if as_json { json(&explained) } else { plain(&explained) })
}

fn plain(explained: &Explained) -> Output {
    let mut text = format!("verdict  {}\n", explained.action.word());
    if let Some(rule) = &explained.rule {
        text.push_str(&format!("rule     {rule}\n"));
    }
    text.push_str(&format!("because  {}\nprogram  {}\n", explained.because, explained.program));
    for listed in explained.listed.iter().filter(|listed| **listed != explained.program) {
        text.push_str(&format!("         is {listed}\n"));
    }
    if let (Action::Approve, Some(seconds), Some(verify)) =
        (explained.action, explained.timeout_seconds, explained.verify)
    {
        text.push_str(&asks(verify, seconds));
    }
    if explained.exclusive && explained.action != Action::Deny {
        text.push_str("runs     alone: nothing else of the session runs until it has ended\n");
    }
    let stderr = explained.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    Output { stdout: text, stderr }
}

/// What a person has to do, and within what time.
pub(super) fn asks(verify: Verify, seconds: u64) -> String {
    let wanted = match verify {
        Verify::Presence => "a touch",
        Verify::Pin => "a touch and the PIN",
    };
    format!("asks     for {wanted}, within {seconds} s\n")
}

struct Decided<'a> {
    /// None: no rule lists anything of it.
    verdict: Option<Verdict>,
    listed: Vec<&'a Path>,
}

/// Follows the command as the kernel would: the program itself, the interpreters of scripts, and a listed script
/// that an interpreter is told to open.
fn decide<'a>(
    policy: &'a Policy,
    program: &Path,
    argv: Vec<Vec<u8>>,
) -> Result<Decided<'a>, PolicyCommandError> {
    let (mut program, mut argv) = (program.to_owned(), argv);
    for _ in 0..=SCRIPTS_MAX {
        let failed = |source| PolicyCommandError::Program { path: program.clone(), source };
        let listed = files::listed(policy, files::identity(&program).map_err(failed)?);
        // A program that may be executed but not read has no #! line either: the kernel could read it, we cannot.
        let interpreter = interpreter(&program);
        if !listed.is_empty() {
            let verdict = match interpreter {
                Some(_) => policy.judge_script(&listed, Some(argv.get(1..).unwrap_or_default())),
                None => policy.judge_exec(&listed, &argv),
            };
            return Ok(Decided { verdict: Some(verdict), listed });
        }
        let Some(mut before) = interpreter else { break };
        let script = program.as_os_str().as_bytes().to_vec();
        program = PathBuf::from(OsString::from_vec(before.first().cloned().unwrap_or_default()));
        before.push(script);
        before.extend(argv.into_iter().skip(1));
        argv = before;
    }
    let name = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if policy.interpreters().iter().any(|interpreter| interpreter == name) {
        for argument in argv.iter().skip(1) {
            let Ok(identity) = files::identity(Path::new(OsStr::from_bytes(argument))) else { continue };
            let listed = files::listed(policy, identity);
            if !listed.is_empty() {
                return Ok(Decided { verdict: Some(policy.judge_script(&listed, None)), listed });
            }
        }
    }
    Ok(Decided { verdict: None, listed: Vec::new() })
}

/// The interpreter and its one option, if the file starts with a `#!` line.
fn interpreter(program: &Path) -> Option<Vec<Vec<u8>>> {
    let mut start = Vec::new();
    std::fs::File::open(program).ok()?.take(LINE_MAX).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = line.trim_ascii();
    let end = line.iter().position(|byte| b" \t".contains(byte)).unwrap_or(line.len());
    let (name, option) = (&line[..end], line[end..].trim_ascii());
    let words =
        [name, option].into_iter().filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect::<Vec<_>>();
    (!words.is_empty()).then_some(words)
}
