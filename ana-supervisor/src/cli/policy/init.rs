//! `ana policy init`: a policy to start with, for what is installed on this machine.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{Output, PolicyCommandError, files, programs};
use crate::policy::{
    NETWORK_APPROVE_EXAMPLE, NETWORK_STRICT_EXAMPLE, Policy, STARTER_NAMES, Source, agents_names,
    agents_starter, network_starter, starter,
};

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Only git's rules
    #[arg(long)]
    git: bool,
    /// Rules for connections, too: `approve` asks about a list, `strict` denies what is not on one
    #[arg(long, value_name = "PROFILE")]
    network: Option<Profile>,
    /// Let a software passkey approve: to try ana out, not to protect
    #[arg(long)]
    allow_software_passkey: bool,
    /// The agent's PATH, where it is not yours (under sudo it is not)
    #[arg(long, value_name = "PATH")]
    path: Option<OsString>,
    /// The session user's home [default: the invoking user's]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Profile {
    Approve,
    Strict,
}

/// Writes nothing: the policy goes to stdout, what was found and what was not to stderr. No program is run for it.
pub(super) fn init(args: &Init) -> Result<Output, PolicyCommandError> {
    let home = args.home.clone().or_else(files::home).unwrap_or_default();
    let path = args.path.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let folders = programs::folders(&path);
    let git = programs::find(&programs::with_git_core(&folders), &STARTER_NAMES, &home);
    let mut text = starter(&git.files, args.allow_software_passkey);
    let mut found = git;
    let mut wanted = BTreeSet::from(["git"]);
    if !args.git {
        let names: Vec<&str> = agents_names().into_iter().collect();
        let others = programs::find(&folders, &names, &home);
        text.push_str(&agents_starter(&others.files));
        found.files.extend(others.files);
        found.notes.extend(others.notes);
        wanted.extend(names);
    }
    text.push_str(match args.network {
        None => "",
        Some(Profile::Approve) => network_starter(NETWORK_APPROVE_EXAMPLE),
        Some(Profile::Strict) => network_starter(NETWORK_STRICT_EXAMPLE),
    });
    // What is printed can be loaded.
    Policy::parse(&[Source { name: "policy.toml".to_owned(), text: text.clone() }], &home)?;
    Ok(Output { stdout: text, stderr: said(&found, &wanted) })
}

fn said(found: &programs::Found, wanted: &BTreeSet<&str>) -> String {
    let is_there = |name: &str| found.files.iter().any(|file| file.ends_with(Path::new(name)));
    let (there, missing): (Vec<&str>, Vec<&str>) = wanted.iter().partition(|name| is_there(name));
    let mut text = String::new();
    for (what, names) in [("protects", there), ("not found", missing)] {
        if !names.is_empty() {
            text.push_str(&format!("{what:<9}  {}\n", names.join(", ")));
        }
    }
    for note in &found.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}
