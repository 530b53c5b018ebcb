//! Declares views, records materializations, and records that the loss of rows was accepted.

use std::sync::Arc;

use larder_model::{
    codec::{KeyVersion, RowSchema},
    model::FeatureView,
};
use redb::ReadableTable;

use super::{
    KeySignature, OnlineStore, StoreError, ViewId,
    erase::drop_rows_of_callers,
    record::{RowTable, SchemaRecord, VIEWS, ViewRecord},
    tables::{delete_building, put_record, read_record},
    transaction::Written,
};

// === impl OnlineStore ===

impl OnlineStore {
    /// Declares views and returns their ids, in order. Keeps the stored rows of a view unless its keys changed (the
    /// name or type of a join key, or the key version). Rows that were stored under other keys can no longer be found,
    /// so they are deleted. If a view's features changed, its rows stay, and the next load reads its source from the
    /// start. If a view was removed and created again, the rows that callers wrote are dropped.
    ///
    /// # Errors
    /// Errors of a failed transaction.
    pub fn declare(&self, views: &[Arc<FeatureView>], version: KeyVersion) -> Result<Vec<ViewId>, StoreError> {
        self.write(|txn| {
            let mut ids = Vec::with_capacity(views.len());
            let mut changed = false;
            let mut useless = Vec::new();
            let mut recreated = Vec::new();
            {
                let mut table = txn.open_table(VIEWS)?;
                let mut next_id = 0;
                for entry in table.iter()? {
                    let (name, bytes) = entry?;
                    next_id = next_id.max(ViewRecord::decode(name.value(), bytes.value())?.id + 1);
                }
                for view in views {
                    let known = match table.get(&*view.name)? {
                        Some(bytes) => Some(ViewRecord::decode(&view.name, bytes.value())?),
                        None => None,
                    };
                    let record = declared(known.as_ref(), view, version, &mut next_id);
                    let was_created = known.as_ref().and_then(|known| known.created);
                    if was_created.zip(view.created).is_some_and(|(before, now)| before != now) {
                        recreated.push(view.name.to_string());
                    }
                    ids.push(ViewId(record.id));
                    if known.as_ref().is_none_or(|known| known.encode() != record.encode()) {
                        table.insert(&*view.name, record.encode().as_slice())?;
                        changed = true;
                    }
                    let known = known.filter(|known| known.key != record.key);
                    useless.extend(known.map(|known| (&view.name, known)));
                }
            }
            for (view, mut known) in useless {
                if known.rows > 0 {
                    let rows = known.rows;
                    if known.has_rows_of_callers() {
                        tracing::warn!(
                            %view, rows,
                            "the keys of the view changed, so its rows are deleted, including rows that callers wrote"
                        );
                    } else {
                        tracing::info!(%view, rows, "the keys of the view changed, so its rows are deleted and loaded again");
                    }
                }
                delete_building(txn, &mut known)?;
                for table in [known.table_name(known.generation), known.written_name()] {
                    txn.delete_table(RowTable::new(&table))?;
                }
            }
            let mut rows = Vec::new();
            for name in recreated {
                // The view was removed and created again before the removal was detected.
                let mut record = read_record(txn, &name)?;
                drop_rows_of_callers(txn, &name, &mut record, &mut rows)?;
                put_record(txn, &name, &record)?;
            }
            Ok(if changed { Written::Commit { value: ids, changed: rows } } else { Written::Nothing(ids) })
        })
    }

    /// Records a successful materialization of a time range. This changes neither the freshness of the view nor whether
    /// the view is loaded.
    ///
    /// # Errors
    /// Errors of a failed transaction.
    pub fn note_materialized(&self, view: ViewId) -> Result<(), StoreError> {
        let (name, _) = self.record(view)?;
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            record.last_materialized = Some(self.clock.now());
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })
    }

    /// Records that the loss of a view's rows is accepted, because the view has no source that could restore them. The
    /// view is then no longer marked as damaged. [`super::ViewStatus::rows_lost`] still counts the lost rows.
    ///
    /// # Errors
    /// Errors of a failed transaction.
    pub fn accept_loss(&self, view: ViewId) -> Result<(), StoreError> {
        let (name, _) = self.record(view)?;
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            if !record.is_damaged {
                return Ok(Written::Nothing(()));
            }
            record.is_damaged = false;
            let rows = record.rows_lost;
            put_record(txn, &name, &record)?;
            tracing::error!(
                view = %name, rows,
                "rows of a view without a source were lost to damage; they are missing until callers write them again"
            );
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })
    }
}

/// Returns a view's record after its declaration. A new view gets the next id.
fn declared(known: Option<&ViewRecord>, view: &FeatureView, version: KeyVersion, next_id: &mut u32) -> ViewRecord {
    let key = KeySignature::of(view, version);
    let schema = RowSchema::of_view(view);
    let Some(known) = known else {
        *next_id += 1;
        return ViewRecord { created: view.created, ..ViewRecord::new(*next_id - 1, key, &schema) };
    };
    if known.key != key {
        return ViewRecord { created: view.created, ..known.reset(key, &schema) };
    }
    let mut record = known.clone();
    record.is_retired = false;
    record.created = view.created.or(record.created);
    let current = SchemaRecord::of(&schema);
    if record.schemas.last() != Some(&current) {
        record.schemas.retain(|schema| *schema != current);
        record.schemas.push(current);
        record.position = None;
        // The rows of an interrupted load have the previous schema, so the load must not resume.
        record.runs.position = None;
    }
    record
}
