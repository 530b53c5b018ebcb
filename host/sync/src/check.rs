//! Checks whether a view's source has the declared columns, without reading rows.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{array::new_empty_array, datatypes::DataType};
use larder_columns::Column;
use larder_model::{
    model::{FeatureView, NestedType, ScalarType, ValueType},
    registry::Catalog,
    yaml::nearest,
};
use larder_source::{ColumnAt, FileSchema, Source, SourceError, Wanted, WantedColumn};

use super::SyncSetting;

/// A problem with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProblem {
    /// The affected feature; `None` if the problem affects the whole source, its key or its times.
    pub feature: Option<Arc<str>>,
    /// The description of the problem.
    pub message: String,
    /// A hint on how to fix the problem, if there is one.
    pub help: Option<String>,
    /// Whether the view can still be loaded.
    pub is_warning: bool,
}

/// Opens the sources of a view and compares their columns with the columns that the view declares. Returns all
/// problems.
///
/// Blocks while it reads the files' footers, or waits for AWS.
#[must_use]
pub fn check_source(view: &FeatureView, catalog: &Catalog, setting: &SyncSetting) -> Vec<SourceProblem> {
    let mut problems = Vec::new();
    if let Some(opened) = setting.open_source(view, catalog.key_version(), None) {
        check(view, &*opened.source, &mut problems);
    }
    // If the rows of the view come from another source, its files can still be materialized on request.
    if view.batch_source.is_some()
        && let Some(files) = setting.open_files(view, |wanted| wanted)
    {
        check(view, &*files, &mut problems);
    }
    problems
}

/// Returns the most likely feature type for a column of a file, or `None` if no type accepts such a column.
#[must_use]
pub fn likely_type(data_type: &DataType) -> Option<ValueType> {
    let scalar = |data_type: &DataType| {
        Some(match data_type {
            DataType::Boolean => ScalarType::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
                ScalarType::Int32
            }
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => ScalarType::Int64,
            DataType::Float16 | DataType::Float32 => ScalarType::Float32,
            DataType::Float64 => ScalarType::Float64,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ScalarType::String,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                ScalarType::Bytes
            }
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => ScalarType::UnixTimestamp,
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                ScalarType::Decimal
            }
            _ => return None,
        })
    };
    let likely = match data_type {
        DataType::Dictionary(_, values) => return likely_type(values),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => match item.data_type() {
            DataType::Struct(_) => ValueType::Nested(NestedType::StructList),
            DataType::Map(..) => ValueType::Nested(NestedType::MapList),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                ValueType::Nested(NestedType::ValueList)
            }
            item => ValueType::List(scalar(item)?),
        },
        DataType::Struct(_) => ValueType::Nested(NestedType::Struct),
        DataType::Map(..) => ValueType::Nested(NestedType::Map),
        DataType::Time32(_) | DataType::Time64(_) => ValueType::Scalar(ScalarType::String),
        other => ValueType::Scalar(scalar(other)?),
    };
    // The column decoder determines which types convert.
    Column::mismatch(data_type, likely).is_none().then_some(likely)
}

/// Returns the narrowest type to which the values of both types convert; `None` if there is no such type. Used for
/// columns that have different types in different files.
#[must_use]
pub fn wider_type(one: ValueType, other: ValueType) -> Option<ValueType> {
    use ScalarType::{Float32, Float64, Int32, Int64, String};
    let scalar = |one: ScalarType, other: ScalarType| {
        let is_number = |it| matches!(it, Int32 | Int64 | Float32 | Float64);
        Some(match (one, other) {
            (one, other) if one == other => one,
            (Int32, Int64) | (Int64, Int32) => Int64,
            (one, other) if is_number(one) && is_number(other) => Float64,
            (String, _) | (_, String) => String,
            _ => return None,
        })
    };
    match (one, other) {
        (one, other) if one == other => Some(one),
        (ValueType::Scalar(one), ValueType::Scalar(other)) => scalar(one, other).map(ValueType::Scalar),
        (ValueType::List(one), ValueType::List(other)) => scalar(one, other).map(ValueType::List),
        _ => None,
    }
}

