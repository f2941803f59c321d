//! One guest, from its start to its last word.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::RecvTimeoutError,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use super::{kernel::Kernel, qemu};
use crate::{
    commands::{as_root, shown_lines},
    steps::note,
    test::Tally,
};

/// What the guest's script says of itself.
const UP: &str = "ana-vm: up";
const OVER: &str = "ana-vm: over";
const ENDED: &str = "ana-vm: ended with ";
/// Boots that never get as far as their first word are tried once more.
const BOOTS: usize = 2;

/// How far a guest came.
struct Course {
    up: bool,
    over: bool,
    tally: Tally,
}

/// Runs the guest's task and counts its tests. QEMU's exit status says nothing (a panic is a 0): the guest's words do.
///
/// # Errors
/// It did not come up, or did not come to its end in time.
pub(super) fn run(kernel: &Kernel, initramfs: &Path, until: Instant) -> Result<Tally> {
    let console = kernel.folder.join("console");
    for boot in 1..=BOOTS {
        let course = boot_once(kernel, initramfs, &console, until)?;
        if course.over {
            return Ok(course.tally);
        }
        if course.up || Instant::now() >= until || boot == BOOTS {
            let said = fs::read(&console).unwrap_or_default();
            for line in String::from_utf8_lossy(&said).lines() {
                println!("[{} kernel] {line}", kernel.series.name());
            }
            bail!(
                "the guest did not come to its end ({}); above is what its kernel said",
                course.tally.summary()
            );
        }
        note("boot", &format!("Linux {} did not start: once more", kernel.version));
    }
    bail!("the guest did not start")
}

fn boot_once(kernel: &Kernel, initramfs: &Path, console: &Path, until: Instant) -> Result<Course> {
    let mut qemu = start(kernel, initramfs, console)?;
    let stdout = qemu.stdout.take().context("QEMU has no stdout")?;
    let receiver = shown_lines(&format!("[{}] ", kernel.series.name()), stdout);
    let mut course = Course { up: false, over: false, tally: Tally::default() };
    loop {
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => course.hear(&line),
            Err(RecvTimeoutError::Timeout) => {
                note("limit", &format!("Linux {} takes too long", kernel.version));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // It has switched itself off, or is to go.
    qemu.kill().ok();
    qemu.wait().context("cannot wait for QEMU")?;
    Ok(course)
}

impl Course {
    fn hear(&mut self, line: &str) {
        self.up |= line.starts_with(UP);
        self.over |= line.starts_with(OVER);
        let before = self.tally.failed;
        self.tally.count(line);
        let failed = line.strip_prefix(ENDED).is_some_and(|code| code.trim() != "0");
        // A program that crashed has no result line.
        if failed && self.tally.failed == before && before == 0 {
            self.tally.failed += 1;
        }
    }
}

fn start(kernel: &Kernel, initramfs: &Path, console: &Path) -> Result<Child> {
    let mut qemu: Command = as_root(qemu::PROGRAM);
    // One thread: with several, and without hardware to help, guests have hung.
    qemu.args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "6144"]);
    // The guest's clock counts its instructions, one nanosecond each, and goes on by itself while it sleeps: what takes
    // an emulated processor long, or this machine, does not take the guest long, and time limits mean there what they
    // mean on hardware.
    qemu.args(["-icount", "shift=0,sleep=on"]);
    qemu.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-net", "none"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel.vmlinux()).arg("-initrd").arg(initramfs);
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet"]);
    // All of this machine's files, to read.
    qemu.args([
        "-virtfs",
        "local,path=/,mount_tag=host,security_model=passthrough,readonly=on,multidevs=remap",
    ]);
    qemu.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", qemu::PROGRAM))
}
