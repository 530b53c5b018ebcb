//! Builds a Rust project into a component, with cargo and a target for WebAssembly. If the target is not installed, the
//! build tries to add it with rustup. If that fails, or if Rust is not installed, the error explains what to install.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cli::{CliError, output};

const TARGET: &str = "wasm32-unknown-unknown";
/// The compiler of the Linux distribution's Rust. In Debian, it has this path, even if another compiler comes first in
/// `PATH`.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
/// The size in bytes of a plugin's stack, which is in its linear memory. The default of 1 MiB would take a sixteenth of
/// the memory limit.
const STACK_BYTES: usize = 128 << 10;

/// How a Rust project is compiled.
#[derive(Debug)]
enum Toolchain {
    /// The Rust in `PATH` has the target's standard library.
    Ready,
    /// The Linux distribution's Rust, which has the sources of the standard library. They are compiled with the
    /// project.
    Sources { rustc: PathBuf, linker: PathBuf },
}

/// Compiles the project and builds a component from it.
pub(super) fn build(dir: &Path, features: &str) -> Result<Vec<u8>> {
    let toolchain = find()?;
    let module = std::fs::read(compile(dir, features, &toolchain)?).context("the compiled module cannot be read")?;
    let mut encoder = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .context("cannot read the interface of the plugin from the compiled module")?;
    encoder.encode().context("cannot build a component from the compiled module")
}

fn find() -> Result<Toolchain> {
    let Some(sysroot) = sysroot("rustc") else {
        bail!(CliError::Failed(format!(
            "Rust is not installed. hint: install it from https://rustup.rs, then run: {}",
            rustup_line()
        )));
    };
    let has_target = |sysroot: &Path| sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir();
    if has_target(&sysroot) {
        return Ok(Toolchain::Ready);
    }
    if let Some(toolchain) = with_sources(&sysroot) {
        return Ok(toolchain);
    }
    output::note(&format!("the target {TARGET} is not installed; running: {}", rustup_line()));
    let added = Command::new("rustup").args(["target", "add", TARGET]).stderr(Stdio::null()).status();
    if added.is_ok_and(|status| status.success()) && has_target(&sysroot) {
        return Ok(Toolchain::Ready);
    }
    bail!(CliError::Failed(format!(
        "Rust cannot compile for {TARGET}. hint: install the target\n  {}\nor, if it cannot be downloaded, a \
         distribution's Rust with its sources (Debian and Ubuntu):\n  apt-get install rustc-web rust-web-src",
        rustup_line()
    )))
}

fn rustup_line() -> String {
    format!("rustup target add {TARGET}")
}

/// Returns the Linux distribution's Rust if the sources of its standard library and a linker are installed.
fn with_sources(rustup: &Path) -> Option<Toolchain> {
    let rustc = Path::new(SYSTEM_RUSTC);
    let system = sysroot(rustc)?;
    system.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file().then_some(())?;
    let linkers = [&system, rustup].into_iter().flat_map(|sysroot| {
        let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten();
        hosts.filter_map(|host| Some(host.ok()?.path().join("bin/rust-lld")))
    });
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).flat_map(|dir| ["rust-lld", "wasm-ld"].map(|name| dir.join(name)));
    let linker = linkers.chain(in_path).find(|linker| linker.is_file())?;
    Some(Toolchain::Sources { rustc: rustc.to_path_buf(), linker })
}

fn sysroot(rustc: impl AsRef<std::ffi::OsStr>) -> Option<PathBuf> {
    let found = Command::new(rustc).args(["--print", "sysroot"]).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(found.stdout).ok()?;
    found.status.success().then(|| PathBuf::from(text.trim()))
}

