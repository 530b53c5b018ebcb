//! The state that one request uses from start to end: a catalog, its plans, and the store.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use larder_common::clock::SharedClock;
use larder_ingest::{RowFetcher, SourceStatus, Wanted};
use larder_model::{
    codec::{EntityKey, KeyPart as FetchedPart, KeyValue, Retyped, RowSchema, retyped},
    model::{EntityId, Micros},
    registry::Catalog,
};
use larder_plugin_host::{OnFailure, Transform};
use larder_store::{Lookup, OnlineStore, Reader, StoreError, ViewId};
use smallvec::SmallVec;

use super::{
    Answer, AnswerQueue, Authorization, LoggedServices, LookupError, OnlineRequest, Plan, RequestError, ResponseBudget,
    ServingLimits, Transforms, TtlPolicy,
    answer::LookupResult,
    canary::CanarySet,
    derive::derive,
    keys::{self, EchoedColumn},
    metrics::ServingMetrics,
    plan::{KeyPart, Resolver, StoredViews, ViewRead, missing_keys},
    request::{OwnedShape, Shape},
};

/// A served catalog, with its plans and its plugins. A reload creates a new snapshot. Requests in flight keep the
/// snapshot with which they began.
#[derive(Debug)]
pub struct Snapshot {
    catalog: Arc<Catalog>,
    store: Arc<OnlineStore>,
    ids: Vec<ViewId>,
    transforms: Transforms,
    /// The feature services whose answers are logged.
    logged: LoggedServices,
    /// The queue for these answers; `None` if no service is logged.
    answer_queue: Option<Arc<AnswerQueue>>,
    /// For each view, the fetcher of missing rows; `None` if all rows of the view are in the store. Empty if no view
    /// has a fetcher.
    fetchers: Vec<Option<Arc<dyn RowFetcher>>>,
    /// The status of each view's source; empty if no statuses were set.
    sources: Vec<Option<Arc<dyn SourceStatus>>>,
    clock: SharedClock,
    ttl: TtlPolicy,
    limits: ServingLimits,
    plans: PlanCache,
    metrics: ServingMetrics,
    /// What has to happen before the definitions are complete.
    awaited: Awaited,
}

/// What has to happen in a Feast repository before the definitions are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The definitions are complete.
    Nothing,
    /// Feast has to write the registry.
    Registry,
    /// Feast has to add views to the registry. `feast apply` can write a new registry in several steps.
    Views,
}

/// A request with its plan and its number of rows.
#[derive(Debug)]
pub(super) struct PlannedRequest {
    plan: Arc<Plan>,
    rows: usize,
}

/// Plans by the hash of their shape. Readers never wait. Adding a plan copies the map.
#[derive(Debug)]
struct PlanCache {
    hasher: RandomState,
    plans: ArcSwap<Plans>,
}

#[derive(Clone, Debug, Default)]
struct Plans {
    by_hash: HashMap<u64, Arc<CachedPlan>, RandomState>,
    /// The total size of the plans in bytes.
    bytes: usize,
}

#[derive(Debug)]
struct CachedPlan {
    shape: OwnedShape,
    canaries: CanarySet,
    plan: Arc<Plan>,
    /// The size of shape and plan in bytes.
    bytes: usize,
}

/// The limits of the plan cache: the number of plans, and their size in bytes. A full cache is emptied before a plan is
/// added, and the dropped plans are resolved again on demand. This is rare, because clients usually send few shapes.
const PLANS_MAX: usize = 1_024;
const PLANS_BYTES_MAX: usize = 32 << 20;

/// Larger plans are not cached, so that a few large requests cannot evict the plans of all other clients.
const PLAN_BYTES_MAX: usize = PLANS_BYTES_MAX / 4;

/// The maximum total length of the names in a cached shape, in bytes. For a feature service, these are the name of the
/// service and the names of the request's columns, but not those of the service's features.
const SHAPE_BYTES_MAX: usize = 64 << 10;

/// The memory of a name in a cached shape in addition to the name itself, in bytes.
const NAME_BYTES: usize = 32;

