//! `larder training-set`: joins entity rows with the feature values that were valid at their times.
//!
//! It needs neither a running server nor the server's store. It reads the views' Parquet files, and calls the plugins in the
//! plugin directory.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use larder_common::telemetry::{self, LogFormat};
use larder_model::yaml::parse_bytes;
use larder_serving::{Selection, TtlPolicy};
use larder_training::{Limits, Progress, Report, TrainingRequest, kernel::Visibility};

use super::{CliError, ConfigArg, output};
use crate::offline::{EntityFiles, OfflineError, Project, TrainingWriter};

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
    /// How to treat a value that is older than its view's ttl at the entity row's time: null (as null), ignore (as any
    /// other value), or mark (as any other value, and with a column NAME__status after each feature)
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
    /// The memory for entity rows and their features, such as 2GiB (the default). Rows that do not fit are joined in
    /// parts, each of which reads the feature files again
    #[arg(long, value_name = "BYTES", value_parser = parse_memory)]
    memory: Option<u64>,
    /// The number of threads [default: the number of processors]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,
}

/// A thread that shows the progress of a job.
struct Watch<'s> {
    stop: Sender<()>,
    thread: ScopedJoinHandle<'s, ()>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KnownAt {
    Event,
    Created,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ttl {
    Null,
    Mark,
    Ignore,
}

/// The minimum of `--memory`: enough for some thousand rows.
const MEMORY_MIN: u64 = 16 << 20;
/// The interval at which the progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

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
    let project = Project::load(args.config.load()?)?;
    project.definitions().warnings.iter().for_each(|warning| output::note(&warning.to_string()));
    let entities = EntityFiles::open(&args.entities)?;
    let request = args.request(selection);
    let job = project.job(&request, args.limits(), entities.schema())?;
    let mut writer = TrainingWriter::create(&args.out, job.schema())?;
    let progress = Progress::default();
    let started = Instant::now();
    let rows = entities.rows();
    let report = thread::scope(|scope| {
        let watch = Watch::start(scope, &progress, rows);
        let report = job.run::<OfflineError>(entities, &progress, &mut |batch| writer.write(&batch));
        watch.end();
        report
    })?;
    writer.finish()?;
    print(&report, &args.out, started.elapsed());
    Ok(())
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).ok_or("not a size such as 512MiB or 2GiB")?;
    if bytes < MEMORY_MIN { Err(format!("must be at least {} MiB", MEMORY_MIN >> 20)) } else { Ok(bytes) }
}

// === impl TrainingSetArgs ===

impl TrainingSetArgs {
    fn request<'a>(&'a self, selection: Selection<'a>) -> TrainingRequest<'a> {
        TrainingRequest {
            selection,
            full_feature_names: self.full_feature_names,
            time_column: &self.time_column,
            visibility: match self.known_at {
                KnownAt::Event => Visibility::Event,
                KnownAt::Created => Visibility::Created,
            },
            ttl: match self.ttl {
                Ttl::Null => TtlPolicy::Null,
                Ttl::Mark => TtlPolicy::Mark,
                Ttl::Ignore => TtlPolicy::Ignore,
            },
            event_timestamps: self.event_timestamps,
            strict: self.strict,
        }
    }

    fn limits(&self) -> Limits {
        let limits = Limits::default();
        Limits { memory: self.memory.unwrap_or(limits.memory), threads: self.threads.unwrap_or(limits.threads) }
    }
}

// === impl Watch ===

impl<'s> Watch<'s> {
    fn start<'e>(scope: &'s Scope<'s, 'e>, progress: &'e Progress, rows: u64) -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = scope.spawn(move || {
            let bar = output::progress("joined", rows);
            while receiver.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
                bar.set_position(progress.rows());
                bar.set_prefix(format!("{} feature rows", output::thousands(progress.feature_rows())));
            }
            bar.finish_and_clear();
        });
        Self { stop: sender, thread }
    }

    /// Removes the progress bar.
    fn end(self) {
        drop(self.stop);
        // The thread only draws the bar, so a panic there does not matter.
        let _ = self.thread.join();
    }
}

fn print(report: &Report, out: &Path, took: Duration) {
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
    let rate = report.rows as f64 / took.as_secs_f64().max(0.001);
    output::line(&format!(
        "wrote {} rows to {} in {:.1} s ({} rows/s)",
        output::thousands(report.rows),
        out.display(),
        took.as_secs_f64(),
        output::thousands(rate as u64)
    ));
}
