//! A file system that stalls where it is told to: served by the test itself over /dev/fuse (fuse(4), linux/fuse.h), mounted
//! by root, open to everybody.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use crate::ground::Ground;

/// Opcodes (enum fuse_opcode).
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
/// Nodes: the root folder, and the one file.
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// The mounted file system. In it `file` can be looked up and opened; reading it, writing it and looking up `slow` get no
/// answer until [`release`](Self::release).
pub struct Stalling {
    pub folder: PathBuf,
    device: Arc<File>,
    /// Requests that wait for an answer; `None` once nothing waits any more.
    stalled: Arc<Mutex<Option<Vec<u64>>>>,
}

impl Stalling {
    /// Mounts it below the ground, which unmounts it.
    pub fn mount(ground: &Ground) -> Self {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let folder = ground.root().join("stalling");
        std::fs::create_dir(&folder).expect("folder");
        // By the system call: the descriptor in the options is this process's.
        let flags = nix::mount::MsFlags::MS_NOSUID;
        nix::mount::mount(Some("stalling"), &folder, Some("fuse"), flags, Some(&*options)).expect("mount");
        let (device, stalled) = (Arc::new(device), Arc::new(Mutex::new(Some(Vec::new()))));
        let (serving, waiting) = (Arc::clone(&device), Arc::clone(&stalled));
        std::thread::spawn(move || serve(&serving, &waiting));
        Self { folder, device, stalled }
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.stalled.lock().expect("nobody panics with it").as_ref().map_or(0, Vec::len)
    }

    /// Fails what waits, and what comes from now on.
    pub fn release(&self) {
        for unique in self.stalled.lock().expect("nobody panics with it").take().into_iter().flatten() {
            answer(&self.device, unique, -libc::EIO, &[]);
        }
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        self.release();
        // The server's thread ends with the mount.
        let done = nix::mount::umount2(&self.folder, nix::mount::MntFlags::MNT_DETACH);
        if !std::thread::panicking() {
            done.expect("it is mounted");
        }
    }
}

fn serve(device: &File, stalled: &Mutex<Option<Vec<u64>>>) {
    let mut buffer = vec![0; 1 << 20];
    // ENODEV: unmounted.
    while let Ok(length @ 40..) = (&mut &*device).read(&mut buffer) {
        let request = &buffer[..length];
        let opcode = u32::from_ne_bytes(request[4..8].try_into().expect("four"));
        let unique = u64::from_ne_bytes(request[8..16].try_into().expect("eight"));
        let node = u64::from_ne_bytes(request[16..24].try_into().expect("eight"));
        let name = request[40..].split(|byte| *byte == 0).next().unwrap_or_default();
        let stalls = matches!(opcode, READ | WRITE) || (opcode == LOOKUP && name == b"slow");
        if stalls {
            match &mut *stalled.lock().expect("nobody panics with it") {
                Some(waiting) => waiting.push(unique),
                None => answer(device, unique, -libc::EIO, &[]),
            }
            continue;
        }
        match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => {}
            // Version 7.31, no features, writes of a page.
            INIT => {
                let mut words = [0_u32; 16];
                (words[0], words[1], words[5]) = (7, 31, 4096);
                answer(device, unique, 0, &words.map(u32::to_ne_bytes).concat());
            }
            LOOKUP if name == b"file" => {
                let mut entry = [FILE, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
                entry.extend(attributes(FILE));
                answer(device, unique, 0, &entry);
            }
            LOOKUP => answer(device, unique, -libc::ENOENT, &[]),
            GETATTR => {
                let mut told = [0_u64; 2].map(u64::to_ne_bytes).concat();
                told.extend(attributes(node));
                answer(device, unique, 0, &told);
            }
            OPEN | OPENDIR => {
                // Who opens it while another reads it does not wait for that one: FOPEN_KEEP_CACHE.
                answer(device, unique, 0, &[0_u64, 2].map(u64::to_ne_bytes).concat());
            }
            RELEASE | FLUSH => answer(device, unique, 0, &[]),
            _ => answer(device, unique, -libc::ENOSYS, &[]),
        }
    }
}

/// struct fuse_attr.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == ROOT { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o666 };
    let mut all = [node, 4096, 8, 0, 0, 0].map(u64::to_ne_bytes).concat();
    all.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat());
    all
}

fn answer(mut device: &File, unique: u64, error: i32, body: &[u8]) {
    let length = u32::try_from(16 + body.len()).expect("short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(error.to_ne_bytes());
    message.extend(unique.to_ne_bytes());
    message.extend(body);
    // ENOENT: who asked has been killed.
    drop(device.write(&message));
}
