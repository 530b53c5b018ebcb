//! The directory of captures: `captures/PLUGIN/TIME-KIND-NUMBER.arrow`.
//!
//! The rows are data of customers, so only the server's user has access. The size of all files is limited. If a new file
//! would exceed the limit, the oldest file of the plugin with the largest files is removed, so that a plugin that always fails cannot
//! remove the captures of other plugins.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use larder_common::{
    files::temporary_path_for,
    private::{create_file, open_dir},
};
use larder_model::model::{Micros, Rfc3339};

use super::CaptureKind;

/// A file of captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureEntry {
    /// The path.
    pub path: PathBuf,
    /// The size in bytes.
    pub bytes: u64,
}

/// The directory of a server's captures.
#[derive(Debug)]
pub(crate) struct CaptureDir {
    dir: PathBuf,
    bytes_max: u64,
}

/// The maximum number of files. It limits the time to list them.
const FILES_MAX: usize = 2_000;
const EXTENSION: &str = "arrow";
const MICROS_PER_SECOND: Micros = 1_000_000;

/// Returns the capture files in a directory, or the file itself if the path is a file. The oldest file is the first one.
///
/// # Errors
/// If the path does not exist or cannot be read.
pub fn capture_files(path: &Path) -> io::Result<Vec<CaptureEntry>> {
    let meta = fs::metadata(path)?;
    if !meta.is_dir() {
        return Ok(vec![CaptureEntry { path: path.to_owned(), bytes: meta.len() }]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let path = entry.path();
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if is_hidden || path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        // A server may remove a file at any time.
        if let Ok(meta) = entry.metadata() {
            files.push(CaptureEntry { path, bytes: meta.len() });
        }
    }
    // Names begin with a time.
    files.sort_by(|file, other| file.path.cmp(&other.path));
    Ok(files)
}

// === impl CaptureDir ===

impl CaptureDir {
    pub(crate) fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max }
    }

    /// Removes incomplete files of a process that was killed.
    pub(crate) fn clean_up(&self) {
        let dirs = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for file in dirs.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten()) {
            if file.file_name().as_encoded_bytes().starts_with(b".") {
                // If the file cannot be removed, it stays until the next start.
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// Writes a file of a plugin whose first call began at `time`, and removes older files if necessary. `number` makes
    /// the name unique. Returns the number of removed files.
    pub(crate) fn write(
        &self,
        plugin: &str,
        time: Micros,
        kind: CaptureKind,
        number: &str,
        contents: &[u8],
    ) -> io::Result<usize> {
        if contents.len() as u64 > self.bytes_max {
            let why = format!("a file of {} bytes exceeds 'plugins: captures: max_bytes'", contents.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let dir = self.dir.join(plugin);
        open_dir(&self.dir)?;
        open_dir(&dir)?;
        let removed = self.make_room(plugin, contents.len() as u64)?;
        let path = dir.join(format!("{}-{kind}-{number}.{EXTENSION}", time_of(time)));
        let temporary = temporary_path_for(&path);
        let written = create_file(&temporary).and_then(|mut file| file.write_all(contents));
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &path)) {
            // The error that is returned matters more than one of this removal.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(removed)
    }

    /// Removes files until a new file of a plugin fits.
    fn make_room(&self, plugin: &str, bytes: u64) -> io::Result<usize> {
        let mut plugins: BTreeMap<String, Vec<CaptureEntry>> = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Ok(mut files) = capture_files(&entry.path()) {
                // The oldest file is the last one.
                files.reverse();
                plugins.insert(entry.file_name().to_string_lossy().into_owned(), files);
            }
        }
        let size = |files: &[CaptureEntry]| files.iter().map(|file| file.bytes).sum::<u64>();
        let mut removed = 0;
        loop {
            let count: usize = plugins.values().map(Vec::len).sum();
            let total: u64 = plugins.values().map(|files| size(files)).sum();
            if total.saturating_add(bytes) <= self.bytes_max && count < FILES_MAX {
                return Ok(removed);
            }
            let with_new = |name: &str, files: &[CaptureEntry]| size(files) + if name == plugin { bytes } else { 0 };
            let largest = plugins.iter_mut().filter(|(_, files)| !files.is_empty());
            let largest = largest.max_by_key(|(name, files)| with_new(name, files));
            let Some(oldest) = largest.and_then(|(_, files)| files.pop()) else { return Ok(removed) };
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => removed += 1,
            }
        }
    }
}

