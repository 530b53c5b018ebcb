//! Infers definitions from the columns of Parquet files. Comments in the definitions mark guesses.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, bail};
use arrow::{
    array::ArrayRef,
    compute::cast,
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use larder_common::{clock::SystemClock, files::open_regular};
use larder_model::{
    model::{FeatureView, FileSource, ScalarType, ValueType, WriteMode},
    registry::is_name,
};
use larder_source::{FileSchema, ParquetFiles, ParquetLimits, Source, Wanted};
use larder_sync::{likely_type, wider_type};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use crate::cli::{CliError, import::relative_path, output};

/// The result of inference over all files.
#[derive(Debug)]
pub(super) struct Inferred {
    views: Vec<View>,
    /// A message for each file for which no view was inferred, with the reason.
    pub(super) left_out: Vec<String>,
}

/// A view of one file or of a directory of files.
#[derive(Debug)]
struct View {
    name: String,
    /// The path of the file or directory, relative to the directory of the configuration.
    path: String,
    keys: Vec<Column>,
    key_reason: String,
    time: Option<Column>,
    created: Option<Column>,
    features: Vec<Column>,
    /// Comments about columns, which are written into the definitions.
    notes: Vec<String>,
}

/// A column, and its name in the definitions.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    column: String,
    value_type: ValueType,
}

/// The maximum number of rows that are read to find key columns.
const SAMPLE_ROWS: usize = 20_000;
/// The minimum number of rows for finding keys by their values if any column has a name like an ID. In fewer rows, the
/// values of most columns are unique, even if the column is not a key, so the keys are guessed from the names.
const KEY_CHECK_ROWS_MIN: usize = 100;
/// The maximum number of columns in a key.
const KEYS_MAX: usize = 4;
/// Names of event time columns, most likely first.
const TIMES: [&str; 10] =
    ["event_timestamp", "event_time", "event_ts", "timestamp", "ts", "datetime", "time", "date", "updated_at", "as_of"];
/// Names of created time columns, most likely first.
const CREATED: [&str; 5] = ["created", "created_timestamp", "created_at", "ingested_at", "inserted_at"];
/// The name of the service that selects all views whose feature names do not clash.
const SERVICE: &str = "all_online";

/// Infers definitions from files and directories, for a configuration in `dir`.
///
/// # Errors
/// If no view can be inferred from any of the paths.
pub(super) fn infer(paths: &[PathBuf], dir: &Path) -> Result<Inferred> {
    let mut inferred = Inferred { views: Vec::new(), left_out: Vec::new() };
    let mut names = BTreeSet::new();
    for path in grouped(paths).into_iter().flat_map(tables) {
        match View::of(&path, dir, &mut names) {
            Ok(view) => inferred.views.push(view),
            Err(why) => inferred.left_out.push(format!("{}: {}", path.display(), output::describe(&why))),
        }
    }
    if inferred.views.is_empty() {
        bail!(CliError::Failed(format!("no feature view can be inferred:\n{}", inferred.left_out.join("\n"))));
    }
    Ok(inferred)
}

/// Replaces the files of one table (`part-0.parquet`, `part-1.parquet`) with their directory. Keeps all other paths.
fn grouped(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut groups: Vec<PathBuf> = Vec::new();
    for path in paths {
        let is_part = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy().to_lowercase();
            name.starts_with("part-") || name.starts_with("part_")
        });
        let path = if is_part { path.parent().unwrap_or(path) } else { path };
        if !groups.iter().any(|known| known == path) {
            groups.push(path.to_owned());
        }
    }
    groups
}

/// Returns the paths of the tables at a path. A directory is one table if its files have similar columns. If a file
/// shares less than half of the columns with the first file, each file is a table.
fn tables(path: PathBuf) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path];
    }
    let Ok(files) = schemas(&path) else { return vec![path] };
    let columns = |file: &FileSchema| file.columns().map(|(name, _)| name.to_owned()).collect::<HashSet<_>>();
    let Some(first) = files.first().map(columns) else { return vec![path] };
    let is_other = |file: &FileSchema| {
        let columns = columns(file);
        2 * first.intersection(&columns).count() < first.len().max(columns.len())
    };
    if files.iter().any(is_other) {
        files.into_iter().map(|file| PathBuf::from(file.path)).collect()
    } else {
        vec![path]
    }
}

