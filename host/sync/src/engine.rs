//! The sync engine: decides when views are due, and runs at most one sync of a view at a time.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use larder_common::{
    clock::{beat_after, next_by_cron},
    telemetry::panic_message,
};
use larder_ingest::{Outcome, Progress, RowFetcher, SourceStatus, SyncReport, SyncRequest, WriteError};
use larder_model::{
    codec::{KeyVersion, retyped},
    model::{FeatureView, Micros, SourceKind, Window},
    registry::Catalog,
    yaml::nearest,
};
use larder_source::{DynamoDb, Source, SourceError, aws::AwsErrorKind};
use larder_store::{Applied, KeySignature, OnlineStore, RowBatch, ViewId};

use super::{
    Fetcher, SanityLimits, SyncError, SyncLimits, SyncScheduler, SyncSetting,
    metrics::{ViewMetrics, note_values},
    run::{SyncRun, materialize_view, sync_view},
    scheduler::{NoPermit, Schedule},
    slots::Slots,
    write::TimeRules,
};

#[cfg(test)]
mod tests;

/// Syncs the views of one catalog. A new catalog gets a new engine, which shares the scheduler with the previous
/// engine.
#[derive(Debug)]
pub struct SyncEngine {
    pub(super) store: Arc<OnlineStore>,
    pub(super) key_version: KeyVersion,
    pub(super) jobs: Vec<Job>,
    /// Views that a registry defines but Larder cannot materialize, with the reason.
    pub(super) unmaterializable: BTreeMap<Arc<str>, Arc<str>>,
    setting: SyncSetting,
    scheduler: Arc<SyncScheduler>,
}

/// Implements [`SourceStatus`] for a [`Source`].
#[derive(Debug)]
struct StatusAdapter(Arc<dyn Source>);

/// One view with its source.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) view: Arc<FeatureView>,
    pub(super) id: ViewId,
    pub(super) source: Option<Arc<dyn Source>>,
    fetcher: Option<Fetcher>,
    metrics: ViewMetrics,
}

/// The sync interval of a view with a shorter `every`, while the files of its source are watched and do not change.
/// These syncs only record that the view is still fresh. They are rare, because each of them commits and waits for the
/// disk.
const UNCHANGED_EVERY: Duration = Duration::from_secs(24);

// === impl SyncEngine ===

impl SyncEngine {
    /// Creates an engine for a catalog. `ids` are the store's IDs of the catalog's views, in the catalog's order.
    /// `scheduler` is the process's scheduler of syncs, which engines of previous catalogs also use.
    #[must_use]
    pub fn new(
        store: Arc<OnlineStore>,
        catalog: &Catalog,
        ids: &[ViewId],
        setting: SyncSetting,
        scheduler: Arc<SyncScheduler>,
    ) -> Self {
        let job = |(view, id): (&Arc<FeatureView>, &ViewId)| {
            let version = catalog.key_version();
            let position = store.status(*id).and_then(|status| status.position);
            let opened = setting.open_source(view, version, position.as_deref());
            let table = opened.as_ref().and_then(|opened| opened.table.as_ref());
            let fetcher = table.zip(view.read_through()).map(|(table, how)| {
                let (aws, store) = (Arc::clone(&setting.aws), Arc::clone(&store));
                Fetcher::new(view, *id, version, *how, aws, Arc::clone(table), store, setting.limits.times(&**table))
            });
            let source = opened.map(|opened| opened.source);
            Job { view: Arc::clone(view), id: *id, source, fetcher, metrics: ViewMetrics::bind(&view.name) }
        };
        let jobs: Vec<Job> = catalog.views().iter().zip(ids).map(job).collect();
        let left_out = catalog.unservable_views().iter().chain(catalog.unmaterializable_views());
        let unmaterializable = left_out.map(|(view, why)| (Arc::clone(view), Arc::clone(why))).collect();
        let engine = Self { store, key_version: catalog.key_version(), jobs, unmaterializable, setting, scheduler };
        engine.jobs.iter().for_each(|job| engine.note_status(job));
        engine
    }

