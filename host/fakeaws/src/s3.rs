//! A fake S3 in memory, with path-style URLs, for tests that read objects.
//!
//! Requests for multipart uploads, copies, delimiters or versions are rejected. Signatures are not checked.

mod http;
mod objects;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;

use crate::serve::{Running, hash, now, serve};

/// A fake S3. The server stops when its last handle is dropped.
#[derive(Clone, Debug)]
pub struct FakeS3 {
    state: Arc<Mutex<State>>,
    running: Arc<Running>,
}

/// A received request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Call {
    /// The operation, as AWS names it.
    pub operation: &'static str,
    /// The bucket.
    pub bucket: String,
    /// The key, or the prefix if the request lists objects.
    pub key: String,
    /// The value of the `Range` header.
    pub range: Option<String>,
    /// The status of the response.
    pub status: u16,
}

type Buckets = BTreeMap<String, BTreeMap<String, Object>>;

#[derive(Debug)]
struct State {
    buckets: Buckets,
    /// The objects that lists return; `None` if lists return the current objects.
    listed: Option<Buckets>,
    /// The maximum number of keys in a page of a list.
    page_size: usize,
    delay: Duration,
    calls: Vec<S3Call>,
    in_flight: usize,
    in_flight_max: usize,
    /// For a bucket and key, the number of further GETs that return the current object, and the content that then
    /// replaces it.
    swaps: HashMap<(String, String), (u64, Bytes)>,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    /// The ETag, including its quotes.
    etag: String,
    /// The modification time in seconds since 1970.
    modified: u64,
}

/// Counts a request as in flight until this is dropped.
struct InFlight<'s>(&'s Mutex<State>);

impl Default for State {
    fn default() -> Self {
        Self {
            buckets: BTreeMap::new(),
            listed: None,
            page_size: 1_000,
            delay: Duration::ZERO,
            calls: Vec::new(),
            in_flight: 0,
            in_flight_max: 0,
            swaps: HashMap::new(),
        }
    }
}

impl Default for FakeS3 {
    fn default() -> Self {
        Self::start()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl FakeS3 ===

impl FakeS3 {
    /// Starts a server on a free loopback port.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let running = serve(move |request| {
            let state = Arc::clone(&shared);
            async move {
                let _in_flight = InFlight::new(&state);
                let delay = lock(&state).delay;
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                http::respond(&mut lock(&state), &request)
            }
        });
        Self { state, running: Arc::new(running) }
    }

    /// Returns the server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// Returns the server's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Creates a bucket, if it does not exist.
    pub fn create_bucket(&self, bucket: &str) {
        lock(&self.state).buckets.entry(bucket.to_owned()).or_default();
    }

    /// Puts an object, creates its bucket if it does not exist, and returns the ETag.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) -> String {
        let object = Object::new(bytes.into());
        let etag = object.etag.clone();
        lock(&self.state).buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), object);
        etag
    }

    /// Deletes an object. Does nothing if the object does not exist.
    pub fn delete(&self, bucket: &str, key: &str) {
        lock(&self.state).buckets.get_mut(bucket).and_then(|objects| objects.remove(key));
    }

    /// Returns an object's bytes; `None` if it does not exist.
    #[must_use]
    pub fn get(&self, bucket: &str, key: &str) -> Option<Bytes> {
        lock(&self.state).buckets.get(bucket)?.get(key).map(|object| object.bytes.clone())
    }

    /// Returns the keys of all objects in a bucket.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        lock(&self.state).buckets.get(bucket).into_iter().flat_map(|objects| objects.keys().cloned()).collect()
    }

    /// Sets the maximum number of keys in a page of a list.
    pub fn page_size(&self, n: usize) {
        lock(&self.state).page_size = n.clamp(1, 1_000);
    }

    /// Sets whether lists are stale. Stale lists keep returning the objects that exist at the time of this call,
    /// regardless of later writes and deletions. Reads of objects are not affected.
    pub fn stale_list(&self, is_stale: bool) {
        let mut state = lock(&self.state);
        state.listed = is_stale.then(|| state.buckets.clone());
    }

    /// Replaces the content of an object after the next `n` GETs of the object.
    pub fn swap_after(&self, bucket: &str, key: &str, n: u64, bytes: impl Into<Bytes>) {
        let mut state = lock(&self.state);
        state.swaps.insert((bucket.to_owned(), key.to_owned()), (n, bytes.into()));
        state.swap(bucket, key);
    }

    /// Delays every response.
    pub fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Returns the requests that were received so far, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<S3Call> {
        lock(&self.state).calls.clone()
    }

    /// Clears the recorded requests, and resets the recorded maximum number of concurrent requests.
    pub fn clear_calls(&self) {
        let mut state = lock(&self.state);
        state.calls.clear();
        state.in_flight_max = state.in_flight;
    }

    /// Returns the highest number of concurrent requests since the start, or since the last [`FakeS3::clear_calls`].
    #[must_use]
    pub fn concurrent_max(&self) -> usize {
        lock(&self.state).in_flight_max
    }
}

// === impl State ===

impl State {
    /// Replaces an object if the scripted number of GETs of its current content is reached.
    fn swap(&mut self, bucket: &str, key: &str) {
        let name = (bucket.to_owned(), key.to_owned());
        if self.swaps.get(&name).is_some_and(|(left, _)| *left == 0)
            && let Some((_, bytes)) = self.swaps.remove(&name)
        {
            self.buckets.entry(name.0).or_default().insert(name.1, Object::new(bytes));
        }
    }

    /// Counts a GET of an object.
    fn count_get(&mut self, bucket: &str, key: &str) {
        if let Some((left, _)) = self.swaps.get_mut(&(bucket.to_owned(), key.to_owned())) {
            *left = left.saturating_sub(1);
            self.swap(bucket, key);
        }
    }
}

// === impl Object ===

impl Object {
    fn new(bytes: Bytes) -> Self {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let etag = format!("\"{:016x}{:016x}\"", hash(&bytes), hash(&[&bytes[..], &length.to_le_bytes()].concat()));
        // S3's times are in whole seconds.
        let modified = Duration::try_from_secs_f64(now()).map_or(0, |since| since.as_secs());
        Self { bytes, etag, modified }
    }
}

// === impl InFlight ===

impl<'s> InFlight<'s> {
    fn new(state: &'s Mutex<State>) -> Self {
        let mut now = lock(state);
        now.in_flight += 1;
        now.in_flight_max = now.in_flight_max.max(now.in_flight);
        drop(now);
        Self(state)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(self.0).in_flight -= 1;
    }
}
