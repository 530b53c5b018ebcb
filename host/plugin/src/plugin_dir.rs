//! Plugin files on disk: the plugin directory, where users put plugins, and the server's own copies of the versions
//! that it accepted.
//!
//! ```text
//! plugins/                      the plugin directory: NAME.wasm is the plugin NAME
//! data/store/plugins/           the server's own directory, mode 0700
//!   history/NAME/               the versions of the plugin NAME that were live; see `history.rs`
//!   rollouts/                   the candidates that are not live yet; see `rollouts.rs`
//! ```
//!
//! The plugin directory has the versions that users want to run, and the server's copies are versions that worked. So a
//! bad file in the plugin directory does no harm, not even after a restart, and a rollback needs no file from the user.

mod history;
mod rollouts;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use larder_common::{
    files::{FileStamp, open_regular},
    private,
};

use self::history::History;
pub use self::history::{HistoryEntry, PreparedVersion};
pub use self::rollouts::RolloutDir;

/// The plugin directory and the server's own copies.
#[derive(Debug)]
pub struct PluginDir {
    dir: PathBuf,
    /// The parent directory of the plugins' histories.
    histories: PathBuf,
}

/// An I/O error and the path that it concerns.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PluginDirError {
    /// The file or directory.
    pub path: PathBuf,
    /// The I/O error.
    pub source: io::Error,
}

/// The extension of plugin files.
const EXTENSION: &str = "wasm";

// === impl PluginDir ===

impl PluginDir {
    /// Opens the plugin directory `dir`, which need not exist, and the server's own directory `own`, which is created
    /// if it does not exist.
    ///
    /// # Errors
    /// If the server's own directory cannot be created, or belongs to another user.
    pub fn open(dir: &Path, own: &Path) -> Result<Self, PluginDirError> {
        let histories = own.join("history");
        private::open_dir(&histories).map_err(|source| PluginDirError { path: histories.clone(), source })?;
        Ok(Self { dir: dir.to_path_buf(), histories })
    }

    /// Returns the directory that users put plugins in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lists the plugins in the plugin directory, sorted by name, with the stamps of their files. The stamp of a file
    /// changes when the file changes. A directory that does not exist has no plugins.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn files(&self) -> Result<Vec<(String, FileStamp)>, PluginDirError> {
        let failed = |source| PluginDirError { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            // Skips files that are being written: their names begin with a dot or have another extension.
            let name = path.file_stem().and_then(OsStr::to_str).filter(|name| !name.starts_with('.'));
            let (Some(name), Some(EXTENSION)) = (name, path.extension().and_then(OsStr::to_str)) else { continue };
            // Follows symbolic links: Kubernetes mounts files as links. A file that was removed meanwhile is skipped.
            let Ok(meta) = fs::metadata(&path) else { continue };
            // Pipes and devices are listed, because reading one returns an error, which is then reported.
            if !meta.is_dir() {
                files.push((name.to_owned(), FileStamp::of(&meta)));
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(files)
    }

    /// Returns the path of a plugin in a directory.
    #[must_use]
    pub fn file_in(dir: &Path, name: &str) -> PathBuf {
        dir.join(file_name(name))
    }

    /// Reads a plugin from the plugin directory, at most `bytes_max` + 1 bytes. The caller rejects a file that is too
    /// long.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, PluginDirError> {
        read_file(&Self::file_in(&self.dir, name), bytes_max)
    }

    /// Writes a plugin to the plugin directory atomically. Creates the directory if it does not exist.
    ///
    /// # Errors
    /// If the file cannot be written. An existing file is then unchanged.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PluginDirError> {
        fs::create_dir_all(&self.dir).map_err(|source| PluginDirError { path: self.dir.clone(), source })?;
        replace(&self.dir.join(file_name(name)), bytes)
    }

    /// Returns the versions of a plugin that were live, at most ten. The version that went live last is the
    /// first one. If the list of the versions is damaged, logs a warning, and rebuilds the list from the stored files.
    ///
    /// # Errors
    /// If the list or the files cannot be read.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>, PluginDirError> {
        self.history_of(name).versions()
    }

    /// Reads the server's copy of a version; `None` if there is no such copy.
    ///
    /// # Errors
    /// If the copy exists and cannot be read or is damaged.
    pub fn stored(&self, name: &str, version: &HistoryEntry) -> Result<Option<Vec<u8>>, PluginDirError> {
        self.history_of(name).file(version)
    }

    /// Writes the files that make a version the first one of a plugin's history, under temporary names.
    /// [`PreparedVersion::commit`] renames them to their final names.
    ///
    /// # Errors
    /// If a file cannot be written. The history is then unchanged.
    pub fn prepare(&self, name: &str, version: HistoryEntry, bytes: &[u8]) -> Result<PreparedVersion, PluginDirError> {
        self.history_of(name).prepare(version, bytes)
    }

    fn history_of(&self, name: &str) -> History {
        History::in_dir(self.histories.join(name))
    }
}

