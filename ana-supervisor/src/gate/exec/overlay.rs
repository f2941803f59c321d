//! What an overlay that the agent mounts does to the marks of the files below it.

/// The first Linux that tells fanotify of what is opened through an overlay ("ovl: enable fsnotify events on underlying real
/// files").
const TOLD_SINCE: (u32, u32) = (6, 5);

/// Whether a protected file runs unasked below an overlay: its opens are not told, and its inode is the overlay's own, which
/// the guard does not know. A release that is not understood counts as one that does.
pub fn hides_files(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < TOLD_SINCE,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_6_5_it_does() {
        for old in ["6.1.0-56-amd64", "5.15.0", "6.4.16-arch1", "6.4-rc1", "odd", "6", ""] {
            assert!(hides_files(old), "{old}");
        }
        for new in ["6.5.0", "6.5-rc1", "6.12.117+deb12-amd64", "6.18.44", "7.0.0"] {
            assert!(!hides_files(new), "{new}");
        }
    }
}
