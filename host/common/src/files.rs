//! Opens files only if they are regular files, names temporary files, and detects changes to files by their metadata.
//!
//! A configured path may lead to a pipe, a device or a socket. Opening or reading one of these may block a thread
//! forever. All code that reads a file at a configured path uses the functions in this module.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    hash::{BuildHasher as _, Hasher as _, RandomState},
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
    /// The size in bytes; 0 for a directory, because the size of a directory does not matter here.
    pub bytes: u64,
    /// When the content was last modified, in seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// When the inode was last changed, in seconds and nanoseconds since 1970.
    pub changed: (i64, i64),
}

/// The stamp of the file or directory that a path leads to, and the stamps of all symbolic links in the path.
///
/// The stamp includes the links because a link may be switched to another release and back. The path then leads to the
/// same file as before, although the file of the other release may have been read in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathStamp {
    /// `None` if the path leads to nothing. The stamp of a directory changes when files are added or removed.
    target: Option<FileStamp>,
    /// The stamps of the links themselves.
    links: Vec<FileStamp>,
}

/// The stamp of each path.
pub type FileStamps = HashMap<PathBuf, PathStamp>;

/// The stamps that files had when they were last read. They show whether to read the files again.
///
/// Take the stamp of a file before reading the file, including the first time. Otherwise, a change between reading the
/// file and taking its stamp is never detected.
#[derive(Debug, Default)]
pub struct SeenFiles(Mutex<FileStamps>);

/// The maximum size in bytes of a file that a command reads completely, if no setting limits the size.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Opens a file for reading if it is a regular file. Never waits for a writer of a pipe.
///
/// # Errors
/// Errors of the operating system, and the errors of [`check_regular`].
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Check before opening, because opening a device may have side effects.
    check_regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    // Check again, because the file may have been replaced after the first check.
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// As [`open_regular`], and [`io::ErrorKind::FileTooLarge`] for a larger file.
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

/// Reads a regular text file of at most `bytes_max` bytes.
///
/// # Errors
/// As [`read_regular`], and [`io::ErrorKind::InvalidData`] if the file is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read_regular(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Checks that the metadata describes a regular file.
///
/// # Errors
/// [`io::ErrorKind::IsADirectory`] for a directory, and [`io::ErrorKind::InvalidInput`] with a message that names the
/// type of any other file.
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

/// Returns the path of a hidden temporary file in the directory of `path`, to rename or link to `path` once it is complete. The
/// name is random, because processes in different containers can have the same ID.
#[must_use]
pub fn temporary_path_for(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    // The standard library seeds each state randomly.
    name.push(format!(".{:016x}", RandomState::new().build_hasher().finish()));
    path.with_file_name(name)
}

// === impl PathStamp ===

impl PathStamp {
    fn at(path: &Path) -> Self {
        let mut links = Vec::new();
        // This fails only if the current directory was removed.
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

    /// Records the current stamps of files, in place of all earlier ones. Call this before reading the files.
    pub fn note(&self, files: impl IntoIterator<Item = PathBuf>) {
        let now = stamps(files);
        *self.lock() = now;
    }

    /// Returns whether the paths differ from the recorded paths, or at least one stamp has changed.
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
    /// Returns the stamp of the file at a path. Follows symbolic links.
    ///
    /// # Errors
    /// Errors of the operating system.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::of(&meta))
    }

    /// Returns the stamp of a file from its metadata.
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

    /// Returns whether both stamps belong to the same file, even if the content of the file changed.
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
        // A reader may read the file of release 2 here.
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
        // The two files have the same size and modification time.
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
        // The file is overwritten in place, and its modification time is restored.
        let before = FileStamp::at(&path("b")).unwrap();
        fs::write(path("b"), "c").unwrap();
        File::options().write(true).open(path("b")).unwrap().set_times(time).unwrap();
        let after = FileStamp::at(&path("b")).unwrap();
        assert!(after.is_same_file(&before) && after.modified == before.modified && after != before);
    }
}
