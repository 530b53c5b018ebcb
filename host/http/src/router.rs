//! Which request is answered how.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderValue, LOCATION},
};
use larder_common::{
    clock::SharedClock,
    compute::Compute,
    memory::{Lease, SMALL_BYTES, leased_bytes},
    telemetry::Metrics,
};
use larder_ingest::{FETCH_ROUNDS, Fetched, fetch_all};
use larder_model::model::Micros;
use larder_serving::{LISTED_MAX, RenewDefinitions, Resources, ResponseBudget, Snapshot};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Control, DeleteCommand, HttpError, HttpLimits, ResetCommand, Scope, Tokens, Writes,
    accept::{Form, JSON},
    body::AnswerBody,
    catalog::{catalog_bytes, describe_catalog},
    commands::{blocking, command, reload, sync},
    decode::decode_request,
    encode::write_answer,
    fast_path::FastRequest,
    large::{
        LargeLookup, PendingBody, THREAD_BODY_BYTES_MAX, check_scope, completed, in_scope, lease_answer, offload,
        tree_bytes,
    },
    limited_io::{LingerFlag, yield_to_events},
    metrics::{EndpointMetrics, HttpMetrics},
    request_body::RequestBody,
};

/// Answers requests, each with the snapshot that is current when it begins.
#[derive(Debug)]
pub struct Router {
    current: Arc<ArcSwap<Snapshot>>,
    clock: SharedClock,
    limits: HttpLimits,
    resources: Resources,
    pub(super) metrics: HttpMetrics,
    /// Set when the host stops: it is not ready then, and still answers.
    stopping: AtomicBool,
    /// When definitions were last checked because of an unknown name.
    renewed: AtomicI64,
    /// Set a while after that: requests that wait for a load then get an error.
    given_up: watch::Sender<bool>,
    role: ListenerRole,
}

/// Which listener a router stands behind, and so what it answers beside health and readiness.
#[derive(Clone, Debug)]
pub enum ListenerRole {
    /// Features.
    Data {
        /// Whom it lets in; everybody where there are none.
        tokens: Option<Arc<Tokens>>,
        /// Whether it is reached over TLS.
        encrypted: bool,
        /// Takes writes, where they are taken.
        writes: Option<Arc<Writes>>,
        /// Reloads changed definitions.
        definitions: Arc<dyn RenewDefinitions>,
    },
    /// Features and orders.
    Admin(Arc<dyn Control>),
    /// Metrics.
    Metrics(Metrics),
}

/// The features of a request, or who brings them.
enum Features {
    Answer(Bytes),
    Offloaded(PendingBody),
}

/// What became of a plain request.
#[derive(Debug)]
pub(super) enum FastAnswer {
    /// The response body was appended. [`Router::note_plain`] needs the start time of the request; the second time is
    /// the clock's, for the response's date.
    Here(Instant, Micros),
    /// The body comes, or an error, which [`Router::note_plain`] and [`Router::fail_plain`] want to know.
    Offloaded(Box<PendingBody>, Instant),
    /// Something about it is not plain, as when it goes wrong.
    Not,
}

pub(super) type Answered = Response<AnswerBody>;

const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
pub(super) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Says that rows which are not here could not be fetched: `late` or `away`.
const READ_THROUGH: &str = "x-larder-read-through";

/// The minimum interval of checks for changed definitions because of unknown names.
const RENEWAL_EVERY: Micros = 100_000;

const PLUGINS: &str = "/v1/plugins";
const PLUGINS_BELOW: &str = "/v1/plugins/";
const DELETE: &str = "/v1/delete";
const RESET: &str = "/v1/reset";

/// Lines that wait for a slow reader of the sync's progress; beyond, the sync waits for it.
pub(super) const EVENTS_WAITING_MAX: usize = 64;

/// After a request that took longer, a serving thread serves other connections first.
pub(super) const TURN: Duration = Duration::from_millis(1);

// === impl Router ===

impl Router {
    /// A router over what is current.
    #[must_use]
    pub fn new(
        current: Arc<ArcSwap<Snapshot>>,
        clock: SharedClock,
        limits: HttpLimits,
        resources: Resources,
        role: ListenerRole,
    ) -> Self {
        let (metrics, stopping, renewed) = (HttpMetrics::bind(), AtomicBool::new(false), AtomicI64::new(Micros::MIN));
        let given_up = watch::Sender::new(false);
        Self { current, clock, limits, resources, metrics, stopping, renewed, given_up, role }
    }

