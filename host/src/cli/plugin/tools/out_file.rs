//! Writes the rows of `larder plugin run` to a Parquet file: the inputs, the outputs and the error of each row.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use larder_captures::{column_array, data_type_of};
use larder_plugin_host::{Inputs, Outputs, Signature};
use larder_source::aws::{Aws, AwsConfig};

use crate::offline::{Location, Output, TrainingWriter};

/// A file that is written row group by row group.
pub(super) struct OutFile {
    path: String,
    schema: SchemaRef,
    writer: TrainingWriter,
}

/// The column of errors.
const FAILED: &str = "failed";

// === impl OutFile ===

impl OutFile {
    /// Starts to write a file. It replaces an existing one when it is complete.
    pub(super) fn create(path: &Path, signature: &Signature) -> Result<Self> {
        let outputs: Vec<&str> = signature.outputs.iter().map(|output| output.name.as_str()).collect();
        // The names of inputs and outputs have no spaces, so these names are not taken.
        let unique = |name: &str, other: String| if outputs.contains(&name) { other } else { name.to_owned() };
        let inputs = signature.inputs.iter().map(|input| {
            let name = unique(&input.name, format!("{} (input)", input.name));
            let name = if name == FAILED { format!("{FAILED} (input)") } else { name };
            Field::new(name, data_type_of(input.column_type), true)
        });
        let values = signature.outputs.iter();
        let values = values.map(|output| Field::new(&output.name, data_type_of(output.column_type), true));
        let failed = Field::new(unique(FAILED, format!("{FAILED} (error)")), DataType::Utf8, true);
        let schema = Arc::new(Schema::new(inputs.chain(values).chain([failed]).collect::<Vec<_>>()));
        // A local file needs no client.
        let aws = Aws::new(AwsConfig::default());
        let output = Output::File(Location::Local(path.to_owned()));
        let writer = TrainingWriter::create(&output, SchemaRef::clone(&schema), &aws)?;
        Ok(Self { path: path.display().to_string(), schema, writer })
    }

    /// Writes rows.
    pub(super) fn write(&mut self, inputs: &Inputs, outputs: &Outputs) -> Result<()> {
        let columns = inputs.columns().chain(outputs.frame().columns());
        let columns = self.schema.fields().iter().zip(columns);
        let mut arrays: Vec<ArrayRef> =
            columns.map(|(field, column)| column_array(field.name(), column)).collect::<Result<_, _>>()?;
        let mut errors = vec![None; outputs.rows()];
        for failed in outputs.failed() {
            errors[failed.row] = Some(failed.error.to_string());
        }
        arrays.push(Arc::new(StringArray::from(errors)));
        Ok(self.writer.write(&RecordBatch::try_new(SchemaRef::clone(&self.schema), arrays)?)?)
    }

    /// Completes the file. Returns its path.
    pub(super) fn finish(self) -> Result<String> {
        self.writer.finish()?;
        Ok(self.path)
    }
}