/// Formats a time so that names of files sort by time.
fn time_of(time: Micros) -> String {
    let seconds = Rfc3339::of(time.div_euclid(MICROS_PER_SECOND) * MICROS_PER_SECOND);
    let digits: String = seconds.as_str().chars().filter(|c| !matches!(c, '-' | ':' | 'Z')).collect();
    format!("{digits}.{:06}Z", time.rem_euclid(MICROS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let files = capture_files(dir).unwrap();
        files.iter().map(|file| file.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    fn write(captures: &CaptureDir, plugin: &str, second: i64, bytes: usize) -> io::Result<usize> {
        captures.write(plugin, second * MICROS_PER_SECOND, CaptureKind::Failed, "1", &vec![0; bytes])
    }

    #[test]
    fn names_sort_by_time() {
        assert_eq!(time_of(1_767_225_600_000_000), "20260101T000000.000000Z");
        assert_eq!(time_of(1_767_225_600_500_000), "20260101T000000.500000Z");
        assert!(time_of(1_767_225_600_999_999) < time_of(1_767_225_601_000_000));
    }

    #[test]
    fn oldest_file_of_largest_plugin_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let captures = CaptureDir::new(dir.path().join("captures"), 100);
        let plugin = |name: &str| dir.path().join("captures").join(name);
        assert_eq!(write(&captures, "quiet", 0, 30).unwrap(), 0);
        for second in 1..=3 {
            assert_eq!(write(&captures, "loud", second, 20).unwrap(), 0);
        }
        assert_eq!(write(&captures, "loud", 4, 10).unwrap(), 0, "the limit is reached exactly");
        assert_eq!(write(&captures, "loud", 5, 20).unwrap(), 1);
        assert_eq!(names(&plugin("loud")).len(), 4);
        assert!(names(&plugin("loud"))[0].starts_with("19700101T000002.000000Z-failed-1"));
        assert_eq!(names(&plugin("quiet")).len(), 1, "captures of other plugins stay");
        assert_eq!(write(&captures, "quiet", 6, 20).unwrap(), 1);
        assert_eq!((names(&plugin("loud")).len(), names(&plugin("quiet")).len()), (3, 2));
        // A plugin cannot use more than its share at the cost of others either.
        assert_eq!(write(&captures, "quiet", 7, 60).unwrap(), 3);
        assert_eq!((names(&plugin("loud")).len(), names(&plugin("quiet")).len()), (2, 1));
    }

    #[test]
    fn number_of_files_is_limited() {
        let dir = tempfile::tempdir().unwrap();
        let captures = CaptureDir::new(dir.path().join("captures"), 1 << 30);
        let plugin = dir.path().join("captures/a");
        assert_eq!(write(&captures, "a", 0, 1).unwrap(), 0);
        for number in 2..FILES_MAX {
            fs::write(plugin.join(format!("1971-{number}.arrow")), "").unwrap();
        }
        assert_eq!(write(&captures, "a", 100_000_000, 1).unwrap(), 0);
        assert_eq!(names(&plugin).len(), FILES_MAX);
        assert_eq!(write(&captures, "a", 100_000_001, 1).unwrap(), 1);
        assert_eq!(names(&plugin).len(), FILES_MAX);
    }

    #[test]
    fn file_larger_than_limit_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let captures = CaptureDir::new(dir.path().join("captures"), 100);
        assert_eq!(write(&captures, "a", 0, 100).unwrap(), 0);
        let error = write(&captures, "a", 1, 101).unwrap_err();
        assert!(error.to_string().contains("'plugins: captures: max_bytes'"), "{error}");
        assert_eq!(names(&dir.path().join("captures/a")).len(), 1, "the other files stay");
    }

    #[test]
    fn files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let captures = CaptureDir::new(dir.path().join("captures"), 100);
        write(&captures, "a", 0, 1).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = &capture_files(&dir.path().join("captures/a")).unwrap()[0].path;
        assert_eq!((mode(&dir.path().join("captures")), mode(file)), (0o700, 0o600));
    }

    #[test]
    fn incomplete_files_are_removed_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let captures = CaptureDir::new(dir.path().join("captures"), 100);
        write(&captures, "a", 0, 1).unwrap();
        let incomplete = dir.path().join("captures/a/.x.arrow.0123");
        fs::write(&incomplete, "").unwrap();
        assert_eq!(names(&dir.path().join("captures/a")).len(), 1);
        captures.clean_up();
        assert!(!incomplete.is_file());
        assert_eq!(names(&dir.path().join("captures/a")).len(), 1);
    }
}
