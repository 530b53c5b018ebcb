//! Checks who can read files with tokens and keys.

use std::{fs, path::Path};

/// Returns whether a file is readable by all users of this machine. Returns false if its metadata cannot be read.
#[must_use]
pub fn is_world_readable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}
