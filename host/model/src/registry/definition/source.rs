//! The raw form of a view's `source:` and `batch_source:`.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{AwsPlace, Gate, OnMiss, ReadThrough, TableLayout, TableSource},
    yaml::{Located, Place, Problems, Table},
};

/// A view's `source:`.
#[derive(Clone, Debug)]
pub struct SourceDefinition {
    /// The kind of source.
    pub from: SourceFrom,
    /// `every:`.
    pub every: Option<Duration>,
    /// `cron:`.
    pub cron: Option<Located<String>>,
}

/// The kinds of sources.
#[derive(Clone, Debug)]
pub enum SourceFrom {
    /// Parquet files.
    Files(FilesDefinition),
    /// A table in DynamoDB.
    DynamoDb {
        /// The position of the table's name.
        at: Place,
        /// The table.
        table: TableSource,
    },
    /// Feast's SQLite online store.
    FeastSqlite {
        /// `feast_sqlite:`.
        path: Located<String>,
        /// `table:`; `<project>_<view>` if absent.
        table: Option<String>,
    },
}

/// Parquet files, in a view's `source:` or `batch_source:`.
#[derive(Clone, Debug)]
pub struct FilesDefinition {
    /// `path:`.
    pub path: Located<String>,
    /// `region:` and `endpoint:`.
    pub place: AwsPlace,
    /// `marker:` or `manifest:`.
    pub gate: Gate,
    /// `timestamp_field:`; the text `none` for a static table, see [`FilesDefinition::is_static`].
    pub timestamp_field: String,
    /// `created_timestamp_column:`.
    pub created_timestamp_column: Option<String>,
    /// `field_mapping:`, from columns in the source to names in the definitions.
    pub field_mapping: BTreeMap<String, Located<String>>,
}

/// The value of `timestamp_field:` for files without event times.
const NO_TIMESTAMP: &str = "none";
/// The default value of `timestamp_field:`, which is the customary name in Feast.
const TIMESTAMP_FIELD: &str = "event_timestamp";

/// The minimum poll interval. DynamoDB accepts five requests per second for each shard.
const POLL_MIN: Duration = Duration::from_millis(200);
const HOUR: Duration = Duration::from_hours(1);

#[derive(Clone, Copy)]
enum Layout {
    Feast,
    Wide,
    ItemPerFeature,
}

pub(super) fn source(mut table: Table<'_>, problems: &Problems) -> Option<SourceDefinition> {
    let every = table.duration("every").map(|every| every.value).filter(|every| !every.is_zero());
    let cron = table.text("cron");
    let (sqlite, dynamo, path) = (table.text("feast_sqlite"), table.text("dynamodb"), table.get("path"));
    let named = [
        ("feast_sqlite", sqlite.as_ref().map(|path| &path.at)),
        ("dynamodb", dynamo.as_ref().map(|name| &name.at)),
        ("path", path.map(|node| &node.at)),
    ];
    let named: Vec<_> = named.into_iter().filter_map(|(key, at)| Some((key, at?))).collect();
    if let [(first, at), (second, _), ..] = named.as_slice() {
        problems.error(at, format!("source: '{first}' and '{second}' are both set, but a view has one source"));
        // The valid keys depend on the kind of source, so the other keys are not checked.
        return None;
    }
    drop(named);
    let from = match (sqlite, dynamo) {
        (Some(path), _) => {
            let table = table.text("table").map(|name| name.value);
            Some(SourceFrom::FeastSqlite { path, table })
        }
        (None, Some(name)) => Some(dynamodb(&mut table, name, problems)),
        (None, None) => files(&mut table, problems).map(SourceFrom::Files),
    };
    table.finish();
    Some(SourceDefinition { from: from?, every, cron })
}

impl SourceFrom {
    /// Returns the position of the path or table in the definition file.
    #[must_use]
    pub fn place(&self) -> &Place {
        match self {
            Self::Files(files) => &files.path.at,
            Self::DynamoDb { at, .. } => at,
            Self::FeastSqlite { path, .. } => &path.at,
        }
    }
}

impl FilesDefinition {
    /// Returns whether the rows have no event times of their own. The event time of such rows is the time at which they
    /// are read.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.timestamp_field == NO_TIMESTAMP
    }
}

