//! `larder plugin build`: builds a project into a component.

mod javascript;
mod module;
mod python;
mod rust;
mod toolchain;
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
    embedded::{CONTRACT, File, JAVASCRIPT_SDK, PYTHON_SDK, RUST_SDK},
};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// The directory of the project
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Build from this core module, compiled against the contract's WIT, instead of a project
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "features"])]
    module: Option<PathBuf>,
    /// Where to write the component [default: NAME.wasm in the project, or next to the module]
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
    JavaScript,
}

/// The format version of the build information in a component.
const FORMAT: u32 = 1;

pub(super) fn run(args: &BuildArgs) -> Result<()> {
    let started = Instant::now();
    if let Some(module) = &args.module {
        let (component, info) = module::build(module)?;
        let dir = module.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return finish(args, &info, component, dir, &module.display().to_string(), started);
    }
    let language = language(&args.dir)?;
    let files = sources(&args.dir)?;
    let info = BuildInfo {
        format: FORMAT,
        language: language.name().to_owned(),
        class: language.class(),
        sources: digest_of_sources(&files, language, &args.features),
        sdk: language.kit_version(&args.dir),
        tool: tool(),
    };
    if !args.force
        && let Some(path) = up_to_date(args, &info)?
    {
        output::line(&format!("{} is up to date", path.display()));
        return Ok(());
    }
    let component = match language {
        Language::Rust => rust::build(&args.dir, &args.features)?,
        Language::Python => python::build(&args.dir, &files)?,
        Language::JavaScript => javascript::build(&args.dir, &files)?,
    };
    finish(args, &info, component, &args.dir, &args.dir.display().to_string(), started)
}

/// Checks a component and writes it, by default into `dir`. `source` is the project or module for messages.
fn finish(
    args: &BuildArgs,
    info: &BuildInfo,
    mut component: Vec<u8>,
    dir: &Path,
    source: &str,
    started: Instant,
) -> Result<()> {
    info.append(&mut component);
    if let (true, Some(path)) = (args.unchecked, &args.out) {
        write_atomically(path, &component)?;
        output::line(&format!("built {}, without checks", path.display()));
        return Ok(());
    }
    // A component that no server would accept is not written.
    let loaded = build_runtime()?
        .load(&component)
        .with_context(|| format!("the plugin in {source} was built, but no server would accept it"))?;
    let path = args.out.clone().unwrap_or_else(|| dir.join(format!("{}.wasm", loaded.signature().name)));
    write_atomically(&path, &component)?;
    print_result(&path, &loaded, started.elapsed().as_secs_f64());
    Ok(())
}

/// Returns the name and version of this program, for the build information.
fn tool() -> String {
    format!("larder {}", env!("CARGO_PKG_VERSION"))
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

/// Returns the language of a project, by the file that projects of only this language have.
fn language(dir: &Path) -> Result<Language> {
    let found: Vec<Language> =
        Language::ALL.into_iter().filter(|language| dir.join(language.marker()).is_file()).collect();
    match found.as_slice() {
        [language] => Ok(*language),
        [] => bail!(CliError::Usage(format!(
            "{} is not a plugin project: it has no Cargo.toml, no plugin.py and no plugin.js. hint: `{} plugin new NAME` \
             creates one",
            dir.display(),
            output::program()
        ))),
        [first, second, ..] => bail!(CliError::Usage(format!(
            "{} has both a {} and a {}. hint: remove the one that is not the plugin",
            dir.display(),
            first.marker(),
            second.marker()
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
    const ALL: [Self; 3] = [Self::Rust, Self::Python, Self::JavaScript];

    fn marker(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Python => "plugin.py",
            Self::JavaScript => "plugin.js",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::JavaScript => "javascript",
        }
    }

    fn class(self) -> PluginClass {
        match self {
            Self::Rust => PluginClass::Compiled,
            Self::Python | Self::JavaScript => PluginClass::Interpreted,
        }
    }

    /// Returns the version of the development kit: of the copy in the project or, if there is none, of the embedded kit.
    fn kit_version(self, dir: &Path) -> String {
        let (own, file, prefix) = match self {
            Self::Rust => ("larder-plugin", "Cargo.toml", "version = \""),
            Self::Python => ("larder_plugin", "__init__.py", "__version__ = \""),
            Self::JavaScript => ("larder_plugin", "index.js", "export const VERSION = \""),
        };
        let embedded = || self.kit().iter().find(|(path, _)| *path == file).map(|(_, text)| (*text).to_owned());
        let text = read_text(&dir.join(own).join(file), FILE_BYTES_MAX).ok().or_else(embedded).unwrap_or_default();
        let version = text.lines().find_map(|line| line.strip_prefix(prefix)?.split_once('"'));
        version.map_or("unknown", |(version, _)| version).to_owned()
    }

    fn kit(self) -> &'static [File] {
        match self {
            Self::Rust => RUST_SDK,
            Self::Python => PYTHON_SDK,
            Self::JavaScript => JAVASCRIPT_SDK,
        }
    }
}
