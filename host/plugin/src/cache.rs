//! Compiled code on disk, so that a start does not need the compiler.
//!
//! These files contain machine code, so a user who can write one can run arbitrary code in the server. Therefore only
//! the server itself may write them. The directory has mode 0700, and each file of code begins with an authentication
//! code, which only this server's key can produce. The authentication code is checked before the rest of the file is
//! used. The check also detects truncated and damaged files. An invalid file is ignored, and replaced when the compiler
//! produces its code again.
//!
//! ```text
//! compiled/key             32 random bytes, mode 0600
//! compiled/<name>.cwasm    HMAC-SHA256 (32 bytes) of name and code, then the code
//! compiled/functions       the same for the functions that plugins with an interpreter have in common
//! ```
//!
//! The name is derived from the digest of the component, and from the compiler and its settings. The authentication code
//! of the functions covers the compiler and its settings, too.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand};
use larder_common::{
    files::{FILE_BYTES_MAX, read_regular, temporary_path_for},
    private::{self, PriorAccess},
};
use wasmtime::{Engine, component::Component};

use super::Digest;

/// The directory of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    key: hmac::Key,
    /// The last component whose code could not be stored, by its name. While the disk is full, a file in the plugin
    /// directory is loaded again at each poll, and must not be compiled each time.
    unstored: Mutex<Option<(String, Component)>>,
}

/// The name of the file with functions for later compilations.
const FUNCTIONS: &str = "functions";
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 32;
/// The maximum total size of the code in bytes. Beyond it, the oldest files are removed. The code of a Python
/// plugin is about 35 MB.
const BYTES_MAX: u64 = 1 << 30;

// === impl Cache ===

impl Cache {
    /// Opens a directory, and creates it if it does not exist. If it cannot be used, for example because it belongs to another
    /// user, logs a warning and returns `None`: each process then compiles the plugins again.
    pub(super) fn open(dir: &Path) -> Option<Self> {
        let opened = Self::try_open(dir);
        opened
            .inspect_err(|error| {
                tracing::warn!(
                    dir = %dir.display(), %error,
                    "cannot open the directory of compiled plugins; each process compiles the plugins again"
                );
            })
            .ok()
    }

    fn try_open(dir: &Path) -> io::Result<Self> {
        let before = private::open_dir(dir)?;
        let path = dir.join("key");
        if before == PriorAccess::Writable {
            tracing::warn!(
                key = %path.display(),
                "another user may have replaced the key that signs compiled code; creating a new key"
            );
            remove_key(&path)?;
        }
        let key = key(&path)?;
        Ok(Self { dir: dir.to_path_buf(), key: hmac::Key::new(hmac::HMAC_SHA256, &key), unstored: Mutex::default() })
    }

    /// Returns the code of a component, if the same compiler compiled it before with the same settings.
    pub(super) fn get(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let name = name(engine, digest);
        let unstored = self.unstored.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, component)) = unstored.filter(|(of, _)| *of == name) {
            return Some(component);
        }
        let code = self.read(&self.path(&name), &name)?;
        load(engine, &code)
            .inspect_err(|error| tracing::warn!(%error, "cannot load compiled code; compiling again"))
            .ok()
    }

    /// Stores the code of a component that was just compiled. If the file cannot be written, logs a warning and keeps the
    /// component in memory; the next start compiles it again.
    pub(super) fn put(&self, engine: &Engine, digest: &Digest, code: &[u8], component: &Component) {
        let name = name(engine, digest);
        let is_stored = self.write(&self.path(&name), &name, code);
        let unstored = (!is_stored).then(|| (name, component.clone()));
        *self.unstored.lock().unwrap_or_else(PoisonError::into_inner) = unstored;
        self.tidy(BYTES_MAX);
    }

    /// Returns the functions that [`Cache::put_functions`] stored, if the same compiler compiled them.
    pub(super) fn functions(&self, engine: &Engine) -> Option<Vec<u8>> {
        self.read(&self.dir.join(FUNCTIONS), &functions_name(engine))
    }

    /// Replaces the functions for later compilations. If the file cannot be written, logs a warning.
    pub(super) fn put_functions(&self, engine: &Engine, functions: &[u8]) {
        self.write(&self.dir.join(FUNCTIONS), &functions_name(engine), functions);
    }

    /// Reads a file that [`Cache::write`] wrote with the same name. Returns `None` if it is missing or invalid.
    fn read(&self, path: &Path, name: &str) -> Option<Vec<u8>> {
        let mut file = read_regular(path, FILE_BYTES_MAX).ok()?;
        let (tag, contents) = file.split_at_checked(TAG_BYTES)?;
        if verify_slices_are_equal(self.tag(name, contents).as_ref(), tag).is_err() {
            tracing::warn!(file = %path.display(), "ignoring damaged or foreign compiled code");
            return None;
        }
        Some(file.split_off(TAG_BYTES))
    }

    /// Returns whether the file was written. Logs a warning if not.
    fn write(&self, path: &Path, name: &str, contents: &[u8]) -> bool {
        let temporary = temporary_path_for(path);
        let written = || -> io::Result<()> {
            let mut file = private::create_file(&temporary)?;
            file.write_all(self.tag(name, contents).as_ref())?;
            file.write_all(contents)?;
            fs::rename(&temporary, path)
        };
        let written = written().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        });
        if let Err(error) = &written {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot store compiled code");
        }
        written.is_ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.cwasm"))
    }

    /// Computes the authentication code. It covers the file's name, so a renamed file is invalid.
    fn tag(&self, name: &str, code: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(code);
        context.sign()
    }

    /// Removes the oldest files beyond the limit.
    fn tidy(&self, bytes_max: u64) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = path.file_name()?.as_encoded_bytes();
                // A killed process leaves the temporary file of the code that it was writing.
                let is_code = name.ends_with(b".cwasm") || name.starts_with(b".");
                let meta = fs::metadata(&path).ok().filter(|_| is_code)?;
                Some((meta.modified().ok()?, meta.len(), path))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, of_file, path) in files {
            if bytes <= bytes_max {
                return;
            }
            bytes -= of_file;
            // If the file cannot be removed now, the next call retries.
            let _ = fs::remove_file(path);
        }
    }
}

