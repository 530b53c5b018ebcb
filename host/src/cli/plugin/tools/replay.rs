//! `larder plugin run --replay`: computes captured rows again, and compares the outputs with the captured ones.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Result, bail};
use larder_captures::{CaptureHeader, Replay, ReplayDifference};
use larder_plugin_host::Transform;

use super::{project::LoadedPlugin, rows::for_each_capture};
use crate::cli::{CliError, output};

/// Computes the rows of captures, and prints the differences.
///
/// # Errors
/// If a row differs, or a file cannot be replayed.
pub(super) fn replay(plugin: &LoadedPlugin, file: &Path, captures: &Path) -> Result<()> {
    let signature = plugin.signature();
    let mut result = Replay::default();
    // Views have different configurations.
    let mut transforms: BTreeMap<String, Arc<Transform>> = BTreeMap::new();
    let mut captured: Option<CaptureHeader> = None;
    for_each_capture(captures, |capture, rows| {
        let header = capture.header();
        if header.plugin != signature.name {
            bail!(CliError::Failed(format!(
                "{} has calls of plugin '{}', but {} is plugin '{}'. hint: pass captures of '{}'",
                capture.path(),
                header.plugin,
                file.display(),
                signature.name,
                signature.name
            )));
        }
        let transform = match transforms.get(&header.config) {
            Some(transform) => Arc::clone(transform),
            None => plugin.transform(&header.config)?,
        };
        transforms.entry(header.config.clone()).or_insert_with(|| Arc::clone(&transform));
        let inputs = rows
            .inputs_for(&transform, capture)
            .map_err(|why| CliError::Failed(format!("{}: {why}", capture.path())))?;
        let outputs = transform.call(&inputs);
        captured = Some(header.clone());
        Ok(result.add(capture, &rows, signature, &outputs)?)
    })?;
    if let Some(captured) = captured.filter(|captured| captured.digest != plugin.component.digest().to_string()) {
        output::note(&format!(
            "{} is version {} of '{}' with digest {}; the captured calls are of version {} with digest {}",
            file.display(),
            signature.version,
            signature.name,
            short(&plugin.component.digest().to_string()),
            captured.version,
            short(&captured.digest)
        ));
    }
    print(&result);
    if result.is_equal() {
        return Ok(());
    }
    bail!(CliError::Failed(format!(
        "{} of {} differ from the captured ones",
        output::thousands(result.different),
        output::counted(result.rows, "row", "rows")
    )))
}

fn print(result: &Replay) {
    let rows = |count: u64| output::counted(count, "row", "rows");
    output::line(&format!("{} equal in all bits", rows(result.equal)));
    if result.failed_again > 0 {
        output::line(&format!("{} failed again", rows(result.failed_again)));
    }
    if result.limited > 0 {
        output::line(&format!(
            "{} not compared: they failed because of a limit on time or memory, and whether that happens again depends on \
             the machine",
            rows(result.limited)
        ));
    }
    if result.not_computed > 0 {
        output::line(&format!("{} not compared: the plugin was not called for them", rows(result.not_computed)));
    }
    let other_messages = &result.other_messages;
    table(other_messages, "rows that failed again, with another message:");
    table(&result.differences, "differences:");
    let shown: usize = result.differences.len();
    if result.different > shown as u64 {
        output::line("there are more differences, which are not shown");
    }
}

fn table(differences: &[ReplayDifference], title: &str) {
    if differences.is_empty() {
        return;
    }
    output::line("");
    output::line(title);
    let row = |of: &ReplayDifference| {
        let output = of.output.clone().unwrap_or_else(|| "-".to_owned());
        vec![of.call.to_string(), of.row_in_call.to_string(), output, of.captured.clone(), of.now.clone()]
    };
    let rows: Vec<_> = differences.iter().map(row).collect();
    output::table(&["CALL", "ROW", "OUTPUT", "CAPTURED", "NOW"], &rows);
}

/// Returns the first digits of a digest.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