/// The memory of each row that has to be fetched, in bytes, in addition to twice the size of its key.
const FETCH_BYTES: usize = 200;

/// The maximum number of attempts of a read that fails because a failed write has closed the store.
const READ_ATTEMPTS_MAX: usize = 4;

// === impl Snapshot ===

impl Snapshot {
    /// Creates a snapshot of a catalog, and registers its views with the store. Its derived views have no plugins;
    /// [`Snapshot::with_transforms`] adds them.
    ///
    /// # Errors
    /// Errors of the store.
    pub fn new(
        catalog: Arc<Catalog>,
        store: Arc<OnlineStore>,
        clock: SharedClock,
        ttl: TtlPolicy,
        limits: ServingLimits,
    ) -> Result<Self, larder_store::StoreError> {
        let ids = store.declare(catalog.views(), catalog.key_version())?;
        for (view, id) in catalog.views().iter().zip(&ids) {
            log_retyped(&view.name, &retyped(&view.features, &store.schemas(*id)?));
        }
        let plans = PlanCache::new();
        Ok(Self {
            catalog,
            store,
            ids,
            transforms: Transforms::default(),
            logged: LoggedServices::default(),
            answer_queue: None,
            fetchers: Vec::new(),
            sources: Vec::new(),
            clock,
            ttl,
            limits,
            plans,
            metrics: ServingMetrics::bind(),
            awaited: Awaited::Nothing,
        })
    }

    /// Returns a snapshot with the same definitions, other plugins and no plans. It is meant to replace this snapshot.
    #[must_use]
    pub fn with_transforms(&self, transforms: Transforms) -> Self {
        Self {
            catalog: Arc::clone(&self.catalog),
            store: Arc::clone(&self.store),
            ids: self.ids.clone(),
            transforms,
            logged: self.logged.clone(),
            answer_queue: self.answer_queue.clone(),
            fetchers: self.fetchers.clone(),
            sources: self.sources.clone(),
            clock: Arc::clone(&self.clock),
            ttl: self.ttl,
            limits: self.limits,
            plans: PlanCache::new(),
            metrics: self.metrics.clone(),
            awaited: self.awaited,
        }
    }

    /// Sets the fetchers of missing rows, in the catalog's order of views; `None` if all rows of a view are in the
    /// store.
    #[must_use]
    pub fn with_fetchers(mut self, fetchers: Vec<Option<Arc<dyn RowFetcher>>>) -> Self {
        self.fetchers = if fetchers.iter().any(Option::is_some) { fetchers } else { Vec::new() };
        self
    }

    /// Sets the feature services whose answers are logged, and the queue for these answers.
    #[must_use]
    pub fn with_logged(self, logged: LoggedServices, queue: Arc<AnswerQueue>) -> Self {
        Self { logged, answer_queue: Some(queue), ..self }
    }

    /// Returns the queue for answers to log.
    pub(super) fn answer_queue(&self) -> Option<&Arc<AnswerQueue>> {
        self.answer_queue.as_ref()
    }

    /// Sets what has to happen before the definitions are complete.
    #[must_use]
    pub fn awaiting(self, awaited: Awaited) -> Self {
        Self { awaited, ..self }
    }

    /// Returns what has to happen before the definitions are complete.
    #[must_use]
    pub fn awaited(&self) -> Awaited {
        self.awaited
    }

    /// Sets the statuses of the views' sources, in the catalog's order of views; `None` for a view without a source.
    #[must_use]
    pub fn with_sources(self, sources: Vec<Option<Arc<dyn SourceStatus>>>) -> Self {
        Self { sources, ..self }
    }

    /// Returns the status of the source of the view with this index in the catalog, if it is known.
    #[must_use]
    pub fn source(&self, view: usize) -> Option<&dyn SourceStatus> {
        self.sources.get(view)?.as_deref()
    }