/// Loads code that this server compiled.
#[expect(unsafe_code, reason = "loading our own compiled code; the one unsafe block of the tree")]
pub(super) fn load(engine: &Engine, code: &[u8]) -> Result<Component, wasmtime::Error> {
    // SAFETY: `deserialize` requires bytes that this version of wasmtime produced, because the bytes become executable
    // code. This function has two callers:
    // * `Component::load` passes the output of the compiler's process. This process runs `larder`. It writes the result
    //   of `Engine::precompile_component` to an anonymous file in memory, which no process of another user can open.
    // * `Cache::get` passes bytes with a valid authentication code. Only this server's key produces valid codes. The
    //   key is in a file that only the server's user can read and write, and `put` signs only output of the compiler's
    //   process. The check covers the bytes in memory that are passed here, so they cannot change after the check.
    //
    // `deserialize` itself checks that the version of wasmtime and the settings are the same.
    unsafe { Component::deserialize(engine, code) }
}

/// Returns the name of the file for a component's code. It identifies the component, the version of wasmtime, and the
/// compiler's settings.
fn name(engine: &Engine, digest: &Digest) -> String {
    format!("{digest}-{:016x}", settings_hash(engine))
}

/// Returns the name that the authentication code of the functions covers. It identifies the version of wasmtime, and the
/// compiler's settings.
fn functions_name(engine: &Engine) -> String {
    format!("{FUNCTIONS}-{:016x}", settings_hash(engine))
}

fn settings_hash(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// Returns the server's key, and creates it if there is none. Two threads or processes that start at the same time get the same
/// key. If the file is not a valid key, or other users could read or write it, the key is replaced. Code that was
/// signed with the old key is then compiled again.
fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let read = || -> io::Result<[u8; KEY_BYTES]> {
        let bytes = private::read_file(path, KEY_BYTES as u64)?;
        bytes.try_into().map_err(|_| io::Error::other(format!("it does not have the {KEY_BYTES} bytes of a key")))
    };
    match read() {
        Ok(key) => return Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(
                key = %path.display(), %error,
                "the key that signs compiled code is invalid; creating a new key"
            );
            remove_key(path)?;
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
        _ => read(),
    }
}

