//! Debian's kernels, downloaded by apt and kept by version.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    commands::{output, quietly},
    steps::step,
};

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Series {
    /// Debian 12's own
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, as Debian 12 has it
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    pub(super) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The package that depends on the newest one.
    const fn package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-amd64",
            Self::V6_12 => "linux-image-6.12-amd64",
        }
    }
}

pub(super) struct Kernel {
    pub(super) series: Series,
    pub(super) version: String,
    /// Where it is kept.
    pub(super) folder: PathBuf,
}

impl Kernel {
    /// The newest one of a series: from `cache`, or from Debian.
    pub(super) fn fetch(series: Series, cache: &Path) -> Result<Self> {
        let depends = output(Command::new("apt-cache").args(["depends", series.package()]))?;
        let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        let Some(version) = image.map(str::to_owned) else {
            bail!("apt knows no kernel by {}: run apt-get update", series.package());
        };
        let kernel = Self { series, folder: cache.join(&version), version };
        if !kernel.vmlinux().exists() {
            kernel.download().with_context(|| format!("cannot get Linux {}", kernel.version))?;
        }
        Ok(kernel)
    }

    pub(super) fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    fn download(&self) -> Result<()> {
        step("download", &format!("Linux {}", self.version));
        fs::create_dir_all(&self.folder)?;
        let script = "cd \"$0\" && apt-get -qq download \"$1\" && for package in *.deb; do \
            dpkg-deb --fsys-tarfile \"$package\" | tar -x ./boot ./lib/modules; done && rm -- *.deb";
        let package = format!("linux-image-{}", self.version);
        quietly(Command::new("sh").args(["-ec", script]).arg(&self.folder).arg(package))?;
        let image = fs::read(self.folder.join("boot").join(format!("vmlinuz-{}", self.version)))?;
        let unpacked = unpack(&image)?;
        // Last: who finds it finds all.
        fs::write(self.vmlinux(), unpacked)?;
        Ok(())
    }

    /// The modules, by their names as the kernel writes them.
    pub(super) fn modules(&self) -> Result<BTreeMap<String, PathBuf>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.folder.join("lib/modules")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if let Some((module, "" | ".xz")) = name.split_once(".ko") {
                    found.insert(module.replace('-', "_"), entry.path());
                }
            }
        }
        Ok(found)
    }
}

/// The kernel itself out of its boot image (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length);
/// it starts faster so.
fn unpack(image: &[u8]) -> Result<Vec<u8>> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).and_then(|n| usize::try_from(n).ok()).context("a short boot image")
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("no boot image");
    }
    let sectors = match image.get(0x1f1) {
        None | Some(0) => 4,
        Some(&sectors) => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(0x248)?;
    // The last four bytes are the size.
    let payload = image.get(start..start + number(0x24c)? - 4).context("a short boot image")?;
    let command: &[&str] = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => &["xz", "-dc", "--single-stream"],
        [0x28, 0xb5, 0x2f, 0xfd, ..] => &["zstd", "-dc"],
        _ => bail!("a boot image that is compressed in another way"),
    };
    let kernel = piped(command, payload)?;
    if !kernel.starts_with(b"\x7fELF") {
        bail!("the boot image holds no ELF file");
    }
    Ok(kernel)
}

/// What a program makes of its stdin.
pub(super) fn piped(command: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let [program, arguments @ ..] = command else { bail!("no program") };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let output = std::thread::scope(|scope| {
        // It may close early, and its status says then why.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{program} failed ({})", output.status);
    }
    Ok(output.stdout)
}
