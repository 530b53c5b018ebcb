//! Dispatches requests to their handlers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{ALLOW, AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderValue, LOCATION},
};
use larder_common::{
    clock::SharedClock,
    compute::Owner,
    memory::{Lease, SMALL_BYTES, leased_bytes},
    telemetry::Metrics,
};
use larder_ingest::READ_THROUGH_HEADER;
use larder_model::model::Micros;
use larder_serving::{
    Attempt, Authenticator, Authorization, ConnectionLimits, Lookup, LookupResponse, LookupService,
    THREAD_BODY_BYTES_MAX, offload,
};
use tokio::sync::watch;
use tracing::Instrument as _;

use super::{
    Control, HttpError, Writes,
    accept::{JSON, LookupFormat},
    catalog::{catalog_bytes, describe_catalog},
    commands,
    limited_io::{LingerFlag, yield_to_events},
    metrics::HttpMetrics,
    readiness::readiness,
    request_body::RequestBody,
    response::{HttpResponse, bytes_response, error_response, json_response, note_failed},
    routes::{
        AuthorizedEndpoint, CommandEndpoint, Endpoint, ListenerKind, ONLINE_FEATURES, PublicEndpoint, RouteMatch,
        WriteEndpoint, find_route, known_path,
    },
    weight::tree_bytes,
};

/// Answers the requests to one listener.
#[derive(Debug)]
pub struct Router {
    lookups: Arc<LookupService>,
    clock: SharedClock,
    limits: ConnectionLimits,
    pub(super) metrics: HttpMetrics,
    /// Set when a shutdown begins. From then on, `/ready` reports that the server is stopping. Requests are still
    /// answered.
    stopping: AtomicBool,
    /// Set later during the shutdown. From then on, requests that wait for a materialization or a command get an error.
    waits_aborted: watch::Sender<bool>,
    authenticator: Arc<Authenticator>,
    role: ListenerRole,
}

/// What a listener serves in addition to health and readiness.
#[derive(Clone, Debug)]
pub enum ListenerRole {
    /// Lookups, the catalog, and writes if they are turned on.
    Data {
        /// Authenticates callers.
        authenticator: Arc<Authenticator>,
        /// Whether the listener uses TLS.
        encrypted: bool,
        /// The handler of writes, if the server accepts them.
        writes: Option<Arc<Writes>>,
    },
    /// Lookups, the catalog and commands.
    Admin(Arc<dyn Control>),
    /// Metrics.
    Metrics(Metrics),
}

/// The result of a lookup on the fast path.
pub(super) enum FastAnswer {
    /// The body was appended. The first value is the time of the lookup, for the `date` header. The second is how long
    /// the lookup took.
    Done(Micros, Duration),
    /// Another thread computes the response, or rows are fetched. The second value is when the lookup started. When the
    /// lookup ends, call [`Router::note_fast`] with this value and the result.
    Pending(PendingAnswer, Instant),
    /// The error, and how long it took.
    Failed(HttpError, Duration),
}

/// The response to a lookup that other threads continue.
pub(super) type PendingAnswer = Pin<Box<dyn Future<Output = Result<LookupResponse, HttpError>> + Send>>;

const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// If a request takes longer than this, its serving thread serves other connections next.
pub(super) const YIELD_AFTER: Duration = Duration::from_millis(1);

// === impl Router ===

impl Router {
    /// Creates the router of a listener.
    #[must_use]
    pub fn new(lookups: Arc<LookupService>, clock: SharedClock, limits: ConnectionLimits, role: ListenerRole) -> Self {
        let (metrics, stopping, waits_aborted) =
            (HttpMetrics::bind(), AtomicBool::new(false), watch::Sender::new(false));
        let authenticator = match &role {
            ListenerRole::Data { authenticator, .. } => Arc::clone(authenticator),
            // Only the owner of the admin socket can open it, and the metrics listener has no endpoint that needs a
            // token.
            ListenerRole::Admin(_) | ListenerRole::Metrics(_) => Arc::new(Authenticator::open()),
        };
        Self { lookups, clock, limits, metrics, stopping, waits_aborted, authenticator, role }
    }

    /// Makes `/ready` report from now on that the server is stopping.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Makes requests that wait for a materialization or a command return an error. The server is stopping, and their
    /// work may hang because of a source.
    pub(super) fn abort_waits(&self) {
        self.waits_aborted.send_replace(true);
    }

