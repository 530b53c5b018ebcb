//! `larder training-set`: joins entity rows with the feature values that were valid at their times.
//!
//! It needs neither a running server nor the server's store. It reads the views' Parquet files, and calls the plugins in the
//! plugin directory.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use larder_common::{
    clock::{Clock as _, SystemClock},
    telemetry::{self, LogFormat},
};
use larder_training::{Report, TIME_COLUMN, ViewReport};

use super::{
    CliError, ConfigArg,
    offline_job::{JobArgs, parse_size, run_job},
    output,
};
use crate::offline::{
    FILE_BYTES, FORMAT, Inputs, KnownAt, Location, Manifest, OfflineError, Output, Project, SetRequest, Ttl, Warning,
    Written,
};

#[derive(Debug, Args)]
pub(super) struct TrainingSetArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The entity rows: a Parquet file, a directory of them, or an s3:// URL, with a column for each join key, each request input of
    /// derived views, and the times. Further columns, such as labels, are copied
    #[arg(long, value_name = "PATH")]
    entities: Option<PathBuf>,
    /// The feature service to request
    #[arg(long, short, value_name = "NAME", conflicts_with = "features", allow_hyphen_values = true)]
    service: Option<String>,
    /// A feature to request, as view:feature; may be repeated
    #[arg(long = "feature", short, value_name = "VIEW:FEATURE", allow_hyphen_values = true)]
    features: Vec<String>,
    /// Build the set of this manifest again. Fails if an input differs
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = [
        "service", "features", "time_column", "known_at", "ttl", "full_feature_names", "event_timestamps", "strict",
    ])]
    from: Option<PathBuf>,
    /// The Parquet file, or the s3:// URL of the object, to write. With a slash at the end: the empty directory or prefix for
    /// several files. The manifest is written next to it, with the suffix .manifest.json
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// The column of the entity rows' times
    #[arg(long, value_name = "COLUMN", default_value = TIME_COLUMN)]
    time_column: String,
    /// When a feature row is visible: from its event time on, or from the later of its event time and its created time on
    #[arg(long, value_name = "TIME", value_enum, default_value_t = KnownAt::Event, hide_possible_values = false)]
    known_at: KnownAt,
    /// How to treat a value that is older than its view's ttl at the entity row's time
    #[arg(long, value_enum, default_value_t = Ttl::Null)]
    ttl: Ttl,
    /// Name features in the form view__feature
    #[arg(long)]
    full_feature_names: bool,
    /// Add a column NAME__event_timestamp after each stored feature
    #[arg(long)]
    event_timestamps: bool,
    /// Fail if an entity row has no time or no complete key, instead of leaving its features null
    #[arg(long)]
    strict: bool,
    /// Begin the next file in the output directory when a file reaches this size [default: 1GiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_file_bytes, conflicts_with = "from")]
    file_bytes: Option<u64>,
    #[command(flatten)]
    job: JobArgs,
}

/// The minimum of `--file-bytes`.
const FILE_BYTES_MIN: u64 = 1 << 20;

