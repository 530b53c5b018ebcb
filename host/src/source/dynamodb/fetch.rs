//! Single rows, asked of the table when they are asked for here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use larder_model::model::EntityId;

use super::{DynamoDb, EntityKey};
use crate::{
    aws::AwsError,
    source::{Item, SourceError},
};

impl DynamoDb {
    /// The rows of these entities as the table has them at this moment; `None` for those that it does not have. It takes
    /// no longer than `within`.
    ///
    /// To be driven by tasks of [`crate::aws::Aws::handle`].
    ///
    /// # Errors
    /// [`SourceError::Aws`]; nothing is known of any of them then.
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
        let now = self.clock.now();
        let mut rows: HashMap<EntityId, Option<Item>> = keys.iter().map(|key| (key.id, None)).collect();
        if self.items.is_split() {
            let queries = keys.iter().map(|key| async {
                let partition = self.items.key_of(key);
                Ok::<_, AwsError>((key.id, calls.query(&partition, true).await?))
            });
            for fetched in futures_util::future::join_all(queries).await {
                let (id, items) = fetched?;
                if !items.is_empty() {
                    rows.insert(id, Some(self.items.entity_row(&items, now)));
                }
            }
            return Ok(rows);
        }
        let wanted = keys.iter().map(|key| self.items.key_of(key)).collect();
        for item in calls.get(wanted, true, until).await? {
            let row = self.items.row(&item, now);
            rows.insert(row.id, Some(row));
        }
        Ok(rows)
    }
}
