//! Opens the source that a view's definition names.

use std::{path::PathBuf, sync::Arc};

use larder_common::clock::SharedClock;
use larder_model::{
    codec::KeyVersion,
    model::{FeatureView, SourceKind},
};
use larder_source::{DynamoDb, FeastSqlite, ParquetFiles, ParquetLimits, S3Parquet, Source, Wanted, aws::Aws};

use super::SyncLimits;

/// The clients and settings that the sources and syncs of all views share.
#[derive(Clone, Debug)]
pub struct SyncSetting {
    /// The directory that relative paths of sources are resolved against.
    pub base_dir: PathBuf,
    /// The AWS clients of sources.
    pub aws: Arc<Aws>,
    /// The clock of sources and schedules.
    pub clock: SharedClock,
    /// The limits of a sync.
    pub limits: SyncLimits,
}

/// The source of a view.
#[derive(Debug)]
pub(super) struct OpenSource {
    pub(super) source: Arc<dyn Source>,
    /// The source again if it is a DynamoDB table, from which single rows can be fetched; `None` for other sources.
    pub(super) table: Option<Arc<DynamoDb>>,
}

// === impl SyncSetting ===

impl SyncSetting {
    /// Opens a view's source, if it has one. `position` is the source position that the store has for the view.
    pub(super) fn open_source(
        &self,
        view: &FeatureView,
        key_version: KeyVersion,
        position: Option<&str>,
    ) -> Option<OpenSource> {
        let declared = view.source.as_ref()?;
        let source: Arc<dyn Source> = match &declared.from {
            SourceKind::Files(_) => self.open_files(view, |wanted| wanted)?.into(),
            SourceKind::DynamoDb(place) => {
                let (aws, clock) = (Arc::clone(&self.aws), Arc::clone(&self.clock));
                let table = DynamoDb::new(aws, clock, view, place, key_version, declared.every, position);
                let table = Arc::new(table);
                return Some(OpenSource { source: Arc::<DynamoDb>::clone(&table), table: Some(table) });
            }
            SourceKind::FeastSqlite { path, table } => {
                Arc::new(FeastSqlite::new(self.base_dir.join(path), table, view))
            }
        };
        Some(OpenSource { source, table: None })
    }

    /// Opens the files of a view, if it has any, even if its rows come from another source. `choose` may exclude
    /// columns. Does not access the files.
    pub fn open_files(&self, view: &FeatureView, choose: impl FnOnce(Wanted) -> Wanted) -> Option<Box<dyn Source>> {
        let files = view.files()?;
        let wanted = choose(Wanted::of(view, files));
        let (limits, clock) = (ParquetLimits::of(self.limits.commit_bytes), Arc::clone(&self.clock));
        if files.path.starts_with("s3://") {
            return Some(Box::new(S3Parquet::new(Arc::clone(&self.aws), files, wanted, limits, clock)));
        }
        Some(Box::new(ParquetFiles::new(self.base_dir.join(&files.path), wanted, limits, clock)))
    }
}
