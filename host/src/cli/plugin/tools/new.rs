//! `larder plugin new`: creates a plugin project that builds without changes.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::{
    embedded::{
        CONTRACT, File, JAVASCRIPT_SDK, JAVASCRIPT_TEMPLATE, PYTHON_SDK, PYTHON_TEMPLATE, RUST_SDK, RUST_TEMPLATE,
        path_of,
    },
    name,
};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// The plugin's name: lower-case letters, digits and underscores
    #[arg(value_name = "NAME")]
    name: String,
    /// The language of the project
    #[arg(long, value_enum)]
    lang: Lang,
    /// The directory of the project [default: NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// Compiled: fast and small. The guide "Compute features with plugins" has the numbers for each language
    Rust,
    /// Interpreted: the standard library, and Feast's on-demand views with few changes; slower and larger than JavaScript
    Python,
    /// Interpreted: slower and larger than Rust
    #[value(name = "js")]
    JavaScript,
}

pub(super) fn run(args: &NewArgs) -> Result<()> {
    let name = &args.name;
    if let Some(message) = name::name_error(name) {
        bail!(CliError::Usage(message));
    }
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(name));
    if fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
        bail!(CliError::Failed(format!(
            "{} exists already; nothing was written. hint: choose another directory with --dir",
            dir.display()
        )));
    }
    let write = |below: &str, files: &[File]| -> Result<()> {
        for (path, text) in files {
            let path = dir.join(path_of(below, path));
            let failed = || format!("cannot write {}", path.display());
            fs::create_dir_all(path.parent().unwrap_or(&dir)).with_context(failed)?;
            // Placeholders are replaced only in templates, because the code of a kit may contain double braces.
            let text = if below.is_empty() { text.replace("{{name}}", name) } else { (*text).to_owned() };
            fs::write(&path, text).with_context(failed)?;
        }
        Ok(())
    };
    let (source, test) = match args.lang {
        Lang::Rust => {
            write("", RUST_TEMPLATE)?;
            write("larder-plugin", RUST_SDK)?;
            write("larder-plugin/wit", CONTRACT)?;
            ("src/lib.rs", "cargo test")
        }
        Lang::Python => {
            write("", PYTHON_TEMPLATE)?;
            write("larder_plugin", PYTHON_SDK)?;
            ("plugin.py", "python3 -m unittest")
        }
        Lang::JavaScript => {
            write("", JAVASCRIPT_TEMPLATE)?;
            write("larder_plugin", JAVASCRIPT_SDK)?;
            ("plugin.js", "node --test")
        }
    };
    let (program, shown_dir) = (output::program(), output::shell_word(&dir.to_string_lossy()));
    output::line(&format!("wrote {}; the plugin's code is in {source}. To try it:\n", dir.display()));
    output::line(&format!("  cd {shown_dir}"));
    output::line(&format!("  {test}"));
    output::line(&format!("  {program} plugin build"));
    output::line(&format!("  {program} plugin run {name}.wasm --input rows.json"));
    Ok(())
}
