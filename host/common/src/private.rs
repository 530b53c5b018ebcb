//! Opens directories and files that only this process's user may write to.
//!
//! A user who can write to the data directory can replace the store. A user who can replace the key that authenticates
//! compiled plugins can run code in this process. So the directory and the key are checked each time they are opened,
//! as ssh does with its keys. Files and directories of any user other than this user and root are rejected. Permissions
//! of other users are removed with a warning, or are an error: see the functions.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Whether other users could write to a directory before it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorAccess {
    /// The directory was just created, or other users could not write to it.
    Private,
    /// Other users could write to the directory until now, so they may have written its contents.
    Writable,
}

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Any permission of group and others.
const OTHERS: u32 = 0o077;
/// The sticky bit: only owners can rename and delete files in the directory, so it is meant to be shared.
const STICKY: u32 = 0o1000;

/// Opens a directory that only this user may write to. Creates the directory, with access only for this user, if it
/// does not exist. If other users may write to an existing directory, removes that permission and logs a warning.
///
/// # Errors
/// If the directory cannot be created, the path leads to something else, the directory belongs to a user other than
/// this user and root, or the directory has the sticky bit and is writable by others, like `/tmp`. Also if the
/// directory belongs to root and other users can write to it, or if its permissions cannot be changed.
pub fn open_dir(path: &Path) -> io::Result<PriorAccess> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = fs::metadata(path)?;
    let mode = meta.mode();
    let is_own = check_owner(meta.uid())?;
    if mode & OTHERS_WRITE == 0 {
        return Ok(PriorAccess::Private);
    }
    if !is_own || mode & STICKY != 0 {
        return Err(denied("other users share this directory. hint: use a directory below it"));
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS_WRITE))?;
    let (dir, mode) = (path.display(), format!("{:04o}", mode & 0o7777));
    tracing::warn!(%dir, mode, "other users could write to this directory; removed their permission");
    Ok(PriorAccess::Writable)
}

/// Restricts an existing file to this user: if other users have permissions on a file of this user, removes them and
/// logs a warning. Does nothing if the file does not exist.
///
/// # Errors
/// If the file belongs to a user other than this user and root, if it belongs to root and other users can write to it,
/// or if its permissions cannot be read or changed.
pub fn claim_file(path: &Path) -> io::Result<()> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    let mode = meta.mode() & 0o7777;
    let is_own = check_owner(meta.uid())?;
    if !is_own && mode & OTHERS_WRITE != 0 {
        return Err(denied("other users can write to it"));
    }
    if is_own && mode & OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))?;
        let (file, mode) = (path.display(), format!("{mode:04o}"));
        tracing::warn!(%file, mode, "other users had permissions on this file; removed the permissions");
    }
    Ok(())
}

/// Reads a small file that only this user may read and write. Reads at most `bytes_max + 1` bytes, so that the caller
/// can detect a longer file.
///
/// # Errors
/// If the file cannot be read, is a symbolic link, is not a regular file, belongs to a user other than this user and
/// root, or if other users have any permissions on it.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Symbolic links are rejected, because another user may choose the target. With `O_NONBLOCK`, opening a pipe does
    // not block.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(denied("it is not a regular file"));
    }
    check_owner(meta.uid())?;
    if meta.mode() & OTHERS != 0 {
        return Err(denied(&format!("other users have permissions on it (mode {:04o})", meta.mode() & 0o7777)));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, bytes_max.saturating_add(1)), &mut bytes)?;
    Ok(bytes)
}

/// Creates a file that only this user may read and write, and replaces any existing one.
///
/// # Errors
/// If the existing file cannot be removed, or the new file cannot be created.
pub fn create_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Returns whether `owner` is this user. If this user is not root, returns false for root, which is accepted because it
/// can do anything. Returns an error for any other user.
fn check_owner(owner: u32) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    if owner == own || owner == 0 {
        return Ok(owner == own);
    }
    Err(denied(&format!("it belongs to user {owner}, and this process runs as user {own}")))
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn writable_directory_becomes_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert_eq!((open_dir(&path).unwrap(), mode(&path)), (PriorAccess::Private, 0o700));
        for (before, after, was) in [
            (0o755, 0o755, PriorAccess::Private),
            (0o777, 0o755, PriorAccess::Writable),
            (0o770, 0o750, PriorAccess::Writable),
            (0o702, 0o700, PriorAccess::Writable),
        ] {
            set_mode(&path, before);
            assert_eq!((open_dir(&path).unwrap(), mode(&path)), (was, after), "{before:o}");
        }
    }

    #[test]
    fn shared_directory_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o1777);
        assert!(open_dir(dir.path()).unwrap_err().to_string().contains("other users share this directory"));
        assert_eq!(mode(dir.path()), 0o1777, "nothing has changed");
        fs::write(dir.path().join("file"), "").unwrap();
        open_dir(&dir.path().join("file")).unwrap_err();
    }

    #[test]
    fn only_private_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_file(&path).unwrap();
        fs::write(&path, "1234").unwrap();
        assert_eq!(read_file(&path, 9).unwrap(), b"1234");
        assert_eq!(read_file(&path, 2).unwrap(), b"123", "one byte more than the limit");
        for wide in [0o640, 0o604, 0o660] {
            set_mode(&path, wide);
            assert!(read_file(&path, 9).unwrap_err().to_string().contains("other users"), "{wide:o}");
        }
        set_mode(&path, 0o600);
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        read_file(&dir.path().join("link"), 9).unwrap_err();
        read_file(dir.path(), 9).unwrap_err();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        set_mode(&pipe, 0o600);
        assert!(read_file(&pipe, 9).unwrap_err().to_string().contains("not a regular file"));
        // Any existing file of this name is replaced.
        create_file(&pipe).unwrap();
        assert_eq!(read_file(&pipe, 9).unwrap(), b"");
    }

    #[test]
    fn claimed_file_loses_permissions_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        claim_file(&path).unwrap();
        assert!(!path.try_exists().unwrap(), "no file is created");
        create_file(&path).unwrap();
        for wide in [0o666, 0o640, 0o600] {
            set_mode(&path, wide);
            claim_file(&path).unwrap();
            assert_eq!(mode(&path), 0o600, "{wide:o}");
        }
    }

    #[test]
    fn other_owner_is_rejected() {
        let own = rustix::process::geteuid().as_raw();
        assert!(check_owner(own).unwrap());
        assert_eq!(check_owner(0).unwrap(), own == 0);
        let message = check_owner(own + 1).unwrap_err().to_string();
        assert_eq!(message, format!("it belongs to user {}, and this process runs as user {own}", own + 1));
    }
}
