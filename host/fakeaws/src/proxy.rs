//! A proxy that does harm: what networks and AWS do on bad days.
//!
//! Between the client's socket and the HTTP server of the proxy lies a pump, which passes bytes on as the wire is at the
//! time: slow, cut off, silent. The HTTP server knows requests, and does to them what the rules say. A test turns both
//! while requests are under way.

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

/// How long the server behind it may take: a test that waits longer has failed.
const UPSTREAM_WITHIN: Duration = Duration::from_secs(60);

/// A proxy before a server; it ends with its last handle.
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
    passed: AtomicU64,
    faulted: AtomicU64,
    bytes: AtomicU64,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// A proxy before this server, which lets everything pass.
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
        });
        let accepting = Arc::clone(&control);
        let running = run(move |stream| connection(stream, Arc::clone(&accepting)));
        Self { control, running: Arc::new(running) }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// The same as an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Pulls the plug, or puts it in again: without it open connections are reset, and new ones at once.
    pub fn plug(&self, is_in: bool) {
        self.turn(|wire| wire.is_plugged = is_in);
    }

    /// What clients send comes so much later.
    pub fn delay(&self, delay: Duration) {
        self.turn(|wire| wire.delay = delay);
    }

    /// How many bytes pass in a second, each way and for each connection; all, if none.
    pub fn bandwidth(&self, bytes: Option<u64>) {
        self.turn(|wire| wire.bandwidth = bytes);
    }

    /// Connections are accepted and read, and never answered. One that was silent once stays so.
    pub fn silence(&self, is_silent: bool) {
        self.turn(|wire| wire.is_silent = is_silent);
    }

    /// A connection ends after so many bytes of an answer, the head's among them; none, and answers come whole.
    pub fn truncate(&self, bytes: Option<usize>) {
        self.turn(|wire| wire.truncate = bytes);
    }

    /// Connections are closed in the direction of the client, and go on to be read. One that was closed stays so.
    pub fn half_close(&self, is_closed: bool) {
        self.turn(|wire| wire.is_half_closed = is_closed);
    }

    /// A rule for requests. Of the rules that a request is matched by, the first one that is due is followed.
    pub fn rule(&self, what: impl Into<Match>, when: When, fault: Fault) {
        self.control.rules().push(Rule::new(what.into(), when, fault));
    }

    /// A rule that answers a call with an error of DynamoDB.
    pub fn refuse(&self, operation: &str, when: When, status: u16, kind: &str) {
        self.rule(operation, when, Fault::error(status, kind));
    }

    /// Forgets all rules, and makes the wire good and plugged.
    pub fn heal(&self) {
        self.control.rules().clear();
        self.turn(|wire| *wire = Wire::default());
    }

    /// Requests that passed, and requests that a rule did something to.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.control.passed.load(Ordering::Relaxed), self.control.faulted.load(Ordering::Relaxed))
    }

    /// Bytes of answers that clients were sent, heads among them.
    #[must_use]
    pub fn bytes_passed(&self) -> u64 {
        self.control.bytes.load(Ordering::Relaxed)
    }

    /// Connections so far, refused ones too.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.control.connections.load(Ordering::Relaxed)
    }

    fn turn(&self, change: impl FnOnce(&mut Wire)) {
        self.control.wire.send_modify(change);
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
        let mut due = rules.iter_mut().filter(|rule| rule.matches(method, path, target));
        due.find_map(Rule::due)
    }
}

async fn connection(stream: TcpStream, control: Arc<Control>) {
    control.connections.fetch_add(1, Ordering::Relaxed);
    let orders = Rc::new(Orders::default());
    let upstream = Rc::new(RefCell::new(None));
    let wire = control.wire.subscribe();
    let (near, far) = pump::pipe();
    let (answering, counting) = (Rc::clone(&orders), Arc::clone(&control));
    let service = service_fn(move |request: Request<Incoming>| {
        let (control, orders, upstream) = (Arc::clone(&control), Rc::clone(&answering), Rc::clone(&upstream));
        async move { Ok::<_, Infallible>(answer(request, &control, &orders, &upstream).await) }
    });
    let http = async move {
        // What it says of a connection that was cut is what the test wants.
        let _ = server::Builder::new().serve_connection(TokioIo::new(far), service).await;
    };
    pump::run(stream, near, http, wire, &orders, &counting.bytes).await;
}

type Upstream = RefCell<Option<SendRequest<Full<Bytes>>>>;

/// Answers one request: by a rule, or as the server behind does.
async fn answer(
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
        Some(Fault::Answer(status, headers, body)) => {
            let answer = headers.iter().fold(Response::builder().status(*status), |answer, (name, value)| {
                answer.header(name.as_str(), value.as_str())
            });
            return answer.body(Full::from(body.clone())).expect("a rule's answer is a valid one");
        }
        _ => {}
    }
    let passed = pass(Request::from_parts(head, body), control.upstream, upstream);
    let Some(mut answer) = timeout(UPSTREAM_WITHIN, passed).await.ok().flatten() else {
        // There is nobody behind it: the client is to see that as it would without the proxy.
        return orders.reset().await;
    };
    match fault {
        Some(Fault::Truncate(bytes)) => orders.cut(Cut::Answer(bytes)),
        Some(Fault::ShortBody(bytes)) => orders.cut(Cut::Body(bytes)),
        Some(Fault::WrongChecksum) => {
            let right = answer.headers().get("x-amz-crc32").and_then(|text| text.to_str().ok()?.parse::<u32>().ok());
            let wrong = right.unwrap_or(0).wrapping_add(1);
            answer.headers_mut().insert("x-amz-crc32", wrong.into());
        }
        _ => {}
    }
    answer
}

/// Asks the server behind, over a connection that is kept for the client's; none if it does not answer.
async fn pass(request: Request<Bytes>, address: SocketAddr, upstream: &Upstream) -> Option<Response<Full<Bytes>>> {
    let (mut head, body) = request.into_parts();
    // The body has come whole: it goes on with its length, and nobody waits to be told to continue.
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
    let answer = sender.send_request(Request::from_parts(head, Full::from(body))).await.ok()?;
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    head.headers.remove(TRANSFER_ENCODING);
    *upstream.borrow_mut() = Some(sender);
    Some(Response::from_parts(head, Full::from(body)))
}
