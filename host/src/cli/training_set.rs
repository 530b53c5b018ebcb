//! `larder training-set`: joins entity rows with the feature values that were valid at their times.
//!
//! It needs neither a running server nor the server's store. It reads the views' Parquet files, and calls the plugins in the
//! plugin directory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use arrow::array::{RecordBatch, RecordBatchReader};
use clap::{Args, ValueEnum};
use larder_common::{
    clock::SystemClock,
    files::{open_regular, read_regular},
    telemetry::{self, LogFormat},
};
use larder_model::{model::DerivedView, registry::Catalog};
use larder_plugin_host::{PluginRuntime, Transform};
use larder_serving::{MissingPlugins, Selection, Transforms, TtlPolicy};
use larder_source::Wanted;
use larder_training::{Report, TrainingRequest, TrainingSet, kernel::Visibility, training_set};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Compression,
    file::properties::WriterProperties,
};

use super::{CliError, ConfigArg, output};
use crate::config::{PluginConfig, load_definitions};

#[derive(Debug, Args)]
pub(super) struct TrainingSetArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The entity rows: a Parquet file with a column for each join key, each request input of derived views, and the
    /// times. Further columns, such as labels, are copied
    #[arg(long, value_name = "FILE")]
    entities: PathBuf,
    /// The feature service to request
    #[arg(long, short, value_name = "NAME", conflicts_with = "features", allow_hyphen_values = true)]
    service: Option<String>,
    /// A feature to request, as view:feature; may be repeated
    #[arg(long = "feature", short, value_name = "VIEW:FEATURE", allow_hyphen_values = true)]
    features: Vec<String>,
    /// The Parquet file to write
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// The column of the entity rows' times
    #[arg(long, value_name = "COLUMN", default_value = "event_timestamp")]
    time_column: String,
    /// When a feature row is visible: from its event time on, or from the later of its event time and its created time on
    #[arg(long, value_name = "TIME", value_enum, default_value_t = KnownAt::Event)]
    known_at: KnownAt,
    /// How to treat a value that is older than its view's ttl at the entity row's time: as null, or as any other value
    #[arg(long, value_enum, default_value_t = Ttl::Null)]
    ttl: Ttl,
    /// Name features in the form view__feature
    #[arg(long)]
    full_feature_names: bool,
    /// Add a column NAME__event_timestamp after each stored feature
    #[arg(long)]
    event_timestamps: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KnownAt {
    Event,
    Created,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ttl {
    Null,
    Ignore,
}

/// The number of entity rows that are answered at a time.
const BATCH_ROWS: usize = 16_384;

pub(super) fn run(args: &TrainingSetArgs) -> Result<()> {
    let selection = match &args.service {
        Some(service) => Selection::Service(service.into()),
        None if args.features.is_empty() => {
            let message = "no features selected. hint: use --service NAME, or --feature VIEW:FEATURE";
            bail!(CliError::Usage(message.to_owned()));
        }
        None => Selection::Features(args.features.iter().map(|feature| feature.as_str().into()).collect()),
    };
    telemetry::install_logs("warn", LogFormat::Text);
    let config = args.config.load()?;
    let definitions = load_definitions(&config)?;
    definitions.warnings.iter().for_each(|warning| output::note(&warning.to_string()));
    let catalog = &definitions.catalog;
    let transforms = transforms(catalog, &config.plugins)?;
    let setting = config.sync_setting(Arc::new(SystemClock));
    let entities = entities(&args.entities).with_context(|| args.entities.display().to_string())?;
    let request = TrainingRequest {
        selection,
        full_feature_names: args.full_feature_names,
        time_column: &args.time_column,
        visibility: match args.known_at {
            KnownAt::Event => Visibility::Event,
            KnownAt::Created => Visibility::Created,
        },
        ttl: match args.ttl {
            Ttl::Null => TtlPolicy::Null,
            Ttl::Ignore => TtlPolicy::Ignore,
        },
        event_timestamps: args.event_timestamps,
    };
    let without_features = |wanted: Wanted| Wanted { features: Vec::new(), ..wanted };
    let open = |view: &_, keys_only| {
        setting.open_files(view, |wanted| if keys_only { without_features(wanted) } else { wanted })
    };
    let set = training_set(catalog, &transforms, &open, &request, &entities)?;
    write(&args.out, &set).with_context(|| format!("cannot write {}", args.out.display()))?;
    print(&set.report, &args.out);
    Ok(())
}

/// Loads the plugins of the derived views from the plugin directory. A plugin without a file is not loaded.
fn transforms(catalog: &Catalog, config: &PluginConfig) -> Result<Transforms> {
    let Some(dir) = &config.dir else { return Ok(Transforms::default()) };
    if catalog.derived_views().is_empty() {
        return Ok(Transforms::default());
    }
    let runtime = PluginRuntime::new(config.settings.clone())?;
    let transform = |view: &Arc<DerivedView>| {
        let path = dir.join(format!("{}.wasm", view.plugin));
        if !path.try_exists().with_context(|| path.display().to_string())? {
            return Ok(None);
        }
        let bytes = read_regular(&path, config.settings.component_bytes_max());
        let bytes = bytes.with_context(|| path.display().to_string())?;
        let component = runtime.load(&bytes).with_context(|| path.display().to_string())?;
        Ok(Some(Transform::bind(&runtime, &component, view)?))
    };
    let by_view = catalog.derived_views().iter().map(transform).collect::<Result<_>>()?;
    Ok(Transforms::new(by_view, MissingPlugins::default(), runtime))
}

/// Reads the entity rows: at least one batch, which may be empty.
fn entities(path: &Path) -> Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(open_regular(path)?)?.with_batch_size(BATCH_ROWS).build()?;
    let schema = reader.schema();
    let mut batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

/// Writes the set to a temporary file next to its final path, and renames it, so that an interrupted run leaves no
/// half-written file at that path.
fn write(path: &Path, set: &TrainingSet) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_to(&temporary, set).and_then(|()| Ok(fs::rename(&temporary, path)?));
    if written.is_err() {
        // The error of the write is returned. The file may not exist.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_to(path: &Path, set: &TrainingSet) -> Result<()> {
    let Some(first) = set.batches.first() else { bail!("the entity rows are empty") };
    // Parquet has no type for `Date64`. Without coercion, it would become an integer.
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_coerce_types(true).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, first.schema(), Some(properties))?;
    for batch in &set.batches {
        writer.write(batch)?;
    }
    writer.into_inner()?.sync_all()?;
    Ok(())
}

