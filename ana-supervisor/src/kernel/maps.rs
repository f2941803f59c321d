//! What user space tells the programs while a session runs, and what they count.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use ana_common::{Armed, Block, Expected, FileKey, Place};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError},
};

use super::{Health, KernelError, blocks::Numbers, counters::Counters};
use crate::sys;

/// `BPF_NOEXIST`: an entry that is there already is an error.
const NEW: u64 = 1;

/// The maps of one session's programs. Cloneable; every method may be called from any thread.
#[derive(Clone)]
pub struct Maps(Arc<Inner>);

struct Inner {
    protected: Table<FileKey, u8>,
    holds: Table<u64, Armed>,
    seen: Table<u64, u8>,
    expected: Table<u32, Expected>,
    blocks: Table<Block, u64>,
    /// Of the blocks; locked before `blocks`.
    numbers: Mutex<Numbers>,
    privileged: Table<u32, u8>,
    harmless_groups: Table<u32, u8>,
    places: Table<Place, u8>,
    watched: Table<u32, u8>,
    counters: Counters,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self(Arc::new(Inner {
            protected: Table::take(ebpf, "PROTECTED")?,
            holds: Table::take(ebpf, "HOLDS")?,
            seen: Table::take(ebpf, "SEEN")?,
            expected: Table::take(ebpf, "EXPECTED")?,
            blocks: Table::take(ebpf, "BLOCKS")?,
            numbers: Mutex::default(),
            privileged: Table::take(ebpf, "PRIVILEGED")?,
            harmless_groups: Table::take(ebpf, "HARMLESS_GROUPS")?,
            places: Table::take(ebpf, "PLACES")?,
            watched: Table::take(ebpf, "WATCHED")?,
            counters: Counters::take(ebpf)?,
        })))
    }

    /// From now on an exec of `file` in the session is killed unless it happens in an armed hold.
    ///
    /// # Errors
    /// The map is full: the policy protects more than [`ana_common::PROTECTED_MAX`] files.
    pub fn protect(&self, file: FileKey) -> Result<(), KernelError> {
        self.0.protected.insert(file, 1, 0)
    }

    /// Takes the protection back.
    ///
    /// # Errors
    /// The map cannot be changed. (A file that was not protected is no error.)
    pub fn unprotect(&self, file: FileKey) -> Result<(), KernelError> {
        self.0.protected.remove(&file)
    }

    /// Permits one exec of `armed.file` in the cgroup `hold` (its id). The exec is reported; until [`Self::disarm`]
    /// every further exec in this cgroup is killed.
    ///
    /// # Errors
    /// The hold is armed already, or too many are.
    pub fn arm(&self, hold: u64, armed: Armed) -> Result<(), KernelError> {
        // What was seen is forgotten when a hold is disarmed, and only then: an arming that fails must not reset it.
        self.0.holds.insert(hold, armed, NEW)
    }

    /// Ends the permission: the cgroup is like any other of the session again. Before the thaw, always.
    ///
    /// # Errors
    /// The map cannot be changed: do not thaw. (A hold that was not armed is no error.)
    pub fn disarm(&self, hold: u64) -> Result<(), KernelError> {
        self.0.holds.remove(&hold)?;
        self.0.seen.remove(&hold)
    }

    /// Permits the process that started then (field 22 of /proc/PID/stat) one exec without a hold, with exactly this file,
    /// these arguments and this environment. An exec that differs is killed. The permission ends with the exec, and with
    /// the process.
    ///
    /// # Errors
    /// Too many are expected.
    pub fn expect(&self, tgid: u32, file: FileKey, started: u64, block: &Block) -> Result<(), KernelError> {
        let number = self.number_of(block)?;
        self.0.expected.insert(tgid, Expected { file, started, block: number }, 0)
    }

    /// The number that the guard knows the block by.
    fn number_of(&self, block: &Block) -> Result<u64, KernelError> {
        let now = Instant::now();
        let mut numbers = self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.of(block, now) {
            return Ok(number);
        }
        let number = numbers.next();
        if let Err(error) = self.0.blocks.insert(*block, number, NEW) {
            let full = matches!(&error, KernelError::Map { source, .. } if is_full(source));
            let Some(old) = full.then(|| numbers.make_room(now)).flatten() else { return Err(error) };
            self.0.blocks.remove(&old)?;
            self.0.blocks.insert(*block, number, NEW)?;
        }
        numbers.give(block, number, now);
        Ok(number)
    }

    /// Takes [`Self::expect`] back: of a process that is over, for whom the guard did not. What is expected of another
    /// process that has its number by now stays.
    ///
    /// # Errors
    /// The map cannot be changed. (What was not expected is no error.)
    pub fn forget_expected(&self, tgid: u32, started: u64) -> Result<(), KernelError> {
        let known = self.0.expected.lock().get(&tgid, 0);
        match known {
            Ok(expected) if expected.started == started => self.0.expected.remove(&tgid),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The process is about to gain privilege by an exec that was approved: what it executes after that, and what its
    /// children do, is no gain any more. Ends with the process.
    ///
    /// # Errors
    /// Too many are privileged.
    pub fn privileged(&self, tgid: u32) -> Result<(), KernelError> {
        self.0.privileged.insert(tgid, 1, 0)
    }

    #[cfg(test)]
    pub(super) fn is_privileged(&self, tgid: u32) -> bool {
        self.0.privileged.lock().get(&tgid, 0).is_ok()
    }

    /// To be a member of this group gives no power: an exec that gains it is no gain.
    ///
    /// # Errors
    /// Too many groups.
    pub fn harmless_group(&self, gid: u32) -> Result<(), KernelError> {
        self.0.harmless_groups.insert(gid, 1, 0)
    }

    /// What is executed from here (a folder, and a name in it) is killed unless it is protected: the policy lists a file
    /// at this place.
    ///
    /// # Errors
    /// The map is full.
    pub fn place(&self, folder: FileKey, name: &[u8]) -> Result<(), KernelError> {
        self.0.places.insert(Place::new(folder, name), 1, 0)
    }

    /// Has the end of this process reported, once. It must be in the session; one that is over already is not heard of,
    /// so look at its pidfd after this call.
    ///
    /// # Errors
    /// Too many are watched.
    pub fn watch(&self, tgid: u32) -> Result<(), KernelError> {
        self.0.watched.insert(tgid, 1, 0)
    }

    /// Takes [`Self::watch`] back.
    ///
    /// # Errors
    /// The map cannot be changed. (A process that was not watched is no error.)
    pub fn unwatch(&self, tgid: u32) -> Result<(), KernelError> {
        self.0.watched.remove(&tgid)
    }

    /// What went wrong so far.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn health(&self) -> Result<Health, KernelError> {
        self.0.counters.health()
    }
}

