//! The history of a plugin: the last versions that were live, and the server's copies of their files.
//!
//! ```text
//! history/NAME/
//!   history.json          the versions; the version that went live last is the first one
//!   DIGEST.wasm           the file of a version; its modification time is the time when the version last went live
//! ```
//!
//! A version is added in two steps. The first step writes the files under temporary names, which is the step that fails
//! if the disk is full. The second step renames them: first the file of the version, and then the list. So after a kill
//! at any point, the list is complete, and so is the file of each version in it. Files that are not in the list are
//! removed after the next change.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io, iter, mem,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use larder_common::{
    files::{FILE_BYTES_MAX, open_regular, read_regular},
    private,
};
use larder_model::model::Micros;
use serde::{Deserialize, Serialize};

use super::{EXTENSION, PluginDirError, read_file, write_temporary};
use crate::{BuildInfo, Digest};

/// A version of a plugin that was live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The digest of the file.
    pub digest: Digest,
    /// The version that the plugin declares; `None` if the list was rebuilt from the files.
    pub version: Option<String>,
    /// The language that the file declares, or `unknown`.
    pub language: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// When the version last went live.
    pub went_live: Micros,
}

/// A change of a history that is written under temporary names. If it is dropped, these files are removed.
#[derive(Debug)]
#[must_use]
pub struct PreparedVersion {
    dir: PathBuf,
    /// The renames that make the change, from the temporary name of each file to its name. Empty if nothing changes.
    renames: Vec<(PathBuf, PathBuf)>,
    /// The versions after the change.
    versions: Vec<HistoryEntry>,
}

/// The directory of a plugin's history.
#[derive(Debug)]
pub(super) struct History {
    dir: PathBuf,
}

/// The contents of `history.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    versions: Vec<HistoryEntry>,
}

/// The maximum number of versions, including the live one.
const VERSIONS_MAX: usize = 10;
const LIST: &str = "history.json";
/// A list of ten versions has about 2 KiB.
const LIST_BYTES_MAX: u64 = 64 << 10;

// === impl History ===

impl History {
    /// Selects a directory, which need not exist.
    pub(super) fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns the versions, as [`super::PluginDir::history`] does.
    pub(super) fn versions(&self) -> Result<Vec<HistoryEntry>, PluginDirError> {
        self.read_list()?.map_or_else(|| self.rebuild(), Ok)
    }

    /// Reads the file of a version; `None` if there is no such file.
    pub(super) fn file(&self, version: &HistoryEntry) -> Result<Option<Vec<u8>>, PluginDirError> {
        let path = path_of(&self.dir, &version.digest);
        match read_file(&path, version.bytes) {
            Ok(bytes) if Digest::of(&bytes) == version.digest => Ok(Some(bytes)),
            Ok(_) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, "the file is damaged: it has another digest");
                Err(PluginDirError { path, source })
            }
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the files of a change under temporary names, as [`super::PluginDir::prepare`] does. Writes nothing if the
    /// version is the first one already.
    pub(super) fn prepare(&self, version: HistoryEntry, bytes: &[u8]) -> Result<PreparedVersion, PluginDirError> {
        private::open_dir(&self.dir).map_err(|source| PluginDirError { path: self.dir.clone(), source })?;
        let mut prepared = PreparedVersion { dir: self.dir.clone(), renames: Vec::new(), versions: Vec::new() };
        let path = path_of(&self.dir, &version.digest);
        // Compares the contents, so that a damaged file is replaced.
        let is_stored = read_file(&path, version.bytes).is_ok_and(|stored| stored == bytes);
        let list = self.read_list()?;
        let first = list.as_ref().and_then(|versions| versions.first());
        if is_stored && first.is_some_and(|first| first.digest == version.digest) {
            return Ok(prepared);
        }
        if !is_stored {
            prepared.write(path, bytes)?;
        }
        let older = list.map_or_else(|| self.rebuild(), Ok)?;
        let older = older.into_iter().filter(|other| other.digest != version.digest);
        let list = List { versions: iter::once(version.clone()).chain(older).take(VERSIONS_MAX).collect() };
        prepared.write(self.dir.join(LIST), &serde_json::to_vec_pretty(&list).unwrap_or_default())?;
        prepared.versions = list.versions;
        Ok(prepared)
    }

    /// Reads the list; `None` if it is missing or damaged.
    fn read_list(&self) -> Result<Option<Vec<HistoryEntry>>, PluginDirError> {
        let path = self.dir.join(LIST);
        let text = match read_file(&path, LIST_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<List>(&text) {
            Ok(list) => Ok(Some(list.versions)),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the history of a plugin is damaged");
                Ok(None)
            }
        }
    }

