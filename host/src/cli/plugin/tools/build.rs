//! `larder plugin build`: builds a project into a component.

mod python;
mod rust;
mod traceback;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use larder_common::files::{FILE_BYTES_MAX, read_regular, read_text, temporary_path_for};
use larder_plugin_host::{BuildInfo, Component, Digest, PluginClass};

use super::{
    build_runtime,
    embedded::{CONTRACT, File, PYTHON_SDK, RUST_SDK},
};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// The directory of the project
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Where to write the component [default: NAME.wasm in the project]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Build even if nothing has changed
    #[arg(long)]
    force: bool,
    /// Cargo features to enable, comma-separated
    #[arg(long, value_name = "NAMES", default_value = "", hide_default_value = true)]
    features: String,
    /// Write the component even if no server would accept it; requires --out
    #[arg(long, requires = "out")]
    unchecked: bool,
}

/// The language of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    Python,
}

/// The format version of the build information in a component.
const FORMAT: u32 = 1;

pub(super) fn run(args: &BuildArgs) -> Result<()> {
    let started = Instant::now();
    let language = language(&args.dir)?;
    let files = sources(&args.dir)?;
    let info = BuildInfo {
        format: FORMAT,
        language: language.name().to_owned(),
        class: language.class(),
        sources: digest_of_sources(&files, language, &args.features),
        sdk: language.kit_version(&args.dir),
        tool: format!("larder {}", env!("CARGO_PKG_VERSION")),
    };
    if !args.force
        && let Some(path) = up_to_date(args, &info)?
    {
        output::line(&format!("{} is up to date", path.display()));
        return Ok(());
    }
    let mut component = match language {
        Language::Rust => rust::build(&args.dir, &args.features)?,
        Language::Python => python::build(&args.dir, &files)?,
    };
    info.append(&mut component);
    if let (true, Some(path)) = (args.unchecked, &args.out) {
        write_atomically(path, &component)?;
        output::line(&format!("built {}, without checks", path.display()));
        return Ok(());
    }
    // A component that no server would accept is not written.
    let loaded = build_runtime()?
        .load(&component)
        .with_context(|| format!("the plugin in {} was built, but no server would accept it", args.dir.display()))?;
    let path = args.out.clone().unwrap_or_else(|| args.dir.join(format!("{}.wasm", loaded.signature().name)));
    write_atomically(&path, &component)?;
    print_result(&path, &loaded, started.elapsed().as_secs_f64());
    Ok(())
}

fn print_result(path: &Path, component: &Component, seconds: f64) {
    let signature = component.signature();
    output::line(&format!(
        "built {} {} in {seconds:.1} s: {}, {}, sha256 {}",
        signature.name,
        signature.version,
        path.display(),
        output::bytes(component.bytes()),
        component.digest()
    ));
    let (program, path) = (output::program(), output::shell_word(&path.to_string_lossy()));
    output::line(&format!("next: {program} plugin run {path} --input rows.json, then {program} plugin deploy {path}"));
}