    /// Returns whether a view is loaded and follows a change stream. Its syncs usually read only a few changes, so they
    /// must not wait for the syncs of other views. A sync reads the whole table if the position in the stream is lost,
    /// or if held-back rows are due.
    #[must_use]
    pub fn is_followed(&self, view: &str) -> bool {
        let job = self.jobs.iter().find(|job| &*job.view.name == view);
        let is_loaded = |job: &Job| {
            let status = self.store.status(job.id);
            status.is_some_and(|status| status.freshness.last_success.is_some() && status.position.is_some())
        };
        job.is_some_and(|job| {
            job.source.as_ref().is_some_and(|source| source.properties().poll_every.is_some()) && is_loaded(job)
        })
    }

    /// Returns the fetcher of individual rows for each view, in the catalog's order; `None` for a view whose rows are
    /// not fetched on request.
    #[must_use]
    pub fn fetchers(&self) -> Vec<Option<Arc<dyn RowFetcher>>> {
        self.jobs.iter().map(|job| Some(Arc::new(job.fetcher.clone()?) as Arc<dyn RowFetcher>)).collect()
    }

    /// Returns the source of each view, in the catalog's order; `None` for a view without a source.
    #[must_use]
    pub fn sources(&self) -> Vec<Option<Arc<dyn SourceStatus>>> {
        let status = |source: Arc<dyn Source>| Arc::new(StatusAdapter(source)) as Arc<dyn SourceStatus>;
        self.jobs.iter().map(|job| job.source.clone().map(status)).collect()
    }

    /// Returns the views that have a source.
    pub fn views(&self) -> impl Iterator<Item = &str> {
        self.jobs.iter().filter(|job| job.source.is_some()).map(|job| &*job.view.name)
    }

