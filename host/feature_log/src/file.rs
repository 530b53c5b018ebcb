//! A file of the log that is not complete. It is built in memory, so that a failed write can be retried.

use std::{sync::Arc, time::Instant};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};

use super::{Roll, SERVICE_KEY, VERSION_KEY};

/// A file that is not complete.
pub(super) struct OpenFile {
    pub(super) service: Arc<str>,
    writer: ArrowWriter<Vec<u8>>,
    since: Instant,
    rows: u64,
}

/// A complete file.
pub(super) struct ClosedFile {
    pub(super) service: Arc<str>,
    pub(super) bytes: Vec<u8>,
    pub(super) rows: u64,
}

/// The size in bytes of the values that are encoded together. Values that are not encoded yet take more memory.
const ROW_GROUP_BYTES: usize = 4 << 20;

// === impl OpenFile ===

impl OpenFile {
    /// Begins a file.
    ///
    /// # Errors
    /// [`ParquetError`], if the schema cannot be written as Parquet.
    pub(super) fn new(service: &Arc<str>, schema: SchemaRef) -> Result<Self, ParquetError> {
        let entry = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
        let metadata = vec![entry(SERVICE_KEY, service), entry(VERSION_KEY, env!("CARGO_PKG_VERSION"))];
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(metadata))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
        Ok(Self { service: Arc::clone(service), writer, since: Instant::now(), rows: 0 })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`ParquetError`], if the rows do not have the schema of the file.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.writer.write(batch)?;
        self.rows += batch.num_rows() as u64;
        if self.writer.memory_size() >= ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// Returns the approximate memory of the file in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.memory_size()
    }

    /// Returns when the file is complete because of its age.
    pub(super) fn due(&self, roll: &Roll) -> Option<Instant> {
        self.since.checked_add(roll.every)
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`ParquetError`].
    pub(super) fn close(self) -> Result<ClosedFile, ParquetError> {
        Ok(ClosedFile { service: self.service, bytes: self.writer.into_inner()?, rows: self.rows })
    }
}
