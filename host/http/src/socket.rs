//! Manages the file of a Unix socket: frees its path without deleting anything except a stale socket, and removes the
//! file when the server stops.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

/// The identity of a socket's file, so that shutdown removes only this file.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Prepares a path for a socket: removes a stale socket of a dead process, but nothing else.
///
/// # Errors
/// If the path names something that is not a socket, or a socket that another process may listen on.
pub(super) fn vacate(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    let kind = meta.file_type();
    let what = if kind.is_socket() {
        // After any other error, a process may still own the socket: its queue may be full, or it may deny access.
        match connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return fs::remove_file(path),
            _ => "a socket that another process may listen on",
        }
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a file that is not a socket"
    };
    let message = format!("the path already names {what}. hint: use another path, or remove it");
    Err(io::Error::new(io::ErrorKind::AddrInUse, message))
}

/// Connects without waiting for the process to accept the connection.
fn connect(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

// === impl SocketFile ===

impl SocketFile {
    /// Returns the file of a socket that was just bound.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }

    /// Removes the file, unless the path now names another file.
    pub(super) fn remove(&self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // If the file is already gone, there is nothing to do.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn stale_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        vacate(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        vacate(&path).unwrap();
        assert!(!path.try_exists().unwrap());
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("dir")).unwrap();
        drop(UnixListener::bind(at("stale")).unwrap());
        for (link, target) in [("to_file", "file"), ("to_stale", "stale"), ("to_nothing", "nothing")] {
            std::os::unix::fs::symlink(at(target), at(link)).unwrap();
        }
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _live = UnixListener::bind(at("live")).unwrap();
        for (name, what) in [
            ("file", "a regular file"),
            ("dir", "a directory"),
            ("to_file", "a symbolic link"),
            ("to_stale", "a symbolic link"),
            ("to_nothing", "a symbolic link"),
            ("pipe", "a file that is not a socket"),
            ("live", "a socket that another process may listen on"),
        ] {
            let message = vacate(&at(name)).unwrap_err().to_string();
            assert!(message.contains(&format!("already names {what}.")), "{name}: {message}");
            assert!(fs::symlink_metadata(at(name)).is_ok(), "{name} is still there");
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"precious");
    }

    #[test]
    fn busy_socket_is_refused() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        // Nothing accepts connections: one connection fills the queue, and the next would wait.
        let mut waiting = Vec::new();
        while let Ok(stream) = connect(&path) {
            waiting.push(stream);
        }
        vacate(&path).unwrap_err();
        assert!(path.try_exists().unwrap());
    }

    #[test]
    fn only_own_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let file = SocketFile::of(&path).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        fs::write(&path, "another's").unwrap();
        file.remove();
        assert!(path.try_exists().unwrap());
        fs::rename(dir.path().join("moved"), &path).unwrap();
        file.remove();
        assert!(!path.try_exists().unwrap());
    }
}