pub(super) fn run(args: &TrainingSetArgs) -> Result<()> {
    let config = args.config.load()?;
    let from = args.from.as_deref().map(Location::parse).transpose()?;
    let manifest = from.as_ref().map(|from| Manifest::read(from, &config.aws)).transpose()?;
    let request = match &manifest {
        Some(manifest) => manifest.request.clone(),
        None => args.request()?,
    };
    if let (Some(manifest), Some(from)) = (&manifest, &from)
        && manifest.inputs.entities.path.is_none()
    {
        return Err(OfflineError::NoEntityFiles { manifest: from.clone() }.into());
    }
    let of_manifest = manifest.as_ref().and_then(|manifest| manifest.inputs.entities.path.as_deref());
    let Some(path) = args.entities.as_deref().or(of_manifest) else {
        bail!(CliError::Usage("no entity rows. hint: use --entities PATH".to_owned()));
    };
    telemetry::install_logs("warn", LogFormat::Text);
    let project = Project::load(config)?;
    project.definitions().warnings.iter().for_each(|warning| output::note(&warning.to_string()));
    let (entities, out) = (project.entities(path)?, args.output(manifest.as_ref())?);
    let training = request.to_training();
    let job = project.job(&training, args.job.limits(), entities.schema())?;
    let inputs = Inputs::of(&project.definitions().catalog, &job, request.service.as_deref(), entities.describe()?)?;
    if let (Some(manifest), Some(from)) = (&manifest, from) {
        let differences = manifest.inputs.differences(&inputs);
        if !differences.is_empty() {
            return Err(OfflineError::InputsDiffer { manifest: from, differences }.into());
        }
    }
    let manifest_at = Manifest::location_for(out.at());
    let started = Instant::now();
    project.check_output(out.at(), job.views(), Some(&entities))?;
    // The lock is kept until the manifest is written.
    let (report, Written { files: written, lock: _lock }) = run_job(entities.rows().unwrap_or(0), |progress| {
        let mut writer = project.create_output(&out, job.schema())?;
        let report = job.run::<OfflineError>(entities.read()?, progress, &mut |batch| writer.write(&batch))?;
        // The manifest must describe the inputs that were read.
        let now = Inputs::of(&project.definitions().catalog, &job, request.service.as_deref(), entities.describe()?)?;
        let differences = inputs.differences(&now);
        if !differences.is_empty() {
            return Err(OfflineError::InputsChanged { differences });
        }
        // If the run ends before the new manifest is written, the set must not have the manifest of an earlier set.
        Manifest::invalidate(&manifest_at, &project.config().aws)?;
        Ok::<_, OfflineError>((report, writer.finish()?))
    })?;
    let took = started.elapsed();
    print(&report, out.at(), took);
    if let Some(manifest) = &manifest
        && let Some(expected) = &manifest.output
        && expected.file_bytes == written.file_bytes
        && *expected != written
    {
        let message =
            "the output differs from that of the manifest, although all inputs are equal. This is a bug in Larder";
        bail!(CliError::Failed(message.to_owned()));
    }
    Manifest { format: FORMAT, request: request.clone(), inputs, output: Some(written), report }
        .write(&manifest_at, &project.config().aws)?;
    Ok(())
}

fn parse_file_bytes(text: &str) -> Result<u64, String> {
    parse_size(text, FILE_BYTES_MIN)
}

// === impl TrainingSetArgs ===

impl TrainingSetArgs {
    fn output(&self, manifest: Option<&Manifest>) -> Result<Output> {
        let of_manifest = manifest.and_then(|manifest| manifest.output.as_ref()?.file_bytes);
        Ok(Output::parse(&self.out, self.file_bytes.or(of_manifest).unwrap_or(FILE_BYTES))?)
    }

    fn request(&self) -> Result<SetRequest> {
        if self.service.is_none() && self.features.is_empty() {
            let message = "no features selected. hint: use --service NAME, or --feature VIEW:FEATURE";
            bail!(CliError::Usage(message.to_owned()));
        }
        Ok(SetRequest {
            service: self.service.clone(),
            features: self.features.clone(),
            time_column: self.time_column.clone(),
            known_at: self.known_at,
            ttl: self.ttl,
            full_feature_names: self.full_feature_names,
            event_timestamps: self.event_timestamps,
            strict: self.strict,
        })
    }
}

/// Prints the report, and its warnings.
fn print(report: &Report, out: &Location, took: Duration) {
    views(&report.views);
    for warning in Warning::of(report, SystemClock.now()) {
        output::note(&warning.to_string());
    }
    let rate = report.rows as f64 / took.as_secs_f64().max(0.001);
    output::line(&format!(
        "wrote {} to {} in {:.1} s ({} rows/s)",
        output::counted(report.rows, "row", "rows"),
        out,
        took.as_secs_f64(),
        output::thousands(rate as u64)
    ));
}

/// Prints the counts of the views as a table.
pub(super) fn views(views: &[ViewReport]) {
    let headings = ["VIEW", "FEATURE ROWS", "MATCHED", "EXPIRED", "NOT FOUND", "LATE"];
    let row = |view: &ViewReport| {
        let numbers = [view.feature_rows, view.matched, view.expired, view.not_found, view.late];
        std::iter::once(view.view.clone()).chain(numbers.map(output::thousands)).collect()
    };
    let rows: Vec<Vec<String>> = views.iter().map(row).collect();
    if !rows.is_empty() {
        output::table(&headings, &rows);
    }
}
