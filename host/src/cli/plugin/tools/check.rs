//! `larder plugin check`: checks whether a server would accept a plugin, and whether its results are deterministic.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use larder_plugin_host::{ColumnType, Inputs, Outputs, Signature, Transform};

use super::{
    inspect::print_signature,
    project::{self, LoadedPlugin, RandomColumns},
};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// The plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The plugin's configuration, as JSON; in a server, it is the `config` of the derived view
    #[arg(long, value_name = "JSON", default_value = "null")]
    config: String,
}

/// The number of synthetic rows.
const ROWS: usize = 256;
const SEED: u64 = 20_260_101;

pub(super) fn run(args: &CheckArgs) -> Result<()> {
    let plugin = LoadedPlugin::open(&args.file)?;
    let (component, signature) = (&plugin.component, plugin.signature());
    let done = |what: &str| output::line(&format!("ok  {what}"));
    let limit = component.limits().component_bytes;
    done(&format!("size: {} of at most {}", output::bytes(component.bytes()), output::bytes(limit)));
    done("imports: only the log");
    done("exports: describe, configure, transform, with the right types");
    done(&format!("signature: {} inputs, {} outputs", signature.inputs.len(), signature.outputs.len()));
    let transform = plugin.transform(&args.config)?;
    done("limits: configure, a row of nulls and a row of zeros stay within the limits");

    let inputs = RandomColumns::new(SEED).inputs(&transform, ROWS);
    let fresh = plugin.transform(&args.config)?;
    // Results must not depend on earlier calls, so this instance first processes other rows, and the other instance
    // does not.
    let _ = transform.call(&RandomColumns::new(!SEED).inputs(&transform, ROWS));
    let (first, second) = (transform.call(&inputs), fresh.call(&inputs));
    compare(signature, ROWS, &first, &second, "in another instance")?;
    let again = transform.call(&inputs);
    compare(signature, ROWS, &first, &again, "when it is called again")?;
    done(&format!(
        "determinism: {ROWS} synthetic rows give the same results each time, in a new instance and a used one"
    ));
    check_split(signature, &transform, &inputs, &first)?;
    done("rows: each result depends only on its own row, so batches may be split");
    output::line("");
    print_signature(component);
    Ok(())
}

fn compare(signature: &Signature, rows: usize, first: &Outputs, second: &Outputs, when: &str) -> Result<()> {
    for (place, field) in signature.outputs.iter().enumerate() {
        for row in 0..rows {
            let of = field.column_type;
            let (a, b) = (cell(first, place, of, row), cell(second, place, of, row));
            if a != b {
                bail!(CliError::Failed(format!(
                    "not deterministic: output '{}' of row {row} is {a}, and {b} {when}. Training data would differ from \
                     served features",
                    field.name
                )));
            }
        }
    }
    Ok(())
}

/// Returns an output of a row as text, or the error of the row.
fn cell(outputs: &Outputs, place: usize, of: ColumnType, row: usize) -> String {
    let failed = outputs.failed().iter().find(|failed| failed.row == row);
    failed.map_or_else(|| project::cell(outputs.output(place), of, row).to_string(), |failed| failed.error.to_string())
}

/// Checks that each row gives the same result alone as in a batch with other rows.
fn check_split(signature: &Signature, transform: &Transform, inputs: &Inputs, whole: &Outputs) -> Result<()> {
    for row in 0..ROWS {
        let single = transform.call(&inputs.slice(row..row + 1));
        for (place, field) in signature.outputs.iter().enumerate() {
            let of = field.column_type;
            let (in_batch, alone) = (cell(whole, place, of, row), cell(&single, place, of, 0));
            if in_batch != alone {
                bail!(CliError::Failed(format!(
                    "output '{}' of row {row} is {in_batch} in a batch, but {alone} on its own. hint: servers split \
                     large batches, so each result must depend only on its own row",
                    field.name
                )));
            }
        }
    }
    Ok(())
}
