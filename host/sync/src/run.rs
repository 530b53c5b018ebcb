//! One sync of a view: loads the rows of the view's source into the store.

use std::time::{Duration, Instant};

use larder_ingest::{Outcome, Progress, Skipped, SyncReport, SyncRequest};
use larder_model::{
    codec::KeyVersion,
    model::{FeatureView, Window, WriteMode},
};
use larder_source::{Batches, Source, SourceError};
use larder_store::{
    Applied, KeySignature, LoadMode, OnlineStore, Postponed, RowBatch, RowTimes, Rule, StoreError, ViewId, ViewStatus,
};

use super::{
    SyncError, SyncLimits,
    encode::RowEncoder,
    load_plan::{Begin, Facts},
    scheduler::SyncScheduler,
    slots::Slots,
};

/// A first load with fewer transactions than this ends soon, so its rows are served as they are committed.
const FIRST_COMMITS_MIN: u64 = 2;

/// The minimum interval between commits that only record that a change stream was polled and had no changes.
const IDLE_COMMIT: Duration = Duration::from_secs(10);

/// The parameters of a sync.
#[derive(Clone, Copy, Debug)]
pub struct SyncRun<'a> {
    /// The store to write to.
    pub store: &'a OnlineStore,
    /// The view to sync.
    pub view: &'a FeatureView,
    /// The ID of the view in the store.
    pub id: ViewId,
    /// The version of the view's entity IDs.
    pub key_version: KeyVersion,
    /// The source of the rows.
    pub source: &'a dyn Source,
    /// The limits of the sync.
    pub limits: SyncLimits,
    /// The slots that limit the memory of concurrent loads; `None` if only one load runs at a time.
    pub(super) slots: Option<Slots<'a>>,
}

