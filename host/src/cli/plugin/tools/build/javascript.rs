//! Builds a JavaScript project into a component with componentize-qjs, which is installed from npm into the cache.
//!
//! componentize-qjs evaluates the project's modules in QuickJS, and stores a snapshot of its memory. QuickJS is used
//! instead of StarlingMonkey (componentize-js), because it is smaller and faster for plugins. The ratio of two columns,
//! in the same JavaScript without the kit, with componentize-qjs 0.4.5 and componentize-js 0.23.0:
//!
//! | | QuickJS | StarlingMonkey |
//! |---|---|---|
//! | component; compiled code | 1.6 MB; 5 MB | 12 MB; 37 MB |
//! | CPU time of the compilation | 2.2 s | 14 s |
//! | first instance; later ones | 0.4 ms; 0.1 ms | 3 ms; 0.03 ms |
//! | configure an instance | 0.06 ms | 0.6 ms |
//! | call with one row | 7 µs | 20 µs |
//! | row in a batch of 1,000 | 0.27 µs | 0.40 µs |
//!
//! The runtime of QuickJS that is optimized for size has 1.1 MB, and takes 1.4 times as long. The runtime for async
//! components imports functions that Larder does not provide. WASI is replaced with stubs, so that the component imports
//! only the host's log.
//!
//! A build is fast, so mistakes are not checked with the machine's Node.js before it. The snapshot
//! contains addresses, so two builds of the same sources behave the same, but are not byte-identical.

mod stack;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use larder_common::files::{FILE_BYTES_MAX, read_regular};

use super::{
    toolchain::{READY, Staging, lock, mark_ready, output_tail, remove_incomplete, run, run_within},
    write_files,
};
use crate::cli::{
    CliError, output,
    plugin::{
        cache,
        embedded::{CONTRACT, JAVASCRIPT_SDK, JAVASCRIPT_TOOL},
    },
};

const TOOL: &str = "componentize-qjs";
/// The version of componentize-qjs in `package.json` of [`JAVASCRIPT_TOOL`]. It is pinned, because another version may
/// contain another engine.
const TOOL_VERSION: &str = "0.4.5";
/// The program, relative to the directory of the installation.
const PROGRAM: &str = "node_modules/componentize-qjs/cli.mjs";
/// The oldest major version of Node.js that can run the tests of a project. The component does not contain Node.js.
const NODE_MIN: u32 = 20;
/// The time limit for evaluating the project's modules.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The directory of the project's copy of the SDK.
const SDK_DIR: &str = "larder_plugin";
/// The module that exports the component's functions. The build generates it outside of the project. It imports the
/// development kit before the plugin, so that functions that plugins do not have are replaced already.
const GLUE_MODULE: &str = "larder_component.js";
const GLUE: &str = r#"import * as host from "larder:transform/host@0.3.0";
import { component } from "./larder_plugin/guest.js";
import * as project from "./plugin.js";

export const { describe, configure, transform } = component(project, host);
"#;

/// Builds a component from a project's files.
pub(super) fn build(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    build_within(dir, files, TIME_MAX)
}

