//! The cache directory for the Python toolchain and for compiled plugins, which take long to produce.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use larder_common::private;

use crate::cli::CliError;

/// The environment variable that sets the directory.
const VARIABLE: &str = "LARDER_CACHE";

/// Returns the directory `$LARDER_CACHE`, or `larder` in the user's cache directory if the variable is not set. Creates
/// the directory if it does not exist.
pub(super) fn dir() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let users = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let Some(dir) = set(VARIABLE).or_else(|| Some(users()?.join("larder"))) else {
        bail!(CliError::Failed(format!("cannot determine the cache directory. hint: set {VARIABLE} to a directory")));
    };
    // Only this user may write to the directory, because programs and compiled code in it are executed.
    private::open_dir(&dir)
        .with_context(|| format!("cannot use {}. hint: set {VARIABLE} to another directory", dir.display()))?;
    fs::canonicalize(&dir).with_context(|| format!("cannot read {}", dir.display()))
}
