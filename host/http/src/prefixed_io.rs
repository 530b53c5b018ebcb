//! A stream that first yields bytes that were already read from it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Yields `first`, and then the bytes of `stream`.
#[derive(Debug)]
pub(super) struct PrefixedIo<S> {
    first: Vec<u8>,
    /// The number of bytes of `first` that were read.
    position: usize,
    stream: S,
}

// === impl PrefixedIo ===

impl<S> PrefixedIo<S> {
    pub(super) fn new(first: Vec<u8>, stream: S) -> Self {
        Self { first, position: 0, stream }
    }

    /// Returns whether all bytes of `first` were read.
    pub(super) fn is_prefix_read(&self) -> bool {
        self.position == self.first.len()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefixedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_prefix_read() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let rest = &self.first[self.position..];
        let read = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..read]);
        self.position += read;
        if self.is_prefix_read() {
            (self.first, self.position) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefixedIo<S> {
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
