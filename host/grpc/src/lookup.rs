//! Lookups: from the bytes of a request message to the bytes of the response, on this thread or on a compute thread.

use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use larder_common::compute::Compute;
use larder_ingest::{FETCH_ROUNDS, Fetched, fetch_all};
use larder_serving::{OnlineRequest, PlannedRequest, RequestError, ResponseBudget, Snapshot};
use prost::Message;
use tonic::{Code, Status};

use super::{
    Action, Features, answer, error,
    message::{Encoding, PREFIX_BYTES, framed},
    proto::feast::serving::GetOnlineFeaturesRequest,
    request,
    weight::lookup_bytes,
};

/// A larger message is decoded on a compute thread.
const THREAD_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// A lookup that any thread can serve.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    features: Arc<Features>,
    headers: Arc<HeaderMap>,
    message: Bytes,
    /// The compression of the response, if any.
    encoding: Option<Encoding>,
}

/// A framed response, or the threads that compute it.
enum Found {
    Answer(Bytes),
    /// Offloaded to the threads for plugins or for large requests.
    Offload {
        for_plugins: bool,
    },
}

// === impl Lookup ===

impl Lookup {
    /// A message without its prefix, and the headers of its call.
    pub(super) fn new(features: Arc<Features>, headers: HeaderMap, message: Bytes, encoding: Option<Encoding>) -> Self {
        Self { features, headers: Arc::new(headers), message, encoding }
    }

    /// The framed response, and whether all rows that had to be fetched are present.
    pub(super) async fn answer(self) -> Result<(Bytes, Fetched), Status> {
        let again = self.features.renews_definitions().then(|| self.clone());
        let is_unknown = |status: &Status| matches!(status.code(), Code::NotFound | Code::InvalidArgument);
        match (self.answer_once().await, again) {
            (Err(status), Some(lookup)) if is_unknown(&status) && lookup.features.renew_definitions().await => {
                lookup.answer_once().await
            }
            (answered, _) => answered,
        }
    }

    async fn answer_once(self) -> Result<(Bytes, Fetched), Status> {
        let fetched = self.fetch_first().await?;
        let snapshot = self.features.current.load_full();
        let resources = &self.features.resources;
        let found = if self.message.len() > THREAD_MESSAGE_BYTES_MAX {
            Found::Offload { for_plugins: false }
        } else {
            self.answer_here(&snapshot)?
        };
        let for_plugins = match found {
            Found::Answer(answer) => return Ok((answer, fetched)),
            Found::Offload { for_plugins } => for_plugins,
        };
        let runtime = snapshot.transforms().runtime().filter(|_| for_plugins);
        let compute: &Compute = runtime.map_or(&*resources.compute, |runtime| runtime.compute());
        let (lookup, current, budget) = (self.clone(), Arc::clone(&snapshot), resources.leased_budget());
        let answer = offload(compute, move || lookup.answer_within(&current, budget)).await?;
        Ok((answer, fetched))
    }

    /// Fetches requested rows that are not in the store, for views that are only partly loaded.
    async fn fetch_first(&self) -> Result<Fetched, Status> {
        if !self.features.current.load().reads_through() {
            return Ok(Fetched::All);
        }
        let snapshot = self.features.current.load_full();
        let (lookup, resources) = (self.clone(), &self.features.resources);
        let to_fetch = move |mut budget: ResponseBudget| {
            lookup
                .with_request(&mut budget, |request, budget| {
                    let wanted = snapshot.to_fetch(request, budget)?;
                    Ok(wanted)
                })
                // Their memory is released with them.
                .map(|wanted| (wanted, budget))
        };
        for _ in 0..FETCH_ROUNDS {
            let is_small = self.message.len() <= THREAD_MESSAGE_BYTES_MAX;
            let (wanted, _budget) = match is_small.then(|| to_fetch(resources.thread_budget())) {
                Some(Err(Failed::Status(status))) => return Err(status),
                Some(Ok(wanted)) => wanted,
                None | Some(Err(Failed::TooLong)) => {
                    let (to_fetch, budget) = (to_fetch.clone(), resources.leased_budget());
                    offload(&resources.compute, move || Ok(to_fetch(budget)?)).await?
                }
            };
            let fetched = fetch_all(wanted).await;
            if fetched != Some(Fetched::All) {
                return Ok(fetched.unwrap_or_default());
            }
        }
        Ok(Fetched::Late)
    }

