//! `ana passkey`: who may approve on this host.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use comfy_table::{Table, TableStyle};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    approval::{
        Verified, WentBack,
        authenticator::Authenticator,
        enrolment::{self, Authority, EnrolError, Enrolled, KeyFileWish, NewSoftware, Wish},
        passkeys::{self, Kind, Lock, Passkeys},
        software::AskPassphrase,
    },
    cli::ceremony::AtTerminal,
    evidence::{AssertionRecord, Entry, Event, Store},
    operation::Verify,
    state::State,
};

/// Enroll, list, rename and remove passkeys
#[derive(Debug, Subcommand)]
pub enum Args {
    /// Enroll a security key (or, with --software, a key file); needs root, and the approval of an enrolled passkey once
    /// there is one
    Enroll(Enroll),
    /// List the enrolled passkeys
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print the udev rule that lets people open their security keys
    UdevRule,
    /// Rename a passkey; needs root
    Rename {
        /// The passkey's name
        old: String,
        /// What it is to be called
        new: String,
    },
    /// Remove a passkey: it approves nothing any more; needs root
    Remove {
        /// The passkey's name
        name: String,
        /// Remove it even if it is the last one and nobody could approve any more
        #[arg(long)]
        force: bool,
    },
}

/// Installed as /etc/udev/rules.d/70-ana-security-keys.rules.
const UDEV_RULE: &str = include_str!("../../files/70-ana-security-keys.rules");

/// What to enroll.
#[derive(Debug, clap::Args)]
pub struct Enroll {
    /// What the passkey is called; the approver's account name if left out
    #[arg(long)]
    name: Option<String>,
    /// The person that it stands for, by account name; whoever called sudo if left out
    #[arg(long, value_name = "USER")]
    approver: Option<String>,
    /// What the key has to ask of its person at the enrolment; rules with verify = "pin" need a key with a PIN
    #[arg(long, value_enum, default_value_t = Verification::Presence, conflicts_with = "software")]
    verify: Verification,
    /// Make a resident credential, which the key can list; not needed by ana
    #[arg(long, conflicts_with = "software")]
    resident: bool,
    /// Make a software passkey in this file (for tests and demos: whoever can read the file can approve)
    #[arg(long, value_name = "KEYFILE")]
    software: Option<PathBuf>,
    /// The key file of an enrolled passkey that approves this one
    #[arg(long, value_name = "KEYFILE")]
    with: Option<PathBuf>,
    /// Ask for a passphrase to protect the key file with; rules with verify = "pin" need one
    #[arg(long, requires = "software")]
    passphrase: bool,
}

/// What a key asks of its person.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Verification {
    /// A touch
    Presence,
    /// A touch, and its PIN or a finger that it knows
    Pin,
}

