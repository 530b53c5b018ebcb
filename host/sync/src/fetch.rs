//! Read-through: fetches rows that are not in the store from their table on request.
//!
//! Before a lookup, a [`Fetcher`] fetches the entities whose rows are not in the store or are no longer fresh. Each of
//! them is fetched once, however many callers wait for it, and is written to the store, where the lookup finds it. A
//! negative cache records for a limited time which entities the table does not have. No caller waits longer than the
//! timeout, and while the table is unavailable, no caller waits at all: the lookup then returns the rows that are in
//! the store, and reports the timeout or that the table is unavailable.

use std::{
    collections::HashMap,
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
use larder_store::{KeySignature, NegativeCache, OnlineStore, RowTimes, Rule, ViewId};
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
    how: ReadThrough,
    /// How to interpret the times of rows.
    times: RowTimes,
    aws: Arc<Aws>,
    source: Arc<DynamoDb>,
    store: Arc<OnlineStore>,
    checked: NegativeCache,
    flights: Mutex<HashMap<EntityId, watch::Receiver<()>>>,
    slots: Semaphore,
    /// After a failure, the time until which no rows are fetched.
    away_until: Mutex<Option<Instant>>,
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
const BATCH: usize = 100;
/// How long a fetch continues after its callers have timed out: later lookups use its rows.
const FETCH_FOR: Duration = Duration::from_secs(5);
/// How long no rows are fetched after a failure.
const AWAY_FOR: Duration = Duration::from_secs(1);
/// The maximum number of fetches of an entity that changes while it is fetched.
const ROUNDS: usize = 4;

// === impl Fetcher ===

impl Fetcher {
    #[expect(clippy::too_many_arguments, reason = "one caller, which has all of them")]
    pub(super) fn new(
        view: &Arc<FeatureView>,
        id: ViewId,
        key_version: KeyVersion,
        how: ReadThrough,
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
            how,
            times,
            aws,
            source,
            store,
            checked: NegativeCache::new(how.negative_ttl.max(how.fresh_for)),
            flights: Mutex::default(),
            slots: Semaphore::new(how.max_concurrent.into()),
            away_until: Mutex::default(),
            metrics: FetchMetrics::bind(&view.name),
        }))
    }

    async fn fetch_within_timeout(&self, keys: Vec<EntityKey>) -> Fetched {
        let inner = &self.0;
        if inner.is_away() {
            inner.metrics.unavailable.increment(keys.len() as u64);
            return Fetched::Unavailable;
        }
        let started = Instant::now();
        let until = tokio::time::Instant::now() + inner.how.timeout;
        let (mut waits, mut mine, mut signals) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut flights = inner.flights();
            for key in keys {
                if let Some(flight) = flights.get(&key.id) {
                    waits.push(flight.clone());
                    continue;
                }
                let (signal, flight) = watch::channel(());
                flights.insert(key.id, flight.clone());
                waits.push(flight);
                mine.push(key);
                signals.push(signal);
            }
        }
        if let Ok(handle) = inner.aws.handle() {
            let mut signals = signals.into_iter();
            for keys in mine.chunks(BATCH) {
                // The waiting callers are notified when the signals are dropped.
                let (inner, keys) = (Arc::clone(inner), keys.to_vec());
                let signals: Vec<_> = signals.by_ref().take(keys.len()).collect();
                handle.spawn(async move {
                    inner.run(&keys).await;
                    let mut flights = inner.flights();
                    keys.iter().for_each(|key| _ = flights.remove(&key.id));
                    drop(signals);
                });
            }
        }
        for mut flight in waits {
            // No value is ever sent; the channel closes.
            if timeout_at(until, flight.changed()).await.is_err() {
                inner.metrics.timeout.increment(1);
                return Fetched::TimedOut;
            }
        }
        inner.metrics.duration.record(started.elapsed().as_secs_f64());
        if inner.is_away() { Fetched::Unavailable } else { Fetched::All }
    }
}

impl RowFetcher for Fetcher {
    fn view(&self) -> ViewId {
        self.0.id
    }

