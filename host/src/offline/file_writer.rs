//! Writes one file of a training set: a Parquet file, or an object in S3.

use std::{
    io::{self, Write},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use larder_plugin_host::{Digest, DigestWriter};
use larder_source::aws::{Aws, AwsError, ObjectAt, ObjectUpload};
use parquet::{
    arrow::{ArrowWriter, add_encoded_arrow_schema_to_metadata, arrow_writer::ArrowWriterOptions},
    basic::Compression,
    errors::ParquetError,
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};
use serde::{Deserialize, Serialize};

use super::{Location, OfflineError, PathLock, new_file::NewFile, row_batches::without_dictionaries};

/// Writes a file. If it is dropped without [`FileWriter::finish`], nothing is written: an earlier file or object at the same
/// location keeps its content.
#[derive(Debug)]
pub(super) struct FileWriter {
    at: Location,
    writer: ArrowWriter<DigestWriter<Sink>>,
}

/// A file with its content's digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputFile {
    /// The size in bytes.
    pub bytes: u64,
    /// The digest of the content.
    pub sha256: Digest,
}

#[derive(Debug)]
enum Sink {
    File(NewFile),
    Object(Box<ObjectUpload>),
}

/// The maximum number of rows in a row group.
const GROUP_ROWS: usize = 1 << 17;
/// The maximum size of an encoded row group in bytes, which the writer holds in memory. The last batch of a row group may
/// exceed it.
const GROUP_BYTES: usize = 64 << 20;

// === impl FileWriter ===

impl FileWriter {
    /// Starts to write to a location.
    ///
    /// # Errors
    /// [`OfflineError::Write`], also if another run writes to the same path, and [`OfflineError::Upload`].
    pub(super) fn create(at: &Location, schema: SchemaRef, aws: &Arc<Aws>) -> Result<Self, OfflineError> {
        let sink = match at {
            Location::Local(path) => {
                let file = NewFile::create(path);
                Sink::File(file.map_err(|source| OfflineError::Write { at: at.clone(), source })?)
            }
            Location::Object(object) => {
                let upload =
                    ObjectUpload::new(Arc::clone(aws), ObjectAt::clone(object)).map_err(OfflineError::Upload)?;
                Sink::Object(Box::new(upload))
            }
        };
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // Parquet has no type for `Date64`. Without coercion, it would become an integer.
            .set_coerce_types(true)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES));
        // Floats rarely repeat, and building a dictionary takes more time than the rest of the encoding.
        for field in schema.fields().iter().filter(|field| field.data_type().is_floating()) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
        }
        let mut properties = properties.build();
        // The rows are encoded without dictionaries of Arrow. Readers restore them from the declared types.
        add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(DigestWriter::new(sink), without_dictionaries(&schema), options);
        let writer = writer.map_err(|source| failed(at, source))?;
        Ok(Self { at: at.clone(), writer })
    }

    /// Encodes rows.
    ///
    /// # Errors
    /// [`OfflineError::Write`], [`OfflineError::Upload`] and [`OfflineError::Encode`].
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), OfflineError> {
        self.writer.write(rows).map_err(|source| failed(&self.at, source))
    }

    /// Returns the size in bytes of the row groups that were written.
    pub(super) fn bytes(&self) -> u64 {
        let groups = self.writer.flushed_row_groups();
        groups.iter().map(|group| u64::try_from(group.compressed_size()).unwrap_or(0)).sum()
    }

    /// Ends the current row group, which releases its memory.
    ///
    /// # Errors
    /// [`OfflineError::Write`], [`OfflineError::Upload`] and [`OfflineError::Encode`].
    pub(super) fn flush(&mut self) -> Result<(), OfflineError> {
        self.writer.flush().map_err(|source| failed(&self.at, source))
    }

    /// Replaces the file or object at the location. Returns its size and digest, and its lock, which the caller may keep while
    /// it writes more files that belong to this one.
    ///
    /// # Errors
    /// [`OfflineError::Write`], [`OfflineError::Upload`] and [`OfflineError::Encode`].
    pub(super) fn finish(self) -> Result<(OutputFile, Option<PathLock>), OfflineError> {
        let inner = self.writer.into_inner();
        let (sink, sha256, bytes) = inner.map_err(|source| failed(&self.at, source))?.finish();
        let lock = match sink {
            Sink::File(file) => file.finish().map_err(|source| OfflineError::Write { at: self.at, source })?,
            Sink::Object(upload) => {
                upload.finish().map_err(OfflineError::Upload)?;
                None
            }
        };
        Ok((OutputFile { bytes, sha256 }, lock))
    }
}

/// Converts an error of the Parquet library, which wraps the errors of the file or upload.
fn failed(at: &Location, source: ParquetError) -> OfflineError {
    let at = at.clone();
    match source {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => match source.downcast::<AwsError>() {
                Ok(source) => OfflineError::Upload(source),
                Err(source) => OfflineError::Write { at, source },
            },
            Err(source) => OfflineError::Encode { at, source: ParquetError::External(source) },
        },
        source => OfflineError::Encode { at, source },
    }
}

// === impl OutputFile ===

impl OutputFile {
    /// Reads a file, and computes its digest.
    ///
    /// # Errors
    /// Errors of the operating system.
    pub fn of(path: &std::path::Path) -> io::Result<Self> {
        let mut file = larder_common::files::open_regular(path)?;
        let (sha256, bytes) = Digest::read(&mut file)?;
        Ok(Self { bytes, sha256 })
    }
}

// === impl Sink ===

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Object(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Object(upload) => upload.flush(),
        }
    }
}
