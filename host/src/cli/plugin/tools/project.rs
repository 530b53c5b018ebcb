//! Loads a plugin from its file, binds it to a synthetic view and generates inputs, for commands that call plugins
//! without a server.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use larder_common::{
    files::{FILE_BYTES_MAX, read_regular},
    telemetry::{self, LogFormat},
};
use larder_model::model::{
    DerivedInput, DerivedView, Feature, InputSource, ListRef, OnError, ScalarType, ValueRef, ValueType,
};
use larder_plugin_host::{
    ColumnScalar, ColumnType, ColumnWriter, Component, Field, Inputs, Output, PluginRuntime, Signature, Transform,
};
use serde_json::{Value, json};

use crate::cli::CliError;

/// A plugin that was loaded from its file in the same way and with the same default limits as in a server.
pub(super) struct LoadedPlugin {
    pub(super) runtime: Arc<PluginRuntime>,
    pub(super) component: Arc<Component>,
}

/// A generator of pseudorandom columns. The same seed generates the same columns.
pub(super) struct RandomColumns(u64);

// === impl LoadedPlugin ===

impl LoadedPlugin {
    pub(super) fn open(file: &Path) -> Result<Self> {
        // Prints the plugin's log messages and the messages of its panics.
        telemetry::install_logs("warn,plugin=debug", LogFormat::Text);
        let bytes = read_regular(file, FILE_BYTES_MAX).with_context(|| format!("{} cannot be read", file.display()))?;
        let runtime = super::local_runtime()?;
        let component = runtime
            .load(&bytes)
            .map_err(|error| CliError::Failed(format!("{} is not a plugin: {error}", file.display())))?;
        Ok(Self { runtime, component })
    }

    /// Binds the plugin to a synthetic view with this configuration, which is JSON.
    pub(super) fn transform(&self, config: &str) -> Result<Arc<Transform>> {
        let view = view_of(self.component.signature(), config);
        let transform = Transform::bind(&self.runtime, &self.component, &view);
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

/// Returns a value as JSON in the format of responses: bytes as base64, timestamps as whole seconds, and floats that
/// are not finite as text.
pub(super) fn cell(output: Output<'_>, of: ColumnType, row: usize) -> Value {
    match output.get(row) {
        ValueRef::List(list) => items(list, of.scalar),
        value => scalar(value, of.scalar),
    }
}

fn items(list: ListRef<'_>, of: ColumnScalar) -> Value {
    list.iter().map(|item| scalar(item, of)).collect()
}

fn scalar(value: ValueRef<'_>, of: ColumnScalar) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let real = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
    match value {
        ValueRef::Null | ValueRef::List(_) => Value::Null,
        ValueRef::Bool(value) => json!(value),
        ValueRef::Int32(value) => json!(value),
        ValueRef::Int64(value) if of == ColumnScalar::Timestamp => json!(value.div_euclid(1_000_000)),
        ValueRef::Int64(value) => json!(value),
        ValueRef::Float32(value) => real(f64::from(value)),
        ValueRef::Float64(value) => real(value),
        ValueRef::Bytes(bytes) if of == ColumnScalar::Utf8 => json!(String::from_utf8_lossy(bytes)),
        ValueRef::Bytes(bytes) => json!(STANDARD.encode(bytes)),
    }
}

// === impl RandomColumns ===

impl RandomColumns {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Generates columns for a plugin's inputs. On average, one value in eight is null. Numbers have all orders of
    /// magnitude, and include special values such as NaN.
    pub(super) fn inputs(&mut self, transform: &Transform, rows: usize) -> Inputs {
        let mut inputs = transform.input_batch(0, rows);
        for _ in 0..inputs.column_count() {
            inputs.column(|column| self.fill(column, rows));
        }
        inputs.finish()
    }

    fn fill(&mut self, column: &mut ColumnWriter<'_>, rows: usize) {
        let of = column.column_type();
        for _ in 0..rows {
            if self.next_bits().is_multiple_of(8) {
                column.push(ValueRef::Null);
            } else if of.is_list {
                let texts: Vec<String> = (0..self.next_bits() % 5).map(|_| self.text()).collect();
                let items: Vec<ValueRef<'_>> = texts.iter().map(|text| self.value(of.scalar, text)).collect();
                column.push_list(items.into_iter());
            } else {
                let text = self.text();
                let value = self.value(of.scalar, &text);
                column.push(value);
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any bits will do")]
    fn value<'t>(&mut self, of: ColumnScalar, text: &'t str) -> ValueRef<'t> {
        let bits = self.next_bits();
        match of {
            ColumnScalar::Bool => ValueRef::Bool(bits.is_multiple_of(2)),
            ColumnScalar::Int32 => ValueRef::Int32(self.whole() as i32),
            ColumnScalar::Int64 => ValueRef::Int64(self.whole()),
            ColumnScalar::Timestamp => ValueRef::Int64(bits as i64 % 4_102_444_800_000_000),
            ColumnScalar::Float32 => ValueRef::Float32(self.real() as f32),
            ColumnScalar::Float64 => ValueRef::Float64(self.real()),
            ColumnScalar::Utf8 | ColumnScalar::Binary => ValueRef::Bytes(text.as_bytes()),
        }
    }

    #[expect(clippy::cast_possible_wrap, reason = "any bits will do")]
    fn whole(&mut self) -> i64 {
        match self.next_bits() % 8 {
            0 => self.next_bits() as i64,
            1 => 0,
            2 => -((self.next_bits() % 1_000) as i64),
            _ => (self.next_bits() % 1_000) as i64,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "any number will do")]
    fn real(&mut self) -> f64 {
        const SPECIAL: [f64; 8] =
            [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX, 1.0];
        match self.next_bits() % 8 {
            0 => SPECIAL[usize::try_from(self.next_bits() % 8).unwrap_or(0)],
            1 => f64::from_bits(self.next_bits()),
            _ => self.whole() as f64 + (self.next_bits() % 1_000) as f64 / 1_000.0,
        }
    }

    fn text(&mut self) -> String {
        const WORDS: [&str; 8] = ["", "a", "Month-to-month", "One year", "Zürich", "日本", "x y", "0"];
        WORDS[usize::try_from(self.next_bits() % 8).unwrap_or(0)].to_owned()
    }

    /// Returns the next number of the generator `SplitMix64` (Steele, Lea and Flood, 2014).
    fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
