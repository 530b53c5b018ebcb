//! Runs `feast serve` with an SQLite online store. The store has the same values as Larder's, but only those of the
//! first customers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use super::spec::FEAST_CUSTOMERS;
use crate::{
    client,
    cores::Cores,
    dataset,
    definitions::{Service, View, feast_python},
    endpoint::free_address,
    server::{Server, Startup},
};

/// The maximum time until the server is ready. It is long, because Python and its libraries start slowly on a busy
/// core.
const READY_LIMIT: Duration = Duration::from_secs(120);

const STORE: &str = "\
project: bench
provider: local
registry: data/registry.db
online_store: {type: sqlite, path: data/online_store.db}
offline_store: {type: file}
entity_key_serialization_version: 3
";

/// Creates a Feast repository with the data of the Parquet files in `data`, and fills its online store.
pub(crate) fn make_repo(
    program: &Path,
    repo: &Path,
    data: &Path,
    views: &[View],
    services: &[Service],
) -> anyhow::Result<()> {
    fs::create_dir_all(repo.join("data"))?;
    for view in views {
        dataset::copy_head(&data.join(&view.file), &repo.join("data").join(&view.file), FEAST_CUSTOMERS as usize)?;
    }
    fs::write(repo.join("feature_store.yaml"), STORE)?;
    fs::write(repo.join("definitions.py"), feast_python(views, services))?;
    run(program, repo, &["apply"])?;
    // The range includes all event times.
    run(program, repo, &["materialize", "2020-01-01T00:00:00", "2100-01-01T00:00:00"])
}

/// Starts Feast's server with one worker.
pub(crate) async fn serve(program: &Path, repo: &Path, cores: Cores) -> anyhow::Result<Server> {
    let address = free_address().context("no free port")?;
    let mut command = command(program, repo);
    command.args(["serve", "--host", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--workers", "1", "--no-access-log", "--max-requests", "0"]);
    let startup = Startup {
        ready: client::get("/health"),
        limit: READY_LIMIT,
        ..Startup::new("feast", address.into(), repo.join("feast.log"))
    };
    Server::start(&mut command, startup, cores).await
}

/// Returns the version that `feast version` prints.
pub(crate) fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("version").env("FEAST_USAGE", "False").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // The output contains color codes, and may contain quotes.
    text.split(['"', ' ', '\n']).find(|word| is_version(word)).map(str::to_owned)
}

fn is_version(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.')
}

fn run(program: &Path, repo: &Path, args: &[&str]) -> anyhow::Result<()> {
    let output =
        command(program, repo).args(args).output().with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = message.lines().rev().take(5).collect();
        bail!("feast {} failed: {}", args[0], tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

fn command(program: &Path, repo: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repo);
    // Feast writes local times to its SQLite store, which are only correct if the time zone is UTC.
    for (name, value) in [("TZ", "UTC"), ("FEAST_USAGE", "False"), ("PYTHONWARNINGS", "ignore")] {
        command.env(name, value);
    }
    command
}

/// Returns the absolute path of the program, which is started in another directory.
pub(crate) fn absolute(program: &Path) -> anyhow::Result<PathBuf> {
    // Links are not resolved, because the path of the link determines the virtual environment.
    std::path::absolute(program).with_context(|| format!("cannot find {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_numbers_are_versions() {
        assert!(is_version("0.67.0") && !is_version("SDK") && !is_version("Version:") && !is_version("3"));
    }
}
