//! Whether an output would be in the files of an input.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Location, OfflineError};

/// A location to write to, without links.
pub(super) enum Target {
    /// The path itself, and the file that it leads to if it is a link.
    Local(PathBuf, PathBuf),
    /// The URL of an object.
    Object(String),
}

// === impl Target ===

impl Target {
    /// Resolves a location. The parent directory of a local path must exist.
    ///
    /// # Errors
    /// [`OfflineError::Write`].
    pub(super) fn of(at: &Location) -> Result<Self, OfflineError> {
        let path = match at {
            Location::Local(path) => path,
            Location::Object(object) => return Ok(Self::Object(object.url())),
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir =
            dir.canonicalize().map_err(|source| OfflineError::Write { at: at.clone(), source: named(source, dir) })?;
        let output = dir.join(path.file_name().unwrap_or_default());
        let target = output.canonicalize().unwrap_or_else(|_| output.clone());
        Ok(Self::Local(output, target))
    }

    /// Returns whether the location is the file or object `input`, or in the directory or prefix `input`, which is relative to
    /// `base`.
    pub(super) fn is_in(&self, input: &str, base: &Path) -> bool {
        match self {
            Self::Object(url) => {
                let prefix = input.trim_end_matches('/');
                url.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Local(output, target) => {
                let input = (!input.contains("://")).then(|| base.join(input).canonicalize().ok()).flatten();
                input.is_some_and(|input| output.starts_with(&input) || target.starts_with(&input))
            }
        }
    }
}

/// Adds the path to the error of a missing directory.
fn named(error: io::Error, dir: &Path) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), format!("the directory {} does not exist", dir.display()))
        }
        _ => error,
    }
}
