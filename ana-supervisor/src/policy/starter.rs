//! wip
use std::path::PathBuf;
/// Files.
pub struct GitFiles {
    pub git: Vec<PathBuf>,
}
/// wip
pub fn starter(_: &GitFiles) -> String {
    String::new()
}