/// Returns the schemas of a file, or of the files of a directory.
fn schemas(path: &Path) -> Result<Vec<FileSchema>> {
    let (limits, clock) = (ParquetLimits::default(), Arc::new(SystemClock));
    Ok(ParquetFiles::new(path.to_owned(), nothing_wanted(), limits, clock).schemas()?)
}

/// Returns the partition columns in the files' paths, such as `year` in `year=2026/`. The type of a column is `Int64`
/// if all of its values are integers, and otherwise `String`.
fn partitions(files: &[FileSchema], below: &Path) -> Vec<(String, ValueType)> {
    let mut found: Vec<(String, bool)> = Vec::new();
    for file in files {
        let dirs = Path::new(&file.path).strip_prefix(below).ok().and_then(Path::parent);
        for part in dirs.into_iter().flat_map(Path::components) {
            let part = part.as_os_str().to_string_lossy();
            let Some((name, value)) = part.split_once('=') else { continue };
            let is_int = value.parse::<i64>().is_ok_and(|int| int.to_string() == value);
            match found.iter_mut().find(|(known, _)| known == name) {
                Some((_, are_ints)) => *are_ints &= is_int,
                None => found.push((name.to_owned(), is_int)),
            }
        }
    }
    let value_type = |is_int| ValueType::Scalar(if is_int { ScalarType::Int64 } else { ScalarType::String });
    found.into_iter().map(|(name, is_int)| (name, value_type(is_int))).collect()
}

/// Returns a `Wanted` without columns, because the columns are not known yet.
fn nothing_wanted() -> Wanted {
    let files = FileSource {
        path: String::new(),
        place: Default::default(),
        gate: Default::default(),
        timestamp_field: None,
        created_timestamp_column: None,
        field_mapping: BTreeMap::new(),
    };
    let view = FeatureView {
        name: "".into(),
        entities: Vec::new(),
        join_keys: Vec::new(),
        features: Vec::new(),
        ttl: None,
        source: None,
        batch_source: None,
        push_source: None,
        mode: WriteMode::default(),
        description: String::new(),
        tags: Default::default(),
        created: None,
    };
    Wanted::of(&view, &files)
}

// === impl View ===