    /// Serves the lookup on this thread, unless that would take too long.
    fn answer_here(&self, snapshot: &Snapshot) -> Result<Found, Status> {
        let mut budget = self.features.resources.thread_budget();
        let found = self.with_request(&mut budget, |request, budget| {
            let planned = snapshot.begin(request, budget)?;
            if snapshot.compute_for(&planned).is_some() {
                return Ok(None);
            }
            encode(snapshot, planned, request, self.encoding, budget).map(Some)
        });
        match found {
            Ok(None) => Ok(Found::Offload { for_plugins: true }),
            Err(Failed::TooLong) => Ok(Found::Offload { for_plugins: false }),
            Err(Failed::Status(status)) => Err(status),
            Ok(Some(framed)) => {
                let mut lease = self.features.resources.memory.lease();
                lease.grow(framed.capacity()).map_err(error::of_memory)?;
                Ok(Found::Answer(larder_common::memory::leased_bytes(framed, lease)))
            }
        }
    }

    /// Serves the lookup within a lease.
    fn answer_within(self, snapshot: &Snapshot, mut budget: ResponseBudget) -> Result<Bytes, Status> {
        budget.hold(lookup_bytes(&self.message)).map_err(error::of_request)?;
        let framed = self.with_request(&mut budget, |request, budget| {
            let planned = snapshot.begin(request, budget)?;
            encode(snapshot, planned, request, self.encoding, budget)
        })?;
        drop(self);
        budget.finish(framed).map_err(error::of_request)
    }

    /// Decodes the message and checks the caller's permissions.
    fn with_request<T>(
        &self,
        budget: &mut ResponseBudget,
        work: impl FnOnce(&OnlineRequest<'_>, &mut ResponseBudget) -> Result<T, RequestError>,
    ) -> Result<T, Failed> {
        let message = GetOnlineFeaturesRequest::decode(&*self.message)
            .map_err(|error| Status::internal(format!("the message cannot be decoded: {error}")))?;
        let request = request::translate(&message)?;
        self.features.check(&self.headers, Action::Lookup(&request.selection))?;
        work(&request, budget).map_err(|error| match error {
            RequestError::TooLong => Failed::TooLong,
            error => {
                let may_know = |name: &str| self.features.check(&self.headers, Action::Name(name)).is_ok();
                Failed::Status(error::of_request(error.hide_names(may_know)))
            }
        })
    }
}

/// Why a lookup was not served on this thread.
enum Failed {
    /// It has to be repeated on a compute thread.
    TooLong,
    Status(Status),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::TooLong => error::of_request(RequestError::TooLong),
            Failed::Status(status) => status,
        }
    }
}

/// Makes the framed response to a planned request.
fn encode(
    snapshot: &Snapshot,
    planned: PlannedRequest,
    request: &OnlineRequest<'_>,
    encoding: Option<Encoding>,
    budget: &mut ResponseBudget,
) -> Result<Vec<u8>, RequestError> {
    let answer = snapshot.finish(planned, request, budget)?;
    let message = answer::translate(&answer, budget)?;
    drop(answer);
    let len = PREFIX_BYTES + message.encoded_len();
    let mut out = Vec::new();
    budget.reserve(&mut out, len, len)?;
    out.resize(PREFIX_BYTES, 0);
    // The capacity was reserved.
    let _ = message.encode(&mut out);
    drop(message);
    if encoding.is_some() {
        budget.hold(len)?;
    }
    Ok(framed(out, encoding))
}

/// Runs work on these threads.
pub(super) async fn offload<T: Send + 'static>(
    compute: &Compute,
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let coming = compute.try_run(work);
    let coming = coming.map_err(|_full| Status::unavailable("too many large requests wait; try again"))?;
    coming.await.map_err(|_| error::internal("the work on a call failed because of a bug in Larder"))?
}