/// E2BIG (bpf(2), BPF_MAP_UPDATE_ELEM).
fn is_full(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG))
}

/// ENOENT, in either of the ways in which the library says so.
pub(super) fn is_gone(error: &MapError) -> bool {
    let answered = |error: &aya::sys::SyscallError| error.io_error.kind() == std::io::ErrorKind::NotFound;
    matches!(error, MapError::KeyNotFound)
        || matches!(error, MapError::SyscallError(error) if answered(error))
}

/// A hash map with its name, behind a lock.
pub(super) struct Table<K: Pod, V: Pod> {
    name: &'static str,
    map: Mutex<HashMap<MapData, K, V>>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, KernelError> {
        let map = ebpf.take_map(name).and_then(|map| HashMap::try_from(map).ok());
        Ok(Self { name, map: Mutex::new(map.ok_or(KernelError::Missing(name))?) })
    }

    pub(super) fn insert(&self, key: K, value: V, flags: u64) -> Result<(), KernelError> {
        self.lock().insert(key, value, flags).map_err(|source| KernelError::Map { map: self.name, source })
    }

    /// What is not there need not be removed.
    pub(super) fn remove(&self, key: &K) -> Result<(), KernelError> {
        match self.lock().remove(key) {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(source) => Err(KernelError::Map { map: self.name, source }),
        }
    }

    /// `None`: there is no such entry.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, KernelError> {
        match self.lock().get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(source) => Err(KernelError::Map { map: self.name, source }),
        }
    }

    /// Looks up and removes at once: of two callers one gets it.
    pub(super) fn take_out(&self, key: &K) -> Result<Option<V>, KernelError> {
        sys::bpf::take_element(&self.lock(), key)
            .map_err(|source| KernelError::TakeOut { map: self.name, source })
    }

    /// The lock only keeps two system calls apart: a panic in between leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, K, V>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