impl View {
    /// Infers the view of a file, or of the files of a directory.
    fn of(path: &Path, dir: &Path, names: &mut BTreeSet<String>) -> Result<Self> {
        let files = schemas(path)?;
        for file in &files {
            let mut names = HashSet::new();
            if let Some((twice, _)) = file.columns().find(|(name, _)| !names.insert(*name)) {
                bail!("{}: the file has more than one column named '{twice}'", file.path);
            }
        }
        let mut notes = Vec::new();
        let mut found: Vec<(&str, &DataType, Option<ValueType>)> = Vec::new();
        let columns = files.iter().flat_map(|file| file.columns().map(move |column| (file, column)));
        for (file, (column, data_type)) in columns {
            let is_uuid = file.is_uuid(column);
            let likely = if is_uuid { Some(ValueType::Scalar(ScalarType::Uuid)) } else { likely_type(data_type) };
            match found.iter_mut().find(|(known, ..)| *known == column) {
                None => found.push((column, data_type, likely)),
                Some((_, _, known)) => *known = known.zip(likely).and_then(|(a, b)| wider_type(a, b)),
            }
        }
        // Columns keep their names. If a name is not valid, the column gets another name, which no other column has.
        let mut used: BTreeSet<String> = found.iter().map(|(column, ..)| (*column).to_owned()).collect();
        let mut columns = Vec::new();
        for (column, data_type, value_type) in found {
            let Some(value_type) = value_type else {
                if *data_type == DataType::Null {
                    notes.push(format!(
                        "left out: '{column}' has only nulls, so its type is unknown; any type is possible"
                    ));
                    continue;
                }
                notes.push(format!(
                    "left out: '{column}' has the type {data_type}, which no feature type accepts, or its type \
                     differs between files"
                ));
                continue;
            };
            if *data_type == DataType::UInt64 {
                notes.push(format!(
                    "confirm: '{column}' is unsigned; values above {} are null. hint: use the type Decimal to \
                     keep them",
                    i64::MAX
                ));
            }
            let name = if is_name(column) { column.to_owned() } else { unique(snake(column), &mut used) };
            columns.push((Column { name, column: column.to_owned(), value_type }, is_time(data_type)));
        }
        let in_path = partitions(&files, path).into_iter().filter(|(name, _)| !used.contains(name));
        let in_path: Vec<Column> =
            in_path.map(|(column, value_type)| Column { name: column.clone(), column, value_type }).collect();

        let times = || columns.iter().filter(|(_, is_time)| *is_time).map(|(column, _)| column);
        let created = named(times(), &CREATED).cloned();
        let is_created = |column: &&Column| created.as_ref().is_some_and(|it| it.column == column.column);
        let time = named(times(), &TIMES)
            .or_else(|| times().find(|column| column.column.to_lowercase().contains("event")))
            .or_else(|| times().find(|column| !is_created(column)))
            .cloned();
        // If the only time column has the name of a created time, it is used as the event time.
        let (time, created) = if time.is_none() { (created, None) } else { (time, created) };

        let is_taken =
            |column: &Column| [&time, &created].into_iter().flatten().any(|taken| taken.column == column.column);
        let candidates: Vec<&Column> = columns
            .iter()
            .filter(|(column, is_time)| !is_time && column.value_type.can_be_join_key() && !is_taken(column))
            .map(|(column, _)| column)
            .collect();
        let likely: Vec<&Column> = candidates.iter().filter(|column| is_key_name(&column.column)).copied().collect();
        let pool = if likely.is_empty() { candidates } else { likely };
        if pool.is_empty() {
            bail!("no column can be a key. hint: a key must be a column of text, bytes or integers");
        }
        let file = files.first().map(|file| PathBuf::from(&file.path)).unwrap_or_default();
        let (keys, key_reason) = choose_keys(&file, &pool, time.as_ref())?;
        let is_key = |column: &Column| keys.iter().any(|key| key.column == column.column);
        let features: Vec<Column> = columns
            .iter()
            .map(|(column, _)| column)
            .filter(|column| !is_taken(column) && !is_key(column))
            .chain(&in_path)
            .cloned()
            .collect();
        if features.is_empty() {
            bail!("no column is left for features");
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let mut name = snake(&stem).trim_matches('_').to_owned();
        while name.contains("__") {
            name = name.replace("__", "_");
        }
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            name = format!("view_{name}");
        }
        if !name.contains('_') {
            name.push_str("_features");
        }
        let path = relative_path(dir, path)?.to_string_lossy().into_owned();
        let name = unique(name, names);
        Ok(Self { name, path, keys, key_reason, time, created, features, notes })
    }

    /// Returns the columns whose names in the definitions differ from those in the files, with both names.
    fn mapping(&self) -> BTreeMap<&str, &str> {
        let times = self.time.iter().chain(&self.created);
        let all = times.chain(&self.keys).chain(&self.features);
        all.filter(|it| it.name != it.column).map(|it| (it.column.as_str(), it.name.as_str())).collect()
    }
}

/// Chooses the key columns from `pool`. Together with the event time, they should identify rows. Chooses one column if
/// possible, and otherwise a combination. Also returns the reason, which is written as a comment.
fn choose_keys(file: &Path, pool: &[&Column], time: Option<&Column>) -> Result<(Vec<Column>, String)> {
    let rows = sample(file, pool, time)?;
    let ids: Vec<Column> = pool.iter().filter(|column| is_id(&column.column)).map(|column| (*column).clone()).collect();
    if rows.len() < KEY_CHECK_ROWS_MIN && !ids.is_empty() {
        let reason = format!("a guess from the names: too few rows ({}) to check it", rows.len());
        return Ok((ids.into_iter().take(KEYS_MAX).collect(), reason));
    }
    let distinct = |keys: &[usize]| {
        let key =
            |row: &Vec<String>| keys.iter().map(|key| row[*key].clone()).chain(row.last().cloned()).collect::<Vec<_>>();
        rows.iter().map(key).collect::<HashSet<_>>().len()
    };
    let mut keys: Vec<usize> = Vec::new();
    let mut found = 0;
    // Use the first column that identifies rows without other key columns. If there is no such column, repeatedly add
    // the column that distinguishes the most rows.
    let single = (0..pool.len()).find(|place| distinct(&[*place]) == rows.len());
    if let Some(place) = single {
        (keys, found) = (vec![place], rows.len());
    }
    while found < rows.len() && keys.len() < KEYS_MAX {
        let with = |place: usize| keys.iter().copied().chain([place]).collect::<Vec<_>>();
        let others = (0..pool.len()).filter(|place| !keys.contains(place));
        let counted = others.map(|place| (distinct(&with(place)), place));
        // If several columns distinguish equally many rows, use the first of them.
        let Some((count, place)) = counted.max_by_key(|(count, place)| (*count, std::cmp::Reverse(*place))) else {
            break;
        };
        if count <= found {
            break;
        }
        (keys, found) = (with(place), count);
    }
    keys.sort_unstable();
    let within = format!("in the first {} rows", rows.len());
    let reason = match time {
        _ if found < rows.len() => {
            format!("guessed: not unique {within}; Larder serves only one row for each key")
        }
        Some(time) => format!("unique together with '{}' {within}", time.column),
        None => format!("unique {within}"),
    };
    if keys.is_empty() {
        keys.push(0);
    }
    Ok((keys.into_iter().map(|place| pool[place].clone()).collect(), reason))
}

