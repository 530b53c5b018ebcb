//! Checks who can read files with tokens and keys.

use std::{fs, path::Path};

/// Returns whether all users of this machine can read a file. Returns false if the file does not exist.
#[must_use]
pub fn is_read_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}
