//! Removes rows on request: the row of one entity in a view, or all rows of a view.

use std::collections::BTreeMap;

use larder_model::{
    codec::{KeyEncoder, KeyValue, KeyVersion},
    model::{EntityId, FeatureView, JoinKey, ScalarType},
    yaml::nearest,
};
use larder_source::SourceError;
use larder_store::{KeySignature, StoreError};

use super::{SyncEngine, SyncError};

/// The reason why rows cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The view does not exist.
    #[error(transparent)]
    View(#[from] SyncError),
    /// The key does not match the view.
    #[error("feature view '{view}': {why}")]
    Key {
        /// The name of the view.
        view: String,
        /// The problem with the key.
        why: String,
    },
    /// The view has no source, so all of its rows would be lost permanently.
    #[error(
        "feature view '{view}' has no source: its rows were written by callers and cannot be loaded again. hint: add --yes to drop them"
    )]
    NoSource {
        /// The name of the view.
        view: String,
    },
    /// Rows that callers wrote would be lost permanently, because the source may not have them.
    #[error(
        "feature view '{view}' may have rows that callers wrote, and a load from its source does not restore them. hint: add --yes to drop them"
    )]
    RowsOfCallers {
        /// The name of the view.
        view: String,
    },
    /// The source cannot be read, so the rows could not be loaded again.
    #[error(
        "feature view '{view}': nothing was dropped, because its source cannot be read: {source}. hint: add --yes to drop the rows"
    )]
    Source {
        /// The name of the view.
        view: String,
        /// The error of the source.
        source: SourceError,
    },
    /// The store failed.
    #[error("feature view '{view}': {source}")]
    Store {
        /// The name of the view.
        view: String,
        /// The error of the store.
        source: StoreError,
    },
}

// === impl SyncEngine ===

impl SyncEngine {
    /// Deletes an entity's row from a view, including one that a caller wrote. The entity stays deleted until a newer
    /// row arrives. `key` maps the name of each join key to its value as text. Returns whether there was a row. Blocks
    /// for a commit.
    ///
    /// # Errors
    /// [`EraseError`]. If it is returned, nothing was deleted.
    pub fn delete(&self, view: &str, key: &BTreeMap<String, String>) -> Result<bool, EraseError> {
        let job = self.job(view)?;
        let id = entity_id(&job.view, self.key_version, key)
            .map_err(|why| EraseError::Key { view: view.to_owned(), why })?;
        let signature = KeySignature::of(&job.view, self.key_version);
        let existed = self.store.delete(job.id, &signature, &id).map_err(|source| store_error(view, source))?;
        // This line is an audit log of privacy requests, so it has no keys and values.
        tracing::info!(view, entity_id = ?id, existed, "deleted the row of an entity");
        self.note_status(job);
        Ok(existed)
    }

    /// Drops all rows of a view, including the rows that callers wrote. The next sync reads the view's source from the
    /// start. Unless `confirmed` is set, returns an error if the rows cannot be restored: the view has no source,
    /// callers may have written some of the rows, or the source cannot be read. Returns the number of dropped rows.
    /// Blocks for a commit.
    ///
    /// # Errors
    /// [`EraseError`]. If it is returned, nothing was dropped.
    pub fn reset(&self, view: &str, confirmed: bool) -> Result<u64, EraseError> {
        let job = self.job(view)?;
        if job.source.is_none() && !confirmed {
            return Err(EraseError::NoSource { view: view.to_owned() });
        }
        if !confirmed && self.store.may_have_rows_of_callers(job.id).map_err(|source| store_error(view, source))? {
            return Err(EraseError::RowsOfCallers { view: view.to_owned() });
        }
        // If the source cannot be read, the rows must be kept, so the source is checked first.
        if let Some(source) = job.source.as_ref().filter(|_| !confirmed) {
            source.schemas().map_err(|source| EraseError::Source { view: view.to_owned(), source })?;
        }
        let rows = self.store.reset(job.id).map_err(|source| store_error(view, source))?;
        tracing::warn!(view, rows, "all rows of the view were dropped on request");
        self.note_status(job);
        Ok(rows)
    }

    /// Handles the views that lost rows to damage. For each view without a source, records that the loss is accepted.
    /// Returns the views with a source, which must be reloaded.
    #[must_use]
    pub fn handle_damaged_views(&self, damaged: Vec<String>) -> Vec<String> {
        let (reload, lost): (Vec<_>, Vec<_>) = damaged
            .into_iter()
            .filter_map(|view| Some((self.job(&view).ok()?, view)))
            .partition(|(job, _)| job.source.is_some());
        for (job, view) in lost {
            if let Err(error) = self.store.accept_loss(job.id) {
                tracing::error!(view, %error, "cannot record the loss of rows; retrying");
            }
            self.note_status(job);
        }
        reload.into_iter().map(|(_, view)| view).collect()
    }
}

fn store_error(view: &str, source: StoreError) -> EraseError {
    EraseError::Store { view: view.to_owned(), source }
}

/// Returns the entity ID of a key that is given as text.
fn entity_id(view: &FeatureView, version: KeyVersion, key: &BTreeMap<String, String>) -> Result<EntityId, String> {
    let parts: &[JoinKey] = if view.is_entityless() { &[] } else { &view.join_keys };
    let names = || parts.iter().map(|part| &*part.name);
    if let Some(unknown) = key.keys().find(|name| !names().any(|known| known == *name)) {
        let all: Vec<&str> = names().collect();
        let hint = nearest(unknown, names()).unwrap_or_else(|| format!("its join keys are: {}", all.join(", ")));
        return Err(format!("'{unknown}' is not one of its join keys; {hint}"));
    }
    let mut buffer = Vec::new();
    KeyEncoder::new(version, view.join_keys.iter().map(|part| &*part.name)).begin(&mut buffer);
    if view.is_entityless() {
        KeyEncoder::push(&mut buffer, KeyValue::String(""));
    }
    for part in parts {
        let text = key.get(&*part.name).ok_or_else(|| format!("join key '{}' is missing", part.name))?;
        KeyEncoder::push(&mut buffer, key_value(part, text)?);
    }
    Ok(KeyEncoder::id(&buffer))
}

fn key_value<'t>(part: &JoinKey, text: &'t str) -> Result<KeyValue<'t>, String> {
    let invalid = |_| format!("join key '{}' is {:?}, but '{text}' is not", part.name, part.value_type);
    Ok(match part.value_type {
        ScalarType::Int32 => KeyValue::Int32(text.parse().map_err(invalid)?),
        ScalarType::Int64 => KeyValue::Int64(text.parse().map_err(invalid)?),
        ScalarType::UnixTimestamp => KeyValue::UnixTimestamp(text.parse().map_err(invalid)?),
        ScalarType::Bytes => KeyValue::Bytes(text.as_bytes()),
        _ => KeyValue::String(text),
    })
}
