//! Encodes the rows that callers write: converts a table of loosely typed cells to the rows of a view.
//!
//! Columns are found by their names in the definitions or by their names in the view's files, so a caller may send the
//! same columns that it would write to the files. Either all rows of the table are written, or none.

use std::time::Duration;

use larder_ingest::{Frame, WriteError};
use larder_model::{
    codec::{Cell, KeyEncoder, KeyValue, KeyVersion, RowBuilder, RowSchema},
    model::{
        AwsPlace, FeatureView, FileSource, Gate, Micros, NULL_TIMESTAMP_SECONDS, Rfc3339, ValueRef, duration_text,
        parse_exact_time,
    },
};
use larder_source::Wanted;
use larder_store::{RowBatch, RowTimes, Rule};

/// How the times of written rows are interpreted.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeRules {
    pub(super) now: Micros,
    pub(super) times: RowTimes,
    /// The unit to which the view's source truncates times, in microseconds; `None` if it does not truncate them.
    /// Written rows need the same precision, so that they can be compared with the source's rows.
    pub(super) unit: Option<Micros>,
}

/// The columns of a frame, with their names, by their use in a row.
struct FrameColumns<'f> {
    event_time: (&'f str, &'f [Cell]),
    created: Option<(&'f str, &'f [Cell])>,
    keys: Vec<(&'f str, &'f [Cell])>,
    features: Vec<(&'f str, &'f [Cell])>,
}

/// The names of the time columns in Feast's client, regardless of their names in the view's files.
const EVENT_TIME: &str = "event_timestamp";
const CREATED: &str = "created";

/// Encodes the rows of a view, with their IDs.
pub(super) fn encode(
    frame: &Frame,
    view: &FeatureView,
    version: KeyVersion,
    rules: TimeRules,
) -> Result<RowBatch, WriteError> {
    let rows = frame.rows()?;
    let mut batch = RowBatch::new(Rule::Newest, rules.times);
    if rows == 0 {
        return Ok(batch);
    }
    let columns = columns_of(frame, view)?;
    let view_name = || view.name.to_string();
    let invalid = |column: &str, row, why| WriteError::Value { view: view_name(), column: column.to_owned(), row, why };
    let schema = RowSchema::of_view(view);
    let mut builder = RowBuilder::new(&schema);
    let keys = KeyEncoder::new(version, view.join_keys.iter().map(|key| &*key.name));
    let mut key = Vec::new();
    for row in 0..rows {
        let time = |(column, cells): (&str, &[Cell])| {
            let instant = instant(&cells[row]).map_err(|why| invalid(column, row, why))?;
            Ok(instant.map(|instant| rules.truncate(instant)))
        };
        let (event_time, event_nanos) = time(columns.event_time)?
            .ok_or_else(|| invalid(columns.event_time.0, row, "the event time is null".to_owned()))?;
        if event_time > rules.latest() {
            return Err(invalid(columns.event_time.0, row, rules.too_late(event_time)));
        }
        let created = columns.created.map(time).transpose()?.flatten();
        keys.begin(&mut key);
        if view.is_entityless() {
            // A view without entities has one row, under the empty dummy key.
            KeyEncoder::push(&mut key, KeyValue::String(""));
        }
        for (part, (column, cells)) in view.join_keys.iter().zip(&columns.keys) {
            let pushed = cells[row].push_key(part.value_type, &mut key);
            pushed.map_err(|why| invalid(column, row, why.to_string()))?;
        }
        builder.begin(event_time, created.map(|(micros, _)| micros));
        builder.set_nanos(event_nanos, created.map_or(0, |(_, nanos)| nanos));
        for (feature, (column, cells)) in view.features.iter().zip(&columns.features) {
            let pushed = cells[row].push(feature.value_type, &mut builder);
            pushed.map_err(|why| invalid(column, row, why.to_string()))?;
        }
        if view.has_expiry() {
            // Callers do not send an expiry.
            let pushed = builder.push(ValueRef::Null);
            pushed.map_err(|error| WriteError::Row { view: view_name(), row, why: error.to_string() })?;
        }
        let bytes = builder.finish();
        let bytes = bytes.map_err(|error| WriteError::Row { view: view_name(), row, why: error.to_string() })?;
        batch.push(KeyEncoder::id(&key), bytes);
    }
    Ok(batch)
}