    /// Returns the views whose next sync is due. A sync is due by the view's schedule, because the last sync failed, or
    /// because skipped rows from the future may be served now.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = &str> {
        let is_due = move |job: &&Job| self.due_at(job, now).is_some_and(|at| at <= now);
        self.jobs.iter().filter(is_due).map(|job| &*job.view.name)
    }

    /// Returns when the first of the `wanted` views is due; in the past if a view is due already. The result may change
    /// when a sync ends, a watched file changes, the definitions are reloaded, or the clock is set.
    pub fn next_due(&self, now: Instant, wanted: impl Fn(&str) -> bool) -> Option<Instant> {
        let jobs = self.jobs.iter().filter(|job| wanted(&job.view.name));
        jobs.filter_map(|job| self.due_at(job, now)).min()
    }

    /// Returns when a view is due; `None` if it is not due at any time. No view is due during a shutdown or while it is
    /// being synced.
    fn due_at(&self, job: &Job, now: Instant) -> Option<Instant> {
        if job.source.is_none() || self.is_stopping() {
            return None;
        }
        let scheduled = self.scheduler.due_at(job.id, self.schedule(job, now), self.setting.limits.retry);
        scheduled.into_iter().chain(self.rows_due_at(job, now)).min()
    }

    /// Returns when rows that earlier syncs skipped may be served and the source may be read again for them; `None` if
    /// there are no such rows, or if the source may not be read again for now.
    fn rows_due_at(&self, job: &Job, now: Instant) -> Option<Instant> {
        let postponed = self.store.postponed(job.id)?;
        let latest = self.setting.limits.times_of(None).latest(self.store.now());
        let until = u64::try_from(postponed.first.saturating_sub(latest)).unwrap_or(0);
        let at = now.checked_add(Duration::from_micros(until))?;
        Some(at.max(self.scheduler.may_reread_at(job.id)?))
    }

    /// Returns the schedule by which a view is synced automatically.
    fn schedule(&self, job: &Job, now: Instant) -> Schedule {
        let (Some(source), Some(declared)) = (&job.source, &job.view.source) else { return Schedule::Never };
        if let Some(every) = source.properties().poll_every {
            return Schedule::Follow(every);
        }
        if let Some(line) = &declared.cron {
            // The next time after the end of the last sync. If a scheduled time passed while the view was being synced,
            // it is skipped.
            let ago = now.saturating_duration_since(self.scheduler.last_end(job.id));
            let wall = self.setting.clock.now();
            let after = wall.saturating_sub(Micros::try_from(ago.as_micros()).unwrap_or(Micros::MAX));
            let next = next_by_cron(line, after).and_then(|next| {
                let until = next.saturating_sub(wall);
                let step = Duration::from_micros(until.unsigned_abs());
                if until >= 0 { now.checked_add(step) } else { now.checked_sub(step) }
            });
            return next.map_or(Schedule::Never, Schedule::At);
        }
        let rescan = matches!(declared.from, SourceKind::DynamoDb(_)).then_some(DynamoDb::RESCAN_EVERY);
        let Some(every) = declared.every.or(rescan) else { return Schedule::Never };
        let is_unchanged = || self.scheduler.are_unchanged(job.id, &source.watched_files());
        if every < UNCHANGED_EVERY && is_unchanged() {
            // All views with unchanged files are due at the same time, so that an idle process rarely wakes.
            let last = self.scheduler.last_end(job.id);
            let beat = beat_after(last + every, UNCHANGED_EVERY);
            return Schedule::Every(beat.saturating_duration_since(last));
        }
        Schedule::Every(every)
    }

    /// Returns the files of sources that are synced often. If the files are watched, most of these syncs are skipped
    /// while the files do not change.
    #[must_use]
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let is_frequent = |job: &&Job| {
            let every = job.view.source.as_ref().and_then(|source| source.every);
            every.is_some_and(|every| every < UNCHANGED_EVERY)
        };
        let sources = self.jobs.iter().filter(is_frequent).filter_map(|job| job.source.as_ref());
        let mut files: Vec<PathBuf> = sources.flat_map(|source| source.watched_files()).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Syncs the view with this name. Blocks while another sync of the view is running, and then until this sync ends.
    ///
    /// # Errors
    /// The errors of [`sync_view`], [`SyncError::UnknownView`], [`SyncError::NoSource`], [`SyncError::Busy`] and
    /// [`SyncError::Panicked`].
    pub fn sync(
        &self,
        view: &str,
        mut request: SyncRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SyncReport, SyncError> {
        let _span = tracing::debug_span!("sync", view).entered();
        let job = self.job(view)?;
        let is_followed = job.source.as_ref().is_some_and(|source| source.properties().poll_every.is_some());
        // For a view with a change stream, rows can become due every second, and a full scan each time would be too
        // expensive.
        let may_reread = || self.scheduler.may_reread_at(job.id).is_some_and(|at| at <= Instant::now());
        request.leave_due |= is_followed && !may_reread();
        let permit = self.scheduler.acquire(job.id).map_err(|why| match why {
            NoPermit::Stopping => SyncError::Stopped { view: view.to_owned() },
            NoPermit::Busy => SyncError::Busy { view: view.to_owned() },
        })?;
        let result = self.run(job, request, progress);
        match &result {
            Ok(report) => {
                job.metrics.record_success(report);
                log(report, self.setting.limits);
            }
            Err(SyncError::Stopped { .. }) => {
                tracing::info!(view, "sync interrupted by the shutdown; committed rows are kept")
            }
            Err(error) => {
                job.metrics.record_failure(error);
                let is_loaded = self.store.status(job.id).is_some_and(|status| status.freshness.last_success.is_some());
                if is_loaded {
                    tracing::error!(view, %error, "sync failed; previously committed rows keep serving");
                } else {
                    tracing::error!(view, %error, "sync failed; no sync of this view has succeeded yet");
                }
            }
        }
        match &result {
            // A skipped sync does not delay the next one.
            Ok(report) if report.outcome == Outcome::SkippedRecent => {}
            // The source will be rejected until it is written again, so an early retry would not help.
            Err(SyncError::Refused { .. }) => permit.finish_rejected(),
            _ => permit.finish(result.is_ok()),
        }
        self.note_status(job);
        result
    }

    /// Returns how the times of rows that callers write to a view are interpreted.
    pub(super) fn time_rules(&self, job: &Job) -> TimeRules {
        let unit = job.source.as_ref().and_then(|source| source.properties().time_unit);
        TimeRules { now: self.store.now(), times: self.setting.limits.times_of(unit), unit }
    }

    pub(super) fn put(&self, job: &Job, batch: &RowBatch) -> Result<Applied, WriteError> {
        if batch.is_empty() {
            return Ok(Applied::default());
        }
        let key = KeySignature::of(&job.view, self.key_version);
        let put = self.store.put(job.id, &key, batch, job.source.is_some());
        let applied = put.map_err(|source| WriteError::store(&job.view, source))?;
        job.metrics.record_write(applied);
        self.note_status(job);
        Ok(applied)
    }

    /// Loads the rows of a range of event times from a view's files. Newer stored rows stay: unlike in Feast,
    /// materializing an old range never replaces newer rows. Blocks until the load ends.
    ///
    /// # Errors
    /// The errors of [`SyncEngine::sync`].
    pub(super) fn load_from_files(
        &self,
        view: &str,
        window: Window,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SyncReport, SyncError> {
        let job = self.job(view)?;
        let from = job.view.source.as_ref().map(|source| &source.from);
        let result = if matches!(from, Some(SourceKind::Files(_))) {
            // Rows of a static table cannot be selected by event time, because their event time is the time of the
            // load.
            let has_windows = job.source.as_ref().is_some_and(|source| source.properties().has_windows);
            let window = if has_windows { window } else { Window::default() };
            self.sync(view, SyncRequest { full: true, window, small: true, ..SyncRequest::default() }, progress)
        } else {
            self.materialize_files(job, window, progress)
        };
        if result.is_ok()
            && let Err(error) = self.store.note_materialized(job.id)
        {
            tracing::warn!(view, %error, "cannot record the time of a materialization");
        }
        self.note_status(job);
        result
    }

    /// Materializes the files of a view whose rows come from another source.
    fn materialize_files(
        &self,
        job: &Job,
        window: Window,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SyncReport, SyncError> {
        let name = || job.view.name.to_string();
        let files = self.setting.open_files(&job.view, |wanted| wanted);
        let files = files.ok_or_else(|| SyncError::NoSource { view: name() })?;
        let should_continue = &mut |now| {
            progress(now);
            !self.scheduler.is_stopping()
        };
        let mut run = self.run_of(job, &*files);
        run.share_memory(&self.scheduler);
        let result = catch_stop_and_panic(&job.view, || materialize_view(run, window, should_continue));
        match &result {
            Ok(report) => {
                job.metrics.record_write(report.applied);
                note_values(&job.view.name, &report.skipped);
                log(report, self.setting.limits);
            }
            Err(SyncError::Stopped { .. }) => {
                tracing::info!(view = name(), "materialization interrupted by the shutdown; committed rows are kept")
            }
            Err(error) => {
                job.metrics.record_failure(error);
                tracing::error!(view = name(), %error, "materialization failed; committed rows are kept");
            }
        }
        result
    }

    /// Returns whether the server is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.scheduler.is_stopping()
    }

    /// Ends the syncs of all engines at their next commit, and prevents new ones. A sync that waits for AWS ends
    /// immediately.
    pub fn stop(&self) {
        self.scheduler.stop();
        self.setting.aws.stop();
    }

    /// Returns when the shutdown began; `None` if it has not begun.
    #[must_use]
    pub fn stopping_since(&self) -> Option<Instant> {
        self.scheduler.stopping_since()
    }

    fn run(
        &self,
        job: &Job,
        request: SyncRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SyncReport, SyncError> {
        let view = || job.view.name.to_string();
        let Some(source) = &job.source else { return Err(SyncError::NoSource { view: view() }) };
        let mut should_continue = |now: Progress| {
            progress(now);
            !self.scheduler.is_stopping()
        };
        let mut run = self.run_of(job, &**source);
        if request.force {
            run.limits.sanity = SanityLimits::OFF;
        }
        if request.small {
            run.share_memory(&self.scheduler);
        }
        catch_stop_and_panic(&job.view, || sync_view(run, request, &mut should_continue))
    }

    fn run_of<'a>(&'a self, job: &'a Job, source: &'a dyn Source) -> SyncRun<'a> {
        let (store, limits, key_version) = (&*self.store, self.setting.limits, self.key_version);
        let slots = Some(Slots { loads: &self.scheduler.loads, scans: &self.scheduler.scans });
        SyncRun { store, view: &job.view, id: job.id, key_version, source, limits, slots }
    }

    pub(super) fn job(&self, view: &str) -> Result<&Job, SyncError> {
        self.jobs.iter().find(|job| &*job.view.name == view).ok_or_else(|| {
            let names = self.jobs.iter().map(|job| &*job.view.name);
            let hint = nearest(view, names).map_or_else(String::new, |help| format!(" ({help})"));
            SyncError::UnknownView { view: view.to_owned(), hint }
        })
    }

    pub(super) fn note_status(&self, job: &Job) {
        if let Some(bound) = job.source.as_ref().and_then(|source| source.staleness()) {
            job.metrics.set_staleness_bound(bound);
        }
        if let Some(status) = self.store.status(job.id) {
            job.metrics.set_status(&status);
        }
        if let Ok(schemas) = self.store.schemas(job.id) {
            job.metrics.set_retyped(&retyped(&job.view.features, &schemas));
        }
    }
}

