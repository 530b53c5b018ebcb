//! Detects requests that specify their length twice, and chunk sizes with too many digits.
//!
//! If a request has both `Content-Length` and `Transfer-Encoding`, some proxies use one of the headers, and some use
//! the other. The server can then see two requests where the proxy sees one, and may run the second request with the
//! permissions of another client (request smuggling). hyper serves such a request without reporting it. So this module
//! scans the bytes before hyper gets them, only as far as is needed to find the start of each request.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of requests. Its bytes are scanned when they are read.
#[derive(Debug)]
pub(super) struct Framed<S> {
    stream: S,
    framing: Framing,
    ambiguous: Arc<Ambiguous>,
}

/// The index of the first request of a connection that specifies its length twice; `usize::MAX` if none does.
#[derive(Debug)]
pub(super) struct Ambiguous(AtomicUsize);

/// The state of the scan of a stream of requests.
#[derive(Debug, Default)]
struct Framing {
    at: At,
    /// The number of requests whose heads were read.
    heads: usize,
    /// Whether a chunk size has more than `SIZE_DIGITS_MAX` digits. Reads then fail, because hyper would accept any
    /// number of leading zeros.
    has_long_size: bool,
}

/// The position of the next byte.
#[derive(Debug, Default)]
enum At {
    /// Before a head.
    #[default]
    Start,
    /// In a head that has these bytes so far.
    Head(Vec<u8>),
    /// In a body with this many bytes left.
    Body(u64),
    Chunked(Chunk),
    /// The scan has ended, because the start of the next request is unknown. Either hyper rejects the current request,
    /// or `has_long_size` is set.
    Lost,
    /// After a chunk size with too many digits.
    LongSize,
}

/// The position in a chunked body.
#[derive(Debug, Default)]
enum Chunk {
    /// Before a chunk size.
    #[default]
    Size0,
    /// In a chunk size: its value and the number of its digits so far.
    Size(u64, usize),
    /// After the digits of a chunk size. The value is the size.
    Extension(u64),
    /// In the data of a chunk or in the line break after it. The value is the number of bytes left of both together.
    Data(u64),
    /// In a trailer line that has this many bytes so far, apart from carriage returns.
    Trailer(usize),
}

/// The limit on bytes of a head. hyper rejects longer heads.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// The limit on headers of a request, as in hyper.
const HEADERS_MAX: usize = 100;
/// The maximum number of hexadecimal digits of a chunk size: 16, as in the largest `u64`.
const SIZE_DIGITS_MAX: usize = 16;

// === impl Ambiguous ===

impl Ambiguous {
    /// Returns whether the request with this index, from 0, or an earlier one specifies its length twice.
    pub(super) fn is_ambiguous(&self, request: usize) -> bool {
        request >= self.0.load(Ordering::Relaxed)
    }
}

// === impl Framed ===

impl<S> Framed<S> {
    /// Wraps a stream that begins with a request.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, framing: Framing::default(), ambiguous: Arc::new(Ambiguous(AtomicUsize::new(usize::MAX))) }
    }

    pub(super) fn ambiguous(&self) -> Arc<Ambiguous> {
        Arc::clone(&self.ambiguous)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Some(head) = this.framing.read(&buffer.filled()[before..]) {
            this.ambiguous.0.fetch_min(head, Ordering::Relaxed);
        }
        if this.framing.has_long_size {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a chunk size has more than 16 digits",
            )));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Framing ===

impl Framing {
    /// Scans the next bytes. Stops at the first request that specifies its length twice, and returns its index, from 0.
    fn read(&mut self, mut bytes: &[u8]) -> Option<usize> {
        while !bytes.is_empty() {
            match std::mem::take(&mut self.at) {
                At::Lost => {
                    self.at = At::Lost;
                    return None;
                }
                At::LongSize => {
                    (self.at, self.has_long_size) = (At::Lost, true);
                    return None;
                }
                // Empty lines before a head are skipped.
                At::Start if matches!(bytes[0], b'\r' | b'\n') => bytes = &bytes[1..],
                At::Start => self.at = At::Head(Vec::new()),
                At::Head(mut head) => {
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let (at, len, is_ambiguous) = parse_head(head);
                    bytes = &bytes[len.saturating_sub(before).min(bytes.len())..];
                    if !matches!(at, At::Head(_) | At::Lost) {
                        self.heads += 1;
                    }
                    self.at = at;
                    if is_ambiguous {
                        return Some(self.heads - 1);
                    }
                }
                At::Body(left) => {
                    let here = left.min(bytes.len() as u64);
                    bytes = &bytes[usize::try_from(here).unwrap_or(bytes.len())..];
                    self.at = if here == left { At::Start } else { At::Body(left - here) };
                }
                At::Chunked(chunk) => {
                    let (at, read) = chunk.read(bytes);
                    bytes = &bytes[read..];
                    self.at = at;
                }
            }
        }
        None
    }
}

