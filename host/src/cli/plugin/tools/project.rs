//! Loads a plugin from its file, binds it to a synthetic view and generates inputs, for commands that call plugins
//! without a server.

use std::{path::Path, sync::Arc};

use anyhow::{Result, bail};
use larder_common::telemetry::{self, LogFormat};
use larder_model::{
    codec::json,
    model::{DerivedInput, DerivedView, Feature, InputSource, OnError, ScalarType, ValueType},
};
use larder_plugin_host::{BindError, ColumnType, Component, Field, Output, PluginRuntime, Signature, Transform};
use serde_json::Value;

use super::read_plugin;
use crate::cli::CliError;

/// A plugin that was loaded from its file in the same way and with the same default limits as in a server.
pub(super) struct LoadedPlugin {
    pub(super) runtime: Arc<PluginRuntime>,
    pub(super) component: Arc<Component>,
}

// === impl LoadedPlugin ===

impl LoadedPlugin {
    pub(super) fn open(file: &Path) -> Result<Self> {
        // Prints the plugin's log messages and the messages of its panics.
        // The commands print failed rows themselves.
        telemetry::install_logs("warn,larder_plugin_host::logs=error,plugin=debug", LogFormat::Text);
        let bytes = read_plugin(file)?;
        let runtime = super::local_runtime()?;
        let component = runtime
            .load(&bytes)
            .map_err(|error| CliError::Failed(format!("{} is not a plugin: {error}", file.display())))?;
        Ok(Self { runtime, component })
    }

    /// Binds the plugin to a synthetic view with this configuration, which is JSON. Calls it for test rows, as a
    /// deployment does.
    pub(super) fn tested_transform(&self, config: &str) -> Result<Arc<Transform>> {
        self.bound(config, Transform::bind)
    }

    /// Does the same without test rows.
    pub(super) fn transform(&self, config: &str) -> Result<Arc<Transform>> {
        self.bound(config, Transform::bind_without_test_calls)
    }

    fn bound(
        &self,
        config: &str,
        bind: impl FnOnce(&Arc<PluginRuntime>, &Arc<Component>, &DerivedView) -> Result<Arc<Transform>, BindError>,
    ) -> Result<Arc<Transform>> {
        if let Err(error) = serde_json::from_str::<Value>(config) {
            bail!(CliError::Usage(format!(
                "--view-config '{config}' is not valid JSON: {error}. hint: write it as '{{\"key\": 1}}'"
            )));
        }
        let view = view_of(self.component.signature(), config);
        let transform = bind(&self.runtime, &self.component, &view);
        Ok(transform.map_err(|error| CliError::Failed(format!("plugin '{}': {}", error.plugin, error.why)))?)
    }

    pub(super) fn signature(&self) -> &Signature {
        self.component.signature()
    }
}

/// Returns a view that has all inputs and outputs of a plugin.
fn view_of(signature: &Signature, config: &str) -> DerivedView {
    let input = |input: &Field| DerivedInput {
        name: input.name.as_str().into(),
        value_type: value_type(input.column_type),
        from: InputSource::Request,
    };
    let feature = |output: &Field| Feature {
        name: output.name.as_str().into(),
        value_type: value_type(output.column_type),
        description: output.doc.clone(),
        tags: Default::default(),
    };
    DerivedView {
        name: signature.name.as_str().into(),
        plugin: signature.name.as_str().into(),
        inputs: signature.inputs.iter().map(input).collect(),
        features: signature.outputs.iter().map(feature).collect(),
        config: config.into(),
        on_error: OnError::Fail,
        description: signature.doc.clone(),
        tags: Default::default(),
    }
}

/// Returns the simplest of the value types that plugins receive as this column type.
pub(super) fn value_type(of: ColumnType) -> ValueType {
    let scalar = ScalarType::from(of.scalar);
    if of.is_list { ValueType::List(scalar) } else { ValueType::Scalar(scalar) }
}

/// Returns a value as JSON in the format of responses.
pub(super) fn cell(output: Output<'_>, of: ColumnType, row: usize) -> Value {
    let mut text = Vec::new();
    json::value(&mut text, output.get(row), value_type(of));
    serde_json::from_slice(&text).unwrap_or_default()
}
