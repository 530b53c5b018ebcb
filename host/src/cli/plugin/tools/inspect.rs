//! `larder plugin inspect`: prints a plugin's signature and build information.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use larder_plugin_host::{Component, Field, Signature};
use serde_json::{Value, json};

use super::project::LoadedPlugin;
use crate::cli::output;

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// The plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the signature and build information as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &InspectArgs) -> Result<()> {
    let plugin = LoadedPlugin::open(&args.file)?;
    if args.json {
        output::line(&as_json(&plugin.component).to_string());
        return Ok(());
    }
    let (component, signature) = (&plugin.component, plugin.signature());
    output::line(&format!("{} {}", signature.name, signature.version));
    output::line(&signature.doc);
    output::line("");
    for (what, value) in facts(component) {
        output::line(&format!("{what:<9} {value}"));
    }
    output::line("");
    print_signature(component);
    Ok(())
}

/// Returns the numbers of inputs and outputs as text: `2 inputs, 1 output`.
pub(super) fn size_of(signature: &Signature) -> String {
    let inputs = output::counted(signature.inputs.len() as u64, "input", "inputs");
    format!("{inputs}, {}", output::counted(signature.outputs.len() as u64, "output", "outputs"))
}

/// Prints the inputs and outputs as a table.
pub(super) fn print_signature(component: &Component) {
    let signature = component.signature();
    let row = |kind: &str, field: &Field| {
        let null = match (kind, field.nullable) {
            ("input", false) => "required",
            (_, true) => "may be null",
            (_, false) => "never null",
        };
        vec![kind.to_owned(), field.name.clone(), field.column_type.to_string(), null.to_owned(), field.doc.clone()]
    };
    let inputs = signature.inputs.iter().map(|field| row("input", field));
    let rows: Vec<_> = inputs.chain(signature.outputs.iter().map(|field| row("output", field))).collect();
    output::table(&["", "NAME", "TYPE", "NULLS", "DOC"], &rows);
}

fn facts(component: &Component) -> Vec<(&'static str, String)> {
    let build = component.build();
    let of = |part: fn(&larder_plugin_host::BuildInfo) -> &String| {
        build.map_or_else(|| "unknown".to_owned(), |it| part(it).clone())
    };
    vec![
        ("language", component.language().to_owned()),
        ("contract", component.contract().to_owned()),
        ("size", output::bytes(component.bytes())),
        ("sha256", component.digest().to_string()),
        ("sources", of(|build| &build.sources)),
        ("kit", of(|build| &build.sdk)),
        ("built by", of(|build| &build.tool)),
    ]
}

fn as_json(component: &Component) -> Value {
    let signature = component.signature();
    let field = |field: &Field| {
        json!({
            "name": field.name, "type": field.column_type.to_string(), "nullable": field.nullable, "doc": field.doc,
        })
    };
    json!({
        "name": signature.name, "version": signature.version, "doc": signature.doc,
        "inputs": signature.inputs.iter().map(field).collect::<Vec<_>>(),
        "outputs": signature.outputs.iter().map(field).collect::<Vec<_>>(),
        "language": component.language(), "contract": component.contract(), "bytes": component.bytes(),
        "sha256": component.digest().to_string(),
        "build": component.build(),
    })
}
