//! `larder plugin new`: a project that builds as it stands.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::embedded::{File, RUST_SDK, RUST_TEMPLATE, WIT};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// The plugin's name: letters, digits and underscores
    #[arg(value_name = "NAME")]
    name: String,
    /// What to write it in
    #[arg(long, value_enum)]
    lang: Lang,
    /// The directory of the project; NAME when absent
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    Rust,
}

pub(super) fn run(args: &NewArgs) -> Result<()> {
    let name = &args.name;
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if !(starts && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') && name.len() <= 64) {
        bail!(CliError::Usage(format!(
            "'{name}' is not a name for a plugin: a lower-case letter, then lower-case letters, digits and underscores"
        )));
    }
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(name));
    if fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
        bail!(CliError::Failed(format!("{} is there already; nothing was written", dir.display())));
    }
    let write = |below: &str, files: &[File]| -> Result<()> {
        for (path, text) in files {
            let path = path.replace("gitignore", ".gitignore");
            let path = dir.join(below).join(path);
            let failed = || format!("cannot write {}", path.display());
            fs::create_dir_all(path.parent().unwrap_or(&dir)).with_context(failed)?;
            fs::write(&path, text.replace("{{name}}", name)).with_context(failed)?;
        }
        Ok(())
    };
    let Lang::Rust = args.lang;
    write("", RUST_TEMPLATE)?;
    write("larder-plugin", RUST_SDK)?;
    write("larder-plugin/wit", WIT)?;
    let (program, place) = (output::program(), output::shell_word(&dir.to_string_lossy()));
    output::say(&format!("wrote {}: the plugin is src/lib.rs. Try it:\n", dir.display()));
    output::say(&format!("  cd {place}"));
    output::say("  cargo test");
    output::say(&format!("  {program} plugin build"));
    output::say(&format!("  {program} plugin run {name}.wasm --input rows.json"));
    Ok(())
}
