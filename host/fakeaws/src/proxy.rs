//! A proxy that injects faults of networks and of AWS.
//!
//! The proxy has two parts. The pump copies bytes between the client's socket and the proxy's HTTP server, and
//! simulates a wire that is slow, unplugged or silent. The HTTP server reads requests, applies rules to them, and
//! forwards them to the upstream server. A test can change both the wire and the rules while requests are in progress.

mod faults;
mod pump;

use std::{
    cell::RefCell,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::spawn_local,
    time::{sleep, timeout},
};

pub use self::faults::{Fault, Match, When};
use self::{
    faults::Rule,
    pump::{Cut, Orders, Wire},
};
use crate::serve::{Running, run};

/// The timeout for a response from the upstream server. A test that needs more time has a bug.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(60);

/// A proxy in front of an upstream server. The proxy stops when its last handle is dropped.
#[derive(Clone, Debug)]
pub struct FaultProxy {
    control: Arc<Control>,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Control {
    upstream: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    wire: watch::Sender<Wire>,
    connections: AtomicU64,
    /// The number of requests without a fault.
    passed: AtomicU64,
    /// The number of requests with a fault.
    faulted: AtomicU64,
    bytes: AtomicU64,
    ignored: AtomicU64,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// Starts a proxy in front of this upstream server, without faults.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let control = Arc::new(Control {
            upstream,
            rules: Mutex::default(),
            wire: watch::Sender::new(Wire::default()),
            connections: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&control);
        let running = run(move |stream| connection(stream, Arc::clone(&accepting)));
        Self { control, running: Arc::new(running) }
    }

    /// Returns the proxy's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// Returns the proxy's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Plugs the wire in, or unplugs it. Unplugging resets open connections, and new connections are then refused.
    pub fn plug(&self, is_plugged: bool) {
        self.change_wire(|wire| wire.is_plugged = is_plugged);
    }

    /// Sets whether the proxy listens. If it does not listen, new connections are refused, and open connections
    /// continue.
    pub fn listen(&self, is_listening: bool) {
        self.change_wire(|wire| wire.is_listening = is_listening);
    }

    /// Delays the bytes that clients send.
    pub fn delay(&self, delay: Duration) {
        self.change_wire(|wire| wire.delay = delay);
    }

    /// Sets the bandwidth in bytes per second, for each connection and direction; `None` for no limit.
    pub fn bandwidth(&self, bytes: Option<u64>) {
        self.change_wire(|wire| wire.bandwidth = bytes);
    }

    /// Sets whether the wire is silent. If it is, connections are accepted and read, but get no response. A connection
    /// whose bytes were dropped during that time stays silent.
    pub fn silence(&self, is_silent: bool) {
        self.change_wire(|wire| wire.is_silent = is_silent);
    }

    /// Closes connections after this many bytes of a response, including its head; `None` for complete responses.
    pub fn truncate(&self, bytes: Option<usize>) {
        self.change_wire(|wire| wire.truncate = bytes);
    }

    /// Sets whether connections are half closed: the direction to the client is closed, but bytes from the client are
    /// still read. A half-closed connection stays half closed.
    pub fn half_close(&self, is_closed: bool) {
        self.change_wire(|wire| wire.is_half_closed = is_closed);
    }

    /// Adds a rule for requests. At most one rule applies to a request: the first rule that matches the request and is
    /// due according to its [`When`].
    pub fn rule(&self, what: impl Into<Match>, when: When, fault: Fault) {
        self.control.rules().push(Rule::new(what.into(), when, fault));
    }

    /// Adds a rule that responds to calls of a DynamoDB operation with this error.
    pub fn refuse(&self, operation: &str, when: When, status: u16, kind: &str) {
        self.rule(operation, when, Fault::error(status, kind));
    }

    /// Removes all rules, and resets the wire: it is plugged in, listens, and has no faults.
    pub fn heal(&self) {
        self.control.rules().clear();
        self.change_wire(|wire| *wire = Wire::default());
    }

    /// Returns the number of requests without a fault, and the number of requests with a fault.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.control.passed.load(Ordering::Relaxed), self.control.faulted.load(Ordering::Relaxed))
    }

    /// Returns the number of response bytes sent to clients, including heads.
    #[must_use]
    pub fn bytes_passed(&self) -> u64 {
        self.control.bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of request bytes that were read and dropped, because the wire was silent or half closed.
    #[must_use]
    pub fn bytes_ignored(&self) -> u64 {
        self.control.ignored.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that were accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.control.connections.load(Ordering::Relaxed)
    }

    fn change_wire(&self, change: impl FnOnce(&mut Wire)) {
        self.control.wire.send_modify(change);
        let wire = *self.control.wire.borrow();
        self.running.listen(wire.is_plugged && wire.is_listening);
    }
}

