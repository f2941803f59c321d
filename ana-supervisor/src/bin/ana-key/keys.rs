//! The keys that are plugged in.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::Duration,
};

use ana_supervisor::approval::security_key::wire::{Fault, News, Plugged};
use ctap_hid_fido2::{Cfg, FidoKeyHid, FidoKeyHidFactory, HidParam};

use crate::{
    pending::{ANSWER_MAX, answered, in_thread},
    talk::Talk,
    trouble::{Trouble, plain, status},
};

/// How often it is looked whether a key was plugged in or out, while that is waited for.
const LOOK: Duration = Duration::from_millis(250);
/// Characters of a key's name.
const NAME_MAX: usize = 60;

/// A key that is open.
pub(crate) struct Key {
    /// What it calls itself: printable ASCII.
    pub(crate) name: String,
    pub(crate) hid: FidoKeyHid,
    pub(crate) facts: Facts,
    node: Node,
}

/// What authenticatorGetInfo (CTAP 2.1, 6.4) says of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    options: Vec<(String, bool)>,
    extensions: Vec<String>,
    versions: Vec<String>,
    pub(crate) algorithms: Vec<i64>,
    pub(crate) transports: Vec<String>,
    pub(crate) pin_length_min: u32,
    pub(crate) ids_max: u32,
    pub(crate) id_length_max: u32,
}

impl Facts {
    /// An option; `None` where the key does not know it.
    pub(crate) fn option(&self, name: &str) -> Option<bool> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    pub(crate) fn extension(&self, name: &str) -> bool {
        self.extensions.iter().any(|known| known == name)
    }

    /// CTAP 2.1: it can be touched without anything else (authenticatorSelection).
    pub(crate) fn can_be_selected(&self) -> bool {
        self.versions.iter().any(|version| version == "FIDO_2_1")
    }
}

/// A device file: another one gets another inode, under the same name as well.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    path: String,
    inode: u64,
    changed: (i64, i64),
}

impl Node {
    fn of(path: &str) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self { path: path.to_owned(), inode: metadata.ino(), changed })
    }
}

impl Key {
    /// Whether it is still plugged in.
    pub(crate) fn is_there(&self) -> bool {
        Node::of(&self.node.path).as_ref() == Some(&self.node)
    }
}

/// A key that was found.
struct Found {
    name: String,
    node: Node,
}

fn plugged() -> Vec<Found> {
    // It panics where it cannot read /sys.
    let devices = std::panic::catch_unwind(ctap_hid_fido2::get_fidokey_devices).unwrap_or_default();
    let found = devices.into_iter().filter_map(|device| {
        let HidParam::Path(path) = device.param else { return None };
        let name: String = plain(device.product_string.trim()).chars().take(NAME_MAX).collect();
        let name = if name.is_empty() { format!("{:04x}:{:04x}", device.vid, device.pid) } else { name };
        Some(Found { name, node: Node::of(&path)? })
    });
    let mut found: Vec<Found> = found.collect();
    found.sort_by(|a, b| a.node.path.cmp(&b.node.path));
    found
}

/// All of them, and whether this process may open them.
pub(crate) fn list() -> Vec<Plugged> {
    let plugged = plugged().into_iter().map(|Found { name, node }| {
        let problem = may_open(&node.path).err();
        Plugged { name, path: node.path, problem }
    });
    plugged.collect()
}

/// # Errors
/// Why not, in words.
fn may_open(path: &str) -> Result<(), String> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(format!(
            "{path} may not be opened by this user; install ana's udev rule: see the line \"security-keys\" of `ana doctor`"
        )),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// What was there when it was looked last.
#[derive(Default)]
pub(crate) struct Seen(Option<Vec<Node>>);