/// Finds the columns of a view in a frame.
///
/// # Errors
/// [`WriteError::MissingColumns`].
fn columns_of<'f>(frame: &'f Frame, view: &FeatureView) -> Result<FrameColumns<'f>, WriteError> {
    let files = view.files().cloned().unwrap_or_else(default_files);
    let wanted = Wanted::of(view, &files);
    let column = |names: &[&str]| names.iter().find_map(|name| frame.column(name));
    let mut missing = Vec::new();
    let mut needed = |names: &[&str]| {
        column(names).unwrap_or_else(|| {
            missing.push(names[0].to_owned());
            ("", &[])
        })
    };
    let event_time = needed(&[&wanted.event_time.name, &wanted.event_time.column, EVENT_TIME]);
    let keys = wanted.keys.iter().map(|key| needed(&[&key.name, &key.column])).collect();
    let features = wanted.features.iter().map(|feature| needed(&[&feature.name, &feature.column])).collect();
    let created = wanted.created.as_ref();
    let created = created.and_then(|created| column(&[&created.name, &created.column]));
    // If a feature is named `created`, the column has the values of this feature.
    let created = created.or_else(|| view.feature_index(CREATED).is_none().then(|| frame.column(CREATED)).flatten());
    if missing.is_empty() {
        Ok(FrameColumns { event_time, created, keys, features })
    } else {
        Err(WriteError::MissingColumns { view: view.name.to_string(), missing })
    }
}

// === impl TimeRules ===

impl TimeRules {
    fn latest(self) -> Micros {
        self.times.latest(self.now)
    }

    /// Truncates an instant to the precision of the view's source. Returns microseconds, and the remainder in
    /// nanoseconds.
    fn truncate(self, (micros, nanos): (Micros, u32)) -> (Micros, u32) {
        let below = micros.rem_euclid(self.unit.unwrap_or(1));
        (micros - below, nanos + u32::try_from(below * 1_000).unwrap_or(0))
    }

    fn too_late(self, event_time: Micros) -> String {
        let tolerance = u64::try_from(self.times.tolerance).unwrap_or(0);
        format!(
            "the event time {} is later than now plus 'sync: future_tolerance' ({})",
            Rfc3339::of(event_time).as_str(),
            duration_text(Duration::from_micros(tolerance))
        )
    }
}

/// Converts the event time or the created time of a row to microseconds and the remaining nanoseconds.
///
/// # Errors
/// A description of a value that is not a time. Numbers are not accepted, because seconds and milliseconds cannot be
/// distinguished.
fn instant(cell: &Cell) -> Result<Option<(Micros, u32)>, String> {
    let not_a_time =
        || format!("{} is not a time. hint: use RFC 3339, for example 2026-01-31T12:00:00Z", cell.describe());
    match cell {
        Cell::Null => Ok(None),
        Cell::Instant(NULL_TIMESTAMP_SECONDS) => Ok(None),
        Cell::Instant(micros) => Ok(Some((*micros, 0))),
        Cell::Text(text) => parse_exact_time(text).map(Some).ok_or_else(not_a_time),
        _ => Err(not_a_time()),
    }
}

/// Returns the file source that is assumed for a view without files, so that its columns have the names that Feast's
/// client uses.
fn default_files() -> FileSource {
    FileSource {
        path: String::new(),
        place: AwsPlace::default(),
        gate: Gate::Open,
        timestamp_field: Some(EVENT_TIME.to_owned()),
        created_timestamp_column: None,
        field_mapping: Default::default(),
    }
}

#[cfg(test)]
mod tests;