/// Returns the directories into which cargo unpacks the project's crates. Their names contain the registry's host, and
/// so differ on a machine that uses a mirror. Fetches the crates, so that the first build finds the same directories as
/// later ones.
fn registries(manifest: &Path) -> BTreeSet<String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version", "1", "--filter-platform", TARGET, "--manifest-path"]).arg(manifest);
    // If this command fails, the build also fails and reports the reason.
    let Ok(output) = cargo.stderr(Stdio::null()).output() else { return BTreeSet::new() };
    let Ok(metadata) = serde_json::from_slice::<Value>(&output.stdout) else { return BTreeSet::new() };
    let manifests = metadata["packages"].as_array().into_iter().flatten();
    manifests.filter_map(|package| registry_of(package["manifest_path"].as_str()?)).collect()
}

/// Returns the registry's directory, from the path of an unpacked crate's manifest.
fn registry_of(manifest: &str) -> Option<String> {
    let (cargo_home, rest) = manifest.split_once("/registry/src/")?;
    Some(format!("{cargo_home}/registry/src/{}", rest.split('/').next()?))
}

/// Runs cargo, with its messages on the terminal. Returns the path of the module that it wrote.
fn compile(dir: &Path, features: &str, toolchain: &Toolchain) -> Result<PathBuf> {
    let manifest = dir.join("Cargo.toml");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--lib", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    cargo.arg("--manifest-path").arg(&manifest).args(["--features", features]);
    if let Some(target_dir) = env::var_os("LARDER_PLUGIN_TARGET") {
        cargo.arg("--target-dir").arg(target_dir);
    }
    // A component must not contain paths of this machine. Otherwise, two machines would build different components from
    // the same sources. Cargo already makes paths in the project relative. The project's directory is not remapped
    // here, because the flags would then differ between projects, and cargo would compile the crates again for each
    // project.
    let home = env::var("CARGO_HOME").ok().or_else(|| Some(format!("{}/.cargo", env::var("HOME").ok()?)));
    let mut flags = vec![format!("-Clink-arg=-zstack-size={STACK_BYTES}")];
    flags.extend(home.map(|home| format!("--remap-path-prefix={home}=/cargo")));
    // The last matching flag wins.
    flags.extend(registries(&manifest).into_iter().map(|dir| format!("--remap-path-prefix={dir}=/cargo/registry")));
    if let Toolchain::Sources { rustc, linker } = toolchain {
        cargo.arg("-Zbuild-std=std,panic_abort");
        // The distribution's compiler is a stable version. With this variable, it can compile its own standard library,
        // which uses unstable features.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", rustc);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        // With this variable, a proxy of rustup would use another compiler.
        cargo.env_remove("RUSTUP_TOOLCHAIN");
    }
    cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let mut running = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let lines = running.stdout.take().map(BufReader::new).into_iter().flat_map(|lines| lines.lines());
    let mut module = None;
    for line in lines {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
        let own = message["manifest_path"].as_str().is_some_and(|path| same_file(Path::new(path), &manifest));
        if message["reason"] == "compiler-artifact" && own {
            let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            module = files.map(PathBuf::from).find(|path| path.extension().is_some_and(|it| it == "wasm")).or(module);
        }
    }
    if !running.wait()?.success() {
        bail!(CliError::Failed(format!("the plugin in {} cannot be compiled", dir.display())));
    }
    module.ok_or_else(|| {
        CliError::Failed(format!(
            "the plugin in {} cannot be built: cargo wrote no WebAssembly. hint: set `crate-type = [\"cdylib\"]` under \
             `[lib]` in Cargo.toml",
            dir.display()
        ))
        .into()
    })
}

fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(a).is_some() && real(a) == real(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_is_found_in_crate_path() {
        let of = |path| registry_of(path);
        let found = of("/home/x/.cargo/registry/src/mirror.example-0123456789abcdef/serde-1.0.0/Cargo.toml");
        assert_eq!(found.as_deref(), Some("/home/x/.cargo/registry/src/mirror.example-0123456789abcdef"));
        assert_eq!(of("plugin/Cargo.toml"), None);
    }
}