    /// From here on the host says that it is not ready.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Returns an error to requests that wait for a load, a reload or a deployment: the server stops, and a source may
    /// hang.
    pub(super) fn give_up(&self) {
        self.given_up.send_replace(true);
    }

    /// Waits for work that may hang with its source, but not longer than the shutdown allows.
    async fn unless_given_up<T>(&self, work: impl Future<Output = Result<T, HttpError>>) -> Result<T, HttpError> {
        let mut given_up = self.given_up.subscribe();
        tokio::select! {
            biased;
            done = work => done,
            // The sender lives as long as `self`.
            _ = given_up.wait_for(|given_up| *given_up) => {
                let message = "the server is stopping; committed rows are kept";
                Err(HttpError::detail(StatusCode::SERVICE_UNAVAILABLE, "stopping", message))
            }
        }
    }

    pub(super) fn now(&self) -> Micros {
        self.clock.now()
    }

    pub(super) fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    /// A lease for a request; metrics and admin have a reserve that other requests cannot use.
    pub(super) fn lease(&self) -> Lease {
        match self.role {
            ListenerRole::Data { .. } => self.resources.memory.lease(),
            ListenerRole::Admin(_) | ListenerRole::Metrics(_) => self.resources.memory.control_lease(),
        }
    }

    /// Serves a client's request. Rejects a request that specifies its length twice: a proxy may see another request in
    /// it.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        client: Option<SocketAddr>,
        is_ambiguous: bool,
        linger: &LingerFlag,
    ) -> Result<Answered, Infallible> {
        let started = Instant::now();
        let online = request.uri().path() == "/get-online-features";
        let endpoint = if online { &self.metrics.online } else { &self.metrics.other };
        let path = self.known_path(request.uri().path());
        let (head, body) = request.into_parts();
        let mut body = RequestBody::new(body, head.headers.contains_key(EXPECT));
        let mut response = match self.checked_route(&Request::from_parts(head, ()), &mut body, is_ambiguous).await {
            Ok(response) => {
                endpoint.success.increment(1);
                response
            }
            Err(error) => failed(endpoint, &error, path, client),
        };
        if !body.skip().await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            linger.set();
        }
        let took = started.elapsed();
        endpoint.duration.record(took.as_secs_f64());
        if took > TURN {
            yield_to_events().await;
        }
        Ok(response)
    }

    /// Routes a request with one `Host` and one length.
    async fn checked_route(
        &self,
        request: &Request<()>,
        body: &mut RequestBody,
        is_ambiguous: bool,
    ) -> Result<Answered, HttpError> {
        let bad = |message: &str| {
            let mut error = HttpError::detail(StatusCode::BAD_REQUEST, "bad_request", message);
            error.header = Some(Box::new((CONNECTION, HeaderValue::from_static("close"))));
            error
        };
        if is_ambiguous {
            return Err(bad("A request must not have both Content-Length and Transfer-Encoding."));
        }
        let hosts = request.headers().get_all(HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            return Err(bad("A request must have exactly one Host header."));
        }
        self.route(request, body).await
    }

    /// The path for the log if it is a known one, because others could be anything.
    fn known_path(&self, path: &str) -> &'static str {
        const PATHS: [&str; 8] =
            ["/get-online-features", "/v1/catalog", "/v1/sync", "/v1/reload", PLUGINS, "/metrics", "/health", "/ready"];
        let known = PATHS.into_iter().chain(Writes::PATHS).find(|known| *known == path);
        known.unwrap_or(if path.starts_with(PLUGINS_BELOW) { PLUGINS } else { "unknown" })
    }

    /// Appends the body of the answer to a plain request.
    pub(super) fn answer_plain(&self, request: &FastRequest<'_>, out: &mut Vec<u8>) -> FastAnswer {
        let started = Instant::now();
        let scope = match &self.role {
            ListenerRole::Metrics(_) => return FastAnswer::Not,
            ListenerRole::Data { tokens: Some(tokens), .. } => match request.admit(tokens) {
                Some(scope) => Some(scope),
                None => return FastAnswer::Not,
            },
            ListenerRole::Data { tokens: None, .. } | ListenerRole::Admin(_) => None,
        };
        let snapshot = self.current.load();
        if snapshot.reads_through() {
            return FastAnswer::Not;
        }
        let offload = |compute: &Compute| {
            let (snapshot, body) = (Arc::clone(&snapshot), Bytes::copy_from_slice(request.body));
            let lookup = LargeLookup { snapshot, body, scope: scope.clone(), form: Form::Json };
            Ok(FastAnswer::Offloaded(Box::new(lookup.offload(&self.resources, compute)?), started))
        };
        let answered = (|| -> Result<FastAnswer, HttpError> {
            let decoded = decode_request(request.body)?;
            check_scope(scope.as_deref(), &decoded)?;
            let mut budget = self.resources.thread_budget();
            let planned = snapshot.begin(&decoded, &budget)?;
            if let Some(compute) = snapshot.compute_for(&planned) {
                return offload(compute);
            }
            let answer = snapshot.finish(planned, &decoded, &mut budget)?;
            write_answer(&answer, out, &mut budget)?;
            Ok(FastAnswer::Here(started, answer.now))
        })();
        match answered {
            Err(error) if error.is_too_long() => offload(&self.resources.compute),
            answered => answered,
        }
        .unwrap_or(FastAnswer::Not)
    }

    /// Counts a plain request that went wrong, and returns the body that says so.
    pub(super) fn fail_plain(&self, started: Instant, error: &HttpError, client: Option<SocketAddr>) -> Vec<u8> {
        note_failed(&self.metrics.online, error, "/get-online-features", client);
        self.metrics.online.duration.record(started.elapsed().as_secs_f64());
        error.body.to_string().into_bytes()
    }

    /// Counts a fast-path request that was served, and returns how long it took.
    pub(super) fn note_plain(&self, started: Instant) -> Duration {
        let took = started.elapsed();
        self.metrics.online.success.increment(1);
        self.metrics.online.duration.record(took.as_secs_f64());
        took
    }

    async fn route(&self, request: &Request<()>, body: &mut RequestBody) -> Result<Answered, HttpError> {
        // What HEAD asks for is the head of GET's answer; hyper leaves its body out.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        match (&self.role, method, request.uri().path()) {
            (ListenerRole::Data { .. } | ListenerRole::Admin(_), &Method::POST, "/get-online-features") => {
                let scope = self.admit(request)?;
                let form = Form::wanted(request.headers());
                let body = self.read_body(body, self.limits.body_bytes_max).await?;
                match self.online_features(body.clone(), scope.clone(), form).await {
                    Err(error) if error.names_unknown() && self.renew_definitions().await => {
                        self.online_features(body, scope, form).await
                    }
                    answered => answered,
                }
            }
            (ListenerRole::Data { writes, .. }, &Method::POST, path) if Writes::PATHS.contains(&path) => {
                let scope = self.admit(request)?;
                let Some(writes) = writes else {
                    return Err(HttpError::forbidden("This server takes no writes ('server: writes' is off)."));
                };
                let uri = request.uri().clone();
                let body = self.read_body(body, self.limits.body_bytes_max).await?;
                let mut tree = self.lease();
                if body.len() > SMALL_BYTES {
                    let weighed = body.clone();
                    // This thread must not scan megabytes.
                    let bytes = tokio::task::spawn_blocking(move || tree_bytes(&weighed)).await;
                    tree.grow(
                        bytes
                            .map_err(|_| HttpError::internal("estimating the memory of a body panicked".to_owned()))?,
                    )?;
                }
                let written = writes.answer(uri.path(), uri.query(), body, scope.as_deref());
                // A push reaches the disk within a moment, even during a shutdown.
                let is_load = uri.path().starts_with("/materialize");
                let (status, body) = if is_load { self.unless_given_up(written).await? } else { written.await? };
                drop(tree);
                Ok(body.map_or_else(|| whole(status, None, Bytes::new()), |body| json_response(status, &body)))
            }
            (_, &Method::GET, "/health") => Ok(whole(StatusCode::OK, None, Bytes::new())),
            (_, &Method::GET, "/ready") => Ok(self.ready()),
            (ListenerRole::Data { .. } | ListenerRole::Admin(_), &Method::GET, "/v1/catalog") => {
                let scope = self.admit(request)?;
                self.catalog(scope).await
            }
            (ListenerRole::Admin(control), &Method::POST, "/v1/sync") => {
                let control = Arc::clone(control);
                let body = self.read_body(body, self.limits.body_bytes_max).await?;
                sync(control, &body)
            }
            (ListenerRole::Admin(control), _, path) if path == PLUGINS || path.starts_with(PLUGINS_BELOW) => {
                self.plugins(Arc::clone(control), request, body).await
            }
            (ListenerRole::Admin(control), &Method::POST, DELETE) => {
                let control = Arc::clone(control);
                let delete: DeleteCommand = command(&self.read_body(body, self.limits.body_bytes_max).await?)?;
                self.unless_given_up(blocking(move || control.delete(&delete))).await
            }
            (ListenerRole::Admin(control), &Method::POST, RESET) => {
                let control = Arc::clone(control);
                let reset: ResetCommand = command(&self.read_body(body, self.limits.body_bytes_max).await?)?;
                self.unless_given_up(blocking(move || control.reset(&reset))).await
            }
            (ListenerRole::Admin(control), &Method::POST, "/v1/reload") => {
                self.unless_given_up(reload(Arc::clone(control))).await
            }
            (ListenerRole::Metrics(metrics), &Method::GET, "/metrics") => {
                let (text, mut lease) = (metrics.render(), self.lease());
                lease.grow(text.capacity())?;
                Ok(whole(StatusCode::OK, Some(PROMETHEUS), leased_bytes(text, lease)))
            }
            _ => self.elsewhere(request),
        }
    }

    /// Who knocks, by what they may ask for; none where everybody may ask for everything.
    fn admit(&self, request: &Request<()>) -> Result<Option<Arc<Scope>>, HttpError> {
        match &self.role {
            ListenerRole::Data { tokens: Some(tokens), .. } => Ok(Some(tokens.admit(request.headers())?)),
            _ => Ok(None),
        }
    }

    /// Reloads changed definitions before a name is reported as unknown: it may just have been applied. Returns whether
    /// they changed.
    async fn renew_definitions(&self) -> bool {
        let ListenerRole::Data { definitions, .. } = &self.role else { return false };
        if !definitions.is_always_wanted() {
            // A caller of unknown names must not slow down others.
            let (now, last) = (self.clock.now(), self.renewed.load(Ordering::Relaxed));
            let is_due = now.saturating_sub(last) >= RENEWAL_EVERY || now < last;
            let is_first = || self.renewed.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if !is_due || !is_first() {
                return false;
            }
        }
        let definitions = Arc::clone(definitions);
        tokio::task::spawn_blocking(move || definitions.renew(false)).await.unwrap_or(false)
    }

    async fn online_features(&self, body: Bytes, scope: Option<Arc<Scope>>, form: Form) -> Result<Answered, HttpError> {
        let fetched = self.fetch_first(&body, scope.as_ref()).await?;
        let body = match self.features_here(body, scope, form)? {
            Features::Answer(body) => body,
            // The thread that waits for these answers others meanwhile.
            Features::Offloaded(answer) => completed(answer).await?,
        };
        let mut response = whole(StatusCode::OK, Some(form.content_type()), body);
        if let Some(word) = match fetched {
            Fetched::All => None,
            Fetched::Late => Some(HeaderValue::from_static("late")),
            Fetched::Away => Some(HeaderValue::from_static("away")),
        } {
            response.headers_mut().insert(READ_THROUGH, word);
        }
        Ok(response)
    }

    /// Brings rows here that are asked for and are not, where views are only in part. Its word says if they are not all
    /// here now.
    async fn fetch_first(&self, body: &Bytes, scope: Option<&Arc<Scope>>) -> Result<Fetched, HttpError> {
        if !self.current.load().reads_through() {
            return Ok(Fetched::All);
        }
        let snapshot = self.current.load_full();
        let to_fetch = {
            let (body, scope) = (body.clone(), scope.cloned());
            move |mut budget: ResponseBudget| {
                // Parsed again for the response: a request borrows from its body, and nothing is held across a wait.
                let request = decode_request(&body)?;
                check_scope(scope.as_deref(), &request)?;
                let wanted = snapshot.to_fetch(&request, &mut budget);
                let wanted = wanted.map_err(|error| in_scope(error, scope.as_deref()))?;
                // Their memory is released with them.
                Ok::<_, HttpError>((wanted, budget))
            }
        };
        // What came may have had to go again before it was looked up, where the share of the disk is small.
        for _ in 0..FETCH_ROUNDS {
            let is_small = body.len() <= THREAD_BODY_BYTES_MAX;
            let here = is_small.then(|| to_fetch(self.resources.thread_budget()));
            let (wanted, _budget) = match here {
                Some(Err(error)) if !error.is_too_long() => return Err(error),
                Some(Ok(wanted)) => wanted,
                _ => {
                    let (to_fetch, budget) = (to_fetch.clone(), self.resources.leased_budget());
                    completed(offload(&self.resources.compute, move || to_fetch(budget))?).await?
                }
            };
            let fetched = fetch_all(wanted).await;
            if fetched != Some(Fetched::All) {
                return Ok(fetched.unwrap_or_default());
            }
        }
        Ok(Fetched::Late)
    }

    /// Answers a request on this thread, unless that would take too long.
    fn features_here(&self, body: Bytes, scope: Option<Arc<Scope>>, form: Form) -> Result<Features, HttpError> {
        let snapshot = self.current.load();
        let lookup = LargeLookup { snapshot: Arc::clone(&snapshot), body, scope, form };
        if lookup.body.len() > THREAD_BODY_BYTES_MAX {
            return lookup.offload(&self.resources, &self.resources.compute).map(Features::Offloaded);
        }
        let here = (|| {
            let request = decode_request(&lookup.body)?;
            let scope = lookup.scope.as_deref();
            check_scope(scope, &request)?;
            let mut budget = self.resources.thread_budget();
            let planned = snapshot.begin(&request, &budget).map_err(|error| in_scope(error, scope))?;
            if snapshot.compute_for(&planned).is_some() {
                return Ok(Err(planned));
            }
            let answer = snapshot.finish(planned, &request, &mut budget)?;
            lease_answer(&self.resources.memory, form.encode(&answer, &mut budget)?).map(Ok)
        })();
        match here {
            Ok(Ok(answer)) => Ok(Features::Answer(answer)),
            Ok(Err(planned)) => {
                let compute = snapshot.compute_for(&planned).unwrap_or(&self.resources.compute);
                lookup.offload(&self.resources, compute).map(Features::Offloaded)
            }
            Err(error) if error.is_too_long() => {
                lookup.offload(&self.resources, &self.resources.compute).map(Features::Offloaded)
            }
            Err(error) => Err(error),
        }
    }

    /// The part of the catalog that the caller may see. A large catalog is built on a compute thread.
    async fn catalog(&self, scope: Option<Arc<Scope>>) -> Result<Answered, HttpError> {
        let (snapshot, now, mut lease) = (self.current.load_full(), self.clock.now(), self.lease());
        let bytes = catalog_bytes(&snapshot);
        lease.grow(bytes)?;
        let describe = move || {
            let catalog = describe_catalog(&snapshot, now, scope.as_deref().unwrap_or(&Scope::All)).to_string();
            lease.resize(catalog.capacity())?;
            Ok(leased_bytes(catalog, lease))
        };
        let body = if bytes <= THREAD_BODY_BYTES_MAX {
            describe()?
        } else {
            completed(offload(&self.resources.compute, describe)?).await?
        };
        Ok(whole(StatusCode::OK, Some(JSON), body))
    }

    /// Ready means loaded, and stays so while the sources are away: staleness is shown elsewhere.
    fn ready(&self) -> Answered {
        if self.stopping.load(Ordering::Relaxed) {
            return json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "stopping" }));
        }
        let snapshot = self.current.load();
        if snapshot.is_ready() {
            return json_response(StatusCode::OK, &json!({ "status": "ready" }));
        }
        if snapshot.store().failure().is_some() {
            let body = json!({ "status": "failing", "why": "the store failed; the log says how" });
            return json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
        }
        if snapshot.awaits_registry() {
            let body =
                json!({ "status": "waiting", "why": "the Feast registry is not written yet. hint: run 'feast apply'" });
            return json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
        }
        let damaged: Vec<&str> = snapshot.damaged().take(LISTED_MAX).collect();
        let status = if damaged.is_empty() { "loading" } else { "healing" };
        // A caller without a token, or with a token for some services, must not learn names.
        if let ListenerRole::Data { tokens: Some(_), .. } = self.role {
            return json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": status }));
        }
        if !damaged.is_empty() {
            let why = "rows were lost to damage and are being loaded again";
            let body = json!({ "status": status, "why": why, "feature_views": damaged });
            return json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
        }
        let missing: Vec<&str> = snapshot.not_loaded().take(LISTED_MAX).collect();
        json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "loading", "feature_views": missing }))
    }

    /// Reads a body within its limits.
    async fn read_body(&self, body: &mut RequestBody, max: usize) -> Result<Bytes, HttpError> {
        body.read(max, self.lease(), self.limits.body_timeout).await
    }

    /// What the admin door does with plugins.
    async fn plugins(
        &self,
        control: Arc<dyn Control>,
        request: &Request<()>,
        body: &mut RequestBody,
    ) -> Result<Answered, HttpError> {
        let method = request.method().clone();
        let rest = request.uri().path().strip_prefix(PLUGINS_BELOW).map(str::to_owned);
        let rollback = rest.as_deref().and_then(|rest| rest.strip_suffix("/rollback")).map(str::to_owned);
        match (method, rest, rollback) {
            (Method::GET | Method::HEAD, None, _) => {
                let plugins = control.plugins();
                Ok(json_response(StatusCode::OK, &json!({ "plugins": plugins })))
            }
            (Method::POST, None, _) => {
                let file = self.read_body(body, control.plugin_bytes_max()).await?;
                self.unless_given_up(blocking(move || control.deploy(&file))).await
            }
            (Method::POST, Some(_), Some(plugin)) => {
                self.unless_given_up(blocking(move || control.roll_back(&plugin))).await
            }
            _ => self.elsewhere(request),
        }
    }

    /// The answer to what no route takes: another method, another spelling, or nothing.
    fn elsewhere(&self, request: &Request<()>) -> Result<Answered, HttpError> {
        let (method, path) = (request.method(), request.uri().path());
        if let Some(allow) = self.allowed(path) {
            let mut error = HttpError::detail(StatusCode::METHOD_NOT_ALLOWED, "method", "Method Not Allowed");
            error.header = Some(Box::new((ALLOW, HeaderValue::from_static(allow))));
            return Err(error);
        }
        // As Feast's server does: a slash too many leads to the path without it.
        let trimmed = path.trim_end_matches('/');
        let scheme = if matches!(self.role, ListenerRole::Data { encrypted: true, .. }) { "https" } else { "http" };
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if let (Some(allow), Some(host)) = (self.allowed(trimmed), host)
            && allow.split(", ").any(|allowed| allowed == method.as_str())
            && let Ok(location) = HeaderValue::from_str(&format!("{scheme}://{host}{trimmed}"))
        {
            let mut response = whole(StatusCode::TEMPORARY_REDIRECT, None, Bytes::new());
            response.headers_mut().insert(LOCATION, location);
            return Ok(response);
        }
        Err(HttpError::detail(StatusCode::NOT_FOUND, "not_found", "Not Found"))
    }

    /// The methods that a path takes behind this door, if it is one.
    fn allowed(&self, path: &str) -> Option<&'static str> {
        match (&self.role, path) {
            (_, "/health" | "/ready") | (ListenerRole::Data { .. } | ListenerRole::Admin(_), "/v1/catalog") => {
                Some("GET, HEAD")
            }
            (ListenerRole::Data { .. } | ListenerRole::Admin(_), "/get-online-features") => Some("POST"),
            (ListenerRole::Data { .. }, path) if Writes::PATHS.contains(&path) => Some("POST"),
            (ListenerRole::Admin(_), "/v1/sync" | "/v1/reload" | DELETE | RESET) => Some("POST"),
            (ListenerRole::Admin(_), PLUGINS) => Some("GET, HEAD, POST"),
            (ListenerRole::Admin(_), path) if path.starts_with(PLUGINS_BELOW) && path.ends_with("/rollback") => {
                Some("POST")
            }
            (ListenerRole::Metrics(_), "/metrics") => Some("GET, HEAD"),
            _ => None,
        }
    }
}

