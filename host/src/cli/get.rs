//! `larder get`: looks up features and prints them.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::{
    CliError, ConfigArg, output,
    selection::SelectionArgs,
    target::{Target, error_message},
};

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Print the response as JSON, as the HTTP endpoint returns it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &GetArgs) -> Result<()> {
    args.selection.check()?;
    let target = Target::find_with_plugins(&args.config)?;
    let request = args.selection.request(&target.catalog()?)?;
    let (status, answer) = target.online_features(&request)?;
    if status != 200 {
        bail!(CliError::Failed(error_message(&answer)));
    }
    if args.json {
        output::line(&answer.to_string());
    } else {
        print(&answer);
    }
    Ok(())
}

/// Prints a table for each row, with the name, value, status and event time of each column. An event time of
/// 1970-01-01T00:00:00Z is not printed, because it means that there is no event time.
fn print(answer: &Value) {
    let names = answer["metadata"]["feature_names"].as_array().map(Vec::as_slice).unwrap_or_default();
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = results.first().and_then(|column| column["values"].as_array()).map_or(0, Vec::len);
    for row in 0..rows {
        if row > 0 {
            output::line("");
        }
        let line = |(name, column): (&Value, &Value)| {
            let cell = |part: &str| column[part][row].as_str().unwrap_or_default().to_owned();
            let value = match &column["values"][row] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let time = cell("event_timestamps");
            let time = if time == "1970-01-01T00:00:00Z" { String::new() } else { time };
            vec![name.as_str().unwrap_or_default().to_owned(), value, cell("statuses"), time]
        };
        let lines: Vec<_> = names.iter().zip(results).map(line).collect();
        output::table(&["FEATURE", "VALUE", "STATUS", "EVENT TIME"], &lines);
    }
}
