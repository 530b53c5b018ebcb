//! Reads capture files.

use std::path::Path;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType},
};
use larder_model::model::Micros;
use larder_plugin_host::ColumnType;

use super::{
    ArrowFile, CaptureError, CaptureHeader,
    columns::{column_type_of, data_type_of},
    format::{CALL, Column, ERROR_KIND, FAILED, FORMAT, FORMAT_KEY, INPUTS, OUTPUTS, REFERENCE_TIME, ROW_IN_CALL},
};

/// An open capture file.
#[derive(Debug)]
pub struct CaptureFile {
    file: ArrowFile,
    header: CaptureHeader,
    inputs: Vec<Column>,
    outputs: Vec<Column>,
}

/// Rows of a capture file.
#[derive(Clone, Debug)]
pub struct CapturedRows {
    /// The number of the call of each row. Different for each captured call of a server process.
    pub calls: Vec<i64>,
    /// The index of each row in its call.
    pub rows_in_call: Vec<i64>,
    /// The reference time of each row.
    pub times: Vec<Micros>,
    /// The inputs, in the order of [`CaptureFile::inputs`].
    pub inputs: Vec<ArrayRef>,
    /// The outputs that the plugin returned, in the order of [`CaptureFile::outputs`].
    pub outputs: Vec<ArrayRef>,
    failed: StringArray,
    kinds: StringArray,
}

/// Returns whether a schema is the one of a capture, in any version of the format.
#[must_use]
pub fn is_capture(schema: &Schema) -> bool {
    schema.metadata().contains_key(FORMAT_KEY)
}

// === impl CaptureFile ===

impl CaptureFile {
    /// Opens a file, and checks its schema.
    ///
    /// # Errors
    /// [`CaptureError`], which names the file.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = ArrowFile::open(path)?;
        let shown = || file.path().to_owned();
        let metadata = file.schema().metadata();
        let not_a_capture = |why: String| CaptureError::NotACapture { path: shown(), why };
        let format = metadata.get(FORMAT_KEY);
        let format = format.ok_or_else(|| not_a_capture(format!("its metadata has no '{FORMAT_KEY}'")))?;
        match format.parse::<u32>() {
            Ok(FORMAT) => {}
            Ok(found) if found > FORMAT => {
                return Err(CaptureError::LaterFormat { path: shown(), found, known: FORMAT });
            }
            _ => return Err(not_a_capture(format!("its format is '{}'", format.escape_debug()))),
        }
        let header = CaptureHeader::parse(metadata).map_err(not_a_capture)?;
        let (inputs, outputs) = columns_of(&file).map_err(not_a_capture)?;
        Ok(Self { file, header, inputs, outputs })
    }

    /// Returns the plugin, the version and the view of the calls.
    #[must_use]
    pub fn header(&self) -> &CaptureHeader {
        &self.header
    }

    /// Returns the path, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        self.file.path()
    }

    /// Returns the size of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// Returns the names and types of the inputs.
    #[must_use]
    pub fn inputs(&self) -> &[(String, ColumnType)] {
        &self.inputs
    }

    /// Returns the names and types of the outputs.
    #[must_use]
    pub fn outputs(&self) -> &[(String, ColumnType)] {
        &self.outputs
    }

    /// Returns the number of record batches.
    #[must_use]
    pub fn batch_count(&self) -> usize {
        self.file.batch_count()
    }

    /// Reads a record batch.
    ///
    /// # Errors
    /// [`CaptureError`], which names the file.
    pub fn batch(&self, index: usize) -> Result<CapturedRows, CaptureError> {
        let batch = self.file.batch(index)?;
        CapturedRows::of(&batch).ok_or_else(|| CaptureError::Damaged {
            path: self.path().to_owned(),
            why: format!("record batch {index} has nulls where a capture has none"),
        })
    }
}

/// Checks the columns of a file, and returns its inputs and outputs.
fn columns_of(file: &ArrowFile) -> Result<(Vec<Column>, Vec<Column>), String> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let time = data_type_of(ColumnType::TIMESTAMP);
    let fixed = [
        (CALL, &DataType::Int64),
        (ROW_IN_CALL, &DataType::Int64),
        (REFERENCE_TIME, &time),
        (FAILED, &DataType::Utf8),
        (ERROR_KIND, &DataType::Utf8),
    ];
    for field in file.schema().fields() {
        let (name, found) = (field.name(), field.data_type());
        match fixed.iter().find(|(known, _)| known == name) {
            Some((_, wanted)) if found == *wanted => {}
            Some((_, wanted)) => return Err(format!("column '{name}' has the type {found} instead of {wanted}")),
            None if name == INPUTS => inputs = struct_columns(field)?,
            None if name == OUTPUTS => outputs = struct_columns(field)?,
            None => return Err(format!("it has an unknown column '{}'", name.escape_debug())),
        }
    }
    let missing = |name: &&str| file.schema().fields().iter().filter(|field| field.name() == name).count() != 1;
    let mut wanted = fixed.iter().map(|(name, _)| *name).chain([OUTPUTS]);
    match wanted.find(missing) {
        Some(name) => Err(format!("it does not have exactly one column '{name}'")),
        None => Ok((inputs, outputs)),
    }
}

fn struct_columns(field: &Field) -> Result<Vec<Column>, String> {
    let name = field.name();
    let DataType::Struct(fields) = field.data_type() else {
        return Err(format!("column '{name}' has the type {} instead of a struct", field.data_type()));
    };
    let column = |field: &std::sync::Arc<Field>| {
        let found = field.data_type();
        let column_type = column_type_of(found)
            .ok_or_else(|| format!("'{name}.{}' has the type {found}, which plugins do not have", field.name()))?;
        Ok((field.name().clone(), column_type))
    };
    fields.iter().map(column).collect()
}

// === impl CapturedRows ===

impl CapturedRows {
    fn of(batch: &RecordBatch) -> Option<Self> {
        let present = |name: &str| batch.column_by_name(name).filter(|column| column.null_count() == 0);
        let integers = |name| Some(present(name)?.as_primitive::<Int64Type>().values().to_vec());
        let fields = |name| Some(present(name)?.as_struct().columns().to_vec());
        let text = |name| Some(batch.column_by_name(name)?.as_string::<i32>().clone());
        Some(Self {
            calls: integers(CALL)?,
            rows_in_call: integers(ROW_IN_CALL)?,
            times: present(REFERENCE_TIME)?.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
            inputs: if batch.column_by_name(INPUTS).is_some() { fields(INPUTS)? } else { Vec::new() },
            outputs: fields(OUTPUTS)?,
            failed: text(FAILED)?,
            kinds: text(ERROR_KIND)?,
        })
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the message of a row that failed, and its kind of error.
    #[must_use]
    pub fn failure(&self, row: usize) -> Option<(&str, &str)> {
        let kind = if self.kinds.is_null(row) { "" } else { self.kinds.value(row) };
        (!self.failed.is_null(row)).then(|| (self.failed.value(row), kind))
    }
}

#[cfg(test)]
mod tests;