    /// Returns the versions whose files are intact. The modification times determine their order.
    fn rebuild(&self) -> Result<Vec<HistoryEntry>, PluginDirError> {
        let failed = |source| PluginDirError { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut versions = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse().ok());
            let (Some(digest), Some(EXTENSION)) = (stem, path.extension().and_then(OsStr::to_str)) else { continue };
            match read_entry(&path, digest) {
                Ok(version) => versions.push(version),
                Err(error) => tracing::warn!(file = %path.display(), %error, "ignoring a stored version of a plugin"),
            }
        }
        versions.sort_by_key(|version| std::cmp::Reverse(version.went_live));
        versions.truncate(VERSIONS_MAX);
        if !versions.is_empty() {
            let count = versions.len();
            tracing::warn!(dir = %self.dir.display(), count, "rebuilt the history of a plugin from its stored versions");
        }
        Ok(versions)
    }
}

/// Returns the path of the file of a version.
fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(digest.to_string()).with_extension(EXTENSION)
}

/// Returns the entry of a stored file, without the version, which only the compiled plugin declares.
fn read_entry(path: &Path, digest: Digest) -> io::Result<HistoryEntry> {
    let bytes = read_regular(path, FILE_BYTES_MAX)?;
    if Digest::of(&bytes) != digest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its digest is not its name"));
    }
    let modified = fs::metadata(path)?.modified()?;
    let went_live = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let language = BuildInfo::read(&bytes).map_or_else(|| "unknown".to_owned(), |build| build.language);
    let (bytes, went_live) = (bytes.len() as u64, Micros::try_from(went_live).unwrap_or(Micros::MAX));
    Ok(HistoryEntry { digest, version: None, language, bytes, went_live })
}

// === impl PreparedVersion ===

impl PreparedVersion {
    /// Renames the files to their final names, and removes the files of versions that are no longer in the list.
    ///
    /// # Errors
    /// If a file cannot be renamed, or the directory cannot be synced.
    pub fn commit(self) -> Result<(), PluginDirError> {
        if self.renames.is_empty() {
            return Ok(());
        }
        for (from, to) in &self.renames {
            fs::rename(from, to).map_err(|source| PluginDirError { path: to.clone(), source })?;
            // The file of the version must be on disk before the list is.
            let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
            synced.map_err(|source| PluginDirError { path: self.dir.clone(), source })?;
        }
        if let Some(first) = self.versions.first() {
            let since_epoch = Duration::from_micros(u64::try_from(first.went_live).unwrap_or_default());
            let file = open_regular(&path_of(&self.dir, &first.digest));
            // The time is only used to rebuild a damaged list.
            let _ = file.and_then(|file| file.set_modified(UNIX_EPOCH + since_epoch));
        }
        self.remove_others();
        Ok(())
    }

    fn write(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), PluginDirError> {
        self.renames.push((write_temporary(&path, bytes)?, path));
        Ok(())
    }