/// Returns the values of the first rows as text. A row has the values of the columns in `pool`, then the event time.
/// The event time is empty if there is no time column.
fn sample(file: &Path, pool: &[&Column], time: Option<&Column>) -> Result<Vec<Vec<String>>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(open_regular(file)?)?;
    let names: Vec<&str> = pool.iter().copied().chain(time).map(|column| column.column.as_str()).collect();
    let fields = builder.schema().fields();
    let roots = (0..fields.len()).filter(|root| names.contains(&fields[*root].name().as_str()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader = builder.with_projection(mask).with_batch_size(1_024).with_limit(SAMPLE_ROWS).build()?;
    let options = FormatOptions::new();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch?;
        // Timestamps are converted to numbers, because the formatter does not support all time zones.
        let plain = |array: &ArrayRef| match array.data_type() {
            DataType::Timestamp(..) => cast(array, &DataType::Int64),
            _ => Ok(Arc::clone(array)),
        };
        let arrays = names.iter().map(|name| batch.column_by_name(name).map(plain).transpose());
        let arrays = arrays.collect::<std::result::Result<Vec<_>, _>>()?;
        let column = |array| ArrayFormatter::try_new(array, &options);
        let columns = arrays.iter().map(|array| array.as_deref().map(column).transpose());
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cell = |column: &Option<ArrayFormatter<'_>>| {
                column.as_ref().map(|column| column.value(row).to_string()).unwrap_or_default()
            };
            let mut cells: Vec<String> = columns.iter().map(cell).collect();
            if time.is_none() {
                cells.push(String::new());
            }
            rows.push(cells);
        }
    }
    Ok(rows)
}

// === impl Inferred ===

impl Inferred {
    /// Returns a line for each view, with its key, event time and number of features.
    pub(super) fn summary(&self) -> impl Iterator<Item = String> {
        self.views.iter().map(|view| {
            let keys = view.keys.iter().map(|key| key.column.as_str()).collect::<Vec<_>>().join(", ");
            let time = view.time.as_ref().map_or("none", |time| time.column.as_str());
            format!("{}: key {keys}, event time {time}, {} features", view.name, view.features.len())
        })
    }

    /// Formats the definitions as YAML.
    pub(super) fn to_yaml(&self) -> String {
        let mut out = String::from(
            "# Inferred from Parquet files by 'larder init --from'. Check the lines marked 'confirm'.\n#\n\
             # Paths are relative to the directory of larder.yaml.\n\nentities:\n",
        );
        let mut entities: BTreeMap<&str, (String, ValueType)> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for key in self.views.iter().flat_map(|view| &view.keys) {
            if entities.contains_key(key.name.as_str()) {
                continue;
            }
            let short = key.name.strip_suffix("_id").filter(|short| !short.is_empty()).unwrap_or(&key.name);
            let name = unique(short.to_owned(), &mut names);
            out.push_str(&format!(
                "  - {{name: {}, join_key: {}, type: {}}}  # confirm\n",
                quoted(&name),
                quoted(&key.name),
                key.value_type
            ));
            entities.insert(&key.name, (name, key.value_type));
        }
        out.push_str("\nfeature_views:\n");
        for view in &self.views {
            write_view(&mut out, view, &entities);
        }
        self.write_service(&mut out);
        out
    }

