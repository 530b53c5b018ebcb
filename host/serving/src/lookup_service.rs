//! The lookup path of all protocols: decode, authorize, plan, fetch, look up, compute, encode, log.
//!
//! A [`Protocol`] decodes requests and encodes answers. The [`LookupService`] does everything else. A serving thread
//! first tries each lookup itself ([`LookupService::try_serve`]). In these cases, [`LookupService::resume`] continues
//! the lookup:
//!
//! * The lookup would take too long. It runs on a compute thread.
//! * A call of a plugin failed. The lookup runs again on a compute thread. If a call fails there, it runs on an isolation
//!   thread, which finds the rows that fail.
//! * Rows have to be fetched. The lookup runs again after that.
//! * A requested name is unknown. The lookup runs again after changed definitions were reloaded.

use std::sync::Arc;

use arc_swap::Guard;
use bytes::Bytes;
use larder_common::{
    clock::SharedClock,
    compute::{Compute, Owner},
    memory::{SMALL_BYTES, leased_bytes},
};
use larder_ingest::{FETCH_ROUNDS, Fetched, Wanted, fetch_all};
use larder_model::model::Micros;
use larder_plugin_host::{OnFailure, Transform};

use super::{
    Answer, Authorization, CurrentSnapshot, Cut, LookupError, OnlineRequest, Readiness, RequestError, Resources,
    ResponseBudget, Selection, Snapshot, answer_log, renew::Renewal, resources::offload,
};

/// How a protocol decodes lookups and encodes answers.
pub trait Protocol: Send + Sync + 'static {
    /// Errors that only this protocol has: a body that cannot be decoded, or an answer that cannot be represented.
    type Error: Send + 'static;

    /// Answers of up to this many bytes need no lease of memory. The default suits protocols that send one answer at a
    /// time on a connection.
    const UNLEASED_BYTES_MAX: usize = SMALL_BYTES;

    /// Returns the maximum memory of the decoded body, in bytes.
    fn decoded_bytes(&self, body: &[u8]) -> usize;

    /// Decodes a body, and passes the request to `then`. The request may borrow from the body.
    ///
    /// # Errors
    /// [`LookupError::Protocol`] for an invalid body; errors of `then`.
    fn decode<T>(
        &self,
        body: &[u8],
        then: impl FnOnce(&OnlineRequest<'_>) -> Result<T, LookupError<Self::Error>>,
    ) -> Result<T, LookupError<Self::Error>>;

    /// Encodes an answer, and appends it to `out`. After an error, `out` may contain a part of the answer, which the
    /// caller discards.
    ///
    /// # Errors
    /// [`LookupError::Protocol`], and errors of [`ResponseBudget`].
    fn encode(
        &self,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
        budget: &mut ResponseBudget,
    ) -> Result<(), LookupError<Self::Error>>;
}

/// A lookup that was received, but not decoded yet.
#[derive(Debug)]
pub struct Lookup<P> {
    /// The protocol, with its options for this lookup.
    pub protocol: P,
    /// The caller's permissions.
    pub authorization: Authorization,
    /// The encoded request.
    pub body: Bytes,
}

/// The answer to a lookup.
#[derive(Debug)]
pub struct LookupResponse {
    /// The encoded answer.
    pub body: Bytes,
    /// Whether all rows that had to be fetched were fetched, or why not.
    pub fetched: Fetched,
}

/// The result of [`LookupService::try_serve`].
#[derive(Debug)]
pub enum Attempt {
    /// The answer was appended. The value is the time of the lookup, which decides whether rows are expired.
    Done(Micros),
    /// The lookup has to be resumed, and nothing was appended.
    Unfinished(Unfinished),
}

/// The state from which [`LookupService::resume`] continues a lookup. The lookup keeps its snapshot, except after a
/// reload because of an unknown name.
#[derive(Debug)]
pub struct Unfinished {
    snapshot: Arc<Snapshot>,
    next: Next,
}

/// The next step of a lookup.
#[derive(Debug)]
enum Next {
    /// Try the lookup on this thread.
    Here,
    /// Run the lookup on the compute threads for large requests.
    Large,
    /// Run the lookup on the compute threads for plugins, as a task of this owner.
    Plugins(Owner),
    /// A call of this plugin failed on a compute thread. Run the lookup on the isolation threads.
    Isolate(Arc<Transform>),
    /// Fetch rows, then try again. The budget holds the memory of the list of rows.
    Fetch(Vec<Wanted>, ResponseBudget),
    /// Reload changed definitions because of an unknown name, then try again. If nothing changed, the lookup fails with
    /// this error.
    Renew(RequestError),
}

