//! Writes a training set: as one file, or as several files in a directory.

use std::{path::Path, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use larder_common::clock::SystemClock;
use larder_source::{ParquetLimits, S3Parquet, Source as _, SourceError, aws::Aws};
use serde::{Deserialize, Serialize};

use super::{
    Location, OfflineError, PathLock,
    file_writer::{FileWriter, OutputFile},
    location::NotAnObject,
    new_file::NewDir,
    row_batches::{RowBatches, without_dictionaries},
};

/// Where a training set is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To a file or an object.
    File(Location),
    /// To files in a directory, or to objects below a prefix.
    Directory {
        /// The directory or the prefix. The directory must be empty, or not exist yet. The prefix must have no Parquet files.
        at: Location,
        /// The size in bytes at which the next file begins, after the row group.
        file_bytes: u64,
    },
}

/// Writes a training set. If it is dropped without [`TrainingWriter::finish`], nothing is written, except for complete objects
/// below a prefix.
#[derive(Debug)]
pub struct TrainingWriter {
    batches: RowBatches,
    files: Files,
}

#[derive(Debug)]
enum Files {
    One(FileWriter),
    Several(DirectoryWriter),
}

#[derive(Debug)]
struct DirectoryWriter {
    /// Where the files are written: the prefix, or a temporary directory.
    at: Location,
    /// The temporary directory, and the final path.
    dir: Option<(NewDir, Location)>,
    file_bytes: u64,
    schema: SchemaRef,
    aws: Arc<Aws>,
    current: Option<FileWriter>,
    done: Vec<OutputFile>,
}

/// A training set that was written.
#[derive(Debug)]
pub struct Written {
    /// Its files.
    pub files: WrittenFiles,
    /// The lock on its path, if it is local.
    pub lock: Option<PathLock>,
}

/// The files of a training set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenFiles {
    /// For files in a directory: the size in bytes at which the next file began. `None` for a single file.
    pub file_bytes: Option<u64>,
    /// The files in the order of their rows.
    pub files: Vec<OutputFile>,
}

/// The default of [`Output::Directory::file_bytes`].
pub const FILE_BYTES: u64 = 1 << 30;

// === impl Output ===

impl Output {
    /// Parses a path or URL. It is a directory if it ends with a slash, or if it is a local directory that exists.
    ///
    /// # Errors
    /// [`NotAnObject`] for a URL that does not name an object or a prefix in S3.
    pub fn parse(path: &Path, file_bytes: u64) -> Result<Self, NotAnObject> {
        let slash = path.to_str().and_then(|path| path.strip_suffix('/')).filter(|path| !path.is_empty());
        match slash {
            Some(dir) => Ok(Self::Directory { at: Location::parse(Path::new(dir))?, file_bytes }),
            None => {
                let at = Location::parse(path)?;
                let is_dir = matches!(&at, Location::Local(path) if path.is_dir());
                Ok(if is_dir { Self::Directory { at, file_bytes } } else { Self::File(at) })
            }
        }
    }

    /// Returns its location.
    #[must_use]
    pub fn at(&self) -> &Location {
        match self {
            Self::File(at) | Self::Directory { at, .. } => at,
        }
    }
}

// === impl TrainingWriter ===

impl TrainingWriter {
    /// Starts to write.
    ///
    /// # Errors
    /// [`OfflineError::Write`], also if another run writes to the same path or if a directory is not empty,
    /// [`OfflineError::Output`], if a prefix is not empty, and [`OfflineError::Upload`].
    pub fn create(output: &Output, schema: SchemaRef, aws: &Arc<Aws>) -> Result<Self, OfflineError> {
        let batches = RowBatches::new(SchemaRef::clone(&schema));
        let files = match output {
            Output::File(at) => Files::One(FileWriter::create(at, schema, aws)?),
            Output::Directory { at, file_bytes } => {
                Files::Several(DirectoryWriter::create(at, *file_bytes, schema, aws)?)
            }
        };
        Ok(Self { batches, files })
    }

