//! The files of rollouts: the state of each running rollout, the candidate's file, and the versions that were rolled back.
//!
//! ```text
//! rollouts/
//!   NAME.json             the state of the rollout of the plugin NAME
//!   NAME.wasm             the candidate's file
//!   rolled-back.json      the versions that are not taken from the plugin directory again
//! ```
//!
//! A rollout begins with the candidate's file, and ends with the removal of its state. So after a kill at any point, a state
//! has its file, and a file without a state is removed at the next start.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use larder_common::{
    files::{FILE_BYTES_MAX, read_regular},
    private,
};

use super::{PluginDirError, read_file, replace};

/// The directory of the files of rollouts.
#[derive(Debug)]
pub struct RolloutDir {
    dir: PathBuf,
}

/// The name has a hyphen, which names of plugins cannot have.
const ROLLED_BACK: &str = "rolled-back";

// === impl RolloutDir ===

impl RolloutDir {
    /// Opens the directory in the server's own directory. Creates it if it does not exist.
    ///
    /// # Errors
    /// If the directory cannot be created, or belongs to another user.
    pub fn open(own: &Path) -> Result<Self, PluginDirError> {
        let dir = own.join("rollouts");
        private::open_dir(&dir).map_err(|source| PluginDirError { path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// Returns the names of the plugins that have a state, sorted. Removes files without a state.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, PluginDirError> {
        let failed = |source| PluginDirError { path: self.dir.clone(), source };
        let mut names = Vec::new();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let part = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
            match (part(path.file_stem()), part(path.extension()).as_deref()) {
                (Some(name), Some("json")) if name != ROLLED_BACK => names.push(name),
                (Some(name), Some("wasm")) => files.push((name, path)),
                _ => {}
            }
        }
        for (_, path) in files.iter().filter(|(name, _)| !names.contains(name)) {
            // If it cannot be removed, the next rollout replaces it.
            let _ = fs::remove_file(path);
        }
        names.sort();
        Ok(names)
    }

    /// Writes the candidate's file.
    ///
    /// # Errors
    /// If it cannot be written. An existing file is then unchanged.
    pub fn write_candidate(&self, name: &str, bytes: &[u8]) -> Result<(), PluginDirError> {
        replace(&self.path(name, "wasm"), bytes)
    }

    /// Reads the candidate's file, at most `bytes_max` + 1 bytes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_candidate(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, PluginDirError> {
        read_file(&self.path(name, "wasm"), bytes_max)
    }

    /// Writes the state of a rollout.
    ///
    /// # Errors
    /// If it cannot be written. The previous state is then unchanged.
    pub fn write_state(&self, name: &str, state: &[u8]) -> Result<(), PluginDirError> {
        replace(&self.path(name, "json"), state)
    }

    /// Reads the state of a rollout.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_state(&self, name: &str) -> Result<Vec<u8>, PluginDirError> {
        let path = self.path(name, "json");
        read_regular(&path, FILE_BYTES_MAX).map_err(|source| PluginDirError { path, source })
    }

    /// Removes the files of a rollout.
    ///
    /// # Errors
    /// If the state cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), PluginDirError> {
        let path = self.path(name, "json");
        remove_if_there(&path).map_err(|source| PluginDirError { path, source })?;
        // Without a state, the file has no effect.
        let _ = remove_if_there(&self.path(name, "wasm"));
        Ok(())
    }

    /// Writes the list of the versions that were rolled back.
    ///
    /// # Errors
    /// If it cannot be written. The previous list is then unchanged.
    pub fn write_rolled_back(&self, list: &[u8]) -> Result<(), PluginDirError> {
        replace(&self.path(ROLLED_BACK, "json"), list)
    }

    /// Reads the list of the versions that were rolled back; `None` if there is none.
    ///
    /// # Errors
    /// If it exists and cannot be read.
    pub fn read_rolled_back(&self) -> Result<Option<Vec<u8>>, PluginDirError> {
        let path = self.path(ROLLED_BACK, "json");
        match read_regular(&path, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PluginDirError { path, source }),
        }
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollout_without_state_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let rollouts = RolloutDir::open(dir.path()).unwrap();
        rollouts.write_candidate("a", b"a").unwrap();
        rollouts.write_candidate("b", b"b").unwrap();
        rollouts.write_state("b", b"{}").unwrap();
        rollouts.write_rolled_back(b"[]").unwrap();
        assert_eq!(rollouts.names().unwrap(), ["b"]);
        assert!(rollouts.read_candidate("a", 9).is_err());
        assert_eq!(rollouts.read_candidate("b", 9).unwrap(), b"b");
        rollouts.remove("b").unwrap();
        rollouts.remove("b").unwrap();
        assert!(rollouts.names().unwrap().is_empty() && rollouts.read_state("b").is_err());
        assert_eq!(rollouts.read_rolled_back().unwrap().as_deref(), Some(&b"[]"[..]));
    }
}