/// Runs the command on the state folder `state`, or the default one. Errors go to stderr, with their causes.
pub fn run(args: Args, state: Option<&Path>) -> ExitCode {
    let result = match args {
        Args::Enroll(args) => enroll(state, &args),
        Args::List { json } => list(state, json),
        Args::UdevRule => say(UDEV_RULE.trim_end()),
        Args::Rename { old, new } => rename(state, &old, &new),
        Args::Remove { name, force } => remove(state, &name, force),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            writeln!(io::stderr(), "ana: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn enroll(state: Option<&Path>, args: &Enroll) -> anyhow::Result<()> {
    need_root("enrolling")?;
    let state = State::open(state)?;
    let approver = match &args.approver {
        Some(name) => account(name)?,
        None => approver()?,
    };
    let name = args.name.clone().unwrap_or_else(|| approver.clone());
    let list = current(&state)?;
    enrolment::check_name(&list, &name)?;
    let wish = Wish { name: &name, approver: &approver };
    let enrolled = match &args.software {
        Some(key_file) => enroll_software(&list, wish, key_file, args),
        None => enroll_security_key(&list, wish, args),
    };
    if let Err(error) = &enrolled
        && let Some(EnrolError::WentBack(back)) = error.downcast_ref()
    {
        note_tampering(&state, back)?;
    }
    let enrolled = enrolled?;
    // People have taken their time for that, and approvals store their counters in the list.
    let _lock = Lock::take(&state)?;
    let before = list;
    let mut list = current(&state)?;
    ensure!(
        before.same_passkeys(&list),
        "the passkey is not enrolled: the list has changed meanwhile; see `ana passkey list`, and enroll it again"
    );
    if let Some(verified) = &enrolled.authorised_by
        && let Err(error) = list.count(verified)
    {
        let back = WentBack::of(&error, &list.passkeys, verified.assertion());
        if let Some(back) = back {
            note_tampering(&state, &back)?;
        }
        return Err(error).context("the passkey is not enrolled");
    }
    // Evidence first: a passkey that nobody can account for is never on the list.
    Store::open(&state)?.append(enrolment_entry(&enrolled)).context("the passkey is not enrolled")?;
    let by = enrolled.authorised_by.as_ref().map_or("root", |verified| verified.passkey());
    let what = match &enrolled.passkey.key_file {
        Some(path) => format!("; its key is {}", path.display()),
        None => String::new(),
    };
    let kind = match enrolled.passkey.kind {
        Kind::Software => "software passkey",
        Kind::SecurityKey => "security key",
    };
    let message = format!("enrolled the {kind} {name:?} of {approver}, authorised by {by}{what}");
    list.passkeys.push(enrolled.passkey);
    list.save(&state)?;
    say(&message)
}

fn enroll_software(
    list: &Passkeys,
    wish: Wish<'_>,
    key_file: &Path,
    args: &Enroll,
) -> anyhow::Result<Enrolled> {
    let key_file = std::path::absolute(key_file).context("the key file's path has no absolute form")?;
    let mut by = by(list, wish, args, None)?;
    let passphrase = if args.passphrase { Some(new_passphrase(&key_file)?) } else { None };
    let mut new = NewSoftware::new(KeyFileWish { key_file: &key_file, passphrase }, ask);
    let by = by.as_deref_mut().map(|by| by as &mut dyn Authenticator);
    Ok(enrolment::enrol(list, wish, &mut new, by)?)
}

fn enroll_security_key(list: &Passkeys, wish: Wish<'_>, args: &Enroll) -> anyhow::Result<Enrolled> {
    let verify = match args.verify {
        Verification::Presence => Verify::Presence,
        Verification::Pin => Verify::Pin,
    };
    let steps = if Authority::over(list) == Authority::SecurityKey { 3 } else { 2 };
    let mut new = AtTerminal::new_key(verify, args.resident, steps);
    let mut by = by(list, wish, args, Some(steps))?;
    let by = by.as_deref_mut().map(|by| by as &mut dyn Authenticator);
    Ok(enrolment::enrol(list, wish, &mut new, by)?)
}

/// An enrolled passkey's counter went back: there may be two of it.
fn note_tampering(state: &State, back: &WentBack) -> anyhow::Result<()> {
    let entry = Entry { event: Event::Tamper, ..entry(json!({ "counter_went_back": back })) };
    Store::open(state)?.append(entry).context("what the passkey did cannot be recorded")?;
    Ok(())
}

/// The list as it is now; an empty one if there is none.
fn current(state: &State) -> anyhow::Result<Passkeys> {
    match Passkeys::load(state)? {
        Some(list) => Ok(list),
        None => Ok(Passkeys::new(&host()?)?),
    }
}

/// Who authorises it.
fn by(
    list: &Passkeys,
    wish: Wish<'_>,
    args: &Enroll,
    steps: Option<usize>,
) -> anyhow::Result<Option<Box<dyn Authenticator>>> {
    if args.with.is_none() && Authority::over(list) == Authority::SecurityKey {
        return Ok(Some(Box::new(AtTerminal::enrolled(list, wish, steps))));
    }
    let software = enrolment::authoriser(list, args.with.as_deref(), &ask)?;
    Ok(software.map(|key| Box::new(key) as Box<dyn Authenticator>))
}

/// An account of this host.
fn account(name: &str) -> anyhow::Result<String> {
    let user = nix::unistd::User::from_name(name).context("the account database cannot be read")?;
    ensure!(user.is_some(), "there is no account {name:?} here: approvers are named by their accounts");
    Ok(name.to_owned())
}

fn list(state: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let path = State::paths(state).passkeys;
    let passkeys = Passkeys::load_from(&path)?.map(|list| list.passkeys).unwrap_or_default();
    if json {
        return say(&serde_json::to_string_pretty(&passkeys)?);
    }
    if passkeys.is_empty() {
        return say("no passkey is enrolled; enroll one with `sudo ana passkey enroll`");
    }
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header([
        "NAME",
        "KIND",
        "APPROVER",
        "ENROLLED",
        "LAST USED",
        "COUNT",
        "BACKUP",
        "MODEL",
        "REACHED BY",
    ]);
    for passkey in &passkeys {
        let reached_by = match &passkey.key_file {
            Some(path) => path.display().to_string(),
            None => passkey.transports.join(", "),
        };
        let backup = match (passkey.be, passkey.bs) {
            (false, _) => "bound to it",
            (true, false) => "possible",
            (true, true) => "backed up",
        };
        let count = if passkey.sign_count == 0 { "-".to_owned() } else { passkey.sign_count.to_string() };
        table.add_row([
            passkey.name.clone(),
            passkey.kind.to_string(),
            plain(&passkey.approver),
            plain(&passkey.created),
            passkey.last_used.as_deref().map_or_else(|| "-".to_owned(), plain),
            count,
            backup.to_owned(),
            plain(&passkey.aaguid),
            plain(&reached_by),
        ]);
    }
    say(&table.trim_fmt())
}

/// The list can be written by hand.
fn plain(text: &str) -> String {
    text.escape_default().to_string()
}

fn rename(state: Option<&Path>, old: &str, new: &str) -> anyhow::Result<()> {
    need_root("renaming a passkey")?;
    let (state, mut list, _lock) = open(state)?;
    passkeys::check_name(new)?;
    ensure!(list.named(new).is_none(), "a passkey named {new:?} is enrolled already");
    let passkey =
        list.passkeys.iter_mut().find(|passkey| passkey.name == old).with_context(|| unknown(old))?;
    new.clone_into(&mut passkey.name);
    let detail =
        json!({"action": "rename", "name": old, "new_name": new, "credential_id": passkey.credential_id});
    Store::open(&state)?.append(entry(detail)).context("the passkey is not renamed")?;
    list.save(&state)?;
    say(&format!("renamed the passkey {old:?} to {new:?}"))
}

fn remove(state: Option<&Path>, name: &str, force: bool) -> anyhow::Result<()> {
    need_root("removing a passkey")?;
    let (state, mut list, _lock) = open(state)?;
    let at = list.passkeys.iter().position(|passkey| passkey.name == name).with_context(|| unknown(name))?;
    if list.passkeys.len() == 1 && !force {
        bail!(
            "{name:?} is the last passkey: without it nobody can approve, and the next one is enrolled by root \
             alone; add --force to remove it"
        );
    }
    let removed = list.passkeys.remove(at);
    let detail = json!({
        "action": "remove", "name": name, "credential_id": removed.credential_id, "public_key": removed.public_key,
    });
    // A removal that is recorded and not done is the safe half of the two.
    Store::open(&state)?.append(entry(detail)).context("the passkey is not removed")?;
    list.save(&state)?;
    let left_behind =
        removed.key_file.map(|path| format!("; its key file {} is still there", path.display()));
    say(&format!("removed the passkey {name:?}{}", left_behind.unwrap_or_default()))
}

fn open(state: Option<&Path>) -> anyhow::Result<(State, Passkeys, Lock)> {
    let state = State::open(state)?;
    let lock = Lock::take(&state)?;
    let list = Passkeys::load(&state)?.context("no passkey is enrolled")?;
    Ok((state, list, lock))
}

fn unknown(name: &str) -> String {
    format!("no passkey is named {name:?}; `ana passkey list` shows the names")
}

fn need_root(what: &str) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "{what} needs root; run it with sudo");
    Ok(())
}

