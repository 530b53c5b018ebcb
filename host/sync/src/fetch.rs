//! Read-through: fetches rows that are not in the store from the view's DynamoDB table on request.
//!
//! Before a lookup, a [`Fetcher`] fetches the rows of entities that are not in the store or are no longer fresh.
//! Callers that need the same entity share one fetch. The row is written to the store, where the lookup finds it. A
//! cache records for a limited time which entities the table has, and which it does not have.
//!
//! No caller waits longer than the timeout. After a failed fetch, the table counts as unavailable for a second, during
//! which lookups do not wait at all. In both cases, the lookup returns the rows that are in the store, and reports the
//! timeout or that the table is unavailable.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use larder_ingest::{Fetched, RowFetcher};
use larder_model::{
    codec::{EntityKey, KeyVersion},
    model::{EntityId, FeatureView, ReadThrough, Window},
};
use larder_source::{DynamoDb, Item, Source, SourceBatch, SourceError, SourceRows, aws::Aws};
use larder_store::{FetchedRows, KeySignature, NegativeCache, OnlineStore, RowTimes, Rule, ViewId};
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout_at,
};

use super::{encode::RowEncoder, metrics::note_values};

/// Fetches the rows of one view.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    view: Arc<FeatureView>,
    id: ViewId,
    key: KeySignature,
    key_version: KeyVersion,
    settings: ReadThrough,
    /// How the times of rows are interpreted.
    times: RowTimes,
    aws: Arc<Aws>,
    source: Arc<DynamoDb>,
    store: Arc<OnlineStore>,
    negative_cache: NegativeCache,
    /// The entities that are being fetched. The channel of an entity closes when its fetch ends.
    in_flight: Mutex<HashMap<EntityId, watch::Receiver<()>>>,
    slots: Semaphore,
    /// The time until which no new fetches begin, because a fetch failed; `None` if no fetch has failed since the last
    /// success.
    unavailable_until: Mutex<Option<Instant>>,
    metrics: FetchMetrics,
}

struct FetchMetrics {
    found: Counter,
    not_found: Counter,
    failed: Counter,
    timeout: Counter,
    unavailable: Counter,
    duration: Histogram,
}

/// The maximum number of entities in one request to DynamoDB.
const KEYS_PER_REQUEST: usize = 100;
/// The minimum timeout of a fetch. It may be longer than the timeout of the waiting callers, because later lookups use
/// the fetched rows.
const FETCH_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// How long no rows are fetched after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The maximum number of times that an entity is fetched if it changes in the store during each fetch.
const ATTEMPTS_MAX: usize = 4;

// === impl Fetcher ===

impl Fetcher {
    #[expect(clippy::too_many_arguments, reason = "one caller, which has all of them")]
    pub(super) fn new(
        view: &Arc<FeatureView>,
        id: ViewId,
        key_version: KeyVersion,
        settings: ReadThrough,
        aws: Arc<Aws>,
        source: Arc<DynamoDb>,
        store: Arc<OnlineStore>,
        times: RowTimes,
    ) -> Self {
        Self(Arc::new(Inner {
            view: Arc::clone(view),
            id,
            key: KeySignature::of(view, key_version),
            key_version,
            settings,
            times,
            aws,
            source,
            store,
            negative_cache: NegativeCache::new(settings.negative_ttl.max(settings.fresh_for)),
            in_flight: Mutex::default(),
            slots: Semaphore::new(settings.max_concurrent.into()),
            unavailable_until: Mutex::default(),
            metrics: FetchMetrics::bind(&view.name),
        }))
    }

    async fn fetch_within_timeout(&self, keys: Vec<EntityKey>) -> Fetched {
        let inner = &self.0;
        if inner.is_unavailable() {
            inner.metrics.unavailable.increment(keys.len() as u64);
            return Fetched::Unavailable;
        }
        let started = Instant::now();
        let until = tokio::time::Instant::now() + inner.settings.timeout;
        let (mut waits, mut mine, mut signals) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut in_flight = inner.in_flight();
            for key in keys {
                if let Some(flight) = in_flight.get(&key.id) {
                    waits.push(flight.clone());
                    continue;
                }
                let (signal, flight) = watch::channel(());
                in_flight.insert(key.id, flight.clone());
                waits.push(flight);
                mine.push(key);
                signals.push(signal);
            }
        }
        if let Ok(handle) = inner.aws.handle() {
            let mut signals = signals.into_iter();
            for keys in mine.chunks(KEYS_PER_REQUEST) {
                // The waiting callers are notified when the signals are dropped.
                let (inner, keys) = (Arc::clone(inner), keys.to_vec());
                let signals: Vec<_> = signals.by_ref().take(keys.len()).collect();
                handle.spawn(async move {
                    inner.run(&keys).await;
                    let mut in_flight = inner.in_flight();
                    keys.iter().for_each(|key| _ = in_flight.remove(&key.id));
                    drop(signals);
                });
            }
        }
        for (done, flight) in waits.iter_mut().enumerate() {
            // No value is ever sent. The wait ends when the channel closes.
            if timeout_at(until, flight.changed()).await.is_err() {
                let unfinished = waits[done..].iter().filter(|flight| flight.has_changed().is_ok());
                inner.metrics.timeout.increment(unfinished.count() as u64);
                return Fetched::TimedOut;
            }
        }
        inner.metrics.duration.record(started.elapsed().as_secs_f64());
        if inner.is_unavailable() { Fetched::Unavailable } else { Fetched::All }
    }
}

impl RowFetcher for Fetcher {
    fn view(&self) -> ViewId {
        self.0.id
    }

