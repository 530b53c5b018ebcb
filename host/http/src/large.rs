//! Requests that take long: compute threads serve them, so that serving threads can serve other requests meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use larder_common::{
    compute::Compute,
    memory::{MemoryBudget, SMALL_BYTES, leased_bytes},
};
use larder_serving::{OnlineRequest, RequestError, Resources, ResponseBudget, Snapshot};
use tokio::sync::oneshot;

use super::{HttpError, Scope, accept::Form, decode::decode_request};

/// A body that another thread builds.
pub(super) type PendingBody = oneshot::Receiver<Result<Bytes, HttpError>>;

/// A larger body is decoded on a compute thread.
pub(super) const THREAD_BODY_BYTES_MAX: usize = 64 << 10;

/// A lookup that any thread can serve.
#[derive(Clone, Debug)]
pub(super) struct LargeLookup {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) body: Bytes,
    pub(super) scope: Option<Arc<Scope>>,
    pub(super) form: Form,
}

// === impl LargeLookup ===

impl LargeLookup {
    /// Serves it on one of these threads.
    ///
    /// # Errors
    /// Status 503 when too many requests wait.
    pub(super) fn offload(self, resources: &Resources, compute: &Compute) -> Result<PendingBody, HttpError> {
        let budget = resources.leased_budget();
        offload(compute, move || self.answer(budget))
    }

    fn answer(self, mut budget: ResponseBudget) -> Result<Bytes, HttpError> {
        budget.hold(lookup_bytes(&self.body))?;
        let request = decode_request(&self.body)?;
        let scope = self.scope.as_deref();
        check_scope(scope, &request)?;
        let answer = self.snapshot.answer_within(&request, &mut budget).map_err(|error| in_scope(error, scope))?;
        let out = self.form.encode(&answer, &mut budget)?;
        drop(answer);
        drop(request);
        drop(self.body);
        Ok(budget.finish(out)?)
    }
}

/// Runs work on one of these threads.
///
/// # Errors
/// Status 503 if too much work is queued.
pub(super) fn offload<T: Send + 'static>(
    compute: &Compute,
    work: impl FnOnce() -> Result<T, HttpError> + Send + 'static,
) -> Result<oneshot::Receiver<Result<T, HttpError>>, HttpError> {
    compute.try_run(work).map_err(|_full| {
        let message = "too many large requests wait; try again";
        HttpError::detail(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    })
}

/// The result of offloaded work.
///
/// # Errors
/// Errors of the work, and status 500 if it panicked.
pub(super) async fn completed<T>(coming: oneshot::Receiver<Result<T, HttpError>>) -> Result<T, HttpError> {
    coming
        .await
        .map_err(|_| HttpError::internal("the work on a request failed because of a bug in Larder".to_owned()))?
}

/// Checks whether a token permits the request.
///
/// # Errors
/// Status 403.
pub(super) fn check_scope(scope: Option<&Scope>, request: &OnlineRequest<'_>) -> Result<(), HttpError> {
    scope.map_or(Ok(()), |scope| Ok(scope.check(&request.selection)?))
}

/// An error without the names outside a token's scope.
pub(super) fn in_scope(error: RequestError, scope: Option<&Scope>) -> RequestError {
    match scope {
        Some(Scope::Services(_)) => error.hide_names(|name| scope.is_some_and(|scope| scope.has(name))),
        Some(Scope::All) | None => error,
    }
}

/// A response with a lease of its size, unless it is small.
///
/// # Errors
/// Status 503 or 413 if there is no memory for it.
pub(super) fn lease_answer(memory: &Arc<MemoryBudget>, answer: Vec<u8>) -> Result<Bytes, HttpError> {
    if answer.len() <= SMALL_BYTES {
        return Ok(answer.into());
    }
    let mut lease = memory.lease();
    lease.grow(answer.capacity())?;
    Ok(leased_bytes(answer, lease))
}

/// The maximum memory of the decoded values of a lookup's body, in bytes.
fn lookup_bytes(body: &[u8]) -> usize {
    // A value takes 32 bytes, and a growing list takes up to three times its size for a moment; its first allocation
    // has a capacity of four items.
    weigh(body, 96, 192, 96)
}

/// The maximum memory of a body as a tree of JSON values, in bytes.
pub(super) fn tree_bytes(body: &[u8]) -> usize {
    // A mapping of one item has a node for eleven.
    weigh(body, 96, 192, 768)
}

fn weigh(body: &[u8], item: usize, list: usize, mapping: usize) -> usize {
    let count = |wanted: u8| body.iter().filter(|byte| **byte == wanted).count();
    body.len() + item * (count(b',') + count(b':')) + list * count(b'[') + mapping * count(b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maximum memory that decoding takes at once, in addition to the body, in bytes.
    fn most(body: &str, decode: impl FnOnce(&[u8])) -> usize {
        let counted = allocation_counter::measure(|| decode(body.as_bytes()));
        usize::try_from(counted.bytes_max).unwrap()
    }

    #[test]
    fn decoded_bodies_weigh_no_more_than_expected() {
        let many = |item: &str| vec![item; 20_000].join(",");
        let items = ["1", "\"\"", "[]", "[[]]", "[1,1]", "{}", "{\"\":0}", "{\"a\":{\"b\":[{}]}}", "null", "-1.5e3"];
        for item in items {
            let body = format!(r#"{{"features":["a:b"],"entities":{{"x":[{}]}}}}"#, many(item));
            let decoded = most(&body, |body| drop(decode_request(body).unwrap()));
            assert!(decoded <= lookup_bytes(body.as_bytes()), "{item}: {decoded}");
            let tree = most(&body, |body| drop(serde_json::from_slice::<serde_json::Value>(body).unwrap()));
            assert!(tree <= tree_bytes(body.as_bytes()), "{item}: {tree} of {}", tree_bytes(body.as_bytes()));
        }
        let features = format!(r#"{{"features":[{}],"entities":{{}}}}"#, many("\"\\n\""));
        assert!(most(&features, |body| drop(decode_request(body).unwrap())) <= lookup_bytes(features.as_bytes()));
        let columns: Vec<String> = (0..20_000).map(|n| format!(r#""{n}":[1]"#)).collect();
        let columns = format!(r#"{{"entities":{{{}}}}}"#, columns.join(","));
        assert!(most(&columns, |body| drop(decode_request(body).unwrap())) <= lookup_bytes(columns.as_bytes()));
        let tree = most(&columns, |body| drop(serde_json::from_slice::<serde_json::Value>(body).unwrap()));
        assert!(tree <= tree_bytes(columns.as_bytes()));
    }
}
