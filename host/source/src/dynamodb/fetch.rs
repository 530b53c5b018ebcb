//! Fetches single rows from the table on demand.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use larder_model::{
    codec::EntityKey,
    model::{EntityId, Micros},
};

use super::{DynamoDb, calls::Calls, item::Attributes};
use crate::{Item, SourceError, aws::AwsError};

/// The maximum number of concurrent partition queries: in the item-per-feature layout, each entity has its own
/// partition.
const CONCURRENT_QUERIES_MAX: usize = 32;

impl DynamoDb {
    /// Fetches the current rows of these entities from the table; `None` for entities that the table does not have.
    ///
    /// Run this on [`crate::aws::Aws::handle`].
    ///
    /// # Errors
    /// [`SourceError::Aws`] if a request fails, or if the fetch takes longer than `within`. No rows are returned then,
    /// not even those that were fetched before the error.
    pub async fn fetch(
        &self,
        keys: &[EntityKey],
        within: Duration,
    ) -> Result<HashMap<EntityId, Option<Item>>, SourceError> {
        let fetched = tokio::time::timeout(within, self.fetch_all(keys, Instant::now() + within)).await;
        let timed_out = || AwsError::timed_out(format!("DynamoDB table '{}': fetch", self.source.table), within);
        Ok(fetched.map_err(|_| timed_out())??)
    }

    async fn fetch_all(&self, keys: &[EntityKey], until: Instant) -> Result<HashMap<EntityId, Option<Item>>, AwsError> {
        let calls = self.calls().await;
        let keys = keys.iter().map(|key| (key.id, self.items.key_of(key))).collect();
        self.rows(&calls, keys, self.clock.now(), until).await
    }

    /// Fetches the rows of these entities; `None` for entities that the table does not have. `keys` has the key of each
    /// entity's item, or of the partition with its items.
    pub(super) async fn rows(
        &self,
        calls: &Calls,
        keys: HashMap<EntityId, Attributes>,
        now: Micros,
        until: Instant,
    ) -> Result<HashMap<EntityId, Option<Item>>, AwsError> {
        let mut rows: HashMap<EntityId, Option<Item>> = keys.keys().map(|id| (*id, None)).collect();
        if self.items.is_split() {
            let queries = stream::iter(keys)
                .map(|(id, partition)| async move { Ok::<_, AwsError>((id, calls.query(&partition, true).await?)) });
            let mut queries = queries.buffer_unordered(CONCURRENT_QUERIES_MAX);
            while let Some((id, items)) = queries.try_next().await? {
                rows.insert(id, (!items.is_empty()).then(|| self.items.entity_row(&items, now)));
            }
            return Ok(rows);
        }
        for item in calls.get(keys.into_values().collect(), true, until).await? {
            let row = self.items.row(&item, now);
            rows.insert(row.id, Some(row));
        }
        Ok(rows)
    }
}
