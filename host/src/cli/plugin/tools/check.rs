//! `larder plugin check`: checks whether a server would accept a plugin, and whether its results are deterministic.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use larder_plugin_host::Acceptance;

use super::{
    inspect::{print_signature, size_of},
    project::LoadedPlugin,
};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// The plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The plugin's configuration, as JSON; in a server, it is the `config` of the derived view
    #[arg(long, value_name = "JSON", default_value = "null")]
    view_config: String,
}

pub(super) fn run(args: &CheckArgs) -> Result<()> {
    let plugin = LoadedPlugin::open(&args.file)?;
    let (component, signature) = (&plugin.component, plugin.signature());
    let done = |what: &str| output::line(&format!("ok  {what}"));
    let limit = component.limits().component_bytes;
    done(&format!("size: {} of at most {}", output::bytes(component.bytes()), output::bytes(limit)));
    done("imports: only the log");
    done("exports: describe, configure, transform, with the right types");
    done(&format!("signature: {}", size_of(signature)));
    let transform = plugin.tested_transform(&args.view_config)?;
    done("limits: configure, a row of nulls and a row of zeros stay within the limits");

    let Acceptance { generated, failed, first_failed, .. } = transform
        .accept(None)
        .map_err(|rejection| CliError::Failed(format!("plugin '{}': {}", signature.name, rejection.with_hint(""))))?;
    done(&format!("determinism: {generated} generated rows give the same results in a new instance and a used one"));
    done("rows: each row gives the same results alone, together and in reverse order");
    if let Some((row, error)) = first_failed {
        output::note(&format!(
            "plugin '{}': {failed} of {generated} generated rows failed. The first one is {row}: {}",
            signature.name,
            error.with_hint()
        ));
    }
    output::line("");
    print_signature(component);
    Ok(())
}
