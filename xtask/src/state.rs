//! A state folder of its own: policy, passkey, evidence. The machine's real one is left alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    agent::Agent,
    commands::{as_root, output, quietly},
    installed::Installed,
    steps::{note, step},
};

/// The library's own file: the library itself would be built a second time, without optimisation, before anything
/// happens.
#[path = "../../ana-supervisor/src/policy/starter.rs"]
#[expect(unreachable_pub, reason = "public in the library")]
mod starter;

const FOLDER: &str = "/var/lib/ana-dev";
/// Report descriptor items of a FIDO authenticator: Usage Page (0xF1D0).
const FIDO_USAGE_PAGE: [u8; 3] = [0x06, 0xd0, 0xf1];

/// Where everything is that `ana` reads and writes.
pub(crate) struct State {
    pub(crate) folder: PathBuf,
    /// The software passkey.
    pub(crate) key: PathBuf,
    ana: PathBuf,
}

impl State {
    /// `ana --state …` as it is typed.
    pub(crate) fn shown(&self) -> String {
        format!("{} --state {}", self.ana.display(), self.folder.display())
    }

    /// `ana` with root's rights.
    pub(crate) fn ana(&self) -> Command {
        let mut ana = as_root(&self.ana);
        ana.arg("--state").arg(&self.folder);
        ana
    }
}

/// The folder, with a policy and a passkey.
pub(crate) fn prepare(installed: &Installed, agent: &Agent) -> Result<State> {
    let folder = PathBuf::from(FOLDER);
    let state = State {
        key: folder.join("software-passkey.key"),
        ana: installed.program("ana"),
        folder: folder.clone(),
    };
    if !folder.is_dir() {
        quietly(
            as_root("install")
                .args(["--directory", "--owner=root", "--group=root", "--mode=0755"])
                .arg(&folder),
        )?;
        step("state", &format!("made {FOLDER}, root's"));
    }
    policy(&state, agent)?;
    passkey(&state)?;
    Ok(state)
}

fn policy(state: &State, agent: &Agent) -> Result<()> {
    let path = state.folder.join("policy.toml");
    let files = protected_files(agent);
    let starter = starter::starter(&files, true);
    match fs::read_to_string(&path) {
        Ok(text) if text == starter => step("policy", &format!("{} (starter policy)", path.display())),
        Ok(_) => step(
            "policy",
            &format!(
                "{} (kept as it is; without it the next run writes the starter policy again)",
                path.display()
            ),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_as_root(&path, &starter)?;
            step(
                "policy",
                &format!("wrote a starter policy, {}: git asks before it publishes", path.display()),
            );
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    if files.is_empty() {
        note("policy", "no git was found, so the starter policy protects nothing");
    }
    // As the agent: `~` in a policy is its home.
    let mut check = agent.command(&state.ana);
    quietly(check.arg("--state").arg(&state.folder).args(["policy", "check"]).arg(&path).current_dir("/"))
        .with_context(|| format!("the policy cannot be used; correct {}, or remove it", path.display()))
}

/// Every file of a starter policy's names in the agent's PATH, and where each git there keeps its own programs.
fn protected_files(agent: &Agent) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&path).chain(system) {
        if folder.is_absolute() && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let gits: Vec<PathBuf> =
        folders.iter().map(|folder| folder.join("git")).filter(|git| git.is_file()).collect();
    for git in gits {
        // Never with root's rights: the folder may be the agent's.
        let asked =
            output(agent.command(&git).arg("--exec-path").env_remove("GIT_EXEC_PATH").current_dir("/"));
        if let Ok(folder) = asked.map(PathBuf::from)
            && folder.is_absolute()
            && !folders.contains(&folder)
        {
            folders.push(folder);
        }
    }
    let named = folders.iter().flat_map(|folder| starter::STARTER_NAMES.map(|name| folder.join(name)));
    named.filter(|file| file.is_file()).collect()
}

fn passkey(state: &State) -> Result<()> {
    let list = output(state.ana().args(["passkey", "list", "--json"]))?;
    let enrolled: Vec<serde_json::Value> = serde_json::from_str(&list).context("ana passkey list --json")?;
    if let Some(key) = security_key() {
        note("passkey", &format!("{} is a security key; this version cannot use it yet", key.display()));
    }
    if !enrolled.is_empty() {
        let there = as_root("test").arg("-f").arg(&state.key).status().context("cannot run test")?;
        if !there.success() {
            bail!(
                "the enrolled passkey's key, {}, is gone; start over by removing {}",
                state.key.display(),
                state.folder.display()
            );
        }
        step("passkey", &format!("the software passkey {} is enrolled", state.key.display()));
        return Ok(());
    }
    quietly(state.ana().args(["passkey", "enroll", "--software"]).arg(&state.key))?;
    step(
        "passkey",
        &format!(
            "enrolled a software passkey, {} (root's, 0600): to try ana, not to protect",
            state.key.display()
        ),
    );
    Ok(())
}

/// The first FIDO device on a USB or Bluetooth port.
fn security_key() -> Option<PathBuf> {
    let devices = fs::read_dir("/sys/class/hidraw").ok()?;
    let mut keys = devices.flatten().filter(|device| {
        let descriptor = fs::read(device.path().join("device/report_descriptor")).unwrap_or_default();
        descriptor.windows(FIDO_USAGE_PAGE.len()).any(|items| items == FIDO_USAGE_PAGE)
    });
    keys.next().map(|device| Path::new("/dev").join(device.file_name()))
}

fn write_as_root(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    // Whole or not at all: written beside, then renamed.
    let fresh = path.with_extension("new");
    let mut tee = as_root("tee").arg(&fresh).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut stdin = tee.stdin.take().context("tee has no stdin")?;
    stdin.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", fresh.display()))?;
    drop(stdin);
    if !tee.wait()?.success() {
        bail!("cannot write {}", fresh.display());
    }
    quietly(as_root("chmod").arg("0644").arg(&fresh))?;
    quietly(as_root("mv").args(["--no-target-directory"]).arg(&fresh).arg(path))
}
