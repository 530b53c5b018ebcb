//! Replaces a file or directory as a whole.
//!
//! The content is written to a temporary file next to the final path, which is renamed at the end. So an interrupted or failed
//! run leaves no half-written file at the final path. A lock file makes sure that two runs do not write to the same path. The
//! files have fixed names, so the next run with the same path replaces a file that a killed run left.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use larder_common::files::check_regular;
use rustix::fs::{FlockOperation, flock};

/// A file that is being written. If it is dropped without [`NewFile::finish`], the temporary file is removed.
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    is_finished: bool,
    lock: Option<PathLock>,
}

/// A directory that is being filled. If it is dropped without [`NewDir::finish`], it is removed.
#[derive(Debug)]
pub(super) struct NewDir {
    path: PathBuf,
    temporary: PathBuf,
    is_finished: bool,
    lock: Option<PathLock>,
}

/// An exclusive lock on a path, until it is dropped.
#[derive(Debug)]
pub struct PathLock {
    path: PathBuf,
    /// The lock ends when the file is closed.
    _file: File,
}

// === impl NewFile ===

impl NewFile {
    /// Creates the temporary file.
    ///
    /// # Errors
    /// Errors of the operating system, also if another run writes to the same path.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(meta) => check_regular(&meta)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let lock = PathLock::new(path)?;
        let temporary = hidden(path, ".tmp");
        // Only a killed run leaves the file, because this run has the lock.
        remove_if_exists(&temporary)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        Ok(Self { path: path.to_owned(), temporary, file, is_finished: false, lock: Some(lock) })
    }

    /// Renames the file to its final path, after its content is on the disk. Returns the lock, which the caller may keep while
    /// it writes more files that belong to this one.
    ///
    /// # Errors
    /// Errors of the operating system.
    pub(super) fn finish(mut self) -> io::Result<Option<PathLock>> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        Ok(self.lock.take())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that ended the run matters more than an error here.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

// === impl NewDir ===

impl NewDir {
    /// Creates the temporary directory.
    ///
    /// # Errors
    /// Errors of the operating system, also if another run writes to the same path, or if the path exists and is not an empty
    /// directory.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(io::Error::other("the directory is not empty. hint: write to a new directory"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let lock = PathLock::new(path)?;
        let temporary = hidden(path, ".tmp");
        // Only a killed run leaves the directory, because this run has the lock.
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&temporary)?;
        Ok(Self { path: path.to_owned(), temporary, is_finished: false, lock: Some(lock) })
    }

    /// Returns the path of the temporary directory.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Renames the directory to its final path. Returns the lock, which the caller may keep while it writes more files that
    /// belong to the directory.
    ///
    /// # Errors
    /// Errors of the operating system.
    pub(super) fn finish(mut self) -> io::Result<Option<PathLock>> {
        fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        Ok(self.lock.take())
    }
}

impl Drop for NewDir {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that ended the run matters more than an error here.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

// === impl PathLock ===

impl PathLock {
    fn new(path: &Path) -> io::Result<Self> {
        let path = hidden(path, ".lock");
        loop {
            let mut options = OpenOptions::new();
            let options =
                options.write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = options.open(&path)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|_| io::Error::other("another run is writing to this path"))?;
            // The previous owner may have removed the file between `open` and `flock`.
            let (own, meta) = (file.metadata()?, fs::symlink_metadata(&path));
            if meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == (own.dev(), own.ino())) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // The file is removed while it is locked. A file that stays is locked again by the next run.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the path of a hidden file next to a path.
pub(super) fn hidden(path: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

/// Removes a file, if it exists.
///
/// # Errors
/// Errors of the operating system.
pub(super) fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