impl Seen {
    /// The next look finds what is there, even if nothing changes.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

/// Waits until other keys are plugged in than at the last look, and opens them.
///
/// # Errors
/// What goes on is to end.
pub(crate) fn gather(talk: &Talk, seen: &mut Seen) -> Result<Vec<Arc<Key>>, Fault> {
    loop {
        talk.go_on()?;
        let found = plugged();
        let nodes: Vec<Node> = found.iter().map(|found| found.node.clone()).collect();
        if found.is_empty() {
            talk.say(&News::Insert);
        }
        if seen.0.as_ref() != Some(&nodes) {
            seen.0 = Some(nodes);
            let (keys, unusable) = open_all(talk, found)?;
            if !keys.is_empty() {
                return Ok(keys);
            }
            if let Some((_, why)) = unusable.first() {
                let (why, keys) = (why.clone(), unusable.iter().map(|(name, _)| name.clone()).collect());
                talk.say(&News::Unusable { keys, why });
            }
        }
        talk.pause(LOOK)?;
    }
}

/// A key that was plugged in a moment ago may not hear the first word: its device file is there before its driver is, and
/// what it answers meanwhile is lost.
const OPENINGS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), ANSWER_MAX];

/// The keys that can be used, and the names of the others with the reason. One that does not answer does not hold up one
/// that does.
type Opened = (Vec<Arc<Key>>, Vec<(String, String)>);

fn open_all(talk: &Talk, found: Vec<Found>) -> Result<Opened, Fault> {
    let (mut keys, mut unusable, mut silent) = (Vec::new(), Vec::new(), found);
    for limit in OPENINGS {
        let mut still = Vec::new();
        for found in silent {
            let opened = match may_open(&found.node.path) {
                Ok(()) => open_within(talk, &found, limit)?,
                Err(why) => Some(Err(why)),
            };
            match opened {
                Some(Ok(key)) => keys.push(Arc::new(key)),
                Some(Err(why)) => unusable.push((found.name, why)),
                None => still.push(found),
            }
        }
        silent = still;
        if !keys.is_empty() || silent.is_empty() {
            break;
        }
    }
    unusable.extend(silent.into_iter().map(|found| (found.name, "it does not answer".to_owned())));
    Ok((keys, unusable))
}

/// `None`: it does not answer.
fn open_within(talk: &Talk, found: &Found, limit: Duration) -> Result<Option<Result<Key, String>>, Fault> {
    let path = found.node.path.clone();
    let opening = in_thread(talk, move || {
        let mut config = Cfg::init();
        config.enable_keep_alive_msg = false;
        let mut hid = FidoKeyHidFactory::create_by_params(&[HidParam::Path(path)], &config)?;
        let info = hid.get_info()?;
        if info.pin_uv_auth_protocols.contains(&2) {
            hid.pin_protocol_version = 2;
        }
        // The library gives a list of ("alg", number) and ("type", name) in a row.
        let algorithms = info.algorithms.iter().filter(|(member, _)| member == "alg");
        let facts = Facts {
            algorithms: algorithms.filter_map(|(_, number)| number.parse().ok()).collect(),
            transports: info.transports.into_iter().filter(|name| is_word(name)).take(8).collect(),
            options: info.options,
            extensions: info.extensions,
            versions: info.versions,
            pin_length_min: info.min_pin_length.clamp(4, 63),
            ids_max: info.max_credential_count_in_list,
            id_length_max: info.max_credential_id_length,
        };
        Ok((hid, facts))
    });
    let opened = match talk.wait_for(limit, || answered(&opening))? {
        Some(Ok((hid, facts))) => Ok(Key { name: found.name.clone(), hid, facts, node: found.node.clone() }),
        Some(Err(Trouble::Gone)) => Err("it was unplugged".to_owned()),
        Some(Err(Trouble::Garbled(why))) => Err(format!("what it says makes no sense: {why}")),
        // Busy with another program's question.
        Some(Err(Trouble::Status(status::CHANNEL_BUSY) | Trouble::Silent)) | None => return Ok(None),
        Some(Err(Trouble::Status(code))) => Err(format!("it knows no FIDO2 (CTAP status {code:#04x})")),
    };
    Ok(Some(opened))
}

fn is_word(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}