/// The outcome of a step: the result of the lookup, or the next step.
enum Step<T> {
    Done(T),
    Next(Next),
}

/// The result of a pass. A pass decodes, authorizes, plans and answers a lookup, unless it ends early.
enum Pass {
    /// The answer was appended.
    Done(Micros),
    /// These rows have to be fetched first.
    Fetch(Vec<Wanted>),
    /// A plugin of the request is expected to take long. It is the owner of the task.
    SlowPlugin(Owner),
}

/// What a pass may do.
#[derive(Clone, Copy)]
struct Mode {
    /// Whether slow plugins may run on this thread.
    may_be_slow: bool,
    /// What happens if a call of a plugin fails.
    on_failure: OnFailure,
    /// Whether the pass ends with [`Pass::Fetch`] if rows have to be fetched. If false, it serves the stored rows.
    may_fetch: bool,
}

/// Serves lookups of all protocols with the snapshot that is current when they begin.
#[derive(Debug)]
pub struct LookupService {
    current: Arc<CurrentSnapshot>,
    resources: Resources,
    renewal: Renewal,
}

/// The maximum size of a body that a serving thread decodes. A larger body is decoded on a compute thread.
pub const THREAD_BODY_BYTES_MAX: usize = 64 << 10;

// === impl LookupService ===

impl LookupService {
    /// Creates a service that serves lookups with the snapshot in `current`, and reloads `definitions` if a requested
    /// name is unknown.
    #[must_use]
    pub fn new(
        current: Arc<CurrentSnapshot>,
        resources: Resources,
        definitions: Arc<dyn super::RenewDefinitions>,
        clock: SharedClock,
    ) -> Self {
        Self { current, resources, renewal: Renewal::new(definitions, clock) }
    }

