//! Runs `feast serve` over a repository with the same values of the first customers, in a SQLite online store.

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

/// Python and its libraries start slowly on a busy core.
const READY_LIMIT: Duration = Duration::from_secs(120);

const STORE: &str = "\
project: bench
provider: local
registry: data/registry.db
online_store: {type: sqlite, path: data/online_store.db}
offline_store: {type: file}
entity_key_serialization_version: 3
";

/// Creates a repository in this directory from Parquet files, and fills its online store.
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
    // A range that includes all event times.
    run(program, repo, &["materialize", "2020-01-01T00:00:00", "2100-01-01T00:00:00"])
}

/// Starts its server with one worker.
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

/// Returns the version that it prints.
pub(crate) fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("version").env("FEAST_USAGE", "False").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // The output has colors and quotes.
    text.split(['"', ' ', '\n']).find(|word| is_version(word)).map(str::to_owned)
}

fn is_version(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.')
}

fn run(program: &Path, repo: &Path, args: &[&str]) -> anyhow::Result<()> {
    let output =
        command(program, repo).args(args).output().with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = said.lines().rev().take(5).collect();
        bail!("feast {} failed: {}", args[0], tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

fn command(program: &Path, repo: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repo);
    // Feast writes times in its SQLite store in local time, which is only correct if that is UTC.
    for (name, value) in [("TZ", "UTC"), ("FEAST_USAGE", "False"), ("PYTHONWARNINGS", "ignore")] {
        command.env(name, value);
    }
    command
}

/// Returns an absolute path, because it is started in another directory.
pub(crate) fn absolute(program: &Path) -> anyhow::Result<PathBuf> {
    // Not canonical: the path identifies a virtual environment, not the target of its links.
    std::path::absolute(program).with_context(|| format!("no such path: {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_words() {
        assert!(is_version("0.67.0") && !is_version("SDK") && !is_version("Version:") && !is_version("3"));
    }
}
