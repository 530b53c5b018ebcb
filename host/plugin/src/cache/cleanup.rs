//! Removes compiled code that is not needed, so that the files stay below a size.
//!
//! * Files of other versions of wasmtime or with other settings, and temporary files of killed processes, are removed if they
//!   were not used for a day.
//! * If the files are still larger than the limit, the least recently used ones are removed.
//!
//! A file that a process uses is never removed: the process holds a lock on it. The server uses the files of the live and
//! previous versions of its plugins, so the next start does not compile them. A file was used last at the time of its last
//! modification, which a read updates.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use larder_common::files::open_regular;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};

use super::{CODE, FUNCTIONS, KEY};

/// Keeps a file from being removed while it exists.
#[derive(Debug)]
pub(crate) struct InUse {
    _lock: File,
}

/// A file with compiled code.
#[derive(Debug)]
struct CodeFile {
    /// Whether another version of wasmtime, or another compiler, wrote it, or it was not completely written.
    is_outdated: bool,
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// How long an outdated file is kept after its last use. Two versions of Larder may use the same directory alternately.
const OUTDATED_KEPT: Duration = Duration::from_hours(24);

// === impl InUse ===

impl InUse {
    /// Marks a file as used now, and keeps it from being removed.
    pub(super) fn mark(file: File) -> Self {
        // If the file system does not support locks, the file may be removed, and the next start compiles it again.
        let _ = file.try_lock_shared();
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
        // If the time cannot be set, the file counts as older than it is.
        let _ = futimens(&file, &times);
        Self { _lock: file }
    }
}

// === impl CodeFile ===

impl CodeFile {
    /// Returns the files in a directory. Those whose names lack `settings` are outdated.
    fn all_in(dir: &Path, settings: &str) -> Vec<Self> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let file = |entry: fs::DirEntry| {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str()?;
            let is_temporary = name.starts_with('.') && !name[1..].starts_with(KEY);
            if !(is_temporary || name.ends_with(CODE) || name.starts_with(FUNCTIONS)) {
                return None;
            }
            let meta = fs::metadata(&path).ok()?;
            let is_outdated = is_temporary || !name.contains(settings);
            Some(Self { is_outdated, used: meta.modified().ok()?, bytes: meta.len(), path })
        };
        entries.filter_map(file).collect()
    }

    /// Removes the file. Returns false if a process uses it, or if it cannot be removed; the next call then retries.
    fn remove(&self) -> bool {
        let Ok(file) = open_regular(&self.path) else { return false };
        !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && fs::remove_file(&self.path).is_ok()
    }
}

/// Removes all files that no process uses.
pub(super) fn remove_all(dir: &Path) {
    CodeFile::all_in(dir, "").iter().for_each(|file| _ = file.remove());
}

/// Removes files that are not needed. `settings` is in the names of files that the current compiler wrote.
pub(super) fn clean(dir: &Path, settings: &str, bytes_max: u64) {
    let mut files = CodeFile::all_in(dir, settings);
    files.sort_by_key(|file| (!file.is_outdated, file.used));
    // The file that was used last is new, because this function is called after a file was written.
    let newest = files.iter().map(|file| file.used).max();
    let is_old = |used: SystemTime| {
        newest.and_then(|newest| newest.checked_sub(OUTDATED_KEPT)).is_some_and(|limit| used < limit)
    };
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let (mut removed, mut removed_bytes) = (0_u32, 0_u64);
    for file in &files {
        if (bytes > bytes_max || file.is_outdated && is_old(file.used)) && file.remove() {
            bytes -= file.bytes;
            removed_bytes += file.bytes;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(dir = %dir.display(), files = removed, bytes = removed_bytes, "removed compiled code that is not used");
    }
    if bytes > bytes_max {
        tracing::warn!(
            dir = %dir.display(), bytes, bytes_max,
            "the compiled code of plugins that are in use takes more than 'plugins: compiled_max'"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "0123456789abcdef";

    /// Creates a file of 100 bytes that was last used this many hours ago.
    fn file(dir: &Path, name: &str, hours: u64) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, [0; 100]).unwrap();
        let used = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000 - hours);
        File::options().write(true).open(&path).unwrap().set_modified(used).unwrap();
        path
    }

    fn current(dir: &Path, digest: &str, hours: u64) -> PathBuf {
        file(dir, &format!("{digest}-{SETTINGS}{CODE}"), hours)
    }

    fn is_there(path: impl AsRef<Path>) -> bool {
        path.as_ref().try_exists().unwrap()
    }

    #[test]
    fn least_recently_used_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let key = file(dir.path(), KEY, 900);
        let [oldest, old, new] = [("a", 500), ("c", 3), ("b", 0)].map(|(name, hours)| current(dir.path(), name, hours));
        clean(dir.path(), SETTINGS, 300);
        assert!([&key, &oldest, &old, &new].into_iter().all(is_there), "exactly the limit");
        clean(dir.path(), SETTINGS, 299);
        assert_eq!([&key, &oldest, &old, &new].map(is_there), [true, false, true, true]);
        clean(dir.path(), SETTINGS, 0);
        assert_eq!([&key, &oldest, &old, &new].map(is_there), [true, false, false, false]);
    }

    #[test]
    fn used_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| current(dir.path(), name, 1));
        let in_use = InUse::mark(open_regular(&a).unwrap());
        let again = InUse::mark(open_regular(&a).unwrap());
        clean(dir.path(), SETTINGS, 0);
        assert_eq!([&a, &b].map(is_there), [true, false]);
        drop(in_use);
        clean(dir.path(), SETTINGS, 0);
        assert!(is_there(&a), "another component uses it");
        drop(again);
        clean(dir.path(), SETTINGS, 0);
        assert!(!is_there(&a));
    }

    #[test]
    fn read_file_counts_as_new() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = [("a", 9), ("b", 8)].map(|(name, hours)| current(dir.path(), name, hours));
        drop(InUse::mark(open_regular(&a).unwrap()));
        clean(dir.path(), SETTINGS, 100);
        assert_eq!([&a, &b].map(is_there), [true, false]);
    }

    #[test]
    fn outdated_files_are_removed_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let new = current(dir.path(), "new", 0);
        let old = current(dir.path(), "old", 900);
        let names = ["a-fedcba9876543210.cwasm", "functions-1-fedcba9876543210", ".a-0123456789abcdef.cwasm.1"];
        let recent = names.map(|name| file(dir.path(), name, 24));
        clean(dir.path(), SETTINGS, 1_000);
        assert!(recent.iter().all(is_there));
        let outdated = names.map(|name| file(dir.path(), name, 25));
        let other = ["key", "notes.txt", ".key.1"].map(|name| file(dir.path(), name, 900));
        clean(dir.path(), SETTINGS, 1_000);
        assert!(!outdated.iter().any(is_there));
        assert!(other.iter().chain([&new, &old]).all(is_there));
    }

    #[test]
    fn outdated_files_go_before_current_ones() {
        let dir = tempfile::tempdir().unwrap();
        let old = current(dir.path(), "old", 5);
        let outdated = file(dir.path(), "a-fedcba9876543210.cwasm", 0);
        clean(dir.path(), SETTINGS, 100);
        assert_eq!([&old, &outdated].map(is_there), [true, false]);
    }
}