pub(super) fn files(table: &mut Table<'_>, problems: &Problems) -> Option<FilesDefinition> {
    let path = table.required_text("path");
    let timestamp_field = table.text("timestamp_field").map(|text| text.value);
    let created_timestamp_column = table.text("created_timestamp_column").map(|text| text.value);
    let field_mapping = table.text_map("field_mapping");
    let timestamp_field = timestamp_field.unwrap_or_else(|| TIMESTAMP_FIELD.to_owned());
    let place = place(table);
    let (marker, manifest) = (table.text("marker"), table.text("manifest"));
    let is_remote = path.as_ref().is_some_and(|path| path.value.starts_with("s3://"));
    if !is_remote && let Some(gate) = marker.as_ref().or(manifest.as_ref()) {
        let message = "'marker' and 'manifest' are only for paths in S3. hint: write local files to another directory, \
                       and rename it when it is complete";
        problems.error(&gate.at, message.to_owned());
    }
    let gate = match (marker, manifest) {
        (None, None) => Gate::Open,
        (Some(name), None) => Gate::Marker(name.value),
        (None, Some(name)) => Gate::Manifest(name.value),
        (Some(_), Some(name)) => {
            problems.error(&name.at, "'marker' and 'manifest' are both set, but only one is allowed".to_owned());
            Gate::Open
        }
    };
    Some(FilesDefinition { path: path?, place, gate, timestamp_field, created_timestamp_column, field_mapping })
}

fn dynamodb(table: &mut Table<'_>, name: Located<String>, problems: &Problems) -> SourceFrom {
    const LAYOUTS: [(&str, Layout); 3] =
        [("feast", Layout::Feast), ("wide", Layout::Wide), ("item-per-feature", Layout::ItemPerFeature)];
    let layout = table.choice("layout", &LAYOUTS).unwrap_or(Layout::Feast);
    let mapping = |table: &mut Table<'_>| {
        let written = table.text_map("field_mapping");
        written.into_iter().map(|(attribute, name)| (attribute, name.value)).collect()
    };
    let timestamp = |table: &mut Table<'_>| table.text("timestamp_field").map(|text| text.value);
    let or = |text: Option<Located<String>>, default: &str| text.map_or_else(|| default.to_owned(), |text| text.value);
    let layout = match layout {
        Layout::Feast => TableLayout::Feast,
        Layout::Wide => TableLayout::Wide { field_mapping: mapping(table), timestamp: timestamp(table) },
        Layout::ItemPerFeature => TableLayout::ItemPerFeature {
            key: or(table.text("key_attribute"), "entity_id"),
            feature: or(table.text("feature_attribute"), "feature_name"),
            value: or(table.text("value_attribute"), "value"),
            field_mapping: mapping(table),
            timestamp: timestamp(table),
        },
    };
    let follows = table.choice("stream", &[("auto", true), ("off", false)]).unwrap_or(true);
    let poll = duration(table, "poll", POLL_MIN..=HOUR, TableSource::POLL, problems);
    let segments = table.int("segments", 1, 64).and_then(|count| u16::try_from(count.value).ok());
    let read_units = table.int("read_units", 1, i64::from(u32::MAX)).and_then(|count| u32::try_from(count.value).ok());
    let ttl_attribute = table.text("ttl_attribute").map(|text| text.value);
    let fetches = table.choice("on_miss", &[("not_found", false), ("fetch", true)]).unwrap_or(false);
    let on_miss = if fetches { OnMiss::Fetch(read_through(table, problems)) } else { OnMiss::NotFound };
    let source = TableSource {
        table: name.value,
        place: place(table),
        layout,
        poll: follows.then_some(poll),
        segments: segments.unwrap_or(TableSource::SEGMENTS),
        read_units,
        ttl_attribute,
        on_miss,
    };
    SourceFrom::DynamoDb { at: name.at, table: source }
}

fn read_through(table: &mut Table<'_>, problems: &Problems) -> ReadThrough {
    const MILLI: Duration = Duration::from_millis(1);
    let default = ReadThrough::default();
    ReadThrough {
        max_bytes: table.bytes("max_bytes").map_or(default.max_bytes, |bytes| bytes.value),
        timeout: duration(table, "fetch_timeout", MILLI..=Duration::from_secs(60), default.timeout, problems),
        negative_ttl: duration(table, "negative_ttl", Duration::ZERO..=HOUR * 24, default.negative_ttl, problems),
        fresh_for: duration(table, "fresh_for", Duration::ZERO..=HOUR * 24 * 30, default.fresh_for, problems),
        max_concurrent: table
            .int("max_concurrent_fetches", 1, 1_024)
            .and_then(|count| u16::try_from(count.value).ok())
            .unwrap_or(default.max_concurrent),
    }
}

fn place(table: &mut Table<'_>) -> AwsPlace {
    let mut text = |key| table.text(key).map(|text| text.value);
    AwsPlace { region: text("region"), endpoint: text("endpoint") }
}

/// Reads a duration. A duration out of range is an error.
fn duration(
    table: &mut Table<'_>,
    key: &'static str,
    within: std::ops::RangeInclusive<Duration>,
    default: Duration,
    problems: &Problems,
) -> Duration {
    let Some(written) = table.duration(key) else { return default };
    if !within.contains(&written.value) {
        let message = format!(
            "source: '{key}' is {:?}, but must be between {:?} and {:?}",
            written.value,
            within.start(),
            within.end()
        );
        problems.error(&written.at, message);
    }
    written.value
}
