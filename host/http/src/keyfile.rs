//! Files with tokens and keys: who can read them.

use std::{fs, path::Path};

/// Whether everybody on this machine can read a file. A file that is not there is read by nobody.
#[must_use]
pub fn is_read_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}
