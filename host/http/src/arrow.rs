//! Encodes an [`Answer`] as an Arrow IPC stream with one record batch.
//!
//! The columns of the JSON response come first, with the same names and in the same order. Then `NAME__status` and
//! `NAME__event_timestamp` follow for each feature. A column has the Arrow type that corresponds to its declared type:
//! JSON, UUIDs and decimals are text, sets are lists, and timestamps are microseconds in UTC. Nested values (maps,
//! structs, lists of lists, timestamps with a zone) are text: the same JSON as in the JSON response. A missing value is
//! always null. The JSON response has placeholders for two missing values: the smallest integer for a null timestamp,
//! and the epoch for a missing event time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, DictionaryArray, Int8Array, RecordBatch, RecordBatchOptions, StringArray},
    datatypes::{Field, Schema},
    error::ArrowError,
    ipc::writer::StreamWriter,
};
use hyper::StatusCode;
use larder_columns::{ArrayError, feature_array, instants, scalar_array};
use larder_model::model::{ScalarType, ValueRef, ValueType};
use larder_serving::{
    Answer, ColumnFrom, EchoedValue, EntityColumn, LookupError, Plan, RequestError, ResponseBudget, Status,
};
use serde_json::{Value, json};

use super::HttpError;

/// Why an answer cannot be encoded as Arrow.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArrowEncodeError {
    /// Two columns would have the same name.
    #[error(
        "as Arrow, two columns would be named '{0}': each feature comes with NAME__status and NAME__event_timestamp. \
         hint: request full feature names, fewer features, or JSON"
    )]
    Collision(String),
    /// An array cannot be built.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// A timestamp in a key column overflows 64-bit microseconds.
    #[error(
        "as Arrow, column '{column}' cannot hold {seconds} s: it overflows 64-bit microseconds. hint: request JSON"
    )]
    Instant { column: String, seconds: i64 },
    /// The response exceeds a limit.
    #[error(transparent)]
    Limit(#[from] RequestError),
    /// Arrow rejects a column or the batch, which is a bug in Larder.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// The columns that are already built.
struct Columns<'r> {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
    names: HashSet<String>,
    /// The size of the arrays in bytes.
    bytes: usize,
    budget: &'r mut ResponseBudget,
}

/// The approximate size of a column in the stream without its values, in bytes.
const COLUMN_BYTES: usize = 512;

/// Encodes the body of an answer.
pub(super) fn encode_arrow(answer: &Answer<'_>, budget: &mut ResponseBudget) -> Result<Vec<u8>, ArrowEncodeError> {
    let plan = &*answer.plan;
    let (fields, arrays, names) = (Vec::new(), Vec::new(), HashSet::new());
    let mut columns = Columns { fields, arrays, names, bytes: 0, budget };
    for (index, column) in plan.entity_columns.iter().enumerate() {
        let values = answer.entity_column(index);
        // A request may have nulls in any key. The schema must not depend on whether this request has some.
        columns.add(&column.name, entity_column(column, values)?, true)?;
    }
    for column in &plan.feature_columns {
        let values = answer.cells(column.from).map(|cell| cell.value);
        // A nested value is converted to JSON, which can be eight times as long.
        let expansion = if matches!(column.value_type, ValueType::Nested(_)) { 8 } else { 1 };
        columns.reserve(values.clone().map(|value| value.bytes() * expansion + 8).sum())?;
        columns.add(&column.name, feature_array(&column.name, column.value_type, values)?, true)?;
    }
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(Status::ALL.map(Status::name)));
    // All feature columns of a read have the same event times, so they share one array.
    let mut times: Vec<Option<ArrayRef>> = vec![None; plan.reads.len()];
    for column in &plan.feature_columns {
        let indexes = answer.cells(column.from).map(|cell| status_index(cell.status));
        let statuses = DictionaryArray::try_new(Int8Array::from_iter_values(indexes), Arc::clone(&words))?;
        columns.add(&format!("{}__status", column.name), Arc::new(statuses), false)?;
        let times = match column.from {
            // Computed values have no event time.
            ColumnFrom::Step { .. } => instants((0..answer.rows).map(|_| None)),
            ColumnFrom::Read { read, .. } => {
                let of_read = || instants((0..answer.rows).map(|row| answer.event_time(read, row)));
                Arc::clone(times[read].get_or_insert_with(of_read))
            }
        };
        columns.add(&format!("{}__event_timestamp", column.name), times, true)?;
    }
    // The writer copies the arrays before it writes them, so memory for the copies is reserved.
    let bytes = columns.bytes + columns.arrays.len() * COLUMN_BYTES;
    columns.budget.hold(bytes)?;
    let mut out = Vec::new();
    columns.budget.reserve(&mut out, columns.bytes / 2, bytes)?;
    let schema = Arc::new(Schema::new_with_metadata(columns.fields, metadata(plan)));
    let options = RecordBatchOptions::new().with_row_count(Some(answer.rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns.arrays, &options)?;
    let mut writer = StreamWriter::try_new(out, &schema)?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}

/// Returns the schema's metadata: the names of the views if the request asks for them, as in the JSON response.
fn metadata(plan: &Plan) -> HashMap<String, String> {
    let views = plan.view_metadata.iter().map(|views| {
        let views: Vec<Value> = views.iter().map(|view| json!({ "name": view })).collect();
        ("feature_view_metadata".to_owned(), Value::Array(views).to_string())
    });
    views.collect()
}

