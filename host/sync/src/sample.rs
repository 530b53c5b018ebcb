//! Samples keys of a source, so that a caller can look up rows that should exist.

use std::collections::BTreeMap;

use larder_model::{
    codec::{KeyEncoder, KeyVersion},
    model::{EntityId, FeatureView},
};
use larder_source::{SourceRows, ViewColumns, Wanted};

use super::{SyncError, SyncSetting};

/// A sample of a view's source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// For each entity, the text of each join key.
    pub keys: Vec<Vec<String>>,
    /// The number of rows that are held back until they are due.
    pub future: u64,
}

/// Returns the keys of at most `count` entities, sampled from all of a view's files. The same files give the same keys.
/// Rows without a key or an event time, and rows from the future, are skipped, as in a sync. Keys of bytes that are not
/// UTF-8 are also skipped.
///
/// Reads the key columns of the whole source.
///
/// # Errors
/// [`SyncError::NoSource`] and [`SyncError::Source`].
pub fn sample_keys(view: &FeatureView, setting: &SyncSetting, count: usize) -> Result<Sample, SyncError> {
    let name = || view.name.to_string();
    let source_error = |source| SyncError::Source { view: name(), source };
    let keys_only = |wanted| Wanted { created: None, features: Vec::new(), ..wanted };
    let source = setting.open_files(view, keys_only).ok_or_else(|| SyncError::NoSource { view: name() })?;
    let mut batches = source.read(None).map_err(source_error)?;
    let encoder = KeyEncoder::new(KeyVersion::V3, view.join_keys.iter().map(|key| &*key.name));
    // Entity ids are hashes, so the entities with the smallest ids are a random sample in which each entity occurs
    // once.
    let mut chosen: BTreeMap<EntityId, Vec<String>> = BTreeMap::new();
    let (mut buffer, mut future) = (Vec::new(), 0);
    let latest = setting.limits.times(&*source).latest(setting.clock.now());
    while let Some(batch) = batches.next_batch().map_err(source_error)? {
        let SourceRows::Columns(rows) = &batch.rows else { continue };
        let columns = ViewColumns::new(view, &[], rows, &batch.origin).map_err(source_error)?;
        for row in 0..rows.num_rows() {
            let Some(event_time) = columns.event_time.micros(row) else { continue };
            if event_time > latest {
                future += 1;
                continue;
            }
            let Some(id) = columns.id(&encoder, row, &mut buffer) else { continue };
            let is_candidate = chosen.len() < count || chosen.last_key_value().is_some_and(|(last, _)| id < *last);
            if !is_candidate || chosen.contains_key(&id) {
                continue;
            }
            if let Some(texts) = columns.keys.iter().map(|column| column.key_text(row)).collect() {
                chosen.insert(id, texts);
            }
            if chosen.len() > count {
                chosen.pop_last();
            }
        }
    }
    Ok(Sample { keys: chosen.into_values().collect(), future })
}
