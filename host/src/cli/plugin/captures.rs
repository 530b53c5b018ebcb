//! `larder plugin capture` and `larder plugin captures`: capture a sample of a plugin's calls, and list captures.

use std::{io::ErrorKind, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use hyper::Method;
use larder_captures::{CaptureEntry, CaptureError, CaptureFile, capture_files};
use larder_http::{CaptureCommand, CaptureReport};
use larder_model::model::parse_duration;
use serde_json::{Value, json};

use super::admin::{path_of, percent};
use crate::cli::{
    CliError, ConfigArg, output,
    target::{Target, send_command},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct CaptureArgs {
    /// The plugin's name
    #[arg(value_name = "NAME")]
    plugin: String,
    /// The share of the calls that is captured, such as 1%, or 0% to stop an earlier capture
    #[arg(long, value_name = "PERCENT", value_parser = parse_sample)]
    sample: f64,
    /// How long calls are captured, such as 60s; at most 24h
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = parse_for)]
    duration: Duration,
    /// Stop after this many rows
    #[arg(long, value_name = "NUMBER")]
    rows: Option<u64>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CapturesArgs {
    /// The plugin's name
    #[arg(value_name = "NAME")]
    plugin: String,
    #[command(flatten)]
    config: ConfigArg,
    /// Print the files as JSON
    #[arg(long)]
    json: bool,
}

/// The contents of a capture file.
struct Listed {
    version: String,
    view: String,
    kind: String,
    rows: usize,
    failed: usize,
}

pub(super) fn capture(args: &CaptureArgs) -> Result<()> {
    let Target::Running(client) = Target::find(&args.config)? else {
        bail!(CliError::Failed(
            "no server is running, so there are no calls to capture. hint: start `larder serve`".to_owned()
        ));
    };
    let command = CaptureCommand { sample: args.sample / 100.0, seconds: args.duration.as_secs(), rows: args.rows };
    let path = path_of(&args.plugin, "capture");
    let report: CaptureReport = send_command(&client, Method::POST, &path, serde_json::to_vec(&command)?)?;
    let CaptureReport { plugin, directory, until } = report;
    if args.sample > 0.0 {
        output::line(&format!("capturing {}% of the calls of {plugin} to {directory} until {until}", args.sample));
    } else {
        output::line(&format!("stopped the capture of {plugin}"));
    }
    Ok(())
}

pub(super) fn list(args: &CapturesArgs) -> Result<()> {
    let dir = args.config.load()?.plugins.captures_dir.join(&args.plugin);
    let files = match capture_files(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        files => files.with_context(|| format!("{} cannot be read", dir.display()))?,
    };
    let listed: Vec<(&CaptureEntry, Result<Listed, CaptureError>)> =
        files.iter().map(|file| (file, read(&file.path))).collect();
    if args.json {
        output::line(&Value::Array(listed.iter().map(|(file, listed)| as_json(file, listed)).collect()).to_string());
        return Ok(());
    }
    if files.is_empty() {
        output::line(&format!("no captures of plugin '{}' in {}", args.plugin, dir.display()));
        return Ok(());
    }
    let row = |(file, listed): &(&CaptureEntry, Result<Listed, CaptureError>)| {
        let listed = listed.as_ref().ok()?;
        let (rows, failed) = (output::thousands(listed.rows as u64), output::thousands(listed.failed as u64));
        let (name, kind) = (name_of(&file.path), listed.kind.clone());
        let bytes = output::bytes(file.bytes);
        Some(vec![name, listed.version.clone(), listed.view.clone(), kind, rows, failed, bytes])
    };
    let rows: Vec<_> = listed.iter().filter_map(row).collect();
    output::line(&format!("captures in {}", dir.display()));
    output::table(&["FILE", "VERSION", "VIEW", "KIND", "ROWS", "FAILED", "SIZE"], &rows);
    listed.iter().filter_map(|(_, listed)| listed.as_ref().err()).for_each(|error| output::note(&error.to_string()));
    Ok(())
}

fn read(file: &Path) -> Result<Listed, CaptureError> {
    let file = CaptureFile::open(file)?;
    let (mut rows, mut failed) = (0, 0);
    for index in 0..file.batch_count() {
        let batch = file.batch(index)?;
        rows += batch.len();
        failed += (0..batch.len()).filter(|row| batch.failure(*row).is_some()).count();
    }
    let header = file.header();
    let (version, view, kind) = (header.version.clone(), header.view.clone(), header.kind.to_string());
    Ok(Listed { version, view, kind, rows, failed })
}

fn as_json(file: &CaptureEntry, listed: &Result<Listed, CaptureError>) -> Value {
    let path = file.path.display().to_string();
    match listed {
        Ok(Listed { version, view, kind, rows, failed }) => json!({
            "file": path, "bytes": file.bytes, "version": version, "view": view, "kind": kind, "rows": rows,
            "failed": failed,
        }),
        Err(error) => json!({ "file": path, "bytes": file.bytes, "error": error.to_string() }),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Parses a percentage from 0 to 100.
fn parse_sample(text: &str) -> Result<f64, String> {
    if matches!(text, "0" | "0%") { Ok(0.0) } else { percent(text) }
}

fn parse_for(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration < Duration::from_secs(1) {
        return Err("it is less than a second".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_percentage() {
        for (text, sample) in [("1%", 1.0), ("0.5", 0.5), ("100 %", 100.0), ("0", 0.0), ("0%", 0.0)] {
            assert_eq!(parse_sample(text), Ok(sample), "{text}");
        }
        for text in ["", "%", "101%", "-1%", "nan", "one"] {
            assert!(parse_sample(text).unwrap_err().contains("hint: write, for example, 1%"), "{text}");
        }
    }
}