/// Counts and logs a failed request. Client errors are logged at `debug`, with their kind and names, but no values.
fn note_failed(endpoint: &EndpointMetrics, error: &HttpError, path: &'static str, client: Option<SocketAddr>) {
    endpoint.error.increment(1);
    endpoint.count_error(error.kind);
    if let Some(log) = &error.log {
        tracing::error!(kind = error.kind, "{log}");
    }
    let reason = error.reason.as_deref().unwrap_or(error.kind);
    let client = client.map_or_else(|| "local".to_owned(), |client| client.to_string());
    tracing::debug!(
        client,
        endpoint = path,
        status = error.status.as_u16(),
        kind = error.kind,
        reason,
        "request failed"
    );
}

fn failed(endpoint: &EndpointMetrics, error: &HttpError, path: &'static str, client: Option<SocketAddr>) -> Answered {
    note_failed(endpoint, error, path, client);
    let mut response = json_response(error.status, &error.body);
    if let Some(header) = &error.header {
        response.headers_mut().insert(&header.0, header.1.clone());
    }
    response
}

pub(super) fn json_response(status: StatusCode, body: &Value) -> Answered {
    whole(status, Some(JSON), body.to_string().into())
}

fn whole(status: StatusCode, content_type: Option<HeaderValue>, body: Bytes) -> Answered {
    let mut response = Response::new(AnswerBody::Whole(body));
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}