fn print(report: &Report, out: &Path) {
    let headings = ["VIEW", "FEATURE ROWS", "MATCHED", "EXPIRED", "NOT FOUND", "LATE"];
    let row = |view: &larder_training::ViewReport| {
        let numbers = [view.feature_rows, view.matched, view.expired, view.not_found, view.late];
        std::iter::once(view.view.clone()).chain(numbers.map(output::thousands)).collect()
    };
    let rows: Vec<Vec<String>> = report.views.iter().map(row).collect();
    if !rows.is_empty() {
        output::table(&headings, &rows);
    }
    for derived in report.derived.iter().filter(|derived| derived.failed > 0) {
        output::note(&format!("derived view '{}': {} rows failed", derived.view, output::thousands(derived.failed)));
    }
    if report.rows_without_time > 0 {
        let count = output::counted(report.rows_without_time, "entity row has", "entity rows have");
        output::note(&format!("{count} no time, so the features are null"));
    }
    for view in report.views.iter().filter(|view| view.late > 0) {
        output::note(&format!(
            "view '{}': {} a feature row that was created after the entity row's time; a lookup at that time would not \
             have found it. hint: --known-at created leaves such rows out",
            view.view,
            output::counted(view.late, "entity row uses", "entity rows use")
        ));
    }
    output::line(&format!("wrote {} rows to {}", output::thousands(report.rows), out.display()));
}
