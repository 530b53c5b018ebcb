//! Builds a Python project into a component with componentize-py, in a private virtual environment.
//!
//! componentize-py runs the project's imports in an interpreter for WebAssembly, and stores a snapshot of the
//! interpreter's memory. The component therefore starts with all modules imported. The snapshot contains the hash seed
//! and addresses, so two builds of the same sources behave the same, but are not byte-identical.
//!
//! This takes 10 seconds and more. So the plugin is first imported with the machine's Python, which reports most mistakes.

mod check;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use self::check::Checked;
use super::{
    toolchain::{READY, Staging, lock, mark_ready, output_tail, remove_incomplete, run},
    traceback, write_files,
};
use crate::cli::{
    CliError, output,
    plugin::{
        cache,
        embedded::{CONTRACT, PYTHON_SDK},
    },
};

const TOOL: &str = "componentize-py";
/// The version of componentize-py. It is pinned, because another version may contain another interpreter.
const TOOL_VERSION: &str = "0.25.1";
/// The oldest Python version that can install and run componentize-py with the SDK. The component contains
/// componentize-py's own interpreter, not this Python.
const PYTHON_MIN: (u32, u32) = (3, 11);
/// The names of Python programs, tried in this order.
const PYTHONS: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// The directory of the project's copy of the SDK, and the name by which the plugin imports it.
const SDK_DIR: &str = "larder_plugin";
/// The name of the module that componentize-py imports. The build generates it outside of the project.
const GLUE_MODULE: &str = "larder_component";
const GLUE: &str = "from larder_plugin._guest import world\n\nWitWorld = world(\"plugin\")\n";

/// Builds a component from a project's files.
pub(super) fn build(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let cache = cache::dir()?;
    let staging = Staging::new(&cache)?;
    // The build uses a copy of the project, because the interpreter writes byte code next to the modules that it
    // imports.
    let (app, wit) = (staging.0.join("app"), staging.0.join("wit"));
    write_files(&app, files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())))?;
    if !dir.join(SDK_DIR).is_dir() {
        write_files(&app.join(SDK_DIR), PYTHON_SDK.iter().map(|(path, text)| (*path, text.as_bytes())))?;
    }
    write_files(&app, [(format!("{GLUE_MODULE}.py").as_str(), GLUE.as_bytes())])?;
    let failed = || CliError::Failed(format!("the plugin in {} cannot be built", dir.display()));
    // The check comes before the installation, which takes half a minute and needs network access.
    let checked = check::check(&check_python(&cache)?, &app)?;
    if let Checked::Mistake = checked {
        bail!(failed());
    }
    let tool = ensure_tool(&cache)?;
    output::note("building a component from Python takes about 20 seconds");
    write_files(&wit, CONTRACT.iter().map(|(path, text)| (*path, text.as_bytes())))?;

    let component = staging.0.join("component.wasm");
    let mut command = Command::new(&tool);
    command.arg("--wit-path").arg(&wit).args(["--world", "derived-features", "componentize", GLUE_MODULE]);
    command.args(["--stub-wasi", "--python-path", ".", "--output"]).arg(&component).current_dir(&app);
    // With these variables, packages of the user's environment could become part of the component.
    for name in ["VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"] {
        command.env_remove(name);
    }
    command.env("PATH", tool.parent().unwrap_or(Path::new(""))).env("RUST_BACKTRACE", "0");
    let built = run(&mut command)?;
    if !built.status.success() {
        let message = traceback::plugin_traceback(&String::from_utf8_lossy(&built.stderr));
        // The check has printed most mistakes already.
        if !matches!(&checked, Checked::Doubtful(printed) if traceback::is_same_error(printed, &message)) {
            output::note(&message);
        }
        bail!(failed());
    }
    fs::read(&component).with_context(|| format!("cannot read {}", component.display()))
}

// === The virtual environment ===

/// Returns the directory of the virtual environment.
fn tool_home(cache: &Path) -> PathBuf {
    cache.join(format!("{TOOL}-{TOOL_VERSION}"))
}

/// Returns the Python program for the check: that of the virtual environment, or before its installation the machine's.
fn check_python(cache: &Path) -> Result<PathBuf> {
    let home = tool_home(cache);
    if home.join(READY).is_file() {
        return Ok(home.join("bin").join("python"));
    }
    Ok(find_python()?.into())
}

/// Returns the path of componentize-py. Installs it into a virtual environment if needed.
fn ensure_tool(cache: &Path) -> Result<PathBuf> {
    let home = tool_home(cache);
    let tool = home.join("bin").join(TOOL);
    let _lock = lock(cache)?;
    if home.join(READY).is_file() && works(&tool) {
        return Ok(tool);
    }
    // The environment is incomplete, or its Python was removed.
    remove_incomplete(&home)?;
    let python = find_python()?;
    output::note(&format!("installing {TOOL} {TOOL_VERSION} into {}; later builds reuse it", home.display()));
    let created = run(Command::new(python).args(["-m", "venv"]).arg(&home))?;
    if !created.status.success() {
        bail!(CliError::Failed(format!(
            "{} cannot create a virtual environment:\n{}\nhint: install its modules venv and pip. On Debian and \
             Ubuntu:\n  apt-get install python3-venv",
            python,
            output_tail(&created)
        )));
    }
    let venv_python = home.join("bin").join("python");
    let package = format!("{TOOL}=={TOOL_VERSION}");
    let mut pip = Command::new(&venv_python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--only-binary=:all:"]);
    let installed = run(pip.arg(&package))?;
    if !installed.status.success() || !works(&tool) {
        bail!(CliError::Failed(format!(
            "pip cannot install {package}:\n{}\nhint: the first build needs network access, or a package index \
             in pip's configuration. To test the installation:\n  {} -m pip install {package}",
            output_tail(&installed),
            output::shell_word(&venv_python.to_string_lossy())
        )));
    }
    mark_ready(&home, TOOL_VERSION)?;
    Ok(tool)
}

/// Returns whether the tool exists, runs, and has the pinned version.
fn works(tool: &Path) -> bool {
    let printed = run(Command::new(tool).arg("--version"));
    printed.is_ok_and(|out| out.status.success() && String::from_utf8_lossy(&out.stdout).contains(TOOL_VERSION))
}

/// Returns the name of the first Python program that is recent enough.
fn find_python() -> Result<&'static str> {
    let mut older = None;
    for name in PYTHONS {
        let mut command = Command::new(name);
        command.args(["-c", "import sys; print(sys.version_info[0], sys.version_info[1])"]);
        let Ok(printed) = run(&mut command) else { continue };
        let version = String::from_utf8_lossy(&printed.stdout).into_owned();
        let mut numbers = version.split_whitespace().filter_map(|number| number.parse().ok());
        let Some(version) = numbers.next().zip(numbers.next()) else { continue };
        if version >= PYTHON_MIN {
            return Ok(name);
        }
        older.get_or_insert(format!("{name} is {}.{}", version.0, version.1));
    }
    let found = older.unwrap_or_else(|| "none is in the PATH".to_owned());
    bail!(CliError::Failed(format!(
        "Python {}.{} or later is needed to build a plugin in Python, but {found}. hint: on Debian and Ubuntu:\n  \
         apt-get install python3 python3-venv",
        PYTHON_MIN.0, PYTHON_MIN.1
    )))
}
