//! The error of a lookup, for all protocols.

use super::{Denied, OffloadError, RequestError};

/// Why a lookup failed. `E` is the error type of the protocol.
#[derive(Debug)]
pub enum LookupError<E> {
    /// A problem with the request, a plugin or the store.
    Request(RequestError),
    /// The caller lacks permission.
    Denied(Denied),
    /// The lookup could not be moved to a compute thread.
    Offload(OffloadError),
    /// An error that only this protocol has, such as a body that cannot be decoded.
    Protocol(E),
}

// === impl LookupError ===

impl<E> From<RequestError> for LookupError<E> {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl<E> From<Denied> for LookupError<E> {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl<E> From<OffloadError> for LookupError<E> {
    fn from(error: OffloadError) -> Self {
        Self::Offload(error)
    }
}
