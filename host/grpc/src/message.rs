//! Reads and decompresses request messages within limits, and compresses responses with the method of the request.

use std::{
    io::{Read, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{
    Compression,
    read::{GzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};
use http_body_util::BodyExt;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    header::{HeaderMap, HeaderValue},
};
use larder_common::memory::Lease;
use tonic::Status;

use super::error;

/// The length of a message's prefix in bytes. The first byte is 1 if the message is compressed. The other four bytes
/// are the length of the message.
pub(super) const PREFIX_BYTES: usize = 5;

/// The supported compression methods, in the form in which grpcio's server announces them.
pub(super) const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,deflate,gzip");
pub(super) const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
pub(super) const ENCODING: &str = "grpc-encoding";

/// The minimum length of a response that is compressed, in bytes.
const COMPRESSED_MIN: usize = 1_024;

/// The maximum size of the pieces of a response that are passed to hyper, in bytes.
const FRAME_BYTES: usize = 32 << 10;

/// A compression method of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    /// zlib's format, as gRPC defines it.
    Deflate,
}

/// The body of a response with one message. The memory of the message is freed when its last piece is dropped.
#[derive(Debug)]
pub(super) struct MessageBody {
    bytes: Bytes,
    is_ended: bool,
}

// === impl Encoding ===

impl Encoding {
    fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    pub(super) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }

    /// Returns the compression method that a call's header names, if any.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for an unknown compression method.
    pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        match headers.get(ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(None),
            Some(name) => Self::named(name).map(Some).ok_or_else(|| {
                Status::unimplemented("unsupported compression: messages can be compressed with gzip or deflate")
            }),
        }
    }

    /// Returns the compression method of the response. It is the method of the request, if the caller accepts responses
    /// with it.
    pub(super) fn of_answer(headers: &HeaderMap) -> Option<Self> {
        let own = Self::of_request(headers).ok().flatten()?;
        let accepts = headers.get_all(ACCEPT_ENCODING).iter().any(|accepted| {
            accepted.as_bytes().split(|byte| *byte == b',').any(|name| Self::named(name.trim_ascii()) == Some(own))
        });
        accepts.then_some(own)
    }

    /// Decompresses a message to at most `max` bytes. The lease grows with the buffer.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if the message exceeds the limit; `RESOURCE_EXHAUSTED` or `UNAVAILABLE` if it exceeds the
    /// memory budget. `INTERNAL` for bytes that are not compressed with this method, as in grpcio's server.
    pub(super) fn decompress(self, message: &[u8], max: usize, lease: &mut Lease) -> Result<Vec<u8>, Status> {
        let mut decoder: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(GzDecoder::new(message)),
            Self::Deflate => Box::new(ZlibDecoder::new(message)),
        };
        let (mut out, mut piece) = (Vec::new(), [0; 8 << 10]);
        loop {
            let read = decoder.read(&mut piece).map_err(|_| Status::internal("the message cannot be decompressed"))?;
            if read == 0 {
                return Ok(out);
            }
            if out.len() + read > max {
                return Err(too_large(max));
            }
            if out.len() + read > out.capacity() {
                let (before, capacity) = (out.capacity(), (2 * (out.len() + read)).min(max));
                lease.grow(capacity).map_err(error::of_memory)?;
                out.reserve_exact(capacity - out.len());
                lease.resize(lease.held().saturating_sub(before)).map_err(error::of_memory)?;
            }
            out.extend_from_slice(&piece[..read]);
        }
    }

    fn compress(self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(message)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(message)?;
                encoder.finish()
            }
        }
    }
}