// === impl Control ===

impl Control {
    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Fault> {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let mut rules = self.rules();
        let mut matching = rules.iter_mut().filter(|rule| rule.matches(method, path, target));
        matching.find_map(Rule::apply)
    }
}

async fn connection(stream: TcpStream, control: Arc<Control>) {
    control.connections.fetch_add(1, Ordering::Relaxed);
    let orders = Rc::new(Orders::default());
    let upstream = Rc::new(RefCell::new(None));
    let wire = control.wire.subscribe();
    let (near, far) = pump::pipe();
    let (service_orders, counting) = (Rc::clone(&orders), Arc::clone(&control));
    let service = service_fn(move |request: Request<Incoming>| {
        let (control, orders, upstream) = (Arc::clone(&control), Rc::clone(&service_orders), Rc::clone(&upstream));
        async move { Ok::<_, Infallible>(respond(request, &control, &orders, &upstream).await) }
    });
    let http = async move {
        // A connection that a test breaks causes an error, which is ignored.
        let _ = server::Builder::new().serve_connection(TokioIo::new(far), service).await;
    };
    pump::run(stream, near, http, wire, &orders, (&counting.bytes, &counting.ignored)).await;
}

type Upstream = RefCell<Option<SendRequest<Full<Bytes>>>>;

/// Responds to a request: with the fault of a rule, or with the upstream server's response.
async fn respond(
    request: Request<Incoming>,
    control: &Control,
    orders: &Orders,
    upstream: &Upstream,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    orders.begin();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let fault = control.fault(&head.method, path, &head.headers);
    let count = if fault.is_some() { &control.faulted } else { &control.passed };
    count.fetch_add(1, Ordering::Relaxed);
    match &fault {
        Some(Fault::Reset) => return orders.reset().await,
        Some(Fault::Silence) => return std::future::pending().await,
        Some(Fault::Delay(delay)) => sleep(*delay).await,
        Some(Fault::Respond(status, headers, body)) => {
            let response = headers.iter().fold(Response::builder().status(*status), |response, (name, value)| {
                response.header(name.as_str(), value.as_str())
            });
            return response.body(Full::from(body.clone())).expect("the response of a rule is valid");
        }
        _ => {}
    }
    let forwarded = forward(Request::from_parts(head, body), control.upstream, upstream);
    let Some(mut response) = timeout(UPSTREAM_TIMEOUT, forwarded).await.ok().flatten() else {
        // The upstream server does not respond, so the client gets a connection error, as it would without the proxy.
        return orders.reset().await;
    };
    match fault {
        Some(Fault::Truncate(bytes)) => orders.cut(Cut::Response(bytes)),
        Some(Fault::ShortBody(bytes)) => orders.cut(Cut::Body(bytes)),
        Some(Fault::WrongChecksum) => {
            let right = response.headers().get("x-amz-crc32").and_then(|text| text.to_str().ok()?.parse::<u32>().ok());
            let wrong = right.unwrap_or(0).wrapping_add(1);
            response.headers_mut().insert("x-amz-crc32", wrong.into());
        }
        _ => {}
    }
    response
}

/// Sends a request to the upstream server. All requests of a client connection use the same upstream connection, as
/// long as it is open. Returns `None` if the upstream server does not respond.
async fn forward(request: Request<Bytes>, address: SocketAddr, upstream: &Upstream) -> Option<Response<Full<Bytes>>> {
    let (mut head, body) = request.into_parts();
    // The body is complete, so it is sent with its length and without waiting for `100 Continue`.
    head.headers.remove(EXPECT);
    if head.headers.remove(TRANSFER_ENCODING).is_some() {
        head.headers.insert(CONTENT_LENGTH, body.len().into());
    }
    let kept = upstream.borrow_mut().take().filter(|sender| !sender.is_closed());
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(address).await.ok()?;
            let _ = stream.set_nodelay(true);
            let (sender, connection) = client::handshake(TokioIo::new(stream)).await.ok()?;
            spawn_local(connection);
            sender
        }
    };
    sender.ready().await.ok()?;
    let response = sender.send_request(Request::from_parts(head, Full::from(body))).await.ok()?;
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    head.headers.remove(TRANSFER_ENCODING);
    *upstream.borrow_mut() = Some(sender);
    Some(Response::from_parts(head, Full::from(body)))
}
