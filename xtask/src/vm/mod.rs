//! The tests on stock kernels: Debian's, in QEMU, with this machine's files below and memory above.

mod guest;
mod initramfs;
mod kernel;
mod program;
mod qemu;

use std::{
    ffi::OsString,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    commands::{root, target_dir},
    packages::{self, need},
    steps::{note, step},
    test::{self, Tally},
};
use kernel::{Kernel, Series};

/// Run tests on Debian's own kernels, in QEMU (as root; nothing leaves the machine)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this kernel; by default both
    #[arg(long, value_enum)]
    kernel: Option<Series>,
    /// End a guest that takes longer
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    limit: u64,
    /// Parts of tests' names: of the supervisor's unit tests, the promises, and the virtual key's. By default the unit tests
    /// of the kernel's part (kernel::), and all of the others
    #[arg(last = true, value_name = "TEST")]
    filters: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let needs = [
        need("busybox", "busybox-static"),
        need("xz", "xz-utils"),
        need("zstd", "zstd"),
        need("dpkg-deb", "dpkg"),
    ];
    if let Err(error) = packages::install(&needs).and_then(|()| qemu::install()) {
        let why = format!("SKIPPED: the tests on Debian's kernels: {error:#}");
        println!("{why}");
        println!("{}", Tally::of_skipped(why).summary());
        return Ok(ExitCode::SUCCESS);
    }
    // A guest's own lie over these.
    if let Some(hidden) =
        ["/tmp", "/run"].iter().find(|folder| root().is_ok_and(|root| root.starts_with(folder)))
    {
        bail!("guests have a {hidden} of their own: run this in a checkout elsewhere");
    }
    test::set_up()?;
    let built = test::build()?;
    let programs = program::programs(&built, &args.filters)?;
    program::install(&built)?;
    let until = Instant::now() + Duration::from_secs(args.limit * 60);
    let mut guests = Vec::new();
    for series in args.kernel.map_or_else(|| Series::ALL.to_vec(), |one| vec![one]) {
        let kernel = Kernel::fetch(series, &target_dir()?.join("vm"))?;
        let initramfs = kernel.folder.join("initramfs");
        initramfs::write(&initramfs, &kernel, &program::task(&programs)?)?;
        // Each has one processor of this machine for itself.
        guests.push(thread::spawn(move || {
            step("boot", &format!("Linux {}", kernel.version));
            let begin = Instant::now();
            let tally = guest::run(&kernel, &initramfs, until)?;
            println!("Linux {}: {} ({} s)", kernel.version, tally.summary(), begin.elapsed().as_secs());
            Ok(tally)
        }));
    }
    let mut all = Tally::default();
    for guest in guests {
        let result: Result<Tally> =
            guest.join().unwrap_or_else(|_panic| bail!("a guest's thread has panicked"));
        match result {
            Ok(tally) => all.add(tally),
            Err(error) => {
                note("failed", &format!("{error:#}"));
                all.failed += 1;
            }
        }
    }
    println!("{}", all.summary());
    if all.passed == 0 {
        note("failed", "no test ran");
    }
    Ok(if all.failed == 0 && all.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