fn file_name(name: &str) -> String {
    format!("{name}.{EXTENSION}")
}

/// Reads a plugin's file, at most `bytes_max` + 1 bytes. The caller rejects a file that is too long.
///
/// # Errors
/// If the file cannot be read.
pub fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, PluginDirError> {
    let failed = |source| PluginDirError { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = open_regular(path).map_err(failed)?;
    io::Read::read_to_end(&mut io::Read::take(file, bytes_max.saturating_add(1)), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Writes a temporary file in the same directory, and renames it: a reader sees the complete old file or the complete
/// new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), PluginDirError> {
    let written = write_temporary(path, bytes)?;
    fs::rename(&written, path).map_err(|source| {
        let _ = fs::remove_file(&written);
        PluginDirError { path: path.to_path_buf(), source }
    })
}

/// Writes a temporary file in the directory of `path`, and returns its path. Removes the file if writing fails.
fn write_temporary(path: &Path, bytes: &[u8]) -> Result<PathBuf, PluginDirError> {
    let temporary_path = temporary_path_of(path);
    let written = File::create(&temporary_path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(temporary_path),
        Err(source) => {
            let _ = fs::remove_file(&temporary_path);
            Err(PluginDirError { path: path.to_path_buf(), source })
        }
    }
}

fn temporary_path_of(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin_dir() -> (tempfile::TempDir, PluginDir) {
        let dir = tempfile::tempdir().unwrap();
        let plugin_dir = PluginDir::open(&dir.path().join("plugins"), &dir.path().join("own")).unwrap();
        (dir, plugin_dir)
    }

    fn names(plugin_dir: &PluginDir) -> Vec<String> {
        plugin_dir.files().unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn missing_directory_has_no_plugins() {
        let (_dir, plugin_dir) = plugin_dir();
        assert_eq!(names(&plugin_dir), [""; 0]);
        plugin_dir.write("b", b"b").unwrap();
        plugin_dir.write("a", b"a").unwrap();
        fs::write(plugin_dir.dir().join(".c.wasm"), "half").unwrap();
        fs::write(plugin_dir.dir().join("d.wasm.tmp"), "half").unwrap();
        fs::create_dir(plugin_dir.dir().join("e.wasm")).unwrap();
        assert_eq!(names(&plugin_dir), ["a", "b"]);
    }

    #[test]
    fn replaced_file_has_another_stamp() {
        let (_dir, plugin_dir) = plugin_dir();
        plugin_dir.write("a", b"1").unwrap();
        let before = plugin_dir.files().unwrap();
        assert_eq!(plugin_dir.files().unwrap(), before);
        plugin_dir.write("a", b"1").unwrap();
        assert_ne!(plugin_dir.files().unwrap(), before);
    }

    #[test]
    fn pipe_as_plugin_is_an_error() {
        let (_dir, plugin_dir) = plugin_dir();
        plugin_dir.write("a", b"a").unwrap();
        let pipe = plugin_dir.dir().join("b.wasm");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        // The pipe is listed, so that loading it reports the error.
        assert_eq!(names(&plugin_dir), ["a", "b"]);
        assert!(
            plugin_dir
                .read("b", 4)
                .unwrap_err()
                .to_string()
                .ends_with("b.wasm: it is a named pipe, not a regular file")
        );
    }

    #[test]
    fn swapped_plugin_link_changes_stamp() {
        let (dir, plugin_dir) = plugin_dir();
        fs::create_dir_all(plugin_dir.dir()).unwrap();
        let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        for name in ["one", "two"] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_times(time).unwrap();
        }
        let link = |to: &str| {
            let next = dir.path().join("next");
            std::os::unix::fs::symlink(dir.path().join(to), &next).unwrap();
            fs::rename(next, plugin_dir.dir().join("a.wasm")).unwrap();
        };
        link("one");
        let before = plugin_dir.files().unwrap();
        assert_eq!(plugin_dir.files().unwrap(), before);
        link("two");
        assert_ne!(plugin_dir.files().unwrap(), before);
    }

    #[test]
    fn file_is_read_within_limit() {
        let (_dir, plugin_dir) = plugin_dir();
        plugin_dir.write("a", b"1234").unwrap();
        assert_eq!(plugin_dir.read("a", 4).unwrap(), b"1234");
        assert_eq!(plugin_dir.read("a", 2).unwrap(), b"123", "one byte more than the limit");
        assert!(plugin_dir.read("b", 4).unwrap_err().to_string().contains("plugins/b.wasm: "));
    }

    #[test]
    fn own_copies_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, _plugin_dir) = plugin_dir();
        let mode = fs::metadata(dir.path().join("own/history")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
