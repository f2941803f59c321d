//! The eBPF objects are committed, so that a checkout builds with stable Rust alone. This builds them, and proves that
//! the committed ones come from the committed sources.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bpf_toolchain::{Kind, Toolchain, Versions};

/// Build the eBPF objects that are committed with the sources, or check that they are what the sources say.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rebuild with exactly the pinned toolchain and compare; nothing is written. Without that toolchain: SKIPPED.
    #[arg(long)]
    check: bool,
    /// The compiler to build with; the default is the pinned one, or else the one that is there.
    #[arg(long, value_enum, conflicts_with = "check")]
    toolchain: Option<Kind>,
}

/// Where they are, and the programs' names in ana-ebpf.
const OBJECTS: [(&str, &str); 3] = [
    ("ana-supervisor/src/kernel/object/ana.bpf.o", "ana-ebpf"),
    ("ana-supervisor/src/kernel/object/connect.bpf.o", "connect"),
    ("tests/bench/connect/object/sockmap.bpf.o", "sockmap"),
];
const PIN: &str = "ana-supervisor/src/kernel/object/toolchain.toml";

/// What stands beside the objects.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    command: String,
    /// Object, by its path in the project -> SHA-256.
    objects: BTreeMap<String, String>,
    toolchain: Versions,
}

/// Objects by their paths.
type Objects = BTreeMap<String, Vec<u8>>;

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    if args.check { check(root) } else { build_and_write(root, args.toolchain) }
}

fn build_and_write(root: &Path, kind: Option<Kind>) -> Result<()> {
    let pinned = read_pin(root).ok().map(|pin| pin.toolchain.kind);
    let candidates = match kind {
        Some(kind) => vec![kind],
        None => pinned.into_iter().chain([Kind::Debian, Kind::Nightly]).collect(),
    };
    let mut reasons = Vec::new();
    let toolchain = candidates.into_iter().find_map(|kind| {
        Toolchain::find(kind, &root.join("target/bpf-llvm")).map_err(|e| reasons.push(format!("{e:#}"))).ok()
    });
    let Some(toolchain) = toolchain else {
        bail!(
            "no toolchain for eBPF: {}; `cargo xtask bpf --check` tries to install the pinned one",
            reasons.join("; ")
        )
    };
    let objects = build(root, &toolchain, &root.join("target/bpf"))?;
    let pin = Pin { objects: hashes(&objects), command: toolchain.command(), toolchain: toolchain.versions };
    for (name, object) in &objects {
        fs::write(root.join(name), object).with_context(|| format!("cannot write {name}"))?;
        println!("bpf: {name}: {} bytes, SHA-256 {}", object.len(), sha256(object));
    }
    let text = format!(
        "# Written by `cargo xtask bpf`; `cargo xtask bpf --check` builds with exactly this and compares.\n{}",
        toml::to_string(&pin)?
    );
    fs::write(root.join(PIN), text).with_context(|| format!("cannot write {PIN}"))
}

fn check(root: &Path) -> Result<()> {
    let pin = read_pin(root)?;
    let committed = hashes(&committed(root)?);
    if committed != pin.objects {
        bail!("the committed objects are not those that {PIN} is about: run `cargo xtask bpf`");
    }
    let toolchain = match pinned_toolchain(root, &pin) {
        Ok(toolchain) => toolchain,
        Err(reason) => {
            println!("SKIPPED: the eBPF objects were NOT checked: {reason:#}");
            println!("bpf: 0 checked, {} skipped", committed.len());
            return Ok(());
        }
    };
    let target = root.join("target/bpf-check");
    if target.exists() {
        fs::remove_dir_all(&target).context("cannot empty target/bpf-check")?;
    }
    let rebuilt = hashes(&build(root, &toolchain, &target)?);
    for (name, here) in &rebuilt {
        let there = committed.get(name).with_context(|| format!("{name} is not committed"))?;
        if here != there {
            bail!(
                "{name} is not what its sources give (committed {there}, rebuilt {here}): run `cargo xtask bpf` and commit"
            );
        }
        println!("bpf: {name} is what its sources give (SHA-256 {here})");
    }
    println!("bpf: {} checked, 0 skipped", rebuilt.len());
    Ok(())
}

fn committed(root: &Path) -> Result<Objects> {
    let read = |(name, _): (&str, &str)| {
        let object = fs::read(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        Ok((name.to_owned(), object))
    };
    OBJECTS.into_iter().map(read).collect()
}

fn hashes(objects: &Objects) -> BTreeMap<String, String> {
    objects.iter().map(|(name, object)| (name.clone(), sha256(object))).collect()
}

/// Exactly the toolchain of the pin file, installed if need be.
fn pinned_toolchain(root: &Path, pin: &Pin) -> Result<Toolchain> {
    let llvm = root.join("target/bpf-llvm");
    let find = || {
        let toolchain = Toolchain::find(pin.toolchain.kind, &llvm)?;
        if toolchain.versions != pin.toolchain {
            bail!("pinned is {}; here is {}", pin.toolchain, toolchain.versions);
        }
        Ok(toolchain)
    };
    find().or_else(|missing: anyhow::Error| {
        println!("bpf: {missing:#}: trying to install it");
        crate::bpf_toolchain::install(&pin.toolchain).with_context(|| format!("{missing:#}"))?;
        find()
    })
}

fn read_pin(root: &Path) -> Result<Pin> {
    let text = fs::read_to_string(root.join(PIN)).with_context(|| format!("cannot read {PIN}"))?;
    toml::from_str(&text).with_context(|| format!("cannot parse {PIN}"))
}

fn build(root: &Path, toolchain: &Toolchain, target: &Path) -> Result<Objects> {
    let status = toolchain.cargo(&root.join("ana-ebpf"), target).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the build of ana-ebpf failed ({status})");
    }
    let read = |(name, program): (&str, &str)| {
        let built: PathBuf = target.join("bpfel-unknown-none/release").join(program);
        let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        Ok((name.to_owned(), strip(&object)?))
    };
    OBJECTS.into_iter().map(read).collect()
}

/// Drops the DWARF sections: BTF holds what the kernel wants. Done here and not by an objcopy, so that the result does
/// not depend on one more tool.
fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker's output is no ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        if name.starts_with(".debug_") || name.starts_with(".rel.debug_") {
            section.delete = true;
        }
    }
    // LLVM keeps the names of sections and of symbols in one table; the writer wants one for each.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the stripped object")?;
    Ok(stripped)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
