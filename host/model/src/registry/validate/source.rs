//! Checks the source of a view's rows: whether its definition is valid and matches the view.

use std::{collections::BTreeSet, str::FromStr};

use croner::Cron;

use super::Rules;
use crate::{
    model::{FeatureView, FileSource, OnMiss, Source, SourceKind, TableLayout, TableSource, WriteMode},
    registry::{FilesDefinition, SourceDefinition, SourceFrom},
    yaml::{Located, Place, Problems, nearest},
};

pub(super) fn source(
    view: &Located<String>,
    source: SourceDefinition,
    rules: &Rules<'_>,
    problems: &Problems,
) -> Source {
    let from = match source.from {
        SourceFrom::Files(definition) => SourceKind::Files(files(view, "source", definition, problems)),
        SourceFrom::DynamoDb { at, table } => {
            check_table(view, &at, &table, problems);
            SourceKind::DynamoDb(table)
        }
        SourceFrom::FeastSqlite { path, table } => {
            let table = table.unwrap_or_else(|| format!("{}_{}", rules.project, view.value));
            SourceKind::FeastSqlite { path: path.value, table }
        }
    };
    if let Some(cron) = &source.cron {
        let name = &view.value;
        if let Err(why) = Cron::from_str(&cron.value) {
            let help = "minute, hour, day of month, month, day of week: '15 */6 * * *' is every six hours".to_owned();
            let message = format!("feature view '{name}': 'cron' is '{}': {why}", cron.value);
            problems.error_with_help(&cron.at, message, help);
        }
        if source.every.is_some() {
            let message =
                format!("feature view '{name}': 'every' and 'cron' are both set, but only one schedule is allowed");
            problems.error(&cron.at, message);
        }
    }
    Source { from, every: source.every, cron: source.cron.map(|cron| cron.value) }
}

/// Checks Parquet files. `setting` is the setting of the view that has them.
pub(super) fn files(view: &Located<String>, setting: &str, source: FilesDefinition, problems: &Problems) -> FileSource {
    let mut targets = BTreeSet::new();
    for target in source.field_mapping.values() {
        if !targets.insert(&target.value) {
            let message =
                format!("feature view '{}': 'field_mapping' maps two columns to '{}'", view.value, target.value);
            problems.error(&target.at, message);
        }
    }
    let is_static = source.is_static();
    let path = source.path.value;
    if let Some((scheme, rest)) = path.split_once("://") {
        let bucket = rest.split('/').next().unwrap_or_default();
        if scheme != "s3" {
            let message = format!("feature view '{}': Larder does not support {scheme}://", view.value);
            problems.error_with_help(&source.path.at, message, "use a path on disk, or s3://bucket/key".to_owned());
        } else if bucket.is_empty() {
            let message = format!("feature view '{}': '{path}' has no bucket", view.value);
            problems.error_with_help(&source.path.at, message, "write it as s3://bucket/key".to_owned());
        }
    }
    if is_pattern(&path) {
        let message =
            format!("feature view '{}': '{setting}: path' is '{path}', but patterns are not supported", view.value);
        let help = "use a Parquet file, a directory (its *.parquet files are read at any depth), or s3://bucket/key (an object \
                    or a prefix)";
        problems.error_with_help(&source.path.at, message, help.to_owned());
    }
    FileSource {
        path,
        place: source.place,
        gate: source.gate,
        timestamp_field: Some(source.timestamp_field).filter(|_| !is_static),
        created_timestamp_column: source.created_timestamp_column,
        field_mapping: source.field_mapping.into_iter().map(|(column, name)| (column, name.value)).collect(),
    }
}

/// Returns whether a path is a pattern of the shell. Brackets are not checked, because names of files have them more often.
pub(in crate::registry) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?'])
}

/// DynamoDB's rule for table names ("Naming rules" in its developer guide).
pub(in crate::registry) const TABLE_NAME_RULE: &str = "3 to 255 letters, digits, '_', '-' and '.'";

pub(in crate::registry) fn is_table_name(name: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (3..=255).contains(&name.len()) && name.chars().all(is_name)
}

fn check_table(view: &Located<String>, at: &Place, table: &TableSource, problems: &Problems) {
    if !is_table_name(&table.table) {
        let message = format!("feature view '{}': '{}' is not a valid table name", view.value, table.table);
        problems.error_with_help(at, message, TABLE_NAME_RULE.to_owned());
    }
    if let OnMiss::Fetch(how) = &table.on_miss
        && how.max_bytes == 0
    {
        let message = format!("feature view '{}': 'max_bytes' is 0, so no fetched row can be kept", view.value);
        problems.error(at, message);
    }
}

/// Checks the source against the keys, features and mode of the view.
pub(super) fn check(view: &FeatureView, name: &Located<String>, problems: &Problems) {
    let Some(table) = view.table() else { return };
    let (view_name, at) = (&name.value, &name.at);
    if view.mode == WriteMode::Replace {
        let message =
            format!("feature view '{view_name}': 'mode: replace' is only for files, and cannot be used with a table");
        problems.error(at, message);
    }
    let names =
        || view.features.iter().map(|feature| &*feature.name).chain(view.join_keys.iter().map(|key| &*key.name));
    let (TableLayout::Wide { field_mapping, .. } | TableLayout::ItemPerFeature { field_mapping, .. }) = &table.layout
    else {
        return;
    };
    if view.is_entityless() {
        let message = format!(
            "feature view '{view_name}': the view has no entities, but a table that is not in Feast's layout needs a \
             join key"
        );
        problems.error(at, message);
    }
    for target in field_mapping.values().filter(|target| !names().any(|name| name == *target)) {
        let message = format!(
            "feature view '{view_name}': 'field_mapping' maps to '{target}', which is neither a feature nor a join key \
             of the view"
        );
        problems.error_with_help(at, message, nearest(target, names()));
    }
    if matches!(table.layout, TableLayout::ItemPerFeature { .. }) && view.join_keys.len() > 1 {
        let message = format!(
            "feature view '{view_name}': 'layout: item-per-feature' needs exactly one join key, but the view has {}",
            view.join_keys.len()
        );
        problems.error(at, message);
    }
}
