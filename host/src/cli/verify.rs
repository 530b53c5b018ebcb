//! `larder verify`: reads entity rows back and judges them.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::{
    CliError, ConfigArg,
    get::{WhatArgs, request},
    output,
    target::{Target, error_message},
};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    what: WhatArgs,
    /// Count a null value as missing too
    #[arg(long)]
    no_nulls: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    let request = request(&args.what)?;
    let target = Target::find(&args.config.config)?;
    let (status, answer) = target.online_features(&request)?;
    if status != 200 {
        bail!(CliError::Failed(error_message(&answer)));
    }
    let (values, findings) = judge(&answer, &request["entities"], args.no_nulls);
    findings.iter().for_each(|finding| output::say(finding));
    if !findings.is_empty() {
        bail!(CliError::Failed(format!("{} of {values} values are missing or expired", findings.len())));
    }
    output::say(&format!("all {values} values are there and fresh"));
    Ok(())
}

/// How many feature values there are, and what is wrong with some. The entity columns only repeat the
/// question and do not count.
fn judge(answer: &Value, entities: &Value, no_nulls: bool) -> (usize, Vec<String>) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names = list(&answer["metadata"]["feature_names"]);
    let results = list(&answer["results"]);
    let mut values = 0;
    let mut findings = Vec::new();
    for (name, column) in names.iter().zip(&results) {
        if name.as_str().is_some_and(|name| entities.get(name).is_some()) {
            continue;
        }
        for (row, status) in list(&column["statuses"]).iter().enumerate() {
            values += 1;
            let word = match status.as_str() {
                Some("PRESENT") if no_nulls && column["values"][row].is_null() => "is null",
                Some("PRESENT") => continue,
                Some("NOT_FOUND") => "is missing",
                Some("OUTSIDE_MAX_AGE") => "is older than its ttl",
                _ => "has an unknown status",
            };
            findings.push(format!("row {}: {} {word}", row + 1, name.as_str().unwrap_or_default()));
        }
    }
    (values, findings)
}
