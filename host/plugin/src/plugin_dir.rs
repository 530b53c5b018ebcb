//! Plugin files on disk: the directory that people put them in, and the host's own copies of what it accepted.
//!
//! ```text
//! plugins/                      what people see: NAME.wasm is plugin NAME. A file comes by rename.
//! data/store/plugins/           the host's own, mode 0700
//!   live/NAME.wasm              the version in service
//!   previous/NAME.wasm          the one before, to roll back to
//! ```
//!
//! The directory says what is wanted; the copies say what is known to be good. So a bad file in the directory costs
//! nothing, not even after a restart, and rolling back needs nobody's help.

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

/// The files of a host's plugins.
#[derive(Debug)]
pub struct PluginDir {
    dir: PathBuf,
    own: PathBuf,
}

/// Which of the host's copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The version in service.
    Live,
    /// The one before.
    Previous,
}

/// A failure with the file that it happened to.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PluginDirError {
    /// The file or directory.
    pub path: PathBuf,
    /// What happened.
    pub source: io::Error,
}

/// What plugin files end with.
const EXTENSION: &str = "wasm";

// === impl PluginDir ===

impl PluginDir {
    /// The shelf of a directory, which need not be there, and of the host's own one, which is made.
    ///
    /// # Errors
    /// When the host's own directory cannot be made.
    pub fn open(dir: &Path, own: &Path) -> Result<Self, PluginDirError> {
        for part in ["live", "previous"] {
            let path = own.join(part);
            private::open_dir(&path).map_err(|source| PluginDirError { path, source })?;
        }
        Ok(Self { dir: dir.to_path_buf(), own: own.to_path_buf() })
    }

    /// The directory that people put plugins in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The plugins in the directory, by name, with what tells their files' states apart. A directory that is not there
    /// has none.
    ///
    /// # Errors
    /// When the directory cannot be read.
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
            // Files that are being written have names that begin with a dot, or end otherwise.
            let name = path.file_stem().and_then(OsStr::to_str).filter(|name| !name.starts_with('.'));
            let (Some(name), Some(EXTENSION)) = (name, path.extension().and_then(OsStr::to_str)) else { continue };
            // Also through a link: Kubernetes mounts files so. A file that went meanwhile is not there.
            let Ok(meta) = fs::metadata(&path) else { continue };
            // A pipe or a device is reported as an error when it is read.
            if !meta.is_dir() {
                files.push((name.to_owned(), FileStamp::of(&meta)));
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(files)
    }

    /// Where a directory has a plugin.
    #[must_use]
    pub fn file_in(dir: &Path, name: &str) -> PathBuf {
        dir.join(file_name(name))
    }

    /// Reads a plugin's file in the directory, `bytes_max` and one at most: a longer one is refused by whoever looks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, PluginDirError> {
        read_file(&Self::file_in(&self.dir, name), bytes_max)
    }

    /// Puts a plugin into the directory, which is made if it is not there, in one step.
    ///
    /// # Errors
    /// When it cannot be written; what was there is there still.
    pub fn place(&self, name: &str, bytes: &[u8]) -> Result<(), PluginDirError> {
        fs::create_dir_all(&self.dir).map_err(|source| PluginDirError { path: self.dir.clone(), source })?;
        replace(&self.dir.join(file_name(name)), bytes)
    }

    /// Reads one of the host's copies; none if there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn copy(&self, which: Copy, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, PluginDirError> {
        match read_file(&self.path(which, name), bytes_max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a copy of what goes into service; what was in service becomes the one to roll back to.
    ///
    /// # Errors
    /// When it cannot be written. The copy of what was in service is kept either way.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), PluginDirError> {
        let (live, previous) = (self.path(Copy::Live, name), self.path(Copy::Previous, name));
        match fs::rename(&live, &previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PluginDirError { path: live, source: error }),
            _ => replace(&live, bytes),
        }
    }

    fn path(&self, which: Copy, name: &str) -> PathBuf {
        let part = match which {
            Copy::Live => "live",
            Copy::Previous => "previous",
        };
        self.own.join(part).join(file_name(name))
    }
}