    /// Returns whether a request reads a view that fetches missing rows.
    pub(super) fn reads_through(&self, planned: &PlannedRequest) -> bool {
        let fetches = |read: &ViewRead| self.fetchers.iter().flatten().any(|fetcher| fetcher.view() == read.view);
        !self.fetchers.is_empty() && planned.plan.reads.iter().any(fetches)
    }

    /// Returns the rows that have to be fetched before the lookup, grouped by key and view.
    ///
    /// # Errors
    /// A problem with the request or the store.
    pub(super) fn to_fetch(
        &self,
        planned: &PlannedRequest,
        request: &OnlineRequest<'_>,
        budget: &mut ResponseBudget,
    ) -> Result<Vec<Wanted>, RequestError> {
        let PlannedRequest { plan, rows } = planned;
        let rows = *rows;
        budget.begin(rows.saturating_mul(plan.reads.len()), 0)?;
        let columns = plan.entity_columns.iter();
        let entities = columns
            .map(|column| keys::coerce(&request.entities[column.request_index].1, column.key_type))
            .collect::<Result<SmallVec<[_; 1]>, _>>()?;
        self.read_store(|reader| {
            let mut wanted: Vec<Wanted> = Vec::new();
            let mut buffer = Vec::with_capacity(64);
            for key in plan.keys.iter().filter(|key| !key.parts.contains(&KeyPart::Missing)) {
                for Lookup { view, .. } in &key.views {
                    let fetcher = self.fetchers.iter().flatten().find(|fetcher| fetcher.view() == *view);
                    let Some(fetcher) = fetcher else { continue };
                    let mut missing: Vec<EntityKey> = Vec::new();
                    let mut seen: HashSet<EntityId> = HashSet::new();
                    for row in 0..rows {
                        let Some(id) = key.id(&entities, row, &mut buffer) else { continue };
                        let is_here = reader.get(*view, &id)?.is_some();
                        if fetcher.wants(&id, is_here) && seen.insert(id) {
                            budget.hold(FETCH_BYTES + 2 * buffer.len())?;
                            let parts =
                                key.parts.iter().filter_map(|part| fetched_part(*part, &entities, row)).collect();
                            missing.push(EntityKey { id, parts });
                        }
                    }
                    if !missing.is_empty() {
                        wanted.push((Arc::clone(fetcher), missing));
                    }
                }
            }
            Ok(wanted)
        })
    }

    /// Returns the names of the views that lost rows to damage and have not been loaded in full since then.
    pub fn damaged(&self) -> impl Iterator<Item = &str> {
        self.catalog.views().iter().zip(&self.ids).filter_map(|(view, id)| {
            let is_damaged = self.store.status(*id).is_some_and(|status| status.is_damaged);
            is_damaged.then_some(&*view.name)
        })
    }

