//! Response bodies.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A response body: bytes of known length, or lines that are sent one by one.
#[derive(Debug)]
pub(super) enum ResponseBody {
    Whole(Bytes),
    Lines(mpsc::Receiver<Bytes>),
}

/// The maximum size of a frame, in bytes. hyper copies each frame if the stream does not support vectored writes, as
/// with TLS.
const FRAME_BYTES: usize = 64 << 10;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) if body.is_empty() => Poll::Ready(None),
            Self::Whole(body) => {
                let frame = body.split_to(body.len().min(FRAME_BYTES));
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Self::Lines(lines) => lines.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_empty(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}