fn file_name(name: &str) -> String {
    format!("{name}.{EXTENSION}")
}

/// Reads a plugin's file, `bytes_max` and one byte at most: a longer one is refused by whoever looks.
///
/// # Errors
/// When it cannot be read.
pub fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, PluginDirError> {
    let failed = |source| PluginDirError { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = open_regular(path).map_err(failed)?;
    io::Read::read_to_end(&mut io::Read::take(file, bytes_max.saturating_add(1)), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Writes a file beside, and renames it: who looks sees the old one or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), PluginDirError> {
    let failed = |source| PluginDirError { path: path.to_path_buf(), source };
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        // What is half there is nobody's.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> (tempfile::TempDir, PluginDir) {
        let dir = tempfile::tempdir().unwrap();
        let plugin_dir = PluginDir::open(&dir.path().join("plugins"), &dir.path().join("own")).unwrap();
        (dir, plugin_dir)
    }

    fn names(plugin_dir: &PluginDir) -> Vec<String> {
        plugin_dir.files().unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_directory_need_not_be_there_and_has_only_finished_wasm_files() {
        let (_dir, plugin_dir) = shelf();
        assert_eq!(names(&plugin_dir), [""; 0]);
        plugin_dir.place("b", b"b").unwrap();
        plugin_dir.place("a", b"a").unwrap();
        fs::write(plugin_dir.dir().join(".c.wasm"), "half").unwrap();
        fs::write(plugin_dir.dir().join("d.wasm.tmp"), "half").unwrap();
        fs::create_dir(plugin_dir.dir().join("e.wasm")).unwrap();
        assert_eq!(names(&plugin_dir), ["a", "b"]);
    }

    #[test]
    fn a_replaced_file_has_another_stamp_even_with_the_same_bytes() {
        let (_dir, plugin_dir) = shelf();
        plugin_dir.place("a", b"1").unwrap();
        let before = plugin_dir.files().unwrap();
        assert_eq!(plugin_dir.files().unwrap(), before);
        plugin_dir.place("a", b"1").unwrap();
        assert_ne!(plugin_dir.files().unwrap(), before);
    }

    #[test]
    fn pipe_in_place_of_a_plugin_is_an_error() {
        let (_dir, plugin_dir) = shelf();
        plugin_dir.place("a", b"a").unwrap();
        let pipe = plugin_dir.dir().join("b.wasm");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        // It is listed, so that the load reports it.
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
    fn swapped_link_to_a_plugin_has_another_stamp() {
        let (dir, plugin_dir) = shelf();
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
    fn a_file_is_read_up_to_the_limit_and_one_byte_beyond_it() {
        let (_dir, plugin_dir) = shelf();
        plugin_dir.place("a", b"1234").unwrap();
        assert_eq!(plugin_dir.read("a", 4).unwrap(), b"1234");
        assert_eq!(plugin_dir.read("a", 2).unwrap(), b"123", "so that a longer one shows");
        assert!(plugin_dir.read("b", 4).unwrap_err().to_string().contains("plugins/b.wasm: "));
    }

    #[test]
    fn what_goes_into_service_makes_the_one_before_the_previous() {
        let (_dir, plugin_dir) = shelf();
        assert_eq!(plugin_dir.copy(Copy::Live, "a", 9).unwrap(), None);
        plugin_dir.keep("a", b"1").unwrap();
        assert_eq!(plugin_dir.copy(Copy::Previous, "a", 9).unwrap(), None);
        plugin_dir.keep("a", b"2").unwrap();
        assert_eq!(plugin_dir.copy(Copy::Live, "a", 9).unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(plugin_dir.copy(Copy::Previous, "a", 9).unwrap().as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn the_hosts_own_copies_are_nobody_elses() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, _shelf) = shelf();
        let mode = fs::metadata(dir.path().join("own/live")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