impl SourceStatus for StatusAdapter {
    fn staleness(&self) -> Option<Duration> {
        self.0.staleness()
    }

    fn caveat(&self) -> Option<String> {
        self.0.caveat()
    }
}

/// Calls `run`, which syncs a view. Converts a panic to [`SyncError::Panicked`], and the error of a request to AWS that
/// the shutdown interrupted to [`SyncError::Stopped`].
fn catch_stop_and_panic(
    view: &FeatureView,
    run: impl FnOnce() -> Result<SyncReport, SyncError>,
) -> Result<SyncReport, SyncError> {
    let view = || view.name.to_string();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Err(SyncError::Source { source: SourceError::Aws(error), .. })) if error.kind == AwsErrorKind::Stopping => {
            Err(SyncError::Stopped { view: view() })
        }
        Ok(result) => result,
        Err(panic) => Err(SyncError::Panicked { view: view(), what: panic_message(&*panic).to_owned() }),
    }
}

fn log(report: &SyncReport, limits: SyncLimits) {
    let (view, applied) = (&report.view, report.applied);
    if let Some(future) = report.skipped.describe_future(limits.future_tolerance) {
        tracing::warn!(view, future, "rows are held back until they are due");
    }
    match report.outcome {
        Outcome::Loaded if report.lag.is_none() => {
            let SyncReport { elapsed, .. } = report;
            let (inserted, updated) = (applied.inserted, applied.updated);
            let (unchanged, stale, removed) = (applied.unchanged, applied.stale, applied.removed);
            let seconds = elapsed.as_secs_f64();
            tracing::info!(view, inserted, updated, unchanged, stale, removed, seconds, "sync ended");
        }
        // Syncs of a change stream are frequent, so they are logged at `debug`.
        Outcome::Loaded => tracing::debug!(view, ?applied, "changes applied"),
        Outcome::UpToDate | Outcome::SkippedRecent => {
            tracing::debug!(view, outcome = ?report.outcome, "sync had nothing to load")
        }
    }
    if report.skipped.rows() > 0 {
        tracing::warn!(view, skipped = %report.skipped, "invalid rows of the source were skipped");
    }
    if let Some(values) = report.skipped.values_text() {
        tracing::warn!(view, values, "values of the source do not match their feature's type; they are null");
    }
}
