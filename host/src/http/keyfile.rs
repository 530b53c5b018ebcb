//! Files with tokens and keys, read within a bound.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

/// Reads a file of at most `max` bytes. What is no file is refused: reading a pipe or a device may never end.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

/// Whether everybody on this machine can read a file. A file that is not there is read by nobody.
#[must_use]
pub fn is_read_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}
