//! The format of a capture file.
//!
//! A file has calls of one version of a plugin for one view. The columns are `call`, `row_in_call`, `reference_time`,
//! `inputs` and `outputs` (structs with a field for each input and output of the plugin), `failed` and `error_kind`. The
//! metadata of the schema has the version of the format, the plugin and the view. A plugin without inputs has no column
//! `inputs`, because some readers reject a struct without fields.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray},
    datatypes::{DataType, Field, Fields, Metadata, Schema},
    ipc::writer::FileWriter,
};
use larder_columns::{ArrayError, instants};
use larder_model::model::Micros;
use larder_plugin_host::{ColumnType, Frame, FrameBuilder};

use super::columns::{column_array, data_type_of};

/// The plugin, the version and the view of the calls in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureHeader {
    /// The plugin.
    pub plugin: String,
    /// The version that the plugin declares.
    pub version: String,
    /// The SHA-256 digest of the plugin's file, in hexadecimal.
    pub digest: String,
    /// The version of the plugin contract.
    pub contract: String,
    /// The derived view.
    pub view: String,
    /// The view's configuration, which is JSON.
    pub config: String,
    /// Why the calls were captured.
    pub kind: CaptureKind,
}

/// Why calls were captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureKind {
    /// Some of their rows failed.
    Failed,
    /// They are a sample of the calls without failed rows.
    Sampled,
}

/// The name and the type of an input or an output.
pub(crate) type Column = (String, ColumnType);

/// Some rows of a call.
#[derive(Clone, Debug)]
pub(crate) struct CapturedCall {
    /// The number of the call. Different for each captured call of a server process.
    pub(crate) call: i64,
    /// When it was captured.
    pub(crate) at: Micros,
    /// The index of each row in the call.
    pub(crate) rows: Vec<usize>,
    /// The reference time of each row.
    pub(crate) times: Vec<Micros>,
    pub(crate) inputs: Frame,
    pub(crate) outputs: Frame,
    /// The failure of each row that failed.
    pub(crate) failures: Vec<Option<Failure>>,
}

/// Why a row failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) kind: &'static str,
}

/// The version of the format.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const CALL: &str = "call";
pub(crate) const ROW_IN_CALL: &str = "row_in_call";
pub(crate) const REFERENCE_TIME: &str = "reference_time";
pub(crate) const INPUTS: &str = "inputs";
pub(crate) const OUTPUTS: &str = "outputs";
pub(crate) const FAILED: &str = "failed";
pub(crate) const ERROR_KIND: &str = "error_kind";
/// The key of the format's version in the metadata. The other keys have the same prefix.
pub(crate) const FORMAT_KEY: &str = "larder.capture";

/// Returns the contents of a file with these calls.
///
/// # Errors
/// [`ArrayError`], if the values are too large for a record batch.
pub(crate) fn encode(
    header: &CaptureHeader,
    inputs: &[Column],
    outputs: &[Column],
    calls: &[CapturedCall],
) -> Result<Vec<u8>, ArrayError> {
    let rows = || calls.iter().flat_map(|call| call.rows.iter().map(move |row| (call.call, *row)));
    let row_in_call = rows().map(|(_, row)| i64::try_from(row).unwrap_or(i64::MAX));
    let failures = || calls.iter().flat_map(|call| &call.failures);
    let messages = failures().map(|failure| failure.as_ref().map(|failure| failure.message.as_str()));
    let kinds = failures().map(|failure| failure.as_ref().map(|failure| failure.kind));
    let mut columns: Vec<(Field, ArrayRef)> = vec![
        (Field::new(CALL, DataType::Int64, false), Arc::new(rows().map(|(call, _)| call).collect::<Int64Array>())),
        (Field::new(ROW_IN_CALL, DataType::Int64, false), Arc::new(row_in_call.collect::<Int64Array>())),
        time_column(calls),
    ];
    if !inputs.is_empty() {
        columns.push(struct_column(INPUTS, inputs, calls.iter().map(|call| &call.inputs))?);
    }
    columns.push(struct_column(OUTPUTS, outputs, calls.iter().map(|call| &call.outputs))?);
    columns.push((Field::new(FAILED, DataType::Utf8, true), Arc::new(messages.collect::<StringArray>())));
    columns.push((Field::new(ERROR_KIND, DataType::Utf8, true), Arc::new(kinds.collect::<StringArray>())));
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let schema = Arc::new(Schema::new_with_metadata(fields, header.metadata()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    let mut writer = FileWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}

fn time_column(calls: &[CapturedCall]) -> (Field, ArrayRef) {
    let times = instants(calls.iter().flat_map(|call| call.times.iter().map(|time| Some(*time))));
    (Field::new(REFERENCE_TIME, times.data_type().clone(), false), times)
}

/// Returns a column of structs with the columns of all frames.
fn struct_column<'f>(
    name: &str,
    columns: &[Column],
    frames: impl Iterator<Item = &'f Frame> + Clone,
) -> Result<(Field, ArrayRef), ArrayError> {
    let rows = frames.clone().map(Frame::rows).sum();
    let mut whole = FrameBuilder::new(columns.iter().map(|(_, of)| *of), rows);
    for index in 0..columns.len() {
        whole.column(|to| frames.clone().for_each(|frame| to.append(frame.column(index), 0..frame.rows())));
    }
    let whole = whole.finish();
    let arrays = columns.iter().zip(whole.columns()).map(|((name, _), column)| column_array(name, column));
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    let array: ArrayRef = Arc::new(StructArray::try_new_with_length(struct_fields(columns), arrays, None, rows)?);
    Ok((Field::new(name, array.data_type().clone(), false), array))
}

/// Returns the fields of the struct of inputs or outputs.
fn struct_fields(columns: &[Column]) -> Fields {
    columns.iter().map(|(name, of)| Field::new(name, data_type_of(*of), true)).collect()
}

// === impl CaptureHeader ===

impl CaptureHeader {
    fn metadata(&self) -> HashMap<String, String> {
        let mut metadata: HashMap<String, String> = self.entries().into_iter().collect();
        metadata.insert(FORMAT_KEY.to_owned(), FORMAT.to_string());
        metadata
    }

    fn entries(&self) -> [(String, String); 7] {
        [
            ("plugin", self.plugin.clone()),
            ("version", self.version.clone()),
            ("digest", self.digest.clone()),
            ("contract", self.contract.clone()),
            ("view", self.view.clone()),
            ("config", self.config.clone()),
            ("kind", self.kind.to_string()),
        ]
        .map(|(key, value)| (key_of(key), value))
    }

    /// Reads the header from the metadata of a schema.
    ///
    /// # Errors
    /// The reason why a key is missing or invalid.
    pub(crate) fn parse(metadata: &Metadata) -> Result<Self, String> {
        let get = |key: &str| {
            let key = key_of(key);
            metadata.get(&key).map(|value| value.to_string()).ok_or_else(|| format!("its metadata has no '{key}'"))
        };
        Ok(Self {
            plugin: get("plugin")?,
            version: get("version")?,
            digest: get("digest")?,
            contract: get("contract")?,
            view: get("view")?,
            config: get("config")?,
            kind: get("kind")?.parse()?,
        })
    }
}

fn key_of(name: &str) -> String {
    format!("{FORMAT_KEY}.{name}")
}

// === impl CaptureKind ===

impl fmt::Display for CaptureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed",
            Self::Sampled => "sampled",
        })
    }
}

impl FromStr for CaptureKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Failed, Self::Sampled]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| format!("its metadata has the unknown kind '{}'", text.escape_debug()))
    }
}