    /// Returns the served catalog.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Returns the store's IDs of the catalog's views, in the catalog's order.
    #[must_use]
    pub fn view_ids(&self) -> &[ViewId] {
        &self.ids
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Arc<OnlineStore> {
        &self.store
    }

    /// Returns the names of the views with a source that were never loaded.
    pub fn not_loaded(&self) -> impl Iterator<Item = &str> {
        self.catalog.views().iter().zip(&self.ids).filter_map(|(view, id)| {
            let loaded = self.store.status(*id).is_some_and(|status| status.freshness.last_success.is_some());
            (view.source.is_some() && !loaded).then_some(&*view.name)
        })
    }

    /// Answers a request without a memory budget, for tools. The limits on rows, features and values apply. Does not
    /// fetch missing rows.
    ///
    /// # Errors
    /// [`LookupError::Denied`]; a problem with the request or the store.
    pub fn answer<'r>(
        &self,
        authorization: &Authorization,
        request: &'r OnlineRequest<'r>,
    ) -> Result<Answer<'r>, LookupError<Infallible>> {
        authorization.check_lookup(&request.selection)?;
        let mut budget = ResponseBudget::unbounded();
        let planned = self.begin(request, &budget).map_err(|error| authorization.hide_names(error))?;
        Ok(self.finish(planned, request, OnFailure::FindRows, &mut budget)?)
    }

    /// Checks the limits on the columns, rows and features of a request, and resolves it to a plan.
    ///
    /// # Errors
    /// A problem with the request; [`RequestError::TooLong`].
    pub(super) fn begin(
        &self,
        request: &OnlineRequest<'_>,
        budget: &ResponseBudget,
    ) -> Result<PlannedRequest, RequestError> {
        // The number of columns is checked first, because resolving a request with many columns takes long.
        let (columns, limit) = (request.entities.len(), self.limits.features_max);
        if columns > limit {
            return Err(RequestError::TooLarge { what: "columns", found: columns, limit });
        }
        let rows = rows(request, self.limits.rows_max)?;
        let plan = self.plan(request, budget)?;
        // A request without columns has a plan only if none of its views has entities. Such views have one row.
        Ok(PlannedRequest { plan, rows: rows.unwrap_or(1) })
    }

    /// Answers a request for which [`Snapshot::begin`] of this snapshot returned a plan. `on_failure` decides what happens
    /// if a call of a plugin fails.
    ///
    /// # Errors
    /// A problem with the request, a plugin or the store; [`RequestError::TooLong`]; [`RequestError::NeedsIsolation`].
    pub(super) fn finish<'r>(
        &self,
        planned: PlannedRequest,
        request: &'r OnlineRequest<'r>,
        on_failure: OnFailure,
        budget: &mut ResponseBudget,
    ) -> Result<Answer<'r>, RequestError> {
        let PlannedRequest { plan, rows } = planned;
        let values = rows.saturating_mul(plan.entity_columns.len() + plan.feature_columns.len());
        if values > self.limits.values_max {
            return Err(RequestError::TooLarge { what: "values", found: values, limit: self.limits.values_max });
        }
        if rows == 0 && !plan.reads.is_empty() {
            let needed = plan.reads.iter().flat_map(|read| &read.join_keys);
            return Err(missing_keys(needed, false, &plan.entity_columns));
        }
        budget.begin(rows * plan.reads.len(), values)?;

        let columns = plan.entity_columns.iter();
        let entities = columns
            .map(|column| keys::coerce(&request.entities[column.request_index].1, column.key_type))
            .collect::<Result<SmallVec<[_; 1]>, _>>()?;
        let now = self.clock.now();
        let found = self.read_store(|reader| Self::look_up(reader, &plan, &entities, rows, now, budget))?;
        let mut answer = Answer { plan, rows, now, entities, found, derived: Vec::new(), ttl: self.ttl };
        if !answer.plan.steps.is_empty() && rows > 0 {
            derive(&mut answer, request, &now.into(), on_failure)?;
        }
        // A lookup that is repeated on another thread, because a plugin failed, is counted only once.
        self.record_lookup(&answer.plan, &answer.found, rows);
        Ok(answer)
    }

    /// Returns the plugin of a request that is expected to take longest, if its plugins are expected to take long.
    pub(super) fn slow_plugin<'p>(&self, planned: &'p PlannedRequest) -> Option<&'p Transform> {
        let runtime = self.transforms.runtime()?;
        let transforms = planned.plan.steps.iter().filter_map(|step| step.transform.as_deref());
        let cost = |transform: &Transform| transform.expected_cost(planned.rows);
        let is_long = transforms.clone().any(|transform| transform.is_long(planned.rows))
            || transforms.clone().map(cost).sum::<Duration>() > runtime.settings().inline_max;
        transforms.max_by_key(|transform| cost(transform)).filter(|_| is_long)
    }

    /// Returns the plugins of the derived views, in the catalog's order.
    #[must_use]
    pub fn transforms(&self) -> &Transforms {
        &self.transforms
    }

    fn plan(&self, request: &OnlineRequest<'_>, budget: &ResponseBudget) -> Result<Arc<Plan>, RequestError> {
        let shape = Shape(request);
        let canaries = self.transforms.canaries().of(request, &self.catalog);
        let hash = shape.hash(&self.plans.hasher) ^ canaries.hash();
        if let Some(cached) = self.plans.plans.load().by_hash.get(&hash)
            && cached.canaries == canaries
            && shape.matches(&cached.shape)
        {
            return Ok(Arc::clone(&cached.plan));
        }
        budget.check_names(shape.names())?;
        let plan = Arc::new(self.resolver(canaries).resolve(request)?);
        self.metrics.plans.increment(1);
        self.plans.insert(hash, &shape, canaries, &plan);
        Ok(plan)
    }

    /// Drops all plans. They are resolved again on demand.
    pub fn drop_plans(&self) {
        self.plans.plans.store(Arc::default());
    }

    /// Returns the size of the cached plans in bytes.
    #[must_use]
    pub fn plan_bytes(&self) -> usize {
        self.plans.plans.load().bytes
    }

    fn resolver(&self, canaries: CanarySet) -> Resolver<'_> {
        Resolver {
            catalog: &self.catalog,
            views: self,
            transforms: &self.transforms,
            canaries,
            logged: &self.logged,
            features_max: self.limits.features_max,
        }
    }

    /// Calls `read` on one committed state of the store. A failed write closes the store until it is reopened. A read
    /// that fails for this reason is repeated on the reopened store.
    fn read_store<T>(&self, mut read: impl FnMut(&Reader<'_>) -> Result<T, RequestError>) -> Result<T, RequestError> {
        let mut attempts = 1;
        loop {
            let reader = self.store.reader();
            let (seen, done) = (reader.commit(), read(&reader));
            // Drops the reader first, because reopening the file waits for all readers.
            drop(reader);
            match done {
                Err(RequestError::Store(error))
                    if attempts < READ_ATTEMPTS_MAX && self.store.was_reopened(&error, seen) =>
                {
                    attempts += 1;
                }
                done => return done,
            }
        }
    }

    /// Looks up the rows of all reads. The result for row `i` of read `r` is at index `r * rows + i`.
    fn look_up(
        reader: &Reader<'_>,
        plan: &Plan,
        entities: &[EchoedColumn<'_>],
        rows: usize,
        now: Micros,
        budget: &mut ResponseBudget,
    ) -> Result<SmallVec<[LookupResult; 4]>, RequestError> {
        let mut found: SmallVec<[LookupResult; 4]> =
            (0..plan.reads.len() * rows).map(|_| LookupResult::Nothing).collect();
        let mut buffer = Vec::with_capacity(64);
        for key in plan.keys.iter().filter(|key| !key.parts.contains(&KeyPart::Missing)) {
            // The request's rows that have an ID, or `None` while all of them do. A row has no ID if a part of its key
            // is null or does not have the key's type. Such a row is not looked up.
            let mut rows_with_id: Option<Vec<usize>> = None;
            let mut ids: SmallVec<[EntityId; 4]> = SmallVec::with_capacity(rows);
            for row in 0..rows {
                let Some(id) = key.id(entities, row, &mut buffer) else {
                    rows_with_id.get_or_insert_with(|| (0..row).collect());
                    continue;
                };
                ids.push(id);
                if let Some(with_id) = &mut rows_with_id {
                    with_id.push(row);
                }
            }
            // The cached rows of an entity share one block of memory, so consecutive results often refer to the same
            // block. Such a block is counted only once.
            let mut last = None;
            reader.get_each(&key.views, &ids, |id_index, view_index, bytes| {
                let row = rows_with_id.as_ref().map_or(id_index, |with_id| with_id[id_index]);
                if let Some(bytes) = &bytes {
                    let memory = bytes.memory();
                    if last.replace(memory) != Some(memory) {
                        budget.hold(memory.bytes)?;
                    }
                }
                let read = key.reads[view_index];
                found[read * rows + row] = LookupResult::of(bytes, &plan.reads[read], now);
                Ok::<_, RequestError>(())
            })?;
        }
        Ok(found)
    }

    #[expect(clippy::cast_precision_loss, reason = "bounded far below 2^53")]
    fn record_lookup(&self, plan: &Plan, found: &[LookupResult], rows: usize) {
        self.metrics.requests.increment(1);
        self.metrics.entities.record(rows as f64);
        self.metrics.features.record(plan.feature_columns.len() as f64);
        for (read, found) in plan.reads.iter().zip(found.chunks(rows.max(1))) {
            let (mut present, mut not_found, mut expired) = (0, 0, 0);
            for found in found {
                match found {
                    LookupResult::Nothing => not_found += 1,
                    LookupResult::Row { expired: true, .. } => expired += 1,
                    LookupResult::Row { .. } => present += 1,
                    LookupResult::Converted(row) if row.expired => expired += 1,
                    LookupResult::Converted(_) => present += 1,
                }
            }
            let add = |counter: &metrics::Counter, count: u64| {
                if count > 0 {
                    counter.increment(count);
                }
            };
            add(&read.counters.present, present);
            add(&read.counters.not_found, not_found);
            add(&read.counters.outside_max_age, expired);
        }
    }
}

impl StoredViews for Snapshot {
    fn id(&self, index: usize) -> ViewId {
        self.ids[index]
    }

    fn schemas(&self, index: usize) -> Result<Arc<[Arc<RowSchema>]>, StoreError> {
        self.store.schemas(self.ids[index])
    }
}

/// Logs the features whose type differs from the type in stored rows.
fn log_retyped(view: &str, retyped: &[Retyped]) {
    for Retyped { feature, stored, declared, conversion } in retyped {
        match conversion {
            Some(_) => tracing::info!(
                view, %feature, %stored, %declared,
                "a feature's type changed; stored values are converted until the view is loaded again"
            ),
            None => tracing::warn!(
                view, %feature, %stored, %declared,
                "a feature's type changed and stored values cannot be converted; they are NOT_FOUND until the view is loaded again"
            ),
        }
    }
}

// === impl PlanCache ===

impl PlanCache {
    fn new() -> Self {
        Self { hasher: RandomState::default(), plans: ArcSwap::default() }
    }

    /// Caches a plan, unless the plan or its shape is large. Empties a full cache first.
    fn insert(&self, hash: u64, shape: &Shape<'_>, canaries: CanarySet, plan: &Arc<Plan>) {
        let shape_bytes = shape.bytes();
        if shape_bytes > SHAPE_BYTES_MAX {
            return;
        }
        let bytes = shape_bytes + NAME_BYTES * shape.names() + plan.bytes();
        if bytes > PLAN_BYTES_MAX {
            return;
        }
        let cached = Arc::new(CachedPlan { shape: shape.to_owned(), canaries, plan: Arc::clone(plan), bytes });
        self.plans.rcu(|plans| {
            let is_full = plans.by_hash.len() >= PLANS_MAX || plans.bytes + bytes > PLANS_BYTES_MAX;
            let mut plans = if is_full { Plans::default() } else { Plans::clone(plans) };
            let replaced = plans.by_hash.insert(hash, Arc::clone(&cached));
            plans.bytes = plans.bytes + bytes - replaced.map_or(0, |replaced| replaced.bytes);
            plans
        });
    }
}

/// Returns the number of rows of a request, or `None` if it has no column. Fails if columns differ in length, or if the
/// request has too many rows.
fn rows(request: &OnlineRequest<'_>, rows_max: usize) -> Result<Option<usize>, RequestError> {
    let Some((_, first)) = request.entities.first() else { return Ok(None) };
    if request.entities.iter().any(|(_, values)| values.len() != first.len()) {
        return Err(RequestError::Ragged);
    }
    if first.len() > rows_max {
        return Err(RequestError::TooLarge { what: "entity rows", found: first.len(), limit: rows_max });
    }
    Ok(Some(first.len()))
}

/// Returns a part of the key of a row to fetch, or `None` for a null.
fn fetched_part(part: KeyPart, entities: &[EchoedColumn<'_>], row: usize) -> Option<FetchedPart> {
    Some(FetchedPart::of(match part {
        KeyPart::Column(index, key_type) => keys::key_value(&entities[index][row], key_type)?,
        KeyPart::Dummy | KeyPart::Missing => KeyValue::String(""),
    }))
}
