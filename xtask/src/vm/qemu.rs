//! QEMU itself: one whose processors can be relied on.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{commands::output, packages};

pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// Debian 12's own, 7.2, gives guests flags that no processor has (ARCHITECTURE.md, D-066), and under a clock of
/// instructions Linux 6.1 waits there for ever for its second processor.
const OLDEST: u32 = 10;

/// Installs it, from Debian's backports where the release's own is too old.
///
/// # Errors
/// There is none to be had.
pub(super) fn install() -> Result<()> {
    if major() >= Some(OLDEST) {
        return Ok(());
    }
    packages::install_backports(&["qemu-system-x86"])?;
    match major() {
        Some(found) if found >= OLDEST => Ok(()),
        found => bail!("QEMU {OLDEST} is needed, and this is {found:?}"),
    }
}

fn major() -> Option<u32> {
    parse(&output(Command::new(PROGRAM).arg("--version")).ok()?)
}

fn parse(said: &str) -> Option<u32> {
    said.strip_prefix("QEMU emulator version ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_of_itself() {
        assert_eq!(parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)"), Some(10));
        assert_eq!(parse("QEMU emulator version 7.2.22 (Debian …)"), Some(7));
        assert_eq!(parse("something else"), None);
    }
}