/// Fills in the prefix of a message, which must begin with [`PREFIX_BYTES`] bytes for it. Compresses the message if an
/// encoding is given, the message is long enough, and compression makes it shorter.
pub(super) fn framed(message: Vec<u8>, encoding: Option<Encoding>) -> Vec<u8> {
    let mut framed = message;
    let compressed = encoding.filter(|_| framed.len() >= COMPRESSED_MIN + PREFIX_BYTES);
    let compressed = compressed.and_then(|encoding| encoding.compress(&framed[PREFIX_BYTES..]).ok());
    let flag = match compressed {
        Some(shorter) if shorter.len() + PREFIX_BYTES < framed.len() => {
            framed.truncate(PREFIX_BYTES);
            framed.extend_from_slice(&shorter);
            1
        }
        _ => 0,
    };
    let length = u32::try_from(framed.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    let mut prefix = &mut framed[..PREFIX_BYTES];
    prefix.put_u8(flag);
    prefix.put_u32(length);
    framed
}

/// Returns a message with its prefix, without compression.
pub(super) fn plain(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
    framed.resize(PREFIX_BYTES, 0);
    framed.extend_from_slice(message);
    self::framed(framed, None)
}

/// Reads a message of at most `max` bytes, with its prefix. Fails immediately if the prefix announces more than `max`
/// bytes.
pub(super) async fn read(mut body: Incoming, max: usize, lease: &mut Lease) -> Result<Bytes, Status> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let held = lease.held();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(format!("the message ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let read = first.len() + rest.len() + data.len();
        if read > max.saturating_add(PREFIX_BYTES) {
            return Err(too_large(max));
        }
        // Nearly every message arrives in one piece, and is not copied.
        if first.is_empty() && rest.is_empty() {
            lease.resize(held + data.len()).map_err(error::of_memory)?;
            first = data;
        } else {
            if read > rest.capacity() {
                // Both buffers exist while the content of one is copied to the other.
                let capacity = (2 * read).min(max.saturating_add(PREFIX_BYTES));
                lease.resize(held + read + capacity).map_err(error::of_memory)?;
                let mut larger = BytesMut::with_capacity(capacity);
                larger.extend_from_slice(&std::mem::take(&mut first));
                larger.extend_from_slice(&rest);
                rest = larger;
                lease.resize(held + rest.capacity()).map_err(error::of_memory)?;
            }
            rest.extend_from_slice(&data);
        }
        let start = if rest.is_empty() { &first[..] } else { &rest[..] };
        if let Some(&[_, a, b, c, d]) = start.first_chunk()
            && usize::try_from(u32::from_be_bytes([a, b, c, d])).map_or(true, |length| length > max)
        {
            return Err(too_large(max));
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

pub(super) fn too_large(max: usize) -> Status {
    Status::resource_exhausted(format!(
        "the message has more than {max} bytes. hint: raise 'server: limits: body_bytes_max'"
    ))
}

// === impl MessageBody ===

impl MessageBody {
    pub(super) fn new(framed: Bytes) -> Self {
        Self { bytes: framed, is_ended: false }
    }
}

impl hyper::body::Body for MessageBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.bytes.is_empty() {
            let len = self.bytes.len().min(FRAME_BYTES);
            return Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(len)))));
        }
        if std::mem::replace(&mut self.is_ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use larder_common::memory::MemoryBudget;

    fn headers(encoding: &'static str, accept: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ENCODING, HeaderValue::from_static(encoding));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
        headers
    }

    #[test]
    fn message_survives_compression() {
        let (message, budget) = (b"many bytes that are alike ".repeat(1_000), MemoryBudget::unbounded());
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let mut with_prefix = vec![0; PREFIX_BYTES];
            with_prefix.extend_from_slice(&message);
            let framed = framed(with_prefix, Some(encoding));
            assert_eq!(framed[0], 1);
            assert_eq!(framed[1..5], u32::try_from(framed.len() - 5).unwrap().to_be_bytes());
            let back = encoding.decompress(&framed[5..], message.len(), &mut budget.lease()).unwrap();
            assert_eq!(back, message);
            let refused = encoding.decompress(&framed[5..], message.len() - 1, &mut budget.lease()).unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted);
            let broken = encoding.decompress(b"no such thing", 100, &mut budget.lease()).unwrap_err();
            assert_eq!(broken.code(), Code::Internal);
        }
        assert_eq!(plain(b"ab"), [0, 0, 0, 0, 2, b'a', b'b']);
    }

    #[test]
    fn decompression_stays_within_its_lease() {
        let (bomb, budget) = (vec![0; 8 << 20], MemoryBudget::new(4 << 20));
        let bomb = Encoding::Gzip.compress(&bomb).unwrap();
        assert!(bomb.len() < 64 << 10);
        let refused = Encoding::Gzip.decompress(&bomb, 8 << 20, &mut budget.lease()).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn response_uses_request_compression() {
        assert_eq!(Encoding::of_answer(&headers("gzip", "identity, gzip")), Some(Encoding::Gzip));
        assert_eq!(Encoding::of_answer(&headers("deflate", "deflate")), Some(Encoding::Deflate));
        assert_eq!(Encoding::of_answer(&headers("gzip", "identity,deflate")), None);
        assert_eq!(Encoding::of_answer(&headers("identity", "gzip")), None);
        assert_eq!(Encoding::of_request(&headers("br", "gzip")).unwrap_err().code(), Code::Unimplemented);
    }
}