fn build_within(dir: &Path, files: &[(String, Vec<u8>)], time_max: Duration) -> Result<Vec<u8>> {
    let cache = cache::dir()?;
    let tool = ensure_tool(&cache)?;
    let staging = Staging::new(&cache)?;
    let (app, wit) = (staging.0.join("app"), staging.0.join("wit"));
    write_files(&app, files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())))?;
    if !dir.join(SDK_DIR).is_dir() {
        write_files(&app.join(SDK_DIR), JAVASCRIPT_SDK.iter().map(|(path, text)| (*path, text.as_bytes())))?;
    }
    write_files(&app, [(GLUE_MODULE, GLUE.as_bytes())])?;
    write_files(&wit, CONTRACT.iter().map(|(path, text)| (*path, text.as_bytes())))?;

    let component = staging.0.join("component.wasm");
    let mut command = node(&tool);
    command.arg("--wit").arg(&wit).args(["--world", "derived-features", "--stub-wasi", "--sync"]);
    command.arg("--js").arg(app.join(GLUE_MODULE)).arg("--module-root").arg(&app);
    command.arg("--output").arg(&component).current_dir(&app);
    let Some(ended) = run_within(&mut command, time_max)? else {
        bail!(CliError::Failed(format!(
            "evaluating plugin.js takes longer than {} s. hint: the modules of a plugin are evaluated while it is built; \
             look for an endless loop, or compute less at the top of its modules",
            time_max.as_secs_f64()
        )));
    };
    if !ended.status.success() {
        output::note(&stack::plugin_error(&ended.printed, &app));
        bail!(CliError::Failed(format!("the plugin in {} cannot be built", dir.display())));
    }
    read_regular(&component, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", component.display()))
}

/// Returns a command that runs a JavaScript program. Options in the environment could change its behavior.
fn node(program: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(program).env_remove("NODE_OPTIONS").env("RUST_BACKTRACE", "0");
    command
}

/// Returns the path of componentize-qjs. Installs it if needed.
fn ensure_tool(cache: &Path) -> Result<PathBuf> {
    check_node()?;
    let home = cache.join(format!("{TOOL}-{TOOL_VERSION}"));
    let tool = home.join(PROGRAM);
    let _lock = lock(cache)?;
    if home.join(READY).is_file() && works(&tool) {
        return Ok(tool);
    }
    remove_incomplete(&home)?;
    output::note(&format!("installing {TOOL} {TOOL_VERSION} into {}; later builds reuse it", home.display()));
    write_files(&home, JAVASCRIPT_TOOL.iter().map(|(path, text)| (*path, text.as_bytes())))?;
    let mut npm = Command::new("npm");
    // The lock file has the digests of the packages. No package may run a script during its installation.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]).current_dir(&home);
    let Ok(installed) = npm.stdin(Stdio::null()).output() else {
        bail!(CliError::Failed(
            "npm is needed to install the build tools for JavaScript, but it is not in the PATH. hint: install Node.js \
             with npm from https://nodejs.org"
                .to_owned()
        ));
    };
    if !installed.status.success() {
        bail!(CliError::Failed(format!(
            "npm cannot install {TOOL} {TOOL_VERSION}:\n{}\nhint: the first build needs network access, or a registry in \
             npm's configuration. To test the installation:\n  npm install {TOOL}@{TOOL_VERSION}",
            output_tail(&installed)
        )));
    }
    if !works(&tool) {
        bail!(CliError::Failed(format!(
            "{TOOL} {TOOL_VERSION} does not run on this machine. hint: build the plugin on Linux, macOS or Windows, on \
             x86-64 or ARM64, with npm's optional dependencies enabled"
        )));
    }
    mark_ready(&home, TOOL_VERSION)?;
    Ok(tool)
}

/// Returns whether the tool runs. It needs a library that npm installs for the machine's processor and system.
fn works(tool: &Path) -> bool {
    run(node(tool).arg("--help")).is_ok_and(|out| out.status.success())
}

/// Returns an error if Node.js is missing or too old.
fn check_node() -> Result<()> {
    let printed = run(Command::new("node").arg("--version").env_remove("NODE_OPTIONS"));
    let version = printed.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    let found = match major {
        Some(major) if major >= NODE_MIN => return Ok(()),
        Some(_) => format!("node is {version}"),
        None => "node is not in the PATH".to_owned(),
    };
    bail!(CliError::Failed(format!(
        "Node.js {NODE_MIN} or later is needed to build a plugin in JavaScript, but {found}. hint: install it from \
         https://nodejs.org"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_version_is_in_lock_file() {
        for (path, text) in JAVASCRIPT_TOOL {
            assert!(text.contains(&format!("\"{TOOL}\": \"{TOOL_VERSION}\"")), "{path}");
        }
    }
}