    /// Returns a guard of the current snapshot. This is faster than [`Self::snapshot_full`], but a guard should be held
    /// only briefly.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Returns a reference to the current snapshot, which can be held as long as needed.
    #[must_use]
    pub fn snapshot_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Returns the readiness of the server.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        self.current.readiness()
    }

    /// Returns the resources that all listeners share.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Serves a lookup on this thread, and appends its answer to `out`. Takes a few milliseconds at most. Returns
    /// [`Attempt::Unfinished`] if the lookup would take longer, or has to wait for fetched rows or reloaded
    /// definitions.
    ///
    /// # Errors
    /// [`LookupError`]; `out` is unchanged in that case.
    pub fn try_serve<P: Protocol>(
        &self,
        protocol: &P,
        authorization: &Authorization,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Attempt, LookupError<P::Error>> {
        let snapshot = self.current.load();
        let mode = Mode { may_be_slow: false, on_failure: OnFailure::Inline, may_fetch: true };
        let step = self.serve_here(&snapshot, protocol, authorization, body, mode, out);
        Ok(match step.or_else(|error| self.next_after(error, true, true).map(Step::Next))? {
            Step::Done(now) => Attempt::Done(now),
            Step::Next(next) => Attempt::Unfinished(Unfinished { snapshot: Arc::clone(&snapshot), next }),
        })
    }

    /// Serves a lookup, on this thread if that is possible within a few milliseconds.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn serve<P: Protocol>(&self, lookup: Lookup<P>) -> Result<LookupResponse, LookupError<P::Error>> {
        let mut out = Vec::new();
        match self.try_serve(&lookup.protocol, &lookup.authorization, &lookup.body, &mut out)? {
            Attempt::Done(_) => Ok(LookupResponse { body: self.lease::<P>(out)?, fetched: Fetched::All }),
            Attempt::Unfinished(unfinished) => self.resume(lookup, unfinished).await,
        }
    }

    /// Continues a lookup that [`LookupService::try_serve`] did not finish. If the future is dropped, work that still
    /// waits for a compute thread is dropped too.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn resume<P: Protocol>(
        &self,
        lookup: Lookup<P>,
        unfinished: Unfinished,
    ) -> Result<LookupResponse, LookupError<P::Error>> {
        let lookup = Arc::new(lookup);
        let Unfinished { mut snapshot, mut next } = unfinished;
        let (mut fetched, mut rounds, mut is_large) = (Fetched::All, 0, false);
        let (mut may_fetch, mut may_renew) = (true, true);
        let mut on_failure = OnFailure::Escalate;
        loop {
            let is_here = matches!(next, Next::Here);
            let step = match next {
                Next::Here => {
                    let Lookup { protocol, authorization, body } = &*lookup;
                    let mode = Mode { may_be_slow: false, on_failure: OnFailure::Inline, may_fetch };
                    let mut out = Vec::new();
                    self.serve_here(&snapshot, protocol, authorization, body, mode, &mut out).and_then(
                        |step| match step {
                            Step::Done(_) => Ok(Step::Done(self.lease::<P>(out)?)),
                            Step::Next(next) => Ok(Step::Next(next)),
                        },
                    )
                }
                Next::Large | Next::Plugins(_) => {
                    is_large |= matches!(next, Next::Large);
                    let owner = if let Next::Plugins(owner) = next { owner } else { Owner::COMMON };
                    let runtime = snapshot.transforms().runtime().filter(|_| !matches!(next, Next::Large));
                    let compute: &Compute = runtime.map_or(&*self.resources.compute, |runtime| runtime.compute());
                    // Slow plugins of a large request run on their own threads, as tasks of the plugin.
                    let mode = Mode { may_be_slow: runtime.is_some(), on_failure, may_fetch };
                    let (lookup, current, budget) =
                        (Arc::clone(&lookup), Arc::clone(&snapshot), self.resources.leased_budget());
                    offload(compute, owner, move || serve_offloaded(&current, &lookup, mode, budget)).await
                }
                Next::Isolate(transform) => {
                    let permit = transform.isolation().enter().await;
                    let mut late_permit = None;
                    if permit.is_none() {
                        // Too many calls of this plugin fail. The rows of this request that fail are not searched.
                        on_failure = OnFailure::FailCall;
                        late_permit = transform.isolation().enter_late().await;
                    }
                    let search = if permit.is_some() { OnFailure::FindRows } else { on_failure };
                    let mode = Mode { may_be_slow: true, on_failure: search, may_fetch };
                    let runtime = snapshot.transforms().runtime();
                    let isolation: &Compute = runtime.map_or(&*self.resources.compute, |runtime| runtime.isolation());
                    let owner = transform.owner();
                    let (lookup, current, budget) =
                        (Arc::clone(&lookup), Arc::clone(&snapshot), self.resources.leased_budget());
                    offload(isolation, owner, move || {
                        let served = serve_offloaded(&current, &lookup, mode, budget);
                        drop((permit, late_permit));
                        served
                    })
                    .await
                }
                Next::Fetch(wanted, _budget) => {
                    fetched = if rounds == FETCH_ROUNDS {
                        Fetched::TimedOut
                    } else {
                        fetch_all(wanted).await.unwrap_or_default()
                    };
                    rounds += 1;
                    // After a failed fetch, the next pass serves the stored rows. Otherwise, it may fetch again,
                    // because rows can be deleted or evicted in between. `FETCH_ROUNDS` limits the fetches.
                    may_fetch = fetched == Fetched::All;
                    Ok(Step::Next(if is_large { Next::Large } else { Next::Here }))
                }
                Next::Renew(error) => {
                    may_renew = false;
                    self.renewal.renew().await;
                    // Compares snapshots, because another request or the file watcher may have reloaded the
                    // definitions.
                    let current = self.current.load_full();
                    if Arc::ptr_eq(&current, &snapshot) {
                        Err(error.into())
                    } else {
                        snapshot = current;
                        Ok(Step::Next(if is_large { Next::Large } else { Next::Here }))
                    }
                }
            };
            next = match step {
                Ok(Step::Done(body)) => return Ok(LookupResponse { body, fetched }),
                Ok(Step::Next(next)) => next,
                Err(error) => self.next_after(error, may_renew, is_here)?,
            };
        }
    }

    /// Appends the answer to a lookup, or returns the next step.
    fn serve_here<P: Protocol>(
        &self,
        snapshot: &Snapshot,
        protocol: &P,
        authorization: &Authorization,
        body: &[u8],
        mode: Mode,
        out: &mut Vec<u8>,
    ) -> Result<Step<Micros>, LookupError<P::Error>> {
        if body.len() > THREAD_BODY_BYTES_MAX {
            return Ok(Step::Next(Next::Large));
        }
        let (start, mut budget) = (out.len(), self.resources.thread_budget());
        let passed = pass(snapshot, protocol, authorization, body, mode, out, &mut budget);
        if !matches!(passed, Ok(Pass::Done(_))) {
            out.truncate(start);
        }
        Ok(match passed? {
            Pass::Done(now) => Step::Done(now),
            Pass::Fetch(wanted) => Step::Next(Next::Fetch(wanted, budget)),
            Pass::SlowPlugin(owner) => Step::Next(Next::Plugins(owner)),
        })
    }

    /// Returns the step that may succeed after an error. `is_here` is whether the error occurred on a serving thread.
    ///
    /// # Errors
    /// The error itself, if no other step can succeed.
    fn next_after<E>(&self, error: LookupError<E>, may_renew: bool, is_here: bool) -> Result<Next, LookupError<E>> {
        match error {
            LookupError::Request(RequestError::TooLong) => Ok(Next::Large),
            LookupError::Request(RequestError::NeedsIsolation(transform)) if is_here => {
                Ok(Next::Plugins(transform.owner()))
            }
            LookupError::Request(RequestError::NeedsIsolation(transform)) => Ok(Next::Isolate(transform)),
            LookupError::Request(error) if may_renew && error.has_unknown_name() && self.renewal.is_due() => {
                Ok(Next::Renew(error))
            }
            error => Err(error),
        }
    }

    /// Attaches a lease of memory to an answer, unless the answer is small.
    fn lease<P: Protocol>(&self, answer: Vec<u8>) -> Result<Bytes, RequestError> {
        if answer.len() <= P::UNLEASED_BYTES_MAX {
            return Ok(answer.into());
        }
        let mut lease = self.resources.memory.lease();
        lease.grow(answer.capacity())?;
        Ok(leased_bytes(answer, lease))
    }
}

