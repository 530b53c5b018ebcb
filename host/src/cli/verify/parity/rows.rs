//! The columns of a log from which its values can be computed again.

use std::sync::Arc;

use anyhow::Result;
use arrow::{
    array::{Array, RecordBatch, UInt64Array},
    compute::take_record_batch,
    datatypes::{Field, Schema},
};
use larder_columns::instants;
use larder_feature_log::{DEFINITIONS, LOG_TIMESTAMP, LogSchema, Origin};
use larder_model::{model::Micros, registry::Catalog};
use larder_serving::definitions_digest;

use super::log::LoggedRows;

/// The rows of a log, and the columns from which their values can be computed again.
pub(super) struct Rows<'l> {
    pub(super) logged: &'l LoggedRows,
    /// The keys, the request data and the times of the rows.
    pub(super) entities: RecordBatch,
    /// The names of the keys, for examples.
    pub(super) keys: Vec<String>,
}

/// The suffixes of the columns that each feature has in addition.
const STATUS_AND_TIME: [&str; 2] = ["__status", "__timestamp"];

// === impl Rows ===

impl<'l> Rows<'l> {
    /// Selects the columns of a log from which its values can be computed.
    ///
    /// # Errors
    /// If the log lacks one of them.
    pub(super) fn new(logged: &'l LoggedRows, schema: &LogSchema) -> Result<Self> {
        let (mut fields, mut arrays, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for column in &schema.columns {
            let is_input = matches!(column.origin, Origin::Key(_) | Origin::RequestData(_) | Origin::LogTimestamp);
            if !is_input {
                continue;
            }
            if matches!(column.origin, Origin::Key(_)) {
                keys.push(column.name.clone());
            }
            let array = logged.column(&column.name)?;
            fields.push(Field::new(&column.name, array.data_type().clone(), true));
            arrays.push(array);
        }
        Ok(Self { logged, entities: RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?, keys })
    }

    /// Returns the number of rows that were logged with other definitions than those of a catalog.
    pub(super) fn with_other_definitions(&self, catalog: &Catalog) -> usize {
        let current = Some(definitions_digest(catalog).to_string());
        (0..self.entities.num_rows()).filter(|row| self.logged.text(DEFINITIONS, *row) != current).count()
    }

    /// Returns the service's features that the log lacks, and the logged features that the service lacks, by their full names.
    pub(super) fn unverified(&self, schema: &LogSchema) -> (Vec<String>, Vec<String>) {
        let features = schema.columns.iter().filter(|column| matches!(column.origin, Origin::Feature(..)));
        let missing = features.filter(|column| !self.logged.has(&column.name)).map(|column| column.name.clone());
        let is_feature = |name: &str| STATUS_AND_TIME.iter().all(|suffix| self.logged.has(&format!("{name}{suffix}")));
        let fields = self.logged.rows.schema_ref().fields().iter().map(|field| field.name());
        let other = fields.filter(|name| is_feature(name) && schema.columns.iter().all(|column| column.name != **name));
        (missing.collect(), other.cloned().collect())
    }

    /// Returns the rows with these indexes, with other times.
    pub(super) fn at(&self, indexes: &UInt64Array, times: &[Option<Micros>]) -> Result<RecordBatch> {
        let rows = take_record_batch(&self.entities, indexes)?;
        let position = rows.schema().index_of(LOG_TIMESTAMP)?;
        let mut arrays = rows.columns().to_vec();
        arrays[position] = instants(times.iter().copied());
        Ok(RecordBatch::try_from_iter(rows.schema().fields().iter().map(|field| field.name().clone()).zip(arrays))?)
    }
}