    fn wants(&self, id: &EntityId, is_here: bool) -> bool {
        let follows = self.0.source.properties().poll_every.is_some();
        !(self.0.store.is_checked(&self.0.checked, id, is_here) || (is_here && follows))
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
    fn flights(&self) -> MutexGuard<'_, HashMap<EntityId, watch::Receiver<()>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_away(&self) -> bool {
        let away_until = self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        away_until.is_some_and(|until| until > Instant::now())
    }

    fn note_away(&self, until: Option<Instant>) {
        *self.away_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    async fn run(&self, keys: &[EntityKey]) {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let mut keys = keys.to_vec();
        for _ in 0..ROUNDS {
            let seen = self.store.seen();
            let fetched = match self.source.fetch(&keys, FETCH_FOR.max(self.how.timeout)).await {
                Ok(fetched) => fetched,
                Err(error) => return self.failed(&keys, &error),
            };
            self.note_away(None);
            match self.keep(fetched, seen) {
                Ok(doubtful) if doubtful.is_empty() => return,
                Ok(doubtful) => keys.retain(|key| doubtful.contains(&key.id)),
                Err(error) => {
                    tracing::error!(view = %self.view.name, %error, "cannot store fetched rows");
                    return;
                }
            }
        }
    }

    fn failed(&self, keys: &[EntityKey], error: &SourceError) {
        self.metrics.failed.increment(keys.len() as u64);
        if !self.is_away() {
            tracing::warn!(view = %self.view.name, %error, "cannot fetch rows; lookups continue without them");
        }
        self.note_away(Some(Instant::now() + AWAY_FOR));
    }

    /// Writes the fetched rows to the store, and records in the negative cache what the table has. Returns the entities
    /// that may have changed since `seen`, whose rows are fetched again.
    fn keep(
        &self,
        fetched: HashMap<EntityId, Option<Item>>,
        seen: u64,
    ) -> Result<Vec<EntityId>, larder_store::StoreError> {
        let now = self.store.now();
        let latest = self.times.latest(now);
        let is_future = |item: &Item| item.event_time.is_some_and(|time| time > latest);
        let (mut items, mut gone) = (Vec::new(), Vec::new());
        for (id, item) in fetched {
            match item {
                // A row is not served before its event time. Until then, the table is treated as if it did not have it.
                Some(item) if !is_future(&item) => items.push(item),
                Some(_) | None => gone.push(id),
            }
        }
        let ids: Vec<EntityId> = items.iter().map(|item| item.id).collect();
        let mut encoder = RowEncoder::new(&self.view, self.key_version, Window::default(), Rule::Latest, self.times);
        let batch = SourceBatch { rows: SourceRows::Items(items), origin: self.source.name().into(), first_row: 0 };
        // A batch of items is never rejected as a whole.
        let _ = encoder.encode(&batch, now);
        if encoder.skipped.rows() > 0 {
            tracing::warn!(view = %self.view.name, skipped = %encoder.skipped, "cannot convert fetched rows");
        }
        if let Some(values) = encoder.skipped.values_text() {
            tracing::warn!(view = %self.view.name, values, "fetched values do not match their feature's type; they are null");
        }
        note_values(&self.view.name, &encoder.skipped);
        let doubtful = self.store.keep(self.id, &self.key, &encoder.rows, &gone, seen, self.how.max_bytes)?;
        let known = ids.iter().filter(|id| !doubtful.contains(id));
        let mut found = 0;
        for id in known {
            self.checked.note(*id, true, self.how.fresh_for, seen);
            found += 1;
        }
        gone.iter().for_each(|id| self.checked.note(*id, false, self.how.negative_ttl, seen));
        self.metrics.found.increment(found);
        self.metrics.not_found.increment(gone.len() as u64);
        Ok(doubtful)
    }
}

// === impl FetchMetrics ===

impl FetchMetrics {
    fn bind(view: &str) -> Self {
        describe_counter!("larder_fetches_total", "Entities fetched from a view's table for a lookup, by result.");
        describe_histogram!("larder_fetch_duration_seconds", "Time that lookups waited for a view's table.");
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