/// Serves a lookup on a compute thread or an isolation thread. The budget leases the memory.
fn serve_offloaded<P: Protocol>(
    snapshot: &Snapshot,
    lookup: &Lookup<P>,
    mode: Mode,
    mut budget: ResponseBudget,
) -> Result<Step<Bytes>, LookupError<P::Error>> {
    let Lookup { protocol, authorization, body } = lookup;
    budget.hold(protocol.decoded_bytes(body))?;
    let mut out = Vec::new();
    match pass(snapshot, protocol, authorization, body, mode, &mut out, &mut budget)? {
        Pass::Done(_) => Ok(Step::Done(budget.finish(out)?)),
        Pass::Fetch(wanted) => Ok(Step::Next(Next::Fetch(wanted, budget))),
        Pass::SlowPlugin(owner) => Ok(Step::Next(Next::Plugins(owner))),
    }
}

/// Creates the span of a pass over a lookup.
fn lookup_span(selection: &Selection<'_>) -> tracing::Span {
    match selection {
        Selection::Service(service) => tracing::debug_span!("lookup", service = %Cut(service)),
        Selection::Features(features) => tracing::debug_span!("lookup", features = features.len()),
    }
}

/// Runs a pass: decodes, authorizes, plans, answers and logs a lookup.
fn pass<P: Protocol>(
    snapshot: &Snapshot,
    protocol: &P,
    authorization: &Authorization,
    body: &[u8],
    mode: Mode,
    out: &mut Vec<u8>,
    budget: &mut ResponseBudget,
) -> Result<Pass, LookupError<P::Error>> {
    protocol.decode(body, |request| {
        let _span = lookup_span(&request.selection).entered();
        authorization.check_lookup(&request.selection)?;
        let planned = snapshot.begin(request, budget).map_err(|error| authorization.hide_names(error))?;
        if mode.may_fetch && snapshot.reads_through(&planned) {
            let wanted = snapshot.to_fetch(&planned, request, budget)?;
            if !wanted.is_empty() {
                return Ok(Pass::Fetch(wanted));
            }
        }
        if !mode.may_be_slow
            && let Some(transform) = snapshot.slow_plugin(&planned)
        {
            return Ok(Pass::SlowPlugin(transform.owner()));
        }
        let answer = snapshot.finish(planned, request, mode.on_failure, budget)?;
        let now = answer.now;
        protocol.encode(&answer, out, budget)?;
        answer_log::log(answer, request, snapshot.answer_queue());
        Ok(Pass::Done(now))
    })
}
