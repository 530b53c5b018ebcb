//! Builds a component from a core module that another compiler wrote, without a development kit.
//!
//! The module exports the functions of the contract as the component model's canonical ABI defines. The build adds the
//! contract's types, so that the compiler needs no tools for components.

use std::path::Path;

use anyhow::{Context, Result};
use larder_common::files::{FILE_BYTES_MAX, read_regular};
use larder_plugin_host::{BuildInfo, Digest, PluginClass};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{FORMAT, tool};
use crate::cli::{CliError, plugin::embedded::CONTRACT};

const WORLD: &str = "derived-features";
/// The beginning of the names of custom sections in which compilers that know the contract store its types.
const TYPES: &[u8] = b"component-type";

/// Returns the component, and the build information for it.
pub(super) fn build(file: &Path) -> Result<(Vec<u8>, BuildInfo)> {
    let mut module =
        read_regular(file, FILE_BYTES_MAX).with_context(|| format!("{} cannot be read", file.display()))?;
    let info = BuildInfo {
        format: FORMAT,
        language: "module".to_owned(),
        class: PluginClass::Compiled,
        sources: format!("sha256:{}", Digest::of(&module)),
        sdk: "none".to_owned(),
        tool: tool(),
    };
    let component = encode(&mut module).map_err(|error| {
        CliError::Failed(format!(
            "{} is not a module for the contract's world {WORLD}: {error:#}. hint: see \"Write a plugin from the WIT \
             alone\" in the documentation",
            file.display()
        ))
    })?;
    Ok((component, info))
}

fn encode(module: &mut Vec<u8>) -> Result<Vec<u8>> {
    if !module.windows(TYPES.len()).any(|bytes| bytes == TYPES) {
        let mut resolve = Resolve::default();
        let mut package = None;
        for (path, text) in CONTRACT {
            package = Some(resolve.push_str(path, text)?);
        }
        let world = resolve.select_world(&Vec::from_iter(package), Some(WORLD))?;
        embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)?;
    }
    ComponentEncoder::default().validate(true).module(module)?.encode()
}
