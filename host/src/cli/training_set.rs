//! `larder training-set`: joins entity rows with the feature values that were valid at their times.
//!
//! It needs neither a running server nor the server's store. It reads the views' Parquet files, and calls the plugins in the
//! plugin directory.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use larder_common::{
    clock::{Clock as _, SystemClock},
    telemetry::{self, LogFormat},
};
use larder_training::{Report, TIME_COLUMN, TrainingJob, ViewReport};

use super::{
    CliError, ConfigArg,
    offline_job::{JobArgs, run_job},
    output,
};
use crate::offline::{
    Entities, EntityFiles, FORMAT, Inputs, KnownAt, Manifest, OfflineError, OutputFile, Project, SetRequest,
    TrainingWriter, Ttl, Warning,
};

#[derive(Debug, Args)]
pub(super) struct TrainingSetArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The entity rows: a Parquet file, or a directory of them, with a column for each join key, each request input of
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
    /// The Parquet file to write. Its manifest is written next to it, with the suffix .manifest.json
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
    #[command(flatten)]
    job: JobArgs,
}

pub(super) fn run(args: &TrainingSetArgs) -> Result<()> {
    let manifest = args.from.as_deref().map(Manifest::read).transpose()?;
    let request = match &manifest {
        Some(manifest) => manifest.request.clone(),
        None => args.request()?,
    };
    let of_manifest = manifest.as_ref().and_then(|manifest| manifest.inputs.entities.path.as_deref());
    let Some(path) = args.entities.as_deref().or(of_manifest) else {
        bail!(CliError::Usage("no entity rows. hint: use --entities PATH".to_owned()));
    };
    telemetry::install_logs("warn", LogFormat::Text);
    let project = Project::load(args.config.load()?)?;
    project.definitions().warnings.iter().for_each(|warning| output::note(&warning.to_string()));
    let entities = EntityFiles::open(path)?;
    let training = request.to_training();
    let job = project.job(&training, args.job.limits(), entities.schema())?;
    let inputs = inputs(&project, &job, &request, path, &entities)?;
    if let (Some(manifest), Some(from)) = (&manifest, &args.from) {
        let differences = manifest.inputs.differences(&inputs);
        if !differences.is_empty() {
            return Err(OfflineError::InputsDiffer { manifest: from.clone(), differences }.into());
        }
    }
    let manifest_path = Manifest::path_for(&args.out);
    let started = Instant::now();
    project.check_output(&args.out, &job, entities.files())?;
    let (report, _lock) = run_job(entities.rows(), |progress| {
        let mut writer = TrainingWriter::create(&args.out, job.schema())?;
        let mut entities = entities;
        let report = job.run::<OfflineError>(&mut entities, progress, &mut |batch| writer.write(batch))?;
        // The manifest must describe the inputs that were read.
        let entities = Entities { files: entities.digests()?, ..inputs.entities.clone() };
        let now = Inputs::of(&project.definitions().catalog, &job, request.service.as_deref(), entities)?;
        let differences = inputs.differences(&now);
        if !differences.is_empty() {
            return Err(OfflineError::InputsChanged { differences });
        }
        // If the run ends before the new manifest is written, the set must not have the manifest of an earlier set.
        Manifest::remove(&manifest_path)?;
        // The lock is kept until the manifest is written.
        Ok::<_, OfflineError>((report, writer.finish()?))
    })?;
    let took = started.elapsed();
    let written = OutputFile::of(&args.out);
    let written = written.map_err(|source| OfflineError::Write { path: args.out.clone(), source })?;
    print(&report, &args.out, took);
    if let Some(manifest) = &manifest
        && manifest.output != written
    {
        let message =
            "the output differs from that of the manifest, although all inputs are equal. This is a bug in Larder";
        bail!(CliError::Failed(message.to_owned()));
    }
    Manifest { format: FORMAT, request: request.clone(), inputs, output: written, report }.write(&manifest_path)?;
    Ok(())
}

fn inputs(
    project: &Project,
    job: &TrainingJob<'_>,
    request: &SetRequest,
    path: &Path,
    entities: &EntityFiles,
) -> Result<Inputs, OfflineError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let entities = Entities { path: Some(absolute), files: entities.digests()? };
    Inputs::of(&project.definitions().catalog, job, request.service.as_deref(), entities)
}

// === impl TrainingSetArgs ===

impl TrainingSetArgs {
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
fn print(report: &Report, out: &Path, took: Duration) {
    views(&report.views);
    for warning in Warning::of(report, SystemClock.now()) {
        output::note(&warning.to_string());
    }
    let rate = report.rows as f64 / took.as_secs_f64().max(0.001);
    output::line(&format!(
        "wrote {} rows to {} in {:.1} s ({} rows/s)",
        output::thousands(report.rows),
        out.display(),
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