    /// Writes a service that selects views in order. Omits a view if one of its feature names equals a key or a feature
    /// that is already selected.
    fn write_service(&self, out: &mut String) {
        let mut names: BTreeSet<&str> =
            self.views.iter().flat_map(|view| &view.keys).map(|key| key.name.as_str()).collect();
        let (mut views, mut others) = (Vec::new(), Vec::new());
        for view in &self.views {
            if view.features.iter().all(|feature| !names.contains(feature.name.as_str())) {
                names.extend(view.features.iter().map(|feature| feature.name.as_str()));
                views.push(quoted(&view.name));
            } else {
                others.push(view.name.as_str());
            }
        }
        if views.is_empty() {
            return;
        }
        out.push_str(&format!(
            "\n# The features for one model: confirm them, and name the service after the model.\nfeature_services:\n  \
             - name: {SERVICE}\n    features: [{}]\n",
            views.join(", ")
        ));
        if !others.is_empty() {
            out.push_str(&format!(
                "    # Not included: {}, because feature names clash. Request full names, or select features.\n",
                others.join(", ")
            ));
        }
    }
}

fn write_view(out: &mut String, view: &View, entities: &BTreeMap<&str, (String, ValueType)>) {
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let names: Vec<String> = view.keys.iter().map(|key| quoted(&entities[key.name.as_str()].0)).collect();
    line(format!("  - name: {}", quoted(&view.name)));
    line(format!("    entities: [{}]  # confirm: {}", names.join(", "), view.key_reason));
    let differing = |key: &&Column| entities[key.name.as_str()].1 != key.value_type;
    let types: Vec<String> =
        view.keys.iter().filter(differing).map(|key| format!("{}: {}", quoted(&key.name), key.value_type)).collect();
    if !types.is_empty() {
        line(format!("    key_types: {{{}}}", types.join(", ")));
    }
    line("    # How long a row is valid after its event time. If not set, forever.".to_owned());
    line("    #ttl: 30d".to_owned());
    line("    source:".to_owned());
    line(format!("      path: {}", quoted(&view.path)));
    match &view.time {
        Some(time) => line(format!("      timestamp_field: {}  # confirm", quoted(&time.name))),
        None => line("      timestamp_field: none  # confirm: no column is a timestamp".to_owned()),
    }
    if let Some(created) = &view.created {
        line(format!("      created_timestamp_column: {}  # confirm", quoted(&created.name)));
    }
    let mapping: Vec<String> =
        view.mapping().iter().map(|(column, name)| format!("{}: {}", quoted(column), quoted(name))).collect();
    if !mapping.is_empty() {
        line(format!("      field_mapping: {{{}}}", mapping.join(", ")));
    }
    line("      # How often the files are checked for changes.".to_owned());
    line("      #every: 1h".to_owned());
    line("    features:".to_owned());
    for feature in &view.features {
        line(format!("      - {{name: {}, type: {}}}", quoted(&feature.name), feature.value_type));
    }
    for why in &view.notes {
        line(format!("      # {}", why.replace(char::is_control, " ")));
    }
}

/// Formats text as YAML: unquoted if that is safe, and otherwise as JSON, which is valid YAML.
fn quoted(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_/.-".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text);
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// Returns the column whose name is earliest in `names`. Ignores case.
fn named<'c>(columns: impl Iterator<Item = &'c Column>, names: &[&str]) -> Option<&'c Column> {
    let place = |column: &Column| names.iter().position(|name| column.column.eq_ignore_ascii_case(name));
    columns.filter_map(|column| Some((place(column)?, column))).min_by_key(|(place, _)| *place).map(|(_, it)| it)
}

fn is_id(column: &str) -> bool {
    column.ends_with("Id")
        || column.ends_with("ID")
        || column.to_lowercase() == "id"
        || column.to_lowercase().ends_with("_id")
}

fn is_key_name(column: &str) -> bool {
    let lower = column.to_lowercase();
    is_id(column)
        || ["_key", "_uuid", "_sk", "_pk"].iter().any(|end| lower.ends_with(end))
        || ["key", "uuid"].contains(&lower.as_str())
}

/// Converts a string to lower case, and replaces each character that is not an ASCII letter or digit with an
/// underscore.
fn snake(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// Returns the name, with a number appended if the name is taken. Adds the result to the taken names.
fn unique(name: String, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.clone();
    let mut count = 1;
    while !taken.insert(candidate.clone()) {
        count += 1;
        candidate = format!("{name}_{count}");
    }
    candidate
}
