//! What the guest starts with: busybox, the modules that reach this machine's files, and three scripts.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::kernel::{Kernel, piped};
use crate::commands::output;

const BUSYBOX: &str = "/bin/busybox";
const INIT: &str = include_str!("init.sh");
const GUEST: &str = include_str!("guest.sh");
/// What is built into one kernel and a module of another is loaded where it is one. (ext4 asks for crc32c by that name,
/// and does not name it among what it depends on.)
const MODULES: [&str; 15] = [
    "virtio_pci",
    "9p",
    "9pnet_virtio",
    "overlay",
    "fuse",
    "loop",
    "crc32c_generic",
    "ext4",
    "veth",
    "dummy",
    "binfmt_misc",
    "udp_diag",
    "tcp_diag",
    "hid_generic",
    "uhid",
];

/// Writes it; `task`: what the guest's shell is to do.
pub(super) fn write(to: &Path, kernel: &Kernel, task: &str) -> Result<()> {
    let file = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut archive = Archive { out: BufWriter::new(file), number: 0 };
    for folder in ["bin", "dev", "proc", "sys", "modules"] {
        archive.folder(folder)?;
    }
    archive.file("bin/busybox", 0o755, &fs::read(BUSYBOX).context(BUSYBOX)?)?;
    for applet in output(Command::new(BUSYBOX).arg("--list"))?.lines().filter(|name| *name != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    let mut loaded = Modules { there: kernel.modules()?, order: Vec::new() };
    MODULES.iter().try_for_each(|module| loaded.add(module))?;
    let mut order = String::new();
    for (name, bytes) in &loaded.order {
        archive.file(&format!("modules/{name}.ko"), 0o644, bytes)?;
        order.push_str(&format!("{name}.ko\n"));
    }
    archive.file("modules/order", 0o644, order.as_bytes())?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("guest.sh", 0o644, GUEST.as_bytes())?;
    archive.file("task.sh", 0o644, task.as_bytes())?;
    trailer(archive.out)?.flush()?;
    Ok(())
}

/// Modules in the order in which they can be loaded.
struct Modules {
    there: BTreeMap<String, PathBuf>,
    order: Vec<(String, Vec<u8>)>,
}

impl Modules {
    /// With what it depends on; nothing, if it is built in.
    fn add(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        if self.order.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        let Some(path) = self.there.get(&name) else { return Ok(()) };
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let compressed = path.extension().is_some_and(|extension| extension == "xz");
        let bytes = if compressed { piped(&["xz", "-dc"], &bytes)? } else { bytes };
        for other in depends(&bytes) {
            self.add(&other)?;
        }
        self.order.push((name, bytes));
        Ok(())
    }
}

/// `depends=` in a module's .modinfo (modinfo(8)).
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A cpio archive of the kernel's kind (Documentation/driver-api/early-userspace/buffer-format.rst).
struct Archive {
    out: BufWriter<fs::File>,
    number: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) -> Result<()> {
        self.put(name, 0o755, ModeFileType::Directory, &[])
    }

    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.put(name, mode, ModeFileType::Regular, bytes)
    }

    fn link(&mut self, name: &str, to: &str) -> Result<()> {
        self.put(name, 0o777, ModeFileType::Symlink, to.as_bytes())
    }

    fn put(&mut self, name: &str, mode: u32, kind: ModeFileType, bytes: &[u8]) -> Result<()> {
        self.number += 1;
        let builder = Builder::new(name).ino(self.number).mode(mode).set_mode_file_type(kind).nlink(1);
        let mut entry = builder.write(&mut self.out, u32::try_from(bytes.len())?);
        entry.write_all(bytes)?;
        entry.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_found() {
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=netfs,9pnet\0name=9p\0"), ["netfs", "9pnet"]);
        assert_eq!(depends(b"\0depends=\0name=overlay\0"), [""; 0]);
    }
}
