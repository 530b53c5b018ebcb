//! Requests, progress and reports of loads.

use std::{fmt, time::Duration};

use larder_model::model::{Micros, Rfc3339, Window, duration_text};
use larder_store::Applied;
use serde::{Deserialize, Serialize};

/// The options of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// Whether to read the whole source, including the data that earlier loads read.
    pub full: bool,
    /// The range of event times of the rows to load. If the range is limited, the load does not change the stored
    /// position in the source.
    pub window: Window,
    /// Whether to load the rows even if the sanity checks would reject them (`sync.bad_percent_max`,
    /// `sync.shrink_percent_max` and `sync.growth_max`).
    pub force: bool,
    /// Whether to skip the load if the source was read recently and is expensive to read, such as a table without a
    /// stream.
    pub skip_recent: bool,
    /// Whether to commit smaller transactions, so that the uncommitted rows of [`super::MATERIALIZATIONS_MAX`] such
    /// loads take no more memory in total than the rows of one normal load.
    pub small: bool,
    /// Whether to skip reading the source again for rows from the future that an earlier load skipped, even if these
    /// rows are due now. A later load reads them.
    pub leave_due: bool,
}

/// The progress of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The number of rows read so far. A load that replaces the view, or that is the first load of a large view, serves
    /// its rows only when it ends. While such a load merges its rows, `rows` is equal to `expected`.
    pub rows: u64,
    /// The expected number of rows.
    pub expected: u64,
}

/// The result of a load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The view.
    pub view: String,
    /// Whether there was new data.
    pub outcome: Outcome,
    /// The numbers of rows that were inserted, updated, unchanged, dropped as stale, and removed.
    #[serde(with = "AppliedFields")]
    pub applied: Applied,
    /// Rows that were skipped.
    pub skipped: Skipped,
    /// How long the load took.
    pub elapsed: Duration,
    /// The age of the oldest change that was not read yet, if the source knows this.
    #[serde(default)]
    pub lag: Option<Duration>,
}

/// Whether there was new data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The source is unchanged since the last load.
    UpToDate,
    /// The source was not read, because it was read recently: see [`SyncRequest::skip_recent`].
    SkippedRecent,
    /// Rows were read.
    Loaded,
}

/// Rows that were skipped, with an example, and individual values that became null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Rows whose key has a null.
    pub null_key: u64,
    /// Rows without an event time.
    pub null_event_time: u64,
    /// Rows that are too large.
    pub too_large: u64,
    /// Rows that cannot be decoded, for example because of an invalid key or event time.
    #[serde(default)]
    pub unreadable: u64,
    /// Valid rows with an event time outside the requested range.
    pub outside_window: u64,
    /// Rows with an event time in the future. A later load reads them when they are due.
    #[serde(default)]
    pub future: u64,
    /// The earliest event time of the rows from the future, and the location of the row with this time.
    #[serde(default)]
    pub future_example: Option<(Micros, String)>,
    /// The location of the first bad row, and the reason why it was skipped.
    pub example: Option<String>,
    /// Values that became null because they do not match their feature's type.
    #[serde(default)]
    pub values: Vec<SkippedValues>,
}

/// Values of a feature that do not match the feature's type. These values became null. The other values of their rows
/// are not affected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedValues {
    /// The name of the feature.
    pub feature: String,
    /// The number of values.
    pub count: u64,
    /// The location of the first of these values, and the reason.
    pub example: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Applied")]
struct AppliedFields {
    inserted: u64,
    updated: u64,
    unchanged: u64,
    stale: u64,
    #[serde(default)]
    removed: u64,
}

// === impl Skipped ===

impl Skipped {
    /// Returns the number of bad rows: those with a null key, without an event time, too large or unreadable.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.null_key + self.null_event_time + self.too_large + self.unreadable
    }

    /// Describes the values that became null, for each feature. Returns `None` if there are no such values.
    #[must_use]
    pub fn values_text(&self) -> Option<String> {
        let text = |values: &SkippedValues| {
            let SkippedValues { feature, count, example } = values;
            format!("{count} of '{feature}' (the first: {example})")
        };
        (!self.values.is_empty()).then(|| self.values.iter().map(text).collect::<Vec<_>>().join(", "))
    }

    /// Counts a value that became null.
    pub fn note_value(&mut self, feature: &str, example: impl FnOnce() -> String) {
        match self.values.iter_mut().find(|values| values.feature == feature) {
            Some(values) => values.count += 1,
            None => self.values.push(SkippedValues { feature: feature.to_owned(), count: 1, example: example() }),
        }
    }

    /// Adds the counts of another part of the same load. Keeps the first examples.
    pub fn add(&mut self, other: Self) {
        self.null_key += other.null_key;
        self.null_event_time += other.null_event_time;
        self.too_large += other.too_large;
        self.unreadable += other.unreadable;
        self.outside_window += other.outside_window;
        self.future += other.future;
        let is_earlier = |one: &(Micros, String), two: &(Micros, String)| one.0 < two.0;
        match (&self.future_example, other.future_example) {
            (Some(first), Some(example)) if !is_earlier(&example, first) => {}
            (_, example @ Some(_)) => self.future_example = example,
            (_, None) => {}
        }
        self.example = self.example.take().or(other.example);
        for values in other.values {
            match self.values.iter_mut().find(|known| known.feature == values.feature) {
                Some(known) => known.count += values.count,
                None => self.values.push(values),
            }
        }
    }

    /// Counts a row from the future. Keeps the location of the row with the earliest event time.
    pub fn note_future(&mut self, event_time: Micros, place: impl FnOnce() -> String) {
        self.future += 1;
        if self.future_example.as_ref().is_none_or(|(first, _)| event_time < *first) {
            self.future_example = Some((event_time, place()));
        }
    }

    /// Describes the rows from the future: their number, the earliest of them, and the setting that limits event times.
    /// Returns `None` if there are no such rows.
    #[must_use]
    pub fn describe_future(&self, tolerance: Duration) -> Option<String> {
        let (first, place) = self.future_example.as_ref()?;
        let (first, tolerance) = (Rfc3339::of(*first), duration_text(tolerance));
        Some(format!(
            "{} dated later than now plus 'sync: future_tolerance' ({tolerance}), the earliest {} ({place})",
            self.future,
            first.as_str()
        ))
    }

    /// Keeps an example of a bad row, unless there is one already.
    pub fn note(&mut self, example: impl FnOnce() -> String) {
        if self.example.is_none() {
            self.example = Some(example());
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.null_key, "with a null key"),
            (self.null_event_time, "without an event time"),
            (self.too_large, "too large"),
            (self.unreadable, "that cannot be read"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        write!(f, "{}", parts.join(", "))?;
        self.example.iter().try_for_each(|example| write!(f, "; the first: {example}"))
    }
}
