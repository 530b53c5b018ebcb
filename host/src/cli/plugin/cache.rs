//! The directory of what is slow to get and the same every time: the Python toolchain, and compiled plugins.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use larder_common::private;

use crate::cli::CliError;

/// The variable that moves it.
const VARIABLE: &str = "LARDER_CACHE";

/// `$LARDER_CACHE`, else `larder` in the user's directory for caches; made if it is not there.
pub(super) fn dir() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let users = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let Some(dir) = set(VARIABLE).or_else(|| Some(users()?.join("larder"))) else {
        bail!(CliError::Failed(format!("there is no place to keep files in: set {VARIABLE} to a directory")));
    };
    // Programs of the toolchain and compiled code are run from there.
    private::open_dir(&dir).with_context(|| format!("cannot use {} ({VARIABLE} moves it)", dir.display()))?;
    fs::canonicalize(&dir).with_context(|| format!("cannot look into {}", dir.display()))
}