/// Returns the path of the existing component if it was built from the same sources with the same features, development
/// kit and version of `larder`.
fn up_to_date(args: &BuildArgs, info: &BuildInfo) -> Result<Option<PathBuf>> {
    let candidates = match &args.out {
        Some(path) => vec![path.clone()],
        None => fs::read_dir(&args.dir)
            .with_context(|| format!("{} cannot be read", args.dir.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .collect(),
    };
    let info_of = |path: &PathBuf| BuildInfo::read(&read_regular(path, FILE_BYTES_MAX).unwrap_or_default());
    Ok(candidates.into_iter().find(|path| info_of(path).as_ref() == Some(info)))
}

fn language(dir: &Path) -> Result<Language> {
    match (dir.join("Cargo.toml").is_file(), dir.join("plugin.py").is_file()) {
        (true, false) => Ok(Language::Rust),
        (false, true) => Ok(Language::Python),
        (true, true) => bail!(CliError::Usage(format!(
            "{} has both a Cargo.toml and a plugin.py. hint: remove the one that is not the plugin",
            dir.display()
        ))),
        (false, false) => bail!(CliError::Usage(format!(
            "{} is not a plugin project: it has no Cargo.toml and no plugin.py. hint: `{} plugin new NAME` creates one",
            dir.display(),
            output::program()
        ))),
    }
}

/// Computes a digest of all inputs of a component: the project's files, the Cargo features, and the embedded
/// development kit with the contract.
fn digest_of_sources(files: &[(String, Vec<u8>)], language: Language, features: &str) -> String {
    let mut text = Vec::new();
    let mut add = |path: &str, content: &[u8]| {
        // With the lengths, the text that is hashed is unambiguous.
        text.extend_from_slice(format!("{path}\0{}\0", content.len()).as_bytes());
        text.extend_from_slice(content);
    };
    for (path, content) in files {
        add(path, content);
    }
    add("features", features.as_bytes());
    for (path, content) in language.kit().iter().chain(CONTRACT) {
        add(path, content.as_bytes());
    }
    format!("sha256:{}", Digest::of(&text))
}

/// Returns the project's files, sorted by path, without hidden files and build outputs.
fn sources(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    walk(dir, "", 0, &mut files)?;
    files.sort();
    Ok(files)
}

fn walk(dir: &Path, below: &str, depth: usize, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    const SKIPPED: [&str; 3] = ["target", "__pycache__", "venv"];
    /// The maximum depth of directories. If directories are nested deeper, there is probably a link to a parent
    /// directory.
    const DEPTH_MAX: usize = 32;
    if depth > DEPTH_MAX {
        bail!(CliError::Failed(format!(
            "{} is nested too deeply. hint: remove links to parent directories",
            dir.display()
        )));
    }
    for entry in fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))? {
        let path = entry.with_context(|| format!("{} cannot be read", dir.display()))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_output = SKIPPED.contains(&name.as_str()) || name.ends_with(".wasm") || name.ends_with(".pyc");
        if name.starts_with('.') || is_output {
            continue;
        }
        if path.is_dir() {
            walk(&path, &format!("{below}{name}/"), depth + 1, files)?;
        } else {
            let bytes =
                read_regular(&path, FILE_BYTES_MAX).with_context(|| format!("{} cannot be read", path.display()))?;
            files.push((format!("{below}{name}"), bytes));
        }
    }
    Ok(())
}

/// Writes files below a directory.
fn write_files<'a>(dir: &Path, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<()> {
    for (path, bytes) in files {
        let path = dir.join(path);
        let failed = || format!("cannot write {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(dir)).with_context(failed)?;
        fs::write(&path, bytes).with_context(failed)?;
    }
    Ok(())
}

/// Writes a temporary file and renames it, so that other programs never read an incomplete file.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir).with_context(failed)?;
    let temporary = temporary_path_for(path);
    let mut file = fs::File::create(&temporary).with_context(failed)?;
    file.write_all(bytes).and_then(|()| fs::rename(&temporary, path)).with_context(failed)
}

// === impl Language ===

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
        }
    }

    fn class(self) -> PluginClass {
        match self {
            Self::Rust => PluginClass::Compiled,
            Self::Python => PluginClass::Interpreted,
        }
    }

    /// Returns the version of the development kit: of the copy in the project or, if there is none, of the embedded kit.
    fn kit_version(self, dir: &Path) -> String {
        let (own, file, prefix) = match self {
            Self::Rust => ("larder-plugin", "Cargo.toml", "version = \""),
            Self::Python => ("larder_plugin", "__init__.py", "__version__ = \""),
        };
        let embedded = || self.kit().iter().find(|(path, _)| *path == file).map(|(_, text)| (*text).to_owned());
        let text = read_text(&dir.join(own).join(file), FILE_BYTES_MAX).ok().or_else(embedded).unwrap_or_default();
        let version = text.lines().find_map(|line| line.strip_prefix(prefix)?.strip_suffix('"'));
        version.unwrap_or("unknown").to_owned()
    }

    fn kit(self) -> &'static [File] {
        match self {
            Self::Rust => RUST_SDK,
            Self::Python => PYTHON_SDK,
        }
    }
}
