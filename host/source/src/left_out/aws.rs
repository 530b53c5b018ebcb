//! Sources in AWS, in a build without the feature `aws`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use larder_common::clock::SharedClock;
use larder_model::{
    codec::{EntityKey, KeyVersion},
    model::{EntityId, FeatureView, FileSource, TableSource},
};

use super::left_out;
use crate::{Batches, FileSchema, Item, ParquetLimits, Source, SourceError, Wanted, aws::Aws};

left_out! {
    /// A table in DynamoDB, which this build cannot read.
    DynamoDb, "DynamoDB", "aws"
}

left_out! {
    /// Objects in S3, which this build cannot read.
    S3Parquet, "S3", "aws"
}

// === impl DynamoDb ===

impl DynamoDb {
    /// The default interval between scans of a table without a stream.
    pub const RESCAN_EVERY: Duration = Duration::from_hours(1);

    /// Creates a stand-in that keeps the table's name.
    #[must_use]
    pub fn new(
        _: Arc<Aws>,
        _: SharedClock,
        _: &FeatureView,
        source: &TableSource,
        _: KeyVersion,
        _every: Option<Duration>,
        _position: Option<&str>,
    ) -> Self {
        Self { name: format!("DynamoDB table '{}'", source.table) }
    }

    /// Returns an error: this build has no DynamoDB client.
    ///
    /// # Errors
    /// Always.
    pub async fn fetch(&self, _: &[EntityKey], _: Duration) -> Result<HashMap<EntityId, Option<Item>>, SourceError> {
        Err(self.error())
    }
}

// === impl S3Parquet ===

impl S3Parquet {
    /// Creates a stand-in that keeps the path of the objects.
    #[must_use]
    pub fn new(_: Arc<Aws>, source: &FileSource, _: Wanted, _: ParquetLimits, _: SharedClock) -> Self {
        Self { name: source.path.clone() }
    }

    /// As [`S3Parquet::new`], for all columns.
    #[must_use]
    pub fn of_all_columns(_: Arc<Aws>, url: &str, _: ParquetLimits, _: SharedClock) -> Self {
        Self { name: url.to_owned() }
    }
}
