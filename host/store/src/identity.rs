//! Checks whether the store's path still names the open file.
//!
//! A file stays open after its path is removed. Without this check, a server would acknowledge writes to a file that
//! the next start cannot find, because the file or its directory was removed, renamed or replaced.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::StoreError;

/// The file that was opened: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

// === impl FileIdentity ===

impl FileIdentity {
    /// Reads the identity of the file that was just opened at `path`.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the file's metadata cannot be read, for example because it was removed again.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let meta = fs::metadata(path).map_err(|error| gone(path, reason(&error)))?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }

    /// Checks that `path` still names this file, and returns its length in bytes.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if `path` names another file or no file, or if its metadata cannot be read.
    pub(super) fn check(self, path: &Path) -> Result<u64, StoreError> {
        let meta = fs::metadata(path).map_err(|error| gone(path, reason(&error)))?;
        if (Self { device: meta.dev(), inode: meta.ino() }) == self {
            Ok(meta.len())
        } else {
            Err(gone(path, "was replaced by another file".to_owned()))
        }
    }
}

fn gone(path: &Path, what: String) -> StoreError {
    StoreError::Gone { path: PathBuf::from(path), what }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "was removed or renamed".to_owned(),
        _ => format!("could not be examined ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_or_removed_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        let identity = FileIdentity::of(&path).unwrap();
        assert_eq!(identity.check(&path).unwrap(), 3);

        let aside = dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        let error = identity.check(&path).unwrap_err().to_string();
        assert!(error.contains("was removed or renamed") && error.contains("hint:"), "{error}");
        fs::write(&path, "abc").unwrap();
        let error = identity.check(&path).unwrap_err().to_string();
        assert!(error.contains("was replaced by another file"), "{error}");
        fs::rename(&aside, &path).unwrap();
        assert!(identity.check(&path).is_ok(), "moved back");
    }
}