/// The person behind sudo, or root's own account.
fn approver() -> anyhow::Result<String> {
    if let Some(name) = std::env::var("SUDO_USER").ok().filter(|name| passkeys::check_name(name).is_ok()) {
        return Ok(name);
    }
    let user =
        nix::unistd::User::from_uid(nix::unistd::geteuid()).context("the account database cannot be read")?;
    Ok(user.map_or_else(|| "root".to_owned(), |user| user.name))
}

fn host() -> anyhow::Result<String> {
    let host = nix::unistd::gethostname().context("the host's name cannot be read")?;
    host.into_string().ok().context("the host's name is not text")
}

fn ask(path: &Path) -> AskPassphrase {
    let prompt = format!("Passphrase of {}: ", path.display());
    Box::new(move || rpassword::prompt_password(&prompt).map(Zeroizing::new))
}

fn new_passphrase(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    ensure!(io::stdin().is_terminal(), "--passphrase asks for it at a terminal, and there is none");
    let ask = |prompt: String| rpassword::prompt_password(prompt).map(Zeroizing::new);
    let first = ask(format!("New passphrase for {}: ", path.display())).context("no passphrase was read")?;
    ensure!(!first.is_empty(), "an empty passphrase protects nothing; leave --passphrase out instead");
    let second = ask("Once more: ".to_owned()).context("no passphrase was read")?;
    ensure!(*first == *second, "the two passphrases differ");
    Ok(first)
}

fn enrolment_entry(enrolled: &Enrolled) -> Entry {
    let passkey = &enrolled.passkey;
    let authorised_by = enrolled.authorised_by.as_ref();
    let detail = json!({
        "action": "enroll",
        "enrolment": enrolled.enrolment,
        "name": passkey.name,
        "passkey_kind": passkey.kind,
        "approver": passkey.approver,
        "authorised_by": authorised_by.map(Verified::passkey),
        "possession": enrolled.possession.assertion(),
        "attested": enrolled.attested,
        // The first passkey has nobody to vouch for it but its own key.
        "assertion": record(authorised_by.unwrap_or(&enrolled.possession)),
    });
    entry(detail)
}

/// The signatures of an enrolment are part of its detail: a record's own assertion belongs to an operation.
fn entry(detail: serde_json::Value) -> Entry {
    Entry {
        event: Event::Enrolment,
        session: None,
        operation: None,
        verdict: None,
        rule: None,
        policy_sha256: None,
        assertion: None,
        detail: Some(detail),
    }
}

fn record(verified: &Verified) -> AssertionRecord {
    let assertion = verified.assertion();
    AssertionRecord {
        credential_id: assertion.credential_id.clone(),
        approver: verified.approver().to_owned(),
        public_key: verified.public_key().to_owned(),
        authenticator_data: assertion.authenticator_data.clone(),
        client_data_json: assertion.client_data_json.clone(),
        signature: assertion.signature.clone(),
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write to stdout")
}