    /// Waits for work that may hang because of a source, at most until [`Router::abort_waits`].
    async fn unless_aborted<T>(&self, work: impl Future<Output = Result<T, HttpError>>) -> Result<T, HttpError> {
        let mut waits_aborted = self.waits_aborted.subscribe();
        tokio::select! {
            biased;
            done = work => done,
            // The sender lives as long as `self`.
            _ = waits_aborted.wait_for(|waits_aborted| *waits_aborted) => {
                let message = "the server is stopping; committed rows are kept";
                Err(HttpError::detail(StatusCode::SERVICE_UNAVAILABLE, "stopping", message))
            }
        }
    }

    pub(super) fn now(&self) -> Micros {
        self.clock.now()
    }

    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Creates a lease for a request. Metrics and admin have a reserve that other requests cannot use.
    pub(super) fn lease(&self) -> Lease {
        let memory = &self.lookups.resources().memory;
        match self.role {
            ListenerRole::Data { .. } => memory.lease(),
            ListenerRole::Admin(_) | ListenerRole::Metrics(_) => memory.control_lease(),
        }
    }

    /// Answers a client's request. Rejects a request that specifies its length twice (`is_ambiguous`), because a proxy
    /// may have split the stream into requests differently.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        client: Option<SocketAddr>,
        is_ambiguous: bool,
        linger: &LingerFlag,
    ) -> Result<HttpResponse, Infallible> {
        let started = Instant::now();
        let online = request.uri().path() == ONLINE_FEATURES;
        let endpoint = if online { &self.metrics.online } else { &self.metrics.other };
        let path = known_path(request.uri().path());
        let (head, body) = request.into_parts();
        let mut body = RequestBody::new(body, head.headers.contains_key(EXPECT));
        let request = Request::from_parts(head, ());
        let span = tracing::debug_span!("request", endpoint = path, client = client.map(tracing::field::display));
        let mut response = match self.checked_route(&request, &mut body, is_ambiguous).instrument(span).await {
            Ok(response) => {
                endpoint.success.increment(1);
                response
            }
            Err(error) => error_response(endpoint, &error, path, client),
        };
        if !body.skip().await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            linger.set();
        }
        let took = started.elapsed();
        endpoint.duration.record(took.as_secs_f64());
        if took > YIELD_AFTER {
            yield_to_events().await;
        }
        Ok(response)
    }

    /// Routes a request, unless its length is ambiguous or its `Host` header is missing or repeated.
    async fn checked_route(
        &self,
        request: &Request<()>,
        body: &mut RequestBody,
        is_ambiguous: bool,
    ) -> Result<HttpResponse, HttpError> {
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

    /// Returns whether the fast path can serve requests to this listener.
    pub(super) fn has_fast_path(&self) -> bool {
        !matches!(self.role, ListenerRole::Metrics(_))
    }

    /// Serves a lookup on the fast path: appends the body of its response to `out`, if this thread can compute it
    /// within a few milliseconds. Records the result in the metrics and the log, unless it is pending.
    pub(super) fn answer_fast(
        &self,
        authorization: Option<&[u8]>,
        body: &[u8],
        out: &mut Vec<u8>,
        client: Option<SocketAddr>,
    ) -> FastAnswer {
        let _span =
            tracing::debug_span!("request", endpoint = ONLINE_FEATURES, client = client.map(tracing::field::display))
                .entered();
        let started = Instant::now();
        let served = self.authenticator.authenticate(authorization).map_err(HttpError::from);
        let served = served.and_then(|authorization| {
            let attempt = self.lookups.try_serve(&LookupFormat::Json, &authorization, body, out)?;
            Ok((attempt, authorization))
        });
        match served {
            Ok((Attempt::Done(now), _)) => FastAnswer::Done(now, self.note_fast(started, None, client)),
            Ok((Attempt::Unfinished(unfinished), authorization)) => {
                let lookups = Arc::clone(&self.lookups);
                let body = Bytes::copy_from_slice(body);
                let lookup = Lookup { protocol: LookupFormat::Json, authorization, body };
                let pending = async move { Ok(lookups.resume(lookup, unfinished).await?) };
                FastAnswer::Pending(Box::pin(pending), started)
            }
            Err(error) => {
                let took = self.note_fast(started, Some(&error), client);
                FastAnswer::Failed(error, took)
            }
        }
    }

    /// Records the result of a lookup on the fast path in the metrics and the log. Returns how long it took.
    pub(super) fn note_fast(
        &self,
        started: Instant,
        error: Option<&HttpError>,
        client: Option<SocketAddr>,
    ) -> Duration {
        let took = started.elapsed();
        match error {
            None => self.metrics.online.success.increment(1),
            Some(error) => note_failed(&self.metrics.online, error, ONLINE_FEATURES, client),
        }
        self.metrics.online.duration.record(took.as_secs_f64());
        took
    }

    /// Records that there was no memory for the response to a lookup on the fast path.
    pub(super) fn note_refused(&self, error: &HttpError, client: Option<SocketAddr>) {
        note_failed(&self.metrics.online, error, ONLINE_FEATURES, client);
    }

    async fn route(&self, request: &Request<()>, body: &mut RequestBody) -> Result<HttpResponse, HttpError> {
        match find_route(self.role.kind(), request.method(), request.uri().path()) {
            RouteMatch::Endpoint(Endpoint::Public(endpoint), _) => self.public(endpoint),
            RouteMatch::Endpoint(Endpoint::Authorized(endpoint), _) => {
                let authorization = self.authenticate(request.headers())?;
                self.authorized(endpoint, authorization, request, body).await
            }
            RouteMatch::Endpoint(Endpoint::Command(endpoint), name) => {
                self.command(endpoint, name, request.uri().query(), body).await
            }
            RouteMatch::WrongMethod(allowed) => {
                let mut error = HttpError::detail(StatusCode::METHOD_NOT_ALLOWED, "method", "Method Not Allowed");
                error.header = HeaderValue::from_str(&allowed).ok().map(|allowed| Box::new((ALLOW, allowed)));
                Err(error)
            }
            RouteMatch::Redirect(path) => self.redirect(path, request.headers()).ok_or_else(not_found),
            RouteMatch::Nothing => Err(not_found()),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Authorization, HttpError> {
        Ok(self.authenticator.authenticate(headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes))?)
    }

    fn public(&self, endpoint: PublicEndpoint) -> Result<HttpResponse, HttpError> {
        match (endpoint, &self.role) {
            (PublicEndpoint::Health, _) => Ok(bytes_response(StatusCode::OK, None, Bytes::new())),
            (PublicEndpoint::Ready, _) => {
                let is_stopping = self.stopping.load(Ordering::Relaxed);
                Ok(readiness(&self.lookups, is_stopping, self.authenticator.needs_token()))
            }
            (PublicEndpoint::Metrics, ListenerRole::Metrics(metrics)) => {
                let (text, mut lease) = (metrics.render(), self.lease());
                lease.grow(text.capacity())?;
                Ok(bytes_response(StatusCode::OK, Some(PROMETHEUS), leased_bytes(text, lease)))
            }
            (PublicEndpoint::Metrics, _) => Err(not_found()),
        }
    }

    async fn authorized(
        &self,
        endpoint: AuthorizedEndpoint,
        authorization: Authorization,
        request: &Request<()>,
        body: &mut RequestBody,
    ) -> Result<HttpResponse, HttpError> {
        match endpoint {
            AuthorizedEndpoint::OnlineFeatures => {
                let format = LookupFormat::negotiate(request.headers());
                let body = self.read_body(body).await?;
                self.online_features(Lookup { protocol: format, authorization, body }).await
            }
            AuthorizedEndpoint::Catalog => self.catalog(authorization).await,
            AuthorizedEndpoint::Write(endpoint) => {
                self.write(endpoint, &authorization, request.uri().query(), body).await
            }
        }
    }

    async fn online_features(&self, lookup: Lookup<LookupFormat>) -> Result<HttpResponse, HttpError> {
        let content_type = lookup.protocol.content_type();
        let LookupResponse { body, fetched } = self.lookups.serve(lookup).await?;
        let mut response = bytes_response(StatusCode::OK, Some(content_type), body);
        if let Some(reason) = fetched.reason() {
            response.headers_mut().insert(READ_THROUGH_HEADER, HeaderValue::from_static(reason));
        }
        Ok(response)
    }

    /// Returns the part of the catalog that the caller may see. A large catalog is built on a compute thread.
    async fn catalog(&self, authorization: Authorization) -> Result<HttpResponse, HttpError> {
        let (snapshot, now, mut lease) = (self.lookups.snapshot_full(), self.clock.now(), self.lease());
        let bytes = catalog_bytes(&snapshot);
        lease.grow(bytes)?;
        let describe = move || {
            let catalog = describe_catalog(&snapshot, now, &authorization).to_string();
            lease.resize(catalog.capacity())?;
            Ok::<_, HttpError>(leased_bytes(catalog, lease))
        };
        let body = if bytes <= THREAD_BODY_BYTES_MAX {
            describe()?
        } else {
            offload(&self.lookups.resources().compute, Owner::COMMON, describe).await?
        };
        Ok(bytes_response(StatusCode::OK, Some(JSON), body))
    }

    async fn write(
        &self,
        endpoint: WriteEndpoint,
        authorization: &Authorization,
        query: Option<&str>,
        body: &mut RequestBody,
    ) -> Result<HttpResponse, HttpError> {
        let ListenerRole::Data { writes: Some(writes), .. } = &self.role else {
            return Err(HttpError::forbidden("This server does not accept writes ('server: writes' is off)."));
        };
        let body = self.read_body(body).await?;
        let mut tree = self.lease();
        if body.len() > SMALL_BYTES {
            let weighed = body.clone();
            // Scanning megabytes would block this thread.
            let bytes = tokio::task::spawn_blocking(move || tree_bytes(&weighed)).await;
            tree.grow(bytes.map_err(|_| {
                HttpError::internal("estimating the memory of a body failed because of a bug in Larder".to_owned())
            })?)?;
        }
        let written = writes.answer(endpoint, query, body, authorization);
        let (status, body) = match endpoint {
            WriteEndpoint::Materialize | WriteEndpoint::MaterializeIncremental => self.unless_aborted(written).await?,
            // Other writes are not aborted, because they are on disk within milliseconds.
            WriteEndpoint::Push | WriteEndpoint::WriteToOnlineStore => written.await?,
        };
        drop(tree);
        Ok(body.map_or_else(|| bytes_response(status, None, Bytes::new()), |body| json_response(status, &body)))
    }

    async fn command(
        &self,
        endpoint: CommandEndpoint,
        name: Option<&str>,
        query: Option<&str>,
        body: &mut RequestBody,
    ) -> Result<HttpResponse, HttpError> {
        let ListenerRole::Admin(control) = &self.role else { return Err(not_found()) };
        let body = match endpoint {
            CommandEndpoint::DeployPlugin => self.read_plugin(body, control.plugin_bytes_max()).await?,
            _ if commands::has_body(endpoint) => self.read_body(body).await?,
            _ => Bytes::new(),
        };
        let name = name.unwrap_or_default().to_owned();
        let done = commands::run(endpoint, Arc::clone(control), name, query, body);
        // A sync returns its response at once; the body is a stream that ends with the sync.
        self.unless_aborted(done).await
    }

    /// Reads a body within the limits of the listener.
    async fn read_body(&self, body: &mut RequestBody) -> Result<Bytes, HttpError> {
        let hint = "hint: raise 'server: limits: body_bytes_max'";
        body.read(self.limits.body_bytes_max, hint, self.lease(), self.limits.body_timeout).await
    }

    /// Reads the file of a plugin, of at most `max` bytes.
    async fn read_plugin(&self, body: &mut RequestBody, max: usize) -> Result<Bytes, HttpError> {
        let hint = "this is the size limit of a plugin, which is 0 if the server runs no plugins";
        body.read(max, hint, self.lease(), self.limits.body_timeout).await
    }

    /// Returns a redirect to a path of this server, or `None` if the request has no valid `Host`.
    fn redirect(&self, path: &str, headers: &HeaderMap) -> Option<HttpResponse> {
        let scheme = if matches!(self.role, ListenerRole::Data { encrypted: true, .. }) { "https" } else { "http" };
        let host = headers.get(HOST)?.to_str().ok()?;
        let location = HeaderValue::from_str(&format!("{scheme}://{host}{path}")).ok()?;
        let mut response: Response<_> = bytes_response(StatusCode::TEMPORARY_REDIRECT, None, Bytes::new());
        response.headers_mut().insert(LOCATION, location);
        Some(response)
    }
}

// === impl ListenerRole ===

impl ListenerRole {
    fn kind(&self) -> ListenerKind {
        match self {
            Self::Data { .. } => ListenerKind::Data,
            Self::Admin(_) => ListenerKind::Admin,
            Self::Metrics(_) => ListenerKind::Metrics,
        }
    }
}

fn not_found() -> HttpError {
    HttpError::detail(StatusCode::NOT_FOUND, "not_found", "Not Found")
}