/// Parses a head. Returns the state after the head, the length of the head, and whether the head specifies the body's
/// length twice. If the head is incomplete, the state has its bytes.
fn parse_head(head: Vec<u8>) -> (At, usize, bool) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(&head) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES_MAX => {
            let len = head.len();
            return (At::Head(head), len, false);
        }
        _ => return (At::Lost, head.len(), false),
    };
    let values = |name: &'static str| {
        let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    };
    let length = values("content-length").next();
    let is_encoded = values("transfer-encoding").next().is_some();
    let at = match (is_encoded, length) {
        (true, Some(_)) => return (At::Start, len, true),
        (true, None) => At::Chunked(Chunk::default()),
        (false, None) => At::Start,
        (false, Some(length)) => match std::str::from_utf8(length).ok().and_then(|length| length.trim().parse().ok()) {
            Some(0) => At::Start,
            Some(length) => At::Body(length),
            None => At::Lost,
        },
    };
    (at, len, false)
}

// === impl Chunk ===

impl Chunk {
    /// Consumes at least one of the bytes. Returns the new state and the number of bytes consumed.
    fn read(self, bytes: &[u8]) -> (At, usize) {
        let byte = bytes[0];
        let next = match self {
            Self::Size0 | Self::Size(..) => {
                let (size, digits) = if let Self::Size(size, digits) = self { (size, digits) } else { (0, 0) };
                match (char::from(byte).to_digit(16), byte) {
                    (Some(_), _) if digits == SIZE_DIGITS_MAX => return (At::LongSize, 1),
                    (Some(digit), _) => match size.checked_mul(16) {
                        Some(size) => Self::Size(size + u64::from(digit), digits + 1),
                        None => return (At::Lost, 1),
                    },
                    (None, b'\n') => Self::after_size(size),
                    (None, _) => Self::Extension(size),
                }
            }
            Self::Extension(size) if byte == b'\n' => Self::after_size(size),
            Self::Extension(size) => Self::Extension(size),
            Self::Data(left) => {
                let here = left.min(bytes.len() as u64);
                let next = if here == left { Self::Size0 } else { Self::Data(left - here) };
                return (At::Chunked(next), usize::try_from(here).unwrap_or(bytes.len()));
            }
            Self::Trailer(0) if byte == b'\n' => return (At::Start, 1),
            Self::Trailer(_) if byte == b'\n' => Self::Trailer(0),
            Self::Trailer(len) if byte == b'\r' => Self::Trailer(len),
            Self::Trailer(len) => Self::Trailer(len + 1),
        };
        (At::Chunked(next), 1)
    }

    fn after_size(size: u64) -> Self {
        // The length includes the line break after the data.
        if size == 0 { Self::Trailer(0) } else { Self::Data(size.saturating_add(2)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the first ambiguous request. Checks that the result is the same for pieces of every size.
    fn first_ambiguous(stream: &str) -> Option<usize> {
        let in_pieces = |size: usize| {
            let mut framing = Framing::default();
            stream.as_bytes().chunks(size).find_map(|piece| framing.read(piece))
        };
        let whole = in_pieces(stream.len());
        for size in [1, 2, 3, 7, 50] {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}: {stream}");
        }
        whole
    }

    const TWICE: &str =
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn duplicate_length_is_found_anywhere() {
        assert_eq!(first_ambiguous(TWICE), Some(0));
        let other_order =
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH: 3\r\nhost: x\r\n\r\n0\r\n\r\n";
        assert_eq!(first_ambiguous(other_order), Some(0));
        for before in [
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nabcde",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\nc: d\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            // The content of a body is not parsed as a head.
            "POST / HTTP/1.1\r\ncontent-length: 60\r\n\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n           ",
        ] {
            assert_eq!(first_ambiguous(&format!("{before}{TWICE}")), Some(1), "{before}");
            assert_eq!(first_ambiguous(&format!("{before}{before}{before}{TWICE}")), Some(3), "{before}");
            assert_eq!(first_ambiguous(&before.repeat(5)), None, "{before}");
        }
    }

    #[test]
    fn invalid_head_ends_the_scan() {
        for lost in ["nonsense\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"] {
            assert_eq!(first_ambiguous(&format!("{lost}{TWICE}")), None);
        }
        let mut framing = Framing::default();
        assert_eq!(framing.read(format!("GET /{}", "x".repeat(HEAD_BYTES_MAX)).as_bytes()), None);
        assert!(matches!(framing.at, At::Lost), "the bytes of a head without an end are dropped");
    }
}
