//! A raw HTTP client that sends exactly what a test specifies.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// A complete response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The headers, by their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// The timeout of a read or write. It is far longer than the limits that the tests of timeouts set.
const TIMEOUT: Duration = Duration::from_secs(20);

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).cloned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// Returns a column of the response, with its values, statuses and event times. Panics if the status is not 200.
    pub(crate) fn column(&self, name: &str) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        let json = self.json();
        let names = json["metadata"]["feature_names"].as_array().unwrap();
        let place = names.iter().position(|known| known == name).unwrap_or_else(|| panic!("no column {name}: {json}"));
        json["results"][place].clone()
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Sends a request on a separate connection, and returns the response. The response to a HEAD request has no body.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    // Feature requests have no additional header, so that the server handles them on the fast path. hyper handles other
    // requests.
    let close: &[_] = if path == "/get-online-features" { &[] } else { &[("connection", "close")] };
    let headers = [headers, close].concat();
    let mut stream = send_only(address, method, path, &headers, body);
    read(&mut stream, method != "HEAD").expect("the server closed without an answer")
}

/// Sends a request on a separate connection, without reading the response.
pub(crate) fn send_only(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TcpStream {
    let mut stream = connect(address);
    write_request(&mut stream, method, path, headers, body);
    stream
}

/// Sends a request on a plain or encrypted connection. Returns `None` if the server closes it without a response.
pub(crate) fn ask(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    write_request(stream, method, path, headers, body);
    read_answer(stream)
}

fn write_request(stream: &mut impl Write, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: larder\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    // If the server rejects a request early, it may close the connection before it has read everything, and the write
    // fails. The response is read nevertheless.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body));
}

/// A lookup in progress. The server has read the head of the request and waits for the body, which [`Underway::end`]
/// sends.
pub(crate) struct Underway {
    stream: TcpStream,
    body: Vec<u8>,
}

impl Underway {
    pub(crate) fn begin(address: SocketAddr, body: &[u8]) -> Self {
        let mut stream = connect(address);
        let (length, expect) = (body.len(), "expect: 100-continue");
        write!(stream, "POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{expect}\r\n\r\n")
            .unwrap();
        // The server sends status 100 when it has accepted the request and waits for the body.
        assert_eq!(read(&mut stream, false).unwrap().status, 100);
        Self { stream, body: body.to_vec() }
    }

    /// Returns whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 16]), Ok(0) | Err(_))
    }

    pub(crate) fn end(mut self) -> Answer {
        self.stream.write_all(&self.body).unwrap();
        read_answer(&mut self.stream).expect("a request in progress gets a response")
    }
}

/// Reads one response with a content-length. Returns `None` if the server closes the connection before the response is
/// complete.
pub(crate) fn read_answer(stream: &mut impl Read) -> Option<Answer> {
    read(stream, true)
}

fn read(stream: &mut impl Read, has_body: bool) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => {
                assert!(bytes.is_empty(), "the server closed within the head of an answer");
                return None;
            }
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = bytes[head_end + 4..].to_vec();
    let length = headers.get("content-length").filter(|_| has_body);
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        match stream.read(&mut chunk).unwrap() {
            0 => panic!("the server closed after {} of {length} bytes", body.len()),
            read => body.extend_from_slice(&chunk[..read]),
        }
    }
    Some(Answer { status, headers, body })
}