/// Removes the key, if there is one. All code that was signed with it becomes invalid.
fn remove_key(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::PermissionsExt as _};

    use wasmtime::Config;

    use super::*;

    /// The smallest valid component.
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn engine(nan: bool) -> Engine {
        Engine::new(Config::new().wasm_component_model(true).cranelift_nan_canonicalization(nan)).unwrap()
    }

    /// Compiles the component, and stores its code.
    fn put(cache: &Cache, engine: &Engine, digest: &Digest) {
        let code = engine.precompile_component(COMPONENT).unwrap();
        cache.put(engine, digest, &code, &load(engine, &code).unwrap());
    }

    /// Creates a cache with the component's code, and returns the path of that file.
    fn filled(dir: &Path) -> (Cache, Engine, Digest, PathBuf) {
        let (cache, engine, digest) = (Cache::open(dir).unwrap(), engine(true), Digest::of(COMPONENT));
        put(&cache, &engine, &digest);
        let path = cache.path(&name(&engine, &digest));
        (cache, engine, digest, path)
    }

    #[test]
    fn stored_code_is_found_after_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, engine, digest, _) = filled(dir.path());
        assert!(cache.get(&engine, &digest).is_some());
        assert!(Cache::open(dir.path()).unwrap().get(&engine, &digest).is_some());
        assert!(cache.get(&engine, &Digest::of(b"other")).is_none());
    }

    #[test]
    fn modified_or_renamed_code_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, engine, digest, path) = filled(dir.path());
        let good = fs::read(&path).unwrap();
        for change in [TAG_BYTES - 1, TAG_BYTES, good.len() - 1] {
            let mut bad = good.clone();
            bad[change] ^= 1;
            fs::write(&path, bad).unwrap();
            assert!(cache.get(&engine, &digest).is_none(), "byte {change}");
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        assert!(cache.get(&engine, &digest).is_none());
        fs::write(&path, b"").unwrap();
        assert!(cache.get(&engine, &digest).is_none());
        let other = Digest::of(b"other");
        fs::write(cache.path(&name(&engine, &other)), &good).unwrap();
        assert!(cache.get(&engine, &other).is_none(), "code of another component");
    }

    #[test]
    fn code_of_another_host_is_none() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (cache, engine, digest, path) = filled(ours.path());
        let (_, _, _, foreign) = filled(theirs.path());
        fs::copy(foreign, path).unwrap();
        assert!(cache.get(&engine, &digest).is_none());
    }

    #[test]
    fn other_settings_have_other_names() {
        let digest = Digest::of(COMPONENT);
        assert_ne!(name(&engine(true), &digest), name(&engine(false), &digest));
    }

    #[test]
    fn unstored_code_stays_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, engine, digest, path) = filled(dir.path());
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(cache.get(&engine, &digest).is_none(), "the file is gone");
        put(&cache, &engine, &digest);
        assert!(cache.get(&engine, &digest).is_some());
        assert!(cache.get(&engine, &Digest::of(b"other")).is_none());
        fs::create_dir(dir.path()).unwrap();
        put(&cache, &engine, &digest);
        fs::remove_file(path).unwrap();
        assert!(cache.get(&engine, &digest).is_none(), "stored code is not kept in memory");
    }

    #[test]
    fn stored_functions_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, engine, _, code) = filled(dir.path());
        assert_eq!(cache.functions(&engine), None);
        cache.put_functions(&engine, b"functions");
        assert_eq!(cache.functions(&engine).as_deref(), Some(&b"functions"[..]));
        assert_eq!(cache.functions(&self::engine(false)), None, "another compiler");
        let path = dir.path().join(FUNCTIONS);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut bad = fs::read(&path).unwrap();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&path, bad).unwrap();
        assert_eq!(cache.functions(&engine), None, "modified");
        fs::copy(code, path).unwrap();
        assert_eq!(cache.functions(&engine), None, "the code of a component");
    }

    #[test]
    fn directory_and_key_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("compiled");
        Cache::open(&own).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&own), mode(&own.join("key"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&own).unwrap().count(), 1, "no temporary file is left");
    }

    /// Threads of one process, as in the Python package, open the directory at the same time.
    #[test]
    fn concurrent_opens_share_the_key() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let open = || Cache::open(&dir.path().join("compiled"));
            let opened: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let tags: Vec<_> =
                opened.iter().map(|cache| cache.as_ref().unwrap().tag("a", b"b").as_ref().to_vec()).collect();
            assert!(tags.iter().all(|tag| *tag == tags[0]));
            assert_eq!(fs::read_dir(dir.path().join("compiled")).unwrap().count(), 1, "no temporary file is left");
        }
    }

    #[test]
    fn unusable_directory_is_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Cache::open(&file.join("compiled")).is_none());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(Cache::open(dir.path()).is_none(), "other users share the directory");
    }

    #[test]
    fn unusable_key_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (_, engine, digest, code) = filled(dir.path());
        let path = dir.path().join("key");
        let good = fs::read(&path).unwrap();
        let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        type Change<'c> = &'c dyn Fn();
        let changes: [(&str, Change<'_>); 5] = [
            ("empty", &|| fs::write(&path, "").unwrap()),
            ("short", &|| fs::write(&path, &good[1..]).unwrap()),
            ("long", &|| fs::write(&path, [&good[..], b"0"].concat()).unwrap()),
            ("readable by others", &|| set_mode(&path, 0o644)),
            ("a link", &|| {
                fs::rename(&path, path.with_extension("target")).unwrap();
                std::os::unix::fs::symlink(path.with_extension("target"), &path).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            let cache = Cache::open(dir.path()).unwrap();
            let meta = fs::symlink_metadata(&path).unwrap();
            assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o600 && meta.len() == 32, "{what}");
            assert_ne!(fs::read(&path).unwrap(), good, "{what}");
            assert!(cache.get(&engine, &digest).is_none(), "{what}: code signed with the old key");
            put(&cache, &engine, &digest);
            assert!(cache.get(&engine, &digest).is_some(), "{what}");
        }
        assert!(code.try_exists().unwrap());
    }

    #[test]
    fn writable_directory_loses_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let (_, engine, digest, _) = filled(dir.path());
        let before = fs::read(dir.path().join("key")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert_ne!(fs::read(dir.path().join("key")).unwrap(), before);
        assert!(cache.get(&engine, &digest).is_none());
    }

    #[test]
    fn beyond_the_bound_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let file = |name: &str, age: u64| {
            let path = dir.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000 - age);
            File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
            path
        };
        let (old, new) = (file(".old.cwasm.0123", 9), file("new.cwasm", 1));
        cache.tidy(200);
        assert!(old.try_exists().unwrap(), "exactly the limit");
        cache.tidy(199);
        assert!(!old.try_exists().unwrap() && new.try_exists().unwrap());
        assert!(dir.path().join("key").try_exists().unwrap());
    }
}
