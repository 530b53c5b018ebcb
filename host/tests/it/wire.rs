//! HTTP by hand: a client that sends what it is told, right or wrong.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// Nothing here takes longer than a server's own bounds, which tests set far lower.
const PATIENCE: Duration = Duration::from_secs(20);

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The columns of a 200, by name: values, statuses, event times.
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
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request on a connection of its own.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = connect(address);
    let headers = [headers, &[("connection", "close")]].concat();
    ask(&mut stream, method, path, &headers, body).expect("the server closed without an answer")
}

/// Sends a request on a connection of any kind; `None` when the server closes it instead of answering.
pub(crate) fn ask(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: larder\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    // A server that refuses early may close before it has read everything; its answer still counts.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body));
    read_answer(stream)
}

/// Reads one answer with a content-length; `None` when the server closes before one begins.
pub(crate) fn read_answer(stream: &mut impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
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
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        match stream.read(&mut chunk).unwrap() {
            0 => panic!("the server closed after {} of {length} bytes", body.len()),
            read => body.extend_from_slice(&chunk[..read]),
        }
    }
    Some(Answer { status, headers, body })
}
