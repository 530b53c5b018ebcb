//! Files by path: opened only if they are regular, and compared by their metadata.
//!
//! A configured path may lead to a pipe, a device or a socket. Opening or reading one may block a thread forever. All
//! code that reads a file at a configured path opens it here.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::links::{self, Step};

/// Identifies the state of a file without reading it.
///
/// Size and modification time are not enough: a symbolic link or a rename may put another file with the same size and
/// modification time in its place. Device and inode identify the file, and only the file system sets the time of the
/// inode's last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStamp {
    /// The device.
    pub device: u64,
    /// The inode on the device.
    pub inode: u64,
    /// Bytes; 0 for a directory, whose size has no meaning here.
    pub bytes: u64,
    /// When its content was last modified, in seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// When its inode was last changed, in seconds and nanoseconds since 1970.
    pub changed: (i64, i64),
}

/// The stamp of what a path leads to, and of the symbolic links on the way.
///
/// The links count, because a release may be switched to another one and back: then the path leads to the same file as
/// before, although another one was read meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathStamp {
    /// `None` if there is no file. A directory's stamp changes when files are added or removed.
    target: Option<FileStamp>,
    /// The stamps of the links themselves.
    links: Vec<FileStamp>,
}

/// The stamps of paths.
pub type FileStamps = HashMap<PathBuf, PathStamp>;

/// The stamps that files had when they were last read, to decide whether to read them again.
///
/// A stamp must be taken before its file is read, also for the first time. Otherwise a change between the two is never
/// detected.
#[derive(Debug, Default)]
pub struct SeenFiles(Mutex<FileStamps>);

/// The maximum size of a file that a command reads as a whole, if no setting limits it.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Opens a file for reading if it is a regular one.
///
/// # Errors
/// Errors of the operating system, and [`io::ErrorKind::InvalidInput`] with the type of file if it is not regular.
/// Never waits for a pipe's writer.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Check before opening, because opening a device may have side effects.
    check_regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    // Check again: the file may have been replaced.
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// As [`open_regular`], and [`io::ErrorKind::FileTooLarge`].
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let why = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Reads a regular file of text, of at most `bytes_max` bytes.
///
/// # Errors
/// As [`read_regular`], and [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read_regular(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Checks that metadata is that of a regular file.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] with the type of file; [`io::ErrorKind::IsADirectory`] for a directory.
pub fn check_regular(meta: &Metadata) -> io::Result<()> {
    let of = meta.file_type();
    if of.is_file() {
        return Ok(());
    }
    let what = if of.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    } else if of.is_fifo() {
        "a named pipe"
    } else if of.is_socket() {
        "a socket"
    } else if of.is_char_device() || of.is_block_device() {
        "a device"
    } else {
        "of an unknown type"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

/// Returns the current stamps of files.
#[must_use]
pub fn stamps(files: impl IntoIterator<Item = PathBuf>) -> FileStamps {
    let stamp = |path: PathBuf| {
        let stamp = PathStamp::at(&path);
        (path, stamp)
    };
    files.into_iter().map(stamp).collect()
}

// === impl PathStamp ===

impl PathStamp {
    fn at(path: &Path) -> Self {
        let mut links = Vec::new();
        // The current directory is missing only if it was removed.
        if let Ok(absolute) = std::path::absolute(path) {
            links::resolve(&absolute, |step| {
                if let Step::Link { meta, .. } = step {
                    links.push(FileStamp::of(&meta));
                }
            });
        }
        Self { target: FileStamp::at(path).ok(), links }
    }
}

// === impl SeenFiles ===

impl SeenFiles {
    /// Records the stamps that files had before they were read.
    #[must_use]
    pub fn new(stamps: FileStamps) -> Self {
        Self(Mutex::new(stamps))
    }

    /// Records the current stamps. Call this before reading the files.
    pub fn note(&self, files: impl IntoIterator<Item = PathBuf>) {
        let now = stamps(files);
        *self.lock() = now;
    }

    /// Returns whether these are other files than the recorded ones, or one of them has changed.
    #[must_use]
    pub fn differ(&self, files: impl IntoIterator<Item = PathBuf>) -> bool {
        let now = stamps(files);
        now != *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, FileStamps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl FileStamp ===

impl FileStamp {
    /// Returns the state of the file at a path, through symbolic links.
    ///
    /// # Errors
    /// Errors of the operating system.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::of(&meta))
    }

    /// Returns the state of a file.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: if meta.is_dir() { 0 } else { meta.len() },
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Returns whether both are the same file, even if its content changed.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::symlink, net::UnixListener},
        process::Command,
    };

    use super::*;

    #[test]
    fn link_switched_there_and_back_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for release in ["1", "2"] {
            fs::create_dir(at(release)).unwrap();
            fs::write(at(release).join("file"), release).unwrap();
        }
        let switch_to = |release: &str| {
            std::os::unix::fs::symlink(release, at("new")).unwrap();
            fs::rename(at("new"), at("current")).unwrap();
        };
        switch_to("1");
        let path = at("current/file");
        let seen = SeenFiles::new(stamps([path.clone()]));
        assert!(!seen.differ([path.clone()]));
        switch_to("2");
        // A reader may read the file here.
        switch_to("1");
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
        assert!(seen.differ([path]));
    }

    #[test]
    fn pipe_device_and_socket_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(path("socket")).unwrap();
        symlink("/dev/zero", path("device")).unwrap();
        symlink("pipe", path("link")).unwrap();
        for (name, what) in
            [("pipe", "a named pipe"), ("socket", "a socket"), ("device", "a device"), ("link", "a named pipe")]
        {
            let error = read_regular(&path(name), 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
            assert_eq!(error.to_string(), format!("it is {what}, not a regular file"));
        }
        assert_eq!(open_regular(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(open_regular(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn file_is_read_within_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "1234").unwrap();
        assert_eq!(read_regular(&path, 4).unwrap(), b"1234");
        assert_eq!(read_regular(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn symlink_swap_and_rename_change_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        // Two files of the same size and modification time.
        let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000));
        for name in ["a", "b"] {
            fs::write(path(name), name).unwrap();
            File::options().write(true).open(path(name)).unwrap().set_times(time).unwrap();
        }
        symlink("a", path("link")).unwrap();
        let before = FileStamp::at(&path("link")).unwrap();
        assert_eq!(FileStamp::at(&path("a")).unwrap(), before);
        symlink("b", path("other")).unwrap();
        fs::rename(path("other"), path("link")).unwrap();
        let after = FileStamp::at(&path("link")).unwrap();
        assert_eq!((after.bytes, after.modified), (before.bytes, before.modified));
        assert_ne!(after, before);
        // Overwritten in place, with its modification time restored.
        let before = FileStamp::at(&path("b")).unwrap();
        fs::write(path("b"), "c").unwrap();
        File::options().write(true).open(path("b")).unwrap().set_times(time).unwrap();
        let after = FileStamp::at(&path("b")).unwrap();
        assert!(after.is_same_file(&before) && after.modified == before.modified && after != before);
    }
}
