//! Compiled code on disk, so that a start does not need the compiler.
//!
//! These files contain machine code, so a user who can write one can run arbitrary code in the server. Therefore only
//! the server itself may write them. The directory has mode 0700, and each file of code begins with an authentication
//! code, which only this server's key can produce. The authentication code is checked before the rest of the file is
//! used. The check also detects truncated and damaged files. An invalid file is ignored, and replaced when the compiler
//! produces its code again.
//!
//! ```text
//! compiled/key                                    32 random bytes, mode 0600
//! compiled/<digest>-<settings>.cwasm              HMAC-SHA256 (32 bytes) of the name and the code, then the code
//! compiled/functions-<language>-<settings>        the same for the functions that the plugins of a language with an
//!                                                 interpreter have in common
//! ```
//!
//! `digest` is that of the component, `settings` is a hash of the version of wasmtime and the compiler's settings, and
//! `language` is a hash of the language's name. Files that are not needed are removed: see [`cleanup`].

mod cleanup;
mod key;
#[cfg(test)]
mod tests;

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher as _},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use larder_common::{
    files::{FILE_BYTES_MAX, open_regular, temporary_path_for},
    private::{self, PriorAccess},
};
use wasmtime::{Engine, component::Component};

pub(super) use self::cleanup::InUse;
use super::Digest;

/// The directory of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    key: hmac::Key,
    bytes_max: u64,
    /// The last component whose code could not be stored, by its name. While the disk is full, a file in the plugin
    /// directory is loaded again at each poll, and must not be compiled each time.
    unstored: Mutex<Option<(String, Component)>>,
}

/// The beginning of the names of files with functions for later compilations.
const FUNCTIONS: &str = "functions-";
/// The end of the names of files with code.
const CODE: &str = ".cwasm";
/// The name of the file with the key.
const KEY: &str = "key";
const TAG_BYTES: usize = 32;

// === impl Cache ===

impl Cache {
    /// Opens a directory, and creates it if it does not exist. If it cannot be used, for example because it belongs to another
    /// user, logs a warning and returns `None`: each process then compiles the plugins again.
    pub(super) fn open(dir: &Path, bytes_max: u64) -> Option<Self> {
        let opened = Self::try_open(dir, bytes_max);
        opened
            .inspect_err(|error| {
                tracing::warn!(
                    dir = %dir.display(), %error,
                    "cannot open the directory of compiled plugins; each process compiles the plugins again"
                );
            })
            .ok()
    }

    fn try_open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let before = private::open_dir(dir)?;
        let path = dir.join(KEY);
        if before == PriorAccess::Writable {
            tracing::warn!(
                key = %path.display(),
                "another user may have replaced the key that signs compiled code; creating a new key"
            );
            key::remove(&path)?;
        }
        let (key, is_new) = key::open(&path)?;
        if is_new {
            // No code that was signed with another key can be used.
            cleanup::remove_all(dir);
        }
        Ok(Self { dir: dir.to_path_buf(), key, bytes_max, unstored: Mutex::default() })
    }

    /// Returns the code of a component, if the same compiler compiled it before with the same settings. The code's file is
    /// kept while the second value exists; `None` if the code is not in a file.
    pub(super) fn get(&self, engine: &Engine, digest: &Digest) -> Option<(Component, Option<InUse>)> {
        let name = name(engine, digest);
        let unstored = self.unstored.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, component)) = unstored.filter(|(of, _)| *of == name) {
            return Some((component, None));
        }
        let (code, in_use) = self.read(&self.path(&name), &name)?;
        let component = load(engine, &code)
            .inspect_err(|error| tracing::warn!(%error, "cannot load compiled code; compiling again"))
            .ok()?;
        Some((component, Some(in_use)))
    }

    /// Stores the code of a component that was just compiled, and removes files that are not needed. If the file cannot be
    /// written, logs a warning and keeps the component in memory; the next start compiles it again. The file is kept while
    /// the returned value exists.
    pub(super) fn put(&self, engine: &Engine, digest: &Digest, code: &[u8], component: &Component) -> Option<InUse> {
        let name = name(engine, digest);
        let in_use = self.write(&self.path(&name), &name, code);
        let unstored = in_use.is_none().then(|| (name, component.clone()));
        *self.unstored.lock().unwrap_or_else(PoisonError::into_inner) = unstored;
        cleanup::clean(&self.dir, &settings(engine), self.bytes_max);
        in_use
    }

    /// Returns the functions that [`Cache::put_functions`] stored for a language, if the same compiler compiled them.
    pub(super) fn functions(&self, engine: &Engine, language: &str) -> Option<Vec<u8>> {
        let name = functions_name(engine, language);
        Some(self.read(&self.dir.join(&name), &name)?.0)
    }

    /// Replaces the functions for later compilations of plugins in a language. If the file cannot be written, logs a warning.
    pub(super) fn put_functions(&self, engine: &Engine, language: &str, functions: &[u8]) {
        let name = functions_name(engine, language);
        self.write(&self.dir.join(&name), &name, functions);
    }

    /// Reads a file that [`Cache::write`] wrote with the same name, and marks it as used. Returns `None` if it is missing or
    /// invalid.
    fn read(&self, path: &Path, name: &str) -> Option<(Vec<u8>, InUse)> {
        let file = open_regular(path).ok()?;
        let mut bytes = Vec::new();
        (&file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let (tag, contents) = bytes.split_at_checked(TAG_BYTES)?;
        if verify_slices_are_equal(self.tag(name, contents).as_ref(), tag).is_err() {
            tracing::warn!(file = %path.display(), "ignoring damaged or foreign compiled code");
            return None;
        }
        Some((bytes.split_off(TAG_BYTES), InUse::mark(file)))
    }

    /// Writes a file. If this fails, logs a warning and returns `None`.
    fn write(&self, path: &Path, name: &str, contents: &[u8]) -> Option<InUse> {
        let temporary = temporary_path_for(path);
        let written = || -> io::Result<InUse> {
            let mut file = private::create_file(&temporary)?;
            file.write_all(self.tag(name, contents).as_ref())?;
            file.write_all(contents)?;
            let in_use = InUse::mark(file);
            fs::rename(&temporary, path)?;
            Ok(in_use)
        };
        written()
            .inspect_err(|error| {
                let _ = fs::remove_file(&temporary);
                tracing::warn!(dir = %self.dir.display(), %error, "cannot store compiled code");
            })
            .ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{CODE}"))
    }

    /// Computes the authentication code. It covers the file's name, so a renamed file is invalid.
    fn tag(&self, name: &str, code: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(code);
        context.sign()
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

/// Returns the name of the file for a component's code, without its extension.
fn name(engine: &Engine, digest: &Digest) -> String {
    format!("{digest}-{}", settings(engine))
}

/// Returns the name of the file for the functions of a language.
fn functions_name(engine: &Engine, language: &str) -> String {
    format!("{FUNCTIONS}{}-{}", hash(language), settings(engine))
}

/// Returns a hash of the version of wasmtime and the compiler's settings, as hexadecimal digits.
fn settings(engine: &Engine) -> String {
    hash(engine.precompile_compatibility_hash())
}

fn hash(of: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
