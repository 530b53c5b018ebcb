//! Converts batches of a source to rows with IDs. A value that does not match its feature's type becomes null. An
//! invalid row, for example one without a key or an event time, is skipped. Both are counted.

use std::sync::Arc;

use arrow::array::RecordBatch;
use larder_ingest::Skipped;
use larder_model::{
    codec::{ConversionError, KeyEncoder, KeyVersion, RowBuilder, RowError, RowSchema, push_feast_value},
    model::{FeastValue, FeatureView, Micros, ValueRef, Window},
};
use larder_source::{Change, Item, ItemValue, SourceBatch, SourceError, SourceRows, ViewColumns};
use larder_store::{RowBatch, RowTimes, Rule};
use prost::Message as _;

use super::SyncLimits;

/// Converts batches of columns to rows with IDs.
pub(super) struct RowEncoder<'v> {
    view: &'v FeatureView,
    schema: Arc<RowSchema>,
    keys: KeyEncoder,
    window: Window,
    /// Rows with a later event time are skipped until they are due.
    latest: Micros,
    pub(super) rows: RowBatch,
    pub(super) skipped: Skipped,
}

// === impl RowEncoder ===

impl<'v> RowEncoder<'v> {
    pub(super) fn new(
        view: &'v FeatureView,
        key_version: KeyVersion,
        window: Window,
        rule: Rule,
        times: RowTimes,
    ) -> Self {
        let names = view.join_keys.iter().map(|key| &*key.name);
        Self {
            view,
            schema: Arc::new(RowSchema::of_view(view)),
            keys: KeyEncoder::new(key_version, names),
            window,
            latest: Micros::MAX,
            rows: RowBatch::new(rule, times),
            skipped: Skipped::default(),
        }
    }

    /// Returns whether the encoder has enough rows for one transaction.
    pub(super) fn is_full(&self, limits: SyncLimits) -> bool {
        self.rows.len() >= limits.commit_rows || self.rows.bytes() >= limits.commit_bytes
    }

    /// Adds the valid rows of a batch that are in the window and may be served at the time `now`. Skips and counts the
    /// others.
    pub(super) fn encode(&mut self, batch: &SourceBatch, now: Micros) -> Result<(), SourceError> {
        self.latest = self.rows.times().latest(now);
        match &batch.rows {
            SourceRows::Columns(columns) => self.encode_columns(columns, batch),
            SourceRows::Items(items) => {
                for (row, item) in items.iter().enumerate() {
                    self.encode_item(item, || location_of(batch, row));
                }
                Ok(())
            }
            SourceRows::Changes(changes) => {
                for (row, change) in changes.iter().enumerate() {
                    match change {
                        Change::Remove(id) => self.rows.remove(*id),
                        Change::Put(item) => self.encode_item(item, || location_of(batch, row)),
                    }
                }
                Ok(())
            }
        }
    }

    fn encode_columns(&mut self, rows: &RecordBatch, batch: &SourceBatch) -> Result<(), SourceError> {
        let columns = ViewColumns::new(self.view, &self.view.features, rows, &batch.origin)?;
        let schema = Arc::clone(&self.schema);
        let mut builder = RowBuilder::new(&schema);
        let mut key = Vec::new();
        for row in 0..rows.num_rows() {
            let location = || location_of(batch, row);
            let Some(event_time) = columns.event_time.micros(row) else {
                match columns.event_time.conversion_error(row) {
                    Some(why) => {
                        self.skipped.unreadable += 1;
                        self.skipped.note(|| format!("{}: invalid event time: {why}", location()));
                    }
                    None => {
                        self.skipped.null_event_time += 1;
                        self.skipped.note(|| format!("{}: no event time", location()));
                    }
                }
                continue;
            };
            if !self.window.contains(event_time) {
                self.skipped.outside_window += 1;
                continue;
            }
            if self.is_future(event_time, location) {
                continue;
            }
            let Some(id) = columns.id(&self.keys, row, &mut key) else {
                match columns.keys.iter().find_map(|column| column.conversion_error(row)) {
                    Some(why) => {
                        self.skipped.unreadable += 1;
                        self.skipped.note(|| format!("{}: invalid key: {why}", location()));
                    }
                    None => {
                        self.skipped.null_key += 1;
                        self.skipped.note(|| format!("{}: the key is null", location()));
                    }
                }
                continue;
            };
            for (column, feature) in columns.features.iter().zip(&self.view.features) {
                if let Some(why) = column.conversion_error(row) {
                    self.skipped.note_value(&feature.name, || format!("{}: {why}", location()));
                }
            }
            match columns.encode(row, &schema, &mut builder) {
                Ok(bytes) => self.rows.push(id, bytes),
                Err(error) => {
                    self.skipped.too_large += 1;
                    self.skipped.note(|| format!("{}: {error}", location()));
                }
            }
        }
        Ok(())
    }

    /// Adds a row that was read from an online store. An unreadable value becomes null, and an unreadable row is
    /// skipped. Both are counted.
    fn encode_item(&mut self, item: &Item, location: impl Fn() -> String) {
        let location = || format!("{} (entity id {:?})", location(), item.id);
        if let Some(problem) = &item.problem {
            self.skipped.unreadable += 1;
            self.skipped.note(|| format!("{}: {problem}", location()));
            return;
        }
        let Some(event_time) = item.event_time else {
            self.skipped.null_event_time += 1;
            self.skipped.note(|| format!("{}: no event time", location()));
            return;
        };
        if !self.window.contains(event_time) {
            self.skipped.outside_window += 1;
            return;
        }
        if self.is_future(event_time, location) {
            return;
        }
        if let Err(error) = self.encode_values(item, event_time, &location) {
            self.skipped.too_large += 1;
            self.skipped.note(|| format!("{}: {error}", location()));
        }
    }

    fn encode_values(
        &mut self,
        item: &Item,
        event_time: Micros,
        location: &impl Fn() -> String,
    ) -> Result<(), RowError> {
        let schema = Arc::clone(&self.schema);
        let mut builder = RowBuilder::new(&schema);
        builder.begin(event_time, item.created);
        for (feature, value) in self.view.features.iter().zip(&item.values) {
            let pushed = match value {
                None => Ok(builder.push(ValueRef::Null)?),
                Some(ItemValue::Feast(bytes)) => FeastValue::decode(&**bytes)
                    .map_err(|error| ConversionError::Unreadable(error.to_string()))
                    .and_then(|value| push_feast_value(&mut builder, feature.value_type, &value)),
                Some(ItemValue::Cell(cell)) => cell.push(feature.value_type, &mut builder),
                Some(ItemValue::Unreadable(why)) => Err(ConversionError::Unreadable(why.clone())),
            };
            match pushed {
                Ok(()) => {}
                Err(ConversionError::Row(error)) => return Err(error),
                Err(why) => {
                    self.skipped.note_value(&feature.name, || format!("{}: {why}", location()));
                    builder.push(ValueRef::Null)?;
                }
            }
        }
        if schema.expiry().is_some() {
            builder.push(item.expires.map_or(ValueRef::Null, ValueRef::Int64))?;
        }
        self.rows.push(item.id, builder.finish()?);
        Ok(())
    }

    /// Returns whether a row is not due yet. If so, counts it as skipped, and records its event time.
    fn is_future(&mut self, event_time: Micros, location: impl Fn() -> String) -> bool {
        if event_time <= self.latest {
            return false;
        }
        self.rows.postpone(event_time);
        self.skipped.note_future(event_time, location);
        true
    }
}

fn location_of(batch: &SourceBatch, row: usize) -> String {
    format!("{}, row {}", batch.origin, batch.first_row + row as u64)
}
