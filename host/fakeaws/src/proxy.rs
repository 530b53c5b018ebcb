//! A proxy that does harm: what networks and AWS do on bad days.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use crate::serve::{Running, run};

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
    is_plugged: watch::Sender<bool>,
    passed: AtomicU64,
    bytes: AtomicU64,
    faulted: AtomicU64,
}

#[derive(Debug)]
struct Rule {
    what: String,
    when: When,
    fault: Fault,
    met: u64,
}

/// When a rule holds, of the requests that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// For the first so many.
    First(u64),
    /// For every so many-th.
    Every(u64),
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes so much later.
    Delay(Duration),
    /// The connection is reset.
    Reset,
    /// There is no answer, and no end.
    Silence,
    /// Of the answer only so many bytes come, and then the end.
    Truncate(usize),
    /// An answer in the place of the server's: a status, headers, a body.
    Answer(u16, Vec<(String, String)>, String),
    /// The server's answer with another `x-amz-crc32`.
    WrongChecksum,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// A proxy before this server, which lets everything pass.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let control = Arc::new(Control {
            upstream,
            rules: Mutex::default(),
            is_plugged: watch::Sender::new(true),
            passed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&control);
        let running = run(async move |listener: TcpListener| {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&accepting)));
            }
        });
        Self { control, running: Arc::new(running) }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// A rule for requests whose head has this text: an operation's name in `X-Amz-Target`, or `GET /bucket/`. Rules are
    /// tried in order.
    pub fn rule(&self, what: &str, when: When, fault: Fault) {
        self.rules().push(Rule { what: what.to_lowercase(), when, fault, met: 0 });
    }

    /// As [`Fault::Answer`] with an error of DynamoDB.
    pub fn refuse(&self, operation: &str, when: When, status: u16, kind: &str) {
        let body = format!("{{\"__type\":\"com.amazonaws.dynamodb.v20120810#{kind}\",\"message\":\"by order\"}}");
        let headers = vec![("content-type".to_owned(), "application/x-amz-json-1.0".to_owned())];
        self.rule(&format!(".{operation}\r"), when, Fault::Answer(status, headers, body));
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.rules().clear();
    }

    /// Pulls the plug: open connections are reset, and new ones too.
    pub fn unplug(&self) {
        self.control.is_plugged.send_replace(false);
    }

    /// Plugs it in again.
    pub fn plug(&self) {
        self.control.is_plugged.send_replace(true);
    }

    /// Requests that passed, and requests that something was done to.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.control.passed.load(Ordering::Relaxed), self.control.faulted.load(Ordering::Relaxed))
    }

    /// Bytes of answers that passed.
    #[must_use]
    pub fn bytes_passed(&self) -> u64 {
        self.control.bytes.load(Ordering::Relaxed)
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.control.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Control ===

impl Control {
    fn fault(&self, head: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = rules.iter_mut().filter(|rule| head.contains(&rule.what)).find(|rule| match rule.when {
            When::Always | When::Every(_) => true,
            When::First(count) => rule.met < count,
        })?;
        rule.met += 1;
        match rule.when {
            When::Every(count) if !rule.met.is_multiple_of(count) => None,
            _ => Some(rule.fault.clone()),
        }
    }
}

async fn serve(mut client: TcpStream, control: Arc<Control>) {
    let mut plugged = control.is_plugged.subscribe();
    let ended = async {
        // Only a change to unplugged ends it.
        while *plugged.borrow_and_update() {
            if plugged.changed().await.is_err() {
                break;
            }
        }
    };
    let reset = tokio::select! {
        reset = pass(&mut client, &control) => reset,
        () = ended => true,
    };
    if reset {
        let _ = client.set_zero_linger();
    }
}

/// Passes requests on, one after the other; whether the connection is to be reset.
async fn pass(client: &mut TcpStream, control: &Control) -> bool {
    let mut upstream: Option<TcpStream> = None;
    loop {
        let Some(request) = read_message(client, true).await else { return false };
        let head = String::from_utf8_lossy(&request[..head_len(&request).unwrap_or(request.len())]).to_lowercase();
        let fault = control.fault(&head);
        let count = if fault.is_some() { &control.faulted } else { &control.passed };
        count.fetch_add(1, Ordering::Relaxed);
        match &fault {
            Some(Fault::Reset) => return true,
            Some(Fault::Silence) => std::future::pending::<()>().await,
            Some(Fault::Answer(status, headers, body)) => {
                let mut answer = format!("HTTP/1.1 {status} By Order\r\ncontent-length: {}\r\n", body.len());
                headers.iter().for_each(|(name, value)| answer.push_str(&format!("{name}: {value}\r\n")));
                answer.push_str("\r\n");
                answer.push_str(body);
                if client.write_all(answer.as_bytes()).await.is_err() {
                    return false;
                }
                continue;
            }
            Some(Fault::Delay(delay)) => sleep(*delay).await,
            _ => {}
        }
        let mut server = match upstream.take() {
            Some(server) => server,
            None => match TcpStream::connect(control.upstream).await {
                Ok(server) => server,
                Err(_) => return true,
            },
        };
        if server.write_all(&request).await.is_err() {
            return true;
        }
        let is_head = head.starts_with("head ");
        let Some(mut answer) = read_answer(&mut server, is_head).await else { return true };
        let closes = String::from_utf8_lossy(&answer[..head_len(&answer).unwrap_or(0)]).to_lowercase();
        match fault {
            Some(Fault::Truncate(bytes)) => {
                let end = bytes.min(answer.len());
                let _ = client.write_all(&answer[..end]).await;
                return false;
            }
            Some(Fault::WrongChecksum) => answer = with_wrong_checksum(&answer),
            _ => {}
        }
        control.bytes.fetch_add(answer.len() as u64, Ordering::Relaxed);
        if client.write_all(&answer).await.is_err() {
            return false;
        }
        if closes.contains("connection: close") {
            return false;
        }
        upstream = Some(server);
    }
}

fn head_len(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|window| window == b"\r\n\r\n").map(|place| place + 4)
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

async fn read_message(stream: &mut TcpStream, is_request: bool) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(len) = head_len(&message) {
            let head = String::from_utf8_lossy(&message[..len]).into_owned();
            if header(&head, "expect").is_some_and(|word| word.eq_ignore_ascii_case("100-continue"))
                && message.len() == len
            {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
            }
            let is_chunked = header(&head, "transfer-encoding").is_some_and(|word| word.contains("chunked"));
            let length = header(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
            let is_whole = match (is_chunked, length) {
                (true, _) => message.ends_with(b"0\r\n\r\n") || message.ends_with(b"\r\n0\r\n\r\n"),
                (false, Some(length)) => message.len() >= len + length,
                (false, None) => is_request,
            };
            if is_whole {
                return Some(message);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) => return if is_request || message.is_empty() { None } else { Some(message) },
            Ok(count) => message.extend_from_slice(&buffer[..count]),
            Err(_) => return None,
        }
    }
}

async fn read_answer(stream: &mut TcpStream, is_head: bool) -> Option<Vec<u8>> {
    if !is_head {
        return read_message(stream, false).await;
    }
    // An answer to HEAD has a length and no body.
    let mut message = Vec::new();
    while head_len(&message).is_none() {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => message.extend_from_slice(&buffer[..count]),
        }
    }
    Some(message)
}

fn with_wrong_checksum(answer: &[u8]) -> Vec<u8> {
    let Some(len) = head_len(answer) else { return answer.to_vec() };
    let head = String::from_utf8_lossy(&answer[..len]);
    let lines = head.trim_end().lines().filter(|line| !line.to_lowercase().starts_with("x-amz-crc32:"));
    let mut changed: String = lines.map(|line| format!("{line}\r\n")).collect();
    changed.push_str("x-amz-crc32: 1\r\n\r\n");
    let mut answer_out = changed.into_bytes();
    answer_out.extend_from_slice(&answer[len..]);
    answer_out
}