/// Syncs a view with its source.
///
/// `progress` is called after every commit, during a merge, while the sync waits, and during the search for unused
/// schemas. If it returns false, the sync ends early.
///
/// # Errors
/// [`SyncError::Source`], [`SyncError::Store`], [`SyncError::Refused`] and [`SyncError::Stopped`]. Committed batches of
/// an upsert stay, and unless the request has a window, the next sync resumes after them. If a load that replaces the
/// view fails, the served rows stay unchanged.
pub fn sync_view(
    run: SyncRun<'_>,
    request: SyncRequest,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<SyncReport, SyncError> {
    let started = Instant::now();
    let mut begin = if request.full { Begin::Start } else { Begin::Continue };
    let mut report = loop {
        let ended = read_from(run, request, begin, started, progress);
        if matches!(&ended, Err(SyncError::Store { source: StoreError::DiskFull(_), .. })) {
            run.free_space();
        }
        let Err(SyncError::Source { source: SourceError::Lost { path, why }, .. }) = &ended else { break ended? };
        let Some(next) = begin.next() else { return ended };
        tracing::warn!(view = %run.view.name, source = path, why, "the sync position was lost; reading the source again from an earlier position or the start");
        begin = next;
    };
    if request.window.is_open()
        && run.source.properties().has_windows
        && let Some(due) = run.due(request)
    {
        // Earlier syncs skipped these rows. The stored position is after them, so the source is read again for their
        // event times.
        let window = Window { from: Some(due.first), to: Some(due.last) };
        let picked = read_from(run, SyncRequest { window, ..request }, Begin::DueRows, started, progress)?;
        report.outcome = Outcome::Loaded;
        report.applied.add(picked.applied);
        report.skipped.add(picked.skipped);
        report.elapsed = started.elapsed();
    }
    Ok(report)
}

// === impl SyncRun ===

impl<'a> SyncRun<'a> {
    /// Makes this one of the loads that callers request. Several of these loads share the memory of one scheduled load.
    pub(super) fn share_memory(&mut self, scheduler: &'a SyncScheduler) {
        let slots = &scheduler.materialization_slots;
        (self.limits, self.slots) = (self.limits.shared(), Some(Slots { loads: slots, scans: slots }));
    }

    /// Returns how the times of the source's rows are interpreted.
    fn times(&self) -> RowTimes {
        self.limits.times(self.source)
    }

    /// Deletes the unserved rows of a failed load, so that other views can use their space, unless the next sync can
    /// resume the load.
    fn free_space(&self) {
        let interrupted = self.store.interrupted(self.id);
        if interrupted.is_some_and(|interrupted| interrupted.is_first || self.source.properties().resumes) {
            return;
        }
        if let Err(error) = self.store.discard_interrupted(self.id) {
            tracing::warn!(
                view = %self.view.name, %error,
                "failed to delete the rows of an interrupted load; they stay on disk until the next sync"
            );
        }
    }

    /// Returns the facts that decide how the source is read.
    fn facts(&self, request: SyncRequest, begin: Begin, status: ViewStatus) -> Facts {
        // An earlier version accepted rows from the future, and let them replace older rows. Only a full read restores
        // the older rows. A source that cannot be read by event time must also be read in full for due rows.
        let newest = status.freshness.newest_event;
        let has_future = newest.is_some_and(|newest| newest > self.times().latest(self.store.now()));
        let source = self.source.properties();
        Facts {
            begin,
            is_windowed: !request.window.is_open(),
            mode: self.view.mode,
            source,
            interrupted: self.store.interrupted(self.id),
            is_empty: status.rows == 0 && status.position.is_none() && status.freshness.last_success.is_none(),
            must_reread: has_future || (!source.has_windows && self.due(request).is_some()),
            position: status.position,
        }
    }

    /// Returns the span of the event times of rows that earlier syncs skipped, if the first of these rows may be served
    /// now and the request does not leave such rows to a later sync.
    fn due(&self, request: SyncRequest) -> Option<Postponed> {
        let postponed = self.store.postponed(self.id).filter(|_| !request.leave_due)?;
        (postponed.first <= self.times().latest(self.store.now())).then_some(postponed)
    }
}

fn read_from(
    run: SyncRun<'_>,
    request: SyncRequest,
    begin: Begin,
    started: Instant,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<SyncReport, SyncError> {
    let SyncRun { store, view, id, source, .. } = run;
    let source_error = |source| SyncError::Source { view: view.name.to_string(), source };
    let store_error = |source| SyncError::Store { view: view.name.to_string(), source };
    let report = |outcome, applied, skipped, lag| {
        let (view, elapsed) = (view.name.to_string(), started.elapsed());
        Ok(SyncReport { view, outcome, applied, skipped, elapsed, lag })
    };

    let is_all = request.window.is_open();
    if !is_all && !source.properties().has_windows {
        return Err(source_error(SourceError::NoWindow { path: source.name() }));
    }
    let status = store.status(id).unwrap_or_default();
    // Rows that callers wrote are not from the source. They stay after the load, and are not included in `before` if
    // the number of loaded rows is known. Otherwise, rows that were lost to damage are included, because restoring them
    // is not growth.
    let before = store.loaded_rows(id).unwrap_or(status.rows + status.rows_lost);
    let last_success = status.freshness.last_success;
    let facts = run.facts(request, begin, status);
    if request.skip_recent
        && let Some((position, last)) = facts.usable_position().zip(last_success)
        && source.is_recent_enough(position, store.age(last)).map_err(source_error)?
    {
        return report(Outcome::SkippedRecent, Applied::default(), Skipped::default(), None);
    }
    if let Some(position) = facts.usable_position()
        && !source.has_changes(position).map_err(source_error)?
    {
        // The source was checked and has nothing new. This is also recorded as a successful sync.
        let load = store.begin_load(id, LoadMode::Upsert).map_err(store_error)?;
        load.finish(Some(position)).map_err(store_error)?;
        return report(Outcome::UpToDate, Applied::default(), Skipped::default(), None);
    }

    let read = facts.read_plan();
    let mut batches = source.read(read.from.as_deref()).map_err(source_error)?;
    let is_large = batches.rows_expected() / FIRST_COMMITS_MIN >= run.limits.commit_rows as u64;
    let plan = facts.load_plan(&read, batches.is_whole(), is_large);
    let load = if plan.resumes { store.resume_load(id) } else { store.begin_load(id, plan.mode) };
    let mut load = load.map_err(store_error)?.with_times(run.times(), read.reads_postponed);
    load = load.with_invalidations(view.read_through().is_some());
    let commit = &mut |rows: &RowBatch, batches: &dyn Batches| {
        let position = is_all.then(|| batches.position());
        load.apply(rows, position.as_deref()).map(|_applied| ())
    };
    let skipped = read_and_commit(run, &mut *batches, request.window, commit, progress)?;
    let (mut applied, lag) = (load.total(), batches.lag());
    // A source that is polled every second must not cause a commit at each poll.
    let is_idle = plan.mode != LoadMode::Replace
        && source.properties().poll_every.is_some()
        && applied.rows() == 0
        && skipped.rows() + skipped.future == 0;
    if is_idle && last_success.is_some_and(|last| store.age(last) < IDLE_COMMIT) {
        return report(Outcome::UpToDate, applied, skipped, lag);
    }
    if plan.mode != LoadMode::Upsert {
        let expected = batches.rows_expected().max(applied.rows() + skipped.rows() + skipped.future);
        let at = Progress { rows: expected, expected };
        let merged = load.merge_runs(&mut || progress(at)).map_err(store_error)?;
        let Some(rows) = merged else { return Err(SyncError::Stopped { view: view.name.to_string() }) };
        if view.mode == WriteMode::Replace {
            run.limits.sanity.check_size(before, rows).map_err(|why| refused(run, why))?;
        }
    }
    // A window is only a part of the source, so its load must not mark the view as loaded or fresh.
    if is_all {
        applied = load.finish(Some(&batches.position())).map_err(store_error)?;
        if read.from.is_none() {
            // All rows that the source has are now stored with the current schema. Stored rows that the source no
            // longer has may have earlier schemas.
            let at = Progress { rows: applied.rows(), expected: applied.rows() };
            store.drop_schemas_without_rows(id, &mut || progress(at)).map_err(store_error)?;
        }
    } else if begin == Begin::DueRows {
        applied = load.finish(None).map_err(store_error)?;
    }
    report(if is_idle { Outcome::UpToDate } else { Outcome::Loaded }, applied, skipped, lag)
}

fn refused(run: SyncRun<'_>, why: String) -> SyncError {
    SyncError::Refused { view: run.view.name.to_string(), path: run.source.name(), why }
}

/// Writes the rows of a view's files, or of a window of them, in addition to the rows of the view's own source. The
/// rows are stored like rows that callers write, so loads of the view's own source do not remove them. `run.source`
/// must be the files.
///
/// # Errors
/// The errors of [`sync_view`]. Committed rows stay. Writing them again changes nothing.
pub(super) fn materialize_view(
    run: SyncRun<'_>,
    window: Window,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<SyncReport, SyncError> {
    let SyncRun { store, view, id, key_version, source, .. } = run;
    let started = Instant::now();
    let batches = source.read(None);
    let mut batches = batches.map_err(|source| SyncError::Source { view: view.name.to_string(), source })?;
    let key = KeySignature::of(view, key_version);
    let mut applied = Applied::default();
    let commit = &mut |rows: &RowBatch, _: &dyn Batches| {
        applied.add(store.put(id, &key, rows, true)?);
        Ok(())
    };
    let skipped = read_and_commit(run, &mut *batches, window, commit, progress)?;
    let (outcome, elapsed) = (Outcome::Loaded, started.elapsed());
    Ok(SyncReport { view: view.name.to_string(), outcome, applied, skipped, elapsed, lag: None })
}

/// Loads a view's files, or a window of them, into a scratch store, and replaces the rows that the store has of the
/// view. Returns the skipped rows and the source's position at the end. Stores this position even for a window, because
/// the caller records which window was loaded.
///
/// # Errors
/// The errors of [`sync_view`]. The previous rows then stay.
#[cfg(feature = "aws")]
pub(super) fn stage_view(
    run: SyncRun<'_>,
    window: Window,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(Skipped, String), SyncError> {
    let SyncRun { store, view, id, source, .. } = run;
    let source_error = |source| SyncError::Source { view: view.name.to_string(), source };
    let store_error = |source| SyncError::Store { view: view.name.to_string(), source };
    let mut batches = source.read(None).map_err(source_error)?;
    let mut load = store.begin_load(id, LoadMode::Replace).map_err(store_error)?;
    let commit = &mut |rows: &RowBatch, _: &dyn Batches| load.apply(rows, None).map(|_applied| ());
    let skipped = read_and_commit(run, &mut *batches, window, commit, progress)?;
    let position = batches.position();
    load.finish(Some(&position)).map_err(store_error)?;
    Ok((skipped, position))
}

/// Reads all batches, converts them to rows, and passes the rows of each transaction to `commit`. Returns the counts of
/// skipped rows and of values that became null.
fn read_and_commit(
    run: SyncRun<'_>,
    batches: &mut dyn Batches,
    window: Window,
    commit: &mut dyn FnMut(&RowBatch, &dyn Batches) -> Result<(), StoreError>,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Skipped, SyncError> {
    let SyncRun { store, view, id, key_version, limits, .. } = run;
    let source_error = |source| SyncError::Source { view: view.name.to_string(), source };
    // If the source has no event times, its rows cannot be selected by a window.
    let window = if run.source.properties().has_windows { window } else { Window::default() };
    // Values are only checked if nulls would replace good values. After the types of features changed, it is unknown
    // whether the stored values are good.
    let replaces_good = store.status(id).is_some_and(|status| status.rows > 0)
        && store.schemas(id).is_ok_and(|schemas| schemas.len() == 1);
    let rule = if run.source.properties().last_put_wins { Rule::Latest } else { Rule::Newest };
    let stopped = || SyncError::Stopped { view: view.name.to_string() };
    // A change stream has few changes, and these must not wait for the load of a large view. A scan of the stream's table
    // has all rows.
    let is_followed = run.source.properties().poll_every.is_some()
        && store.status(id).is_some_and(|status| status.position.is_some());
    let slots = run.slots.filter(|_| !is_followed || batches.is_scan());
    let _slot = match slots.map(|slots| if is_followed { slots.scans } else { slots.loads }) {
        Some(slots) => {
            let expected = batches.rows_expected();
            Some(slots.acquire(&mut || progress(Progress { rows: 0, expected })).ok_or_else(stopped)?)
        }
        None => None,
    };
    let mut encoder = RowEncoder::new(view, key_version, window, rule, run.times());
    let mut rows = 0;
    loop {
        let batch = match batches.next_batch() {
            Ok(batch) => batch,
            Err(error) => {
                // In a change stream, each change is independent. So the changes before an error are valid, and are
                // committed.
                if run.source.properties().last_put_wins && !encoder.rows.is_empty() {
                    let committed = commit(&encoder.rows, batches);
                    committed.map_err(|source| SyncError::Store { view: view.name.to_string(), source })?;
                }
                return Err(source_error(error));
            }
        };
        let ended = batch.is_none();
        let waits = batch.as_ref().is_some_and(|batch| batch.rows.is_empty());
        if let Some(batch) = batch {
            rows += batch.rows.len() as u64;
            encoder.encode(&batch, run.store.now()).map_err(source_error)?;
            if !run.source.properties().last_put_wins {
                // Bad rows may be concentrated at the beginning, so their number is compared with the expected number
                // of all rows.
                let expected = batches.rows_expected().max(rows);
                let checked = limits.sanity.check_skipped(&encoder.skipped, expected);
                checked.map_err(|why| refused(run, why))?;
                if replaces_good {
                    let checked = limits.sanity.check_values(&encoder.skipped, expected);
                    checked.map_err(|why| refused(run, why))?;
                }
            }
        }
        if encoder.is_full(limits) || (ended && !encoder.rows.is_empty()) {
            let committed = commit(&encoder.rows, batches);
            committed.map_err(|source| SyncError::Store { view: view.name.to_string(), source })?;
            encoder.rows.clear();
            if !progress(Progress { rows, expected: batches.rows_expected().max(rows) }) {
                return Err(stopped());
            }
        }
        // The source has no rows at the moment, so this is the time to check whether to stop.
        if waits && !progress(Progress { rows, expected: batches.rows_expected().max(rows) }) {
            return Err(stopped());
        }
        if ended {
            return Ok(encoder.skipped);
        }
    }
}

#[cfg(test)]
mod tests;
