//! Authorization of calls. The program implements it; this crate knows no tokens.

use std::fmt;

use larder_serving::Selection;

/// What a call brings beside its message.
pub type Headers = hyper::HeaderMap;

/// Authorizes each call; health and reflection are open.
pub trait Authorizer: fmt::Debug + Send + Sync {
    /// Whether the sender of these headers may have this.
    ///
    /// # Errors
    /// [`Denied`], with what the caller is told.
    fn check(&self, headers: &Headers, action: Action<'_>) -> Result<(), Denied>;
}

/// The permission that a call needs.
#[derive(Clone, Copy, Debug)]
pub enum Action<'w> {
    /// To call any method; checked before the message is read.
    Connect,
    /// Features.
    Lookup(&'w Selection<'w>),
    /// To see the name of a feature service, view or feature in an error.
    Name(&'w str),
    /// To write.
    Write,
}

/// The reason for a denial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller is not authenticated.
    #[error("{0}")]
    Unknown(String),
    /// The caller is not authorized.
    #[error("{0}")]
    Forbidden(String),
}