    /// Removes the files of other versions, and temporary files of processes that were killed. A file that cannot be
    /// removed is removed after a later change.
    fn remove_others(&self) {
        let own = self.versions.iter().map(|version| path_of(&self.dir, &version.digest));
        let own: HashSet<PathBuf> = own.chain([self.dir.join(LIST)]).collect();
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| !own.contains(path)) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for PreparedVersion {
    fn drop(&mut self) {
        // After a commit, there are no files with these names.
        for (from, _) in mem::take(&mut self.renames) {
            let _ = fs::remove_file(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> (tempfile::TempDir, History) {
        let dir = tempfile::tempdir().unwrap();
        let history = History::in_dir(dir.path().join("a"));
        (dir, history)
    }

    /// Returns the entry of version `n`, which went live at second `n`.
    fn entry(n: u32) -> (HistoryEntry, Vec<u8>) {
        let bytes = n.to_string().into_bytes();
        let (digest, len, went_live) = (Digest::of(&bytes), bytes.len() as u64, Micros::from(n) * 1_000_000);
        let version = Some(format!("{n}.0.0"));
        (HistoryEntry { digest, version, language: "unknown".to_owned(), bytes: len, went_live }, bytes)
    }

    fn prepare(history: &History, n: u32) -> Result<PreparedVersion, PluginDirError> {
        let (entry, bytes) = entry(n);
        history.prepare(entry, &bytes)
    }

    fn keep(history: &History, n: u32) {
        prepare(history, n).unwrap().commit().unwrap();
    }

    /// Returns the seconds at which the versions went live. Checks that the file of each version is intact.
    fn times(history: &History) -> Vec<Micros> {
        let versions = history.versions().unwrap();
        versions.iter().for_each(|version| assert!(history.file(version).unwrap().is_some(), "{version:?}"));
        versions.iter().map(|version| version.went_live / 1_000_000).collect()
    }

    fn files(history: &History) -> usize {
        fs::read_dir(&history.dir).unwrap().count()
    }

    #[test]
    fn tenth_version_stays_and_eleventh_goes() {
        let (_dir, history) = history();
        assert_eq!(times(&history), [0; 0]);
        (1..=10).for_each(|n| keep(&history, n));
        assert_eq!(times(&history), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(files(&history), 11);
        keep(&history, 11);
        assert_eq!(times(&history), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
        assert_eq!(files(&history), 11, "ten versions and the list");
        assert_eq!(history.file(&entry(1).0).unwrap(), None);
    }

    #[test]
    fn same_bytes_move_to_front() {
        let (_dir, history) = history();
        (1..=3).for_each(|n| keep(&history, n));
        let (first, bytes) = entry(1);
        history.prepare(HistoryEntry { went_live: 4_000_000, ..first }, &bytes).unwrap().commit().unwrap();
        assert_eq!(times(&history), [4, 3, 2]);
        assert_eq!(files(&history), 4);
        // The first version keeps its time.
        history.prepare(HistoryEntry { went_live: 5_000_000, ..entry(1).0 }, &bytes).unwrap().commit().unwrap();
        assert_eq!(times(&history), [4, 3, 2]);
    }

    #[test]
    fn kill_between_steps_keeps_history() {
        let (_dir, history) = history();
        (1..=10).for_each(|n| keep(&history, n));
        // The process is killed after it performed some of the renames.
        for renames in 0..=2 {
            let prepared = prepare(&history, 11).unwrap();
            assert_eq!(prepared.renames.len(), 2 - usize::from(renames == 2), "the second try stored the file");
            prepared.renames.iter().take(renames).for_each(|(from, to)| fs::rename(from, to).unwrap());
            mem::forget(prepared);
            let first = if renames == 2 { 11 } else { 10 };
            assert_eq!(times(&history)[0], first, "{renames} renames");
        }
        assert_eq!(times(&history), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
        // The next change removes the leftover files.
        fs::write(history.dir.join(".history.json.1"), "half").unwrap();
        assert_eq!(files(&history), 13);
        keep(&history, 12);
        assert_eq!(times(&history), [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
        assert_eq!(files(&history), 11);
    }

    #[test]
    fn dropped_change_leaves_no_files() {
        let (_dir, history) = history();
        keep(&history, 1);
        drop(prepare(&history, 2).unwrap());
        assert_eq!((times(&history), files(&history)), (vec![1], 2));
    }

    #[test]
    fn unwritable_directory_keeps_history() {
        let (_dir, history) = history();
        keep(&history, 1);
        // Permissions do not restrict root, so directories take the names of the temporary files.
        for file in [path_of(&history.dir, &entry(2).0.digest), history.dir.join(LIST)] {
            let blocked = super::super::temporary_path_of(&file);
            fs::create_dir(&blocked).unwrap();
            let error = prepare(&history, 2).unwrap_err();
            assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
            fs::remove_dir(&blocked).unwrap();
            assert_eq!((times(&history), files(&history)), (vec![1], 2));
        }
        keep(&history, 2);
        assert_eq!(times(&history), [2, 1]);
        fs::remove_dir_all(&history.dir).unwrap();
        fs::write(&history.dir, "").unwrap();
        prepare(&history, 3).unwrap_err();
    }

    #[test]
    fn damaged_list_is_rebuilt_from_files() {
        let (_dir, history) = history();
        (1..=3).for_each(|n| keep(&history, n));
        let (second, bytes) = entry(2);
        history.prepare(HistoryEntry { went_live: 4_000_000, ..second }, &bytes).unwrap().commit().unwrap();
        let list = history.dir.join(LIST);
        let whole = fs::read(&list).unwrap();
        for damaged in [Some(&whole[..whole.len() / 2]), Some(b"{\"versions\": [{}]}"), Some(b""), None] {
            match damaged {
                Some(damaged) => fs::write(&list, damaged).unwrap(),
                None => fs::remove_file(&list).unwrap(),
            }
            assert_eq!(times(&history), [4, 3, 1]);
            assert!(history.versions().unwrap().iter().all(|version| version.version.is_none()));
        }
        // A damaged file is not a version. The next change writes the list.
        fs::write(path_of(&history.dir, &entry(3).0.digest), "x").unwrap();
        assert_eq!(times(&history), [4, 1]);
        keep(&history, 5);
        assert_eq!(times(&history), [5, 4, 1]);
        let versions = history.versions().unwrap();
        assert_eq!(versions[0].version.as_deref(), Some("5.0.0"));
        assert_eq!(versions.iter().filter(|version| version.version.is_none()).count(), 2);
    }

    #[test]
    fn damaged_list_is_written_again() {
        let (_dir, history) = history();
        (1..=2).for_each(|n| keep(&history, n));
        fs::write(history.dir.join(LIST), "x").unwrap();
        // The version is the first one already, but the list is damaged.
        keep(&history, 2);
        assert_eq!(history.read_list().unwrap().unwrap().len(), 2);
    }

    #[test]
    fn damaged_file_is_reported_and_replaced() {
        let (_dir, history) = history();
        keep(&history, 10);
        let (version, bytes) = entry(10);
        let path = path_of(&history.dir, &version.digest);
        for damaged in ["11", "1", "100"] {
            fs::write(&path, damaged).unwrap();
            let error = history.file(&version).unwrap_err().to_string();
            assert!(error.ends_with(".wasm: the file is damaged: it has another digest"), "{error}");
        }
        keep(&history, 10);
        assert_eq!(history.file(&version).unwrap(), Some(bytes));
    }
}
