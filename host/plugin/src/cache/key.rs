//! The key that authenticates compiled code.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use aws_lc_rs::{hmac, rand};
use larder_common::{files::temporary_path_for, private};

const KEY_BYTES: usize = 32;

/// Returns the server's key, and creates it if there is none. Two threads or processes that start at the same time get the same
/// key. If the file is not a valid key, or other users could read or write it, the key is replaced. Code that was
/// signed with the old key is then compiled again. Also returns whether the key is new.
pub(super) fn open(path: &Path) -> io::Result<(hmac::Key, bool)> {
    let read = || -> io::Result<[u8; KEY_BYTES]> {
        let bytes = private::read_file(path, KEY_BYTES as u64)?;
        bytes.try_into().map_err(|_| io::Error::other(format!("it does not have the {KEY_BYTES} bytes of a key")))
    };
    let hmac_key = |key: [u8; KEY_BYTES]| hmac::Key::new(hmac::HMAC_SHA256, &key);
    match read() {
        Ok(key) => return Ok((hmac_key(key), false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(
                key = %path.display(), %error,
                "the key that signs compiled code is invalid; creating a new key"
            );
            remove(path)?;
        }
    }
    let mut key = [0; KEY_BYTES];
    rand::fill(&mut key).map_err(|_| io::Error::other("cannot generate random bytes"))?;
    let temporary = temporary_path_for(path);
    let mut file = private::create_file(&temporary)?;
    let written = file.write_all(&key).and_then(|()| file.sync_all());
    // A hard link makes the complete key visible at once. If two threads or processes create it, only one succeeds.
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok((hmac_key(read()?), true)),
    }
}

/// Removes the key, if there is one. All code that was signed with it becomes invalid.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