fn check(view: &FeatureView, source: &dyn Source, problems: &mut Vec<SourceProblem>) {
    let files = match source.schemas() {
        Ok(files) => files,
        Err(error) => {
            let message = error.to_string();
            return problems.push(SourceProblem { feature: None, message, help: None, is_warning: false });
        }
    };
    let Some(first) = files.first() else { return };
    let Some(declared) = view.files() else { return };
    // A sync fails if the files have no rows.
    if let Err(error @ SourceError::Empty { .. }) = source.read(None) {
        problems.push(SourceProblem { feature: None, message: error.to_string(), help: None, is_warning: false });
    }
    let wanted = Wanted::of(view, declared);
    // A view of a static table has no time column.
    let time = declared.timestamp_field.as_ref().map(|_| &wanted.event_time);
    let rows = time.into_iter().chain(&wanted.created).chain(&wanted.keys);
    for (column, is_feature) in rows.map(|column| (column, false)).chain(wanted.features.iter().map(|it| (it, true))) {
        let feature = is_feature.then(|| Arc::clone(&column.name));
        let without: Vec<&FileSchema> = files.iter().filter(|file| file.column(&column.column).is_none()).collect();
        if let Some(missing) = without.first() {
            let everywhere = without.len() == files.len();
            let of = if everywhere { first } else { missing };
            let help = nearest(&column.column, of.columns().map(|(name, _)| name));
            let message = match (everywhere, without.len()) {
                (false, count @ 2..) => {
                    let (all, name) = (files.len(), &column.column);
                    format!("{count} of {all} files have no column '{name}', for example {}", of.path)
                }
                _ => format!("{} has no column '{}'", of.path, column.column),
            };
            // A feature or created time that some files do not have is null in the rows of these files.
            let is_created = wanted.created.as_ref().is_some_and(|created| created.name == column.name);
            let is_warning = (is_feature || is_created) && !everywhere;
            problems.push(SourceProblem { feature: feature.clone(), message, help, is_warning });
        }
        let is_time = !is_feature && !wanted.keys.iter().any(|key| key.name == column.name);
        let mut warn = |message| {
            problems.push(SourceProblem { feature: feature.clone(), message, help: None, is_warning: true });
        };
        if let Some(message) = narrowed(&files, column) {
            warn(message);
        } else if let Some(message) =
            files.iter().filter(|_| !is_time).find_map(|file| parsed(file, column, is_feature))
        {
            warn(message);
        }
        if let Some(file) = files.iter().find(|file| file.is_also_in_path(&column.column)) {
            warn(format!(
                "{}, column '{}': both the file and its path have the column; a sync fails if the values differ",
                file.path, column.column
            ));
        }
        let mut reported = BTreeSet::new();
        for file in &files {
            if let Some(why) = file.fault(column).or_else(|| mismatch(file, column, is_time))
                && reported.insert(why.clone())
            {
                let message = format!("{}, column '{}': {why}", file.path, column.column);
                problems.push(SourceProblem { feature: feature.clone(), message, help: None, is_warning: false });
            }
        }
    }
}

/// Describes a column whose type differs between the files, if the declared type is too narrow for the values of some
/// files.
fn narrowed(files: &[FileSchema], column: &WantedColumn) -> Option<String> {
    let type_in = |file: &FileSchema| match file.column(&column.column)? {
        ColumnAt::File(data_type) => likely_type(&data_type),
        ColumnAt::Path => None,
    };
    let mut types = files.iter().filter_map(|file| Some((file, type_in(file)?)));
    let (_, first) = types.next()?;
    let declared = column.value_type;
    let (file, found) = types
        .find(|(_, found)| *found != first && wider_type(declared, *found).is_some_and(|wider| wider != declared))?;
    let path = &file.path;
    let column = &column.column;
    Some(format!(
        "{path}, column '{column}': the type is {found} here, but {first} in other files; values that are not {declared} are \
         null or rounded"
    ))
}

/// Describes a file's column of text whose values have to be parsed for the declared type.
fn parsed(file: &FileSchema, column: &WantedColumn, is_feature: bool) -> Option<String> {
    let ColumnAt::File(data_type) = file.column(&column.column)? else { return None };
    let types = Column::parsed_text(&data_type, column.value_type)?;
    let effect = if is_feature { "values that do not match are null" } else { "rows that do not match are skipped" };
    Some(format!("{}, column '{}': {types}, so its text is parsed; {effect}", file.path, column.column))
}

/// Returns the reason why a file's column cannot be converted to the declared type, if there is one.
fn mismatch(file: &FileSchema, column: &WantedColumn, is_time: bool) -> Option<String> {
    let ColumnAt::File(data_type) = file.column(&column.column)? else { return None };
    if is_time {
        Column::instants(&new_empty_array(&data_type)).err()
    } else {
        Column::mismatch(&data_type, column.value_type)
    }
}