    /// Writes rows.
    ///
    /// # Errors
    /// [`OfflineError::Write`], [`OfflineError::Upload`] and [`OfflineError::Encode`].
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), OfflineError> {
        let Self { batches, files } = self;
        batches.push(rows, &mut |batch| files.write(&batch))
    }

    /// Writes the rows that are still in memory. Further rows would begin a new row group.
    ///
    /// # Errors
    /// [`OfflineError::Write`], [`OfflineError::Upload`] and [`OfflineError::Encode`].
    pub fn flush(&mut self) -> Result<(), OfflineError> {
        self.batches.finish(&mut |batch| self.files.write(&batch))?;
        match &mut self.files {
            Files::One(file) => file.flush(),
            Files::Several(directory) => directory.current.as_mut().map_or(Ok(()), FileWriter::flush),
        }
    }

    /// Completes the set: moves the file or directory to its path, or completes the last object.
    ///
    /// # Errors
    /// [`OfflineError::Write`], [`OfflineError::Upload`] and [`OfflineError::Encode`].
    pub fn finish(mut self) -> Result<Written, OfflineError> {
        self.batches.finish(&mut |batch| self.files.write(&batch))?;
        match self.files {
            Files::One(file) => {
                let (file, lock) = file.finish()?;
                Ok(Written { files: WrittenFiles { file_bytes: None, files: vec![file] }, lock })
            }
            Files::Several(directory) => directory.finish(),
        }
    }
}

// === impl Files ===

impl Files {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), OfflineError> {
        match self {
            Self::One(file) => file.write(batch),
            Self::Several(directory) => directory.write(batch),
        }
    }
}

// === impl DirectoryWriter ===

impl DirectoryWriter {
    fn create(at: &Location, file_bytes: u64, schema: SchemaRef, aws: &Arc<Aws>) -> Result<Self, OfflineError> {
        let (at, dir) = match at {
            Location::Local(path) => {
                let dir = NewDir::create(path);
                let dir = dir.map_err(|source| OfflineError::Write { at: at.clone(), source })?;
                (Location::Local(dir.temporary().to_owned()), Some((dir, at.clone())))
            }
            Location::Object(prefix) => {
                let url = format!("{}/", prefix.url());
                let found =
                    S3Parquet::of_all_columns(Arc::clone(aws), &url, ParquetLimits::default(), Arc::new(SystemClock));
                match found.versions() {
                    Ok(found) if found.is_empty() => {}
                    Err(SourceError::Empty { .. }) => {}
                    Ok(_) => {
                        let why = "there are Parquet files below this prefix".to_owned();
                        return Err(OfflineError::Output { at: at.clone(), why });
                    }
                    Err(SourceError::Aws(error)) => return Err(OfflineError::Upload(error)),
                    Err(error) => return Err(OfflineError::Output { at: at.clone(), why: error.to_string() }),
                }
                (at.clone(), None)
            }
        };
        let aws = Arc::clone(aws);
        Ok(Self { at, dir, file_bytes, schema, aws, current: None, done: Vec::new() })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), OfflineError> {
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                // Zeros in front keep the order of the names up to a million files.
                let at = self.at.join(&format!("part-{:06}.parquet", self.done.len()));
                self.current.insert(FileWriter::create(&at, SchemaRef::clone(&self.schema), &self.aws)?)
            }
        };
        current.write(batch)?;
        if current.bytes() >= self.file_bytes { self.end_file() } else { Ok(()) }
    }

    fn end_file(&mut self) -> Result<(), OfflineError> {
        if let Some(current) = self.current.take() {
            self.done.push(current.finish()?.0);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Written, OfflineError> {
        if self.done.is_empty() && self.current.is_none() {
            // A set without rows has one file, with the columns.
            self.write(&RecordBatch::new_empty(without_dictionaries(&self.schema)))?;
        }
        self.end_file()?;
        let lock = match self.dir {
            Some((dir, at)) => dir.finish().map_err(|source| OfflineError::Write { at, source })?,
            None => None,
        };
        Ok(Written { files: WrittenFiles { file_bytes: Some(self.file_bytes), files: self.done }, lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slash_makes_a_directory() {
        let parse = |path: &str| Output::parse(Path::new(path), 1).unwrap();
        let directory = |at: &str| Output::Directory { at: Location::parse(Path::new(at)).unwrap(), file_bytes: 1 };
        assert_eq!(parse("sets/a/"), directory("sets/a"));
        assert_eq!(parse("s3://bucket/sets/"), directory("s3://bucket/sets"));
        assert_eq!(parse("sets/a"), Output::File(Location::Local("sets/a".into())));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(parse(dir.path().to_str().unwrap()), directory(dir.path().to_str().unwrap()));
        assert!(Output::parse(Path::new("s3://bucket/"), 1).is_err());
    }
}
