//! Reads entity rows from Parquet files or from objects in S3.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use larder_source::{Batches, FileVersion, Source, SourceError, SourceRows};

use super::{Entities, EntityFile, OfflineError, OutputFile};

/// The files with entity rows: one file, all Parquet files of a directory, one object, or all objects under a prefix. All
/// files must have the same columns.
#[derive(Debug)]
pub struct EntityFiles {
    path: PathBuf,
    /// The URL, if the rows are in S3.
    url: Option<String>,
    source: Box<dyn Source>,
    schema: SchemaRef,
    rows: Option<u64>,
}

/// A read of the rows, in the order of the files' names.
pub struct EntityRows<'f> {
    files: &'f EntityFiles,
    batches: Box<dyn Batches + 'f>,
}

// === impl EntityFiles ===

impl EntityFiles {
    /// Reads the columns and the numbers of rows from the footers of the files. `source` returns all columns of the files at
    /// `path`, which is a path or a URL.
    ///
    /// # Errors
    /// [`OfflineError::Entities`] and [`OfflineError::EntityColumns`].
    pub(super) fn open(path: &Path, source: Box<dyn Source>) -> Result<Self, OfflineError> {
        let url = path.to_str().filter(|path| path.starts_with("s3://"));
        let schemas = source.schemas().map_err(OfflineError::Entities)?;
        let listed = source.versions().map_err(OfflineError::Entities)?.len();
        let Some(first) = schemas.first() else {
            return Err(OfflineError::Entities(SourceError::Empty { path: source.name(), hint: "" }));
        };
        let schema = first.all_columns();
        if let Some(other) = schemas.iter().find(|other| other.all_columns().fields() != schema.fields()) {
            let (path, why) = (other.path.clone(), format!("its columns differ from those of {}", first.path));
            return Err(OfflineError::EntityColumns { path, why });
        }
        // Of many files, only some are opened.
        let rows = (schemas.len() == listed).then(|| schemas.iter().map(|file| file.rows()).sum());
        Ok(Self { path: path.to_owned(), url: url.map(str::to_owned), source, schema, rows })
    }

    /// Returns the columns of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Returns the number of rows in the footers of all files; `None` if only some of the footers were read.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Starts to read the rows.
    ///
    /// # Errors
    /// [`OfflineError::Entities`].
    pub fn read(&self) -> Result<EntityRows<'_>, OfflineError> {
        let batches = self.source.read(None).map_err(OfflineError::Entities)?;
        Ok(EntityRows { files: self, batches })
    }

    /// Returns whether the rows are in local files.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.url.is_none()
    }

    /// Returns the path, or the URL of an object or a prefix.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Describes the path and the content of each file, for a manifest.
    ///
    /// # Errors
    /// [`OfflineError::Entities`].
    pub fn describe(&self) -> Result<Entities, OfflineError> {
        let describe = |FileVersion { name, bytes, version }: FileVersion| {
            if !self.is_local() {
                return Ok((name, EntityFile::Object { bytes, etag: version }));
            }
            let path = self.local_path(&name);
            let error = |source: io::Error| {
                OfflineError::Entities(SourceError::Io { path: path.display().to_string(), source })
            };
            let OutputFile { bytes, sha256 } = OutputFile::of(&path).map_err(error)?;
            Ok((name, EntityFile::Local { bytes, sha256 }))
        };
        let absolute = if self.is_local() { std::path::absolute(&self.path).ok() } else { None };
        let path = absolute.unwrap_or_else(|| self.path.clone());
        let files = self.versions()?.into_iter().map(describe).collect::<Result<_, OfflineError>>()?;
        Ok(Entities { path: Some(path), files })
    }

    fn versions(&self) -> Result<Vec<FileVersion>, OfflineError> {
        self.source.versions().map_err(OfflineError::Entities)
    }

    fn local_path(&self, name: &str) -> PathBuf {
        if self.path.is_dir() { self.path.join(name) } else { self.path.clone() }
    }
}

// === impl EntityRows ===

impl EntityRows<'_> {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let failed = |error: SourceError| ArrowError::ExternalError(Box::new(error));
        let Some(batch) = self.batches.next_batch().map_err(failed)? else { return Ok(None) };
        let SourceRows::Columns(rows) = batch.rows else {
            return Err(ArrowError::InvalidArgumentError(format!("{}: it has no columns", batch.origin)));
        };
        if rows.schema_ref().fields() != self.files.schema.fields() {
            let why = format!("{}: its columns differ from those of the first file", batch.origin);
            return Err(ArrowError::SchemaError(why));
        }
        // The metadata of the files may differ.
        rows.with_schema(self.files.schema()).map(Some)
    }
}

impl Iterator for EntityRows<'_> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl std::fmt::Debug for EntityRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntityRows").field("files", &self.files).finish_non_exhaustive()
    }
}