    fn wants(&self, id: &EntityId, is_stored: bool) -> bool {
        // The stream reports all changes to the table, but not how the table's row compares with a row that a caller
        // wrote.
        let follows = self.0.source.properties().poll_every.is_some() && !self.0.store.has_written_rows(self.0.id);
        !(self.0.store.agrees_with_table(&self.0.negative_cache, id, is_stored) || (is_stored && follows))
    }

    fn fetch(&self, keys: Vec<EntityKey>) -> Pin<Box<dyn Future<Output = Fetched> + Send + '_>> {
        Box::pin(self.fetch_within_timeout(keys))
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("view", &self.0.view.name).finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    fn in_flight(&self) -> MutexGuard<'_, HashMap<EntityId, watch::Receiver<()>>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_unavailable(&self) -> bool {
        let unavailable_until = self.unavailable_until.lock().unwrap_or_else(PoisonError::into_inner);
        unavailable_until.is_some_and(|until| until > Instant::now())
    }

    fn set_unavailable_until(&self, until: Option<Instant>) {
        *self.unavailable_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    async fn run(&self, keys: &[EntityKey]) {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let mut keys = keys.to_vec();
        for _ in 0..ATTEMPTS_MAX {
            let seen = self.store.visible_commit();
            let fetched = match self.source.fetch(&keys, FETCH_TIMEOUT_MIN.max(self.settings.timeout)).await {
                Ok(fetched) => fetched,
                Err(error) => return self.note_failure(&keys, &error),
            };
            self.set_unavailable_until(None);
            match self.store_fetched(fetched, seen) {
                Ok(uncertain) if uncertain.is_empty() => return,
                Ok(uncertain) => keys.retain(|key| uncertain.contains(&key.id)),
                Err(error) => {
                    tracing::error!(view = %self.view.name, %error, "cannot store fetched rows");
                    return;
                }
            }
        }
    }

    fn note_failure(&self, keys: &[EntityKey], error: &SourceError) {
        self.metrics.failed.increment(keys.len() as u64);
        if !self.is_unavailable() {
            tracing::warn!(view = %self.view.name, %error, "cannot fetch rows; lookups continue without them");
        }
        self.set_unavailable_until(Some(Instant::now() + PAUSE_AFTER_FAILURE));
    }

    /// Writes the fetched rows to the store, and records in the negative cache which entities the table has. Returns
    /// the entities that may have changed since the commit `seen`. Their rows must be fetched again.
    fn store_fetched(
        &self,
        fetched: HashMap<EntityId, Option<Item>>,
        seen: u64,
    ) -> Result<Vec<EntityId>, larder_store::StoreError> {
        let now = self.store.now();
        let latest = self.times.latest(now);
        let is_future = |item: &Item| item.event_time.is_some_and(|time| time > latest);
        let (mut items, mut not_found) = (Vec::new(), Vec::new());
        for (id, item) in fetched {
            match item {
                // A row from the future is not served. Until it is due, the table is treated as if it did not have the
                // row.
                Some(item) if !is_future(&item) => items.push(item),
                Some(_) | None => not_found.push(id),
            }
        }
        let ids: Vec<EntityId> = items.iter().map(|item| item.id).collect();
        let mut encoder = RowEncoder::new(&self.view, self.key_version, Window::default(), Rule::Latest, self.times);
        let batch =
            SourceBatch { rows: SourceRows::Items(items), origin: self.source.name().into(), file: 0, first_row: 0 };
        // A batch of items is never rejected as a whole.
        let _ = encoder.encode(&batch, now);
        if encoder.skipped.rows() > 0 {
            tracing::warn!(view = %self.view.name, skipped = %encoder.skipped, "cannot convert fetched rows");
        }
        if let Some(values) = encoder.skipped.values_text() {
            tracing::warn!(view = %self.view.name, values, "fetched values do not match their feature's type; they are null");
        }
        note_values(&self.view.name, &encoder.skipped);
        let FetchedRows { uncertain, stored } =
            self.store.put_fetched(self.id, &self.key, &encoder.rows, &not_found, seen, self.settings.max_bytes)?;
        // For the negative cache, the table has exactly the rows that are stored now. So an entity whose row was not
        // stored, for example because it was deleted in Larder, is not fetched again at each lookup.
        let stored: HashSet<EntityId> = stored.into_iter().collect();
        let note = |ids: &[EntityId]| {
            let known = ids.iter().filter(|id| !uncertain.contains(id));
            let note = |id: &EntityId| match stored.contains(id) {
                true => self.negative_cache.note(*id, true, self.settings.fresh_for, seen),
                false => self.negative_cache.note(*id, false, self.settings.negative_ttl, seen),
            };
            known.map(note).count() as u64
        };
        self.metrics.found.increment(note(&ids));
        self.metrics.not_found.increment(note(&not_found));
        Ok(uncertain)
    }
}

// === impl FetchMetrics ===

impl FetchMetrics {
    fn bind(view: &str) -> Self {
        describe_counter!(
            "larder_fetches_total",
            "Entities that lookups tried to fetch from a view's table, by result."
        );
        describe_histogram!(
            "larder_fetch_duration_seconds",
            "Time that lookups waited for rows from a view's table, without waits that timed out."
        );
        let result =
            |result: &'static str| counter!("larder_fetches_total", "view" => view.to_owned(), "result" => result);
        Self {
            found: result("found"),
            not_found: result("not_found"),
            failed: result("failed"),
            timeout: result("timeout"),
            unavailable: result("unavailable"),
            duration: histogram!("larder_fetch_duration_seconds", "view" => view.to_owned()),
        }
    }
}