fn entity_column(column: &EntityColumn, values: &[EchoedValue<'_>]) -> Result<ArrayRef, ArrowEncodeError> {
    // If no requested feature uses the column, its values were not converted. If they do not fit the declared type, the column
    // has their type.
    let fitting = || column.declared.filter(|declared| values.iter().all(|value| fits(value, *declared)));
    let scalar = column.key_type.or_else(fitting).unwrap_or_else(|| {
        match values.iter().find(|value| **value != EchoedValue::Null) {
            Some(EchoedValue::Int(_)) => ScalarType::Int64,
            Some(EchoedValue::Float(_)) => ScalarType::Float64,
            Some(EchoedValue::Bool(_)) => ScalarType::Bool,
            Some(EchoedValue::Text(_) | EchoedValue::Null) | None => ScalarType::String,
        }
    });
    let values = values.iter().map(|value| echoed(&column.name, value, scalar)).collect::<Result<Vec<_>, _>>()?;
    Ok(scalar_array(&column.name, scalar, values.into_iter())?)
}

/// Returns whether [`echoed`] converts a value to a key type without loss.
fn fits(value: &EchoedValue<'_>, scalar: ScalarType) -> bool {
    match value {
        EchoedValue::Null => true,
        EchoedValue::Int(v) => match scalar {
            ScalarType::Int32 => i32::try_from(*v).is_ok(),
            ScalarType::Int64 | ScalarType::UnixTimestamp => true,
            _ => false,
        },
        EchoedValue::Text(_) => matches!(scalar, ScalarType::String | ScalarType::Bytes),
        EchoedValue::Float(_) | EchoedValue::Bool(_) => false,
    }
}

fn echoed<'a>(column: &str, value: &'a EchoedValue<'_>, scalar: ScalarType) -> Result<ValueRef<'a>, ArrowEncodeError> {
    Ok(match (value, scalar) {
        (EchoedValue::Null, _) => ValueRef::Null,
        // As in Feast, timestamps in keys are whole seconds.
        (EchoedValue::Int(v), ScalarType::UnixTimestamp) => {
            let too_far = || ArrowEncodeError::Instant { column: column.to_owned(), seconds: *v };
            ValueRef::Int64(v.checked_mul(1_000_000).ok_or_else(too_far)?)
        }
        // The range of a 32-bit key was checked when it was parsed.
        (EchoedValue::Int(v), ScalarType::Int32) => i32::try_from(*v).map_or(ValueRef::Null, ValueRef::Int32),
        (EchoedValue::Int(v), _) => ValueRef::Int64(*v),
        (EchoedValue::Float(v), _) => ValueRef::Float64(*v),
        (EchoedValue::Text(v), _) => ValueRef::Bytes(v.as_bytes()),
        (EchoedValue::Bool(v), _) => ValueRef::Bool(*v),
    })
}

/// Returns the index of a status in [`Status::ALL`].
fn status_index(status: Status) -> i8 {
    match status {
        Status::Present => 0,
        Status::NotFound => 1,
        Status::OutsideMaxAge => 2,
        Status::Invalid => 3,
    }
}

// === impl Columns ===

impl Columns<'_> {
    /// Checks the limit on the response's size, and reserves memory for a column of at most about `bytes` bytes. Must
    /// be called before the column is built.
    fn reserve(&mut self, bytes: usize) -> Result<(), ArrowEncodeError> {
        // Nested values may be up to eight times smaller than estimated.
        self.budget.reserve(&mut Vec::new(), self.bytes + bytes / 8, 0)?;
        // The column's buffer grows by doubling, so it can be twice as large as its content.
        Ok(self.budget.hold(2 * bytes)?)
    }

    fn add(&mut self, name: &str, array: ArrayRef, nullable: bool) -> Result<(), ArrowEncodeError> {
        if !self.names.insert(name.to_owned()) {
            return Err(ArrowEncodeError::Collision(name.to_owned()));
        }
        self.bytes += array.get_buffer_memory_size();
        self.fields.push(Field::new(name, array.data_type().clone(), nullable));
        self.arrays.push(array);
        Ok(())
    }
}

// === impl ArrowEncodeError ===

impl From<ArrowEncodeError> for LookupError<HttpError> {
    fn from(fault: ArrowEncodeError) -> Self {
        match fault {
            ArrowEncodeError::Limit(error) => Self::Request(error),
            fault => Self::Protocol(fault.into()),
        }
    }
}

impl From<ArrowEncodeError> for HttpError {
    fn from(fault: ArrowEncodeError) -> Self {
        let message = fault.to_string();
        match fault {
            ArrowEncodeError::Collision(_) => Self::detail(StatusCode::BAD_REQUEST, "collision", message),
            ArrowEncodeError::Instant { .. } => Self::detail(StatusCode::BAD_REQUEST, "bad_key", message),
            ArrowEncodeError::Limit(error) => error.into(),
            ArrowEncodeError::Array(ArrayError::TooLarge(_)) => {
                Self::detail(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            ArrowEncodeError::Arrow(error) | ArrowEncodeError::Array(ArrayError::Arrow(error)) => {
                Self::internal(format!("cannot encode an answer as Arrow: {error}"))
            }
        }
    }
}
