//! Errors of the store.

use std::{any::Any, io, path::PathBuf};

use larder_common::telemetry::panic_message;
use larder_model::codec::RowError;

/// The reason why the store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "store {path} is in use by another Larder process. hint: stop it, or set 'store: data_dir' to another directory"
    )]
    InUse {
        /// The store file.
        path: PathBuf,
    },
    /// The file was written by a newer Larder.
    #[error(
        "store {path} has format {found}, but this version of Larder only reads format {known}. hint: use a newer \
         version, or set 'store: data_dir' to another directory"
    )]
    Newer {
        /// The store file.
        path: PathBuf,
        /// The format in the file.
        found: u32,
        /// The newest format that this Larder supports.
        known: u32,
    },
    /// The operating system returned an error; `source` has the reason.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The action that failed, for example "open".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The disk is full, or a limit keeps the file from growing (see [`super::SpaceLimits`]). Committed data stays
    /// intact.
    #[error("the store cannot grow: {0}")]
    DiskFull(io::Error),
    /// The file is not a store, or its content is inconsistent.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The file could not be reopened after a failure. Every write and every [`super::OnlineStore::check_and_reopen`]
    /// tries to reopen it again.
    #[error("the store is closed: {0}")]
    Closed(String),
    /// The path no longer names the open file, so the next start cannot find commits to it.
    #[error(
        "store {path} {what} while it was open, so writes fail. hint: move the file back, or restart Larder, which \
         creates a new store and loads it from the sources"
    )]
    Gone {
        /// The path of the store file.
        path: PathBuf,
        /// What happened to the file.
        what: String,
    },
    /// Any other failure of the embedded database.
    #[error("the store failed: {0}")]
    Database(#[source] Box<redb::Error>),
    /// The view changed since the operation began, or another load of the view began. The operation must be restarted.
    #[error("view '{view}' was redefined, reset, or loaded again since this operation began; try again")]
    Superseded {
        /// The name of the view.
        view: String,
    },
    /// A row that was to be written cannot be decoded.
    #[error("view '{view}': {source}")]
    Row {
        /// The name of the view.
        view: String,
        /// The reason why the row cannot be decoded.
        source: RowError,
    },
}

impl StoreError {
    /// Returns the kind of failure, as a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "in_use",
            Self::Newer { .. } => "newer_format",
            Self::Io { .. } => "io",
            Self::DiskFull(_) => "disk_full",
            Self::Damaged(_) => "damaged",
            Self::Closed(_) => "closed",
            Self::Gone { .. } => "gone",
            Self::Database(_) => "database",
            Self::Superseded { .. } => "superseded",
            Self::Row { .. } => "row",
        }
    }

    /// Builds the error for a panic of the database, which panics on damaged pages.
    pub(super) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        Self::Damaged(format!("the database panicked: {}", panic_message(panic)))
    }

    /// Returns whether the database rejects all operations after such an error until its file is reopened.
    pub(super) fn needs_reopening(&self) -> bool {
        matches!(self, Self::DiskFull(_) | Self::Database(_))
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        use redb::Error as Redb;
        match error {
            Redb::Corrupted(what) => Self::Damaged(what),
            Redb::Io(source) => match source.kind() {
                // Exceeding a quota or a limit on file sizes is treated like a full disk.
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    Self::DiskFull(source)
                }
                // The database returns these kinds for a file in another format and for a truncated file.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(source.to_string()),
                _ => Self::Database(Box::new(Redb::Io(source))),
            },
            // No version of Larder creates a store that causes these errors.
            Redb::TableDoesNotExist(_)
            | Redb::TableTypeMismatch { .. }
            | Redb::TypeDefinitionChanged { .. }
            | Redb::TableIsMultimap(_)
            | Redb::RepairAborted
            | Redb::UpgradeRequired(_) => Self::Damaged(error.to_string()),
            other => Self::Database(Box::new(other)),
        }
    }
}

macro_rules! from_redb_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb_errors!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::CursorError,
    redb::SetDurabilityError
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_counts_as_full_disk() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            let error = StoreError::from(redb::Error::Io(kind.into()));
            assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
        }
    }
}
