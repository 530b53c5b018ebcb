//! The engine: knows every view's source, and runs at most one sync of a view at a time.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use larder_model::{codec::KeyVersion, model::FeatureView, registry::Catalog, yaml::nearest};

use super::{
    Outcome, Progress, SyncError, SyncLimits, SyncReport, SyncRequest,
    metrics::ViewMetrics,
    run::{SyncRun, sync_view},
};
use crate::{
    source::{ParquetFiles, ParquetLimits, Source, Wanted},
    store::{OnlineStore, ViewId},
    telemetry::panic_words,
};

/// Brings the views of one catalog up to date. A new catalog gets a new engine; both share the locks of the views.
#[derive(Debug)]
pub struct SyncEngine {
    store: Arc<OnlineStore>,
    limits: SyncLimits,
    key_version: KeyVersion,
    jobs: Vec<Job>,
    locks: Arc<ViewLocks>,
}

/// One view's part.
#[derive(Debug)]
struct Job {
    view: Arc<FeatureView>,
    id: ViewId,
    source: Option<Box<dyn Source>>,
    metrics: ViewMetrics,
}

/// What all engines of a host share, for it outlives every catalog: a lock per view, so that two engines never write
/// one view at once, and whether the host stops.
#[derive(Debug, Default)]
pub struct ViewLocks {
    by_view: Mutex<HashMap<ViewId, Arc<Mutex<()>>>>,
    stopping: AtomicBool,
}

// === impl ViewLocks ===

impl ViewLocks {
    fn of(&self, view: ViewId) -> Arc<Mutex<()>> {
        let mut by_view = self.by_view.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_view.entry(view).or_default())
    }
}

// === impl SyncEngine ===

impl SyncEngine {
    /// An engine for a catalog. `ids` are the store's ids of the catalog's views, in the catalog's order; relative
    /// paths of sources start at `base_dir`.
    #[must_use]
    pub fn new(
        store: Arc<OnlineStore>,
        catalog: &Catalog,
        ids: &[ViewId],
        base_dir: &Path,
        limits: SyncLimits,
        locks: Arc<ViewLocks>,
    ) -> Self {
        let job = |(view, id): (&Arc<FeatureView>, &ViewId)| {
            let source = view.source.as_ref().map(|source| {
                let wanted = Wanted::of(view, source);
                let files = ParquetFiles::new(base_dir.join(&source.path), wanted, ParquetLimits::default());
                Box::new(files) as Box<dyn Source>
            });
            Job { view: Arc::clone(view), id: *id, source, metrics: ViewMetrics::bind(&view.name) }
        };
        let jobs: Vec<Job> = catalog.views().iter().zip(ids).map(job).collect();
        let engine = Self { store, limits, key_version: catalog.key_version(), jobs, locks };
        engine.jobs.iter().for_each(|job| engine.note_status(job));
        engine
    }

    /// Every view that has a source, with how often it wants to be synced.
    pub fn scheduled(&self) -> impl Iterator<Item = (&str, Option<Duration>)> {
        self.jobs.iter().filter_map(|job| {
            let source = job.view.source.as_ref()?;
            Some((&*job.view.name, source.every))
        })
    }

    /// Syncs one view, by name. Blocks while it runs, and while another run of the same view does.
    ///
    /// # Errors
    /// As [`sync_view`]; also [`SyncError::UnknownView`] and [`SyncError::NoSource`].
    pub fn sync(
        &self,
        view: &str,
        request: SyncRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SyncReport, SyncError> {
        let Some(job) = self.jobs.iter().find(|job| &*job.view.name == view) else {
            let names = self.jobs.iter().map(|job| &*job.view.name);
            let hint = nearest(view, names).map_or_else(String::new, |help| format!(" ({help})"));
            return Err(SyncError::UnknownView { view: view.to_owned(), hint });
        };
        let lock = self.locks.of(job.id);
        let _one_at_a_time = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.run(job, request, progress);
        match &result {
            Ok(report) => {
                job.metrics.ended_well(report);
                log(report);
            }
            Err(SyncError::Stopped { .. }) => {
                tracing::info!(view, "sync stopped with the host; what it committed stays")
            }
            Err(error) => {
                job.metrics.failed(error);
                tracing::error!(view, %error, "sync failed; what was served before is served on");
            }
        }
        self.note_status(job);
        result
    }

    /// Ends the runs of all engines at their next commit, and lets none begin.
    pub fn stop(&self) {
        self.locks.stopping.store(true, Ordering::Relaxed);
    }

    fn run(
        &self,
        job: &Job,
        request: SyncRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SyncReport, SyncError> {
        let view = || job.view.name.to_string();
        let Some(source) = &job.source else { return Err(SyncError::NoSource { view: view() }) };
        if self.locks.stopping.load(Ordering::Relaxed) {
            return Err(SyncError::Stopped { view: view() });
        }
        let mut go_on = |now: Progress| {
            progress(now);
            !self.locks.stopping.load(Ordering::Relaxed)
        };
        let run = SyncRun {
            store: &self.store,
            view: &job.view,
            id: job.id,
            key_version: self.key_version,
            source: &**source,
            limits: self.limits,
        };
        let run = AssertUnwindSafe(|| sync_view(run, request, &mut go_on));
        catch_unwind(run)
            .unwrap_or_else(|panic| Err(SyncError::Panicked { view: view(), what: panic_words(&*panic).to_owned() }))
    }

    fn note_status(&self, job: &Job) {
        if let Some(status) = self.store.status(job.id) {
            job.metrics.status(&status);
        }
    }
}

fn log(report: &SyncReport) {
    let view = &report.view;
    if report.outcome == Outcome::UpToDate {
        tracing::debug!(view, "sync found nothing new");
        return;
    }
    let applied = report.applied;
    let (inserted, updated, unchanged, stale) = (applied.inserted, applied.updated, applied.unchanged, applied.stale);
    let seconds = report.elapsed.as_secs_f64();
    tracing::info!(view, inserted, updated, unchanged, stale, seconds, "sync ended");
    if report.skipped.rows() > 0 {
        tracing::warn!(view, skipped = %report.skipped, "rows of the source could not be taken");
    }
}
