//! Authorization of calls. The `larder` program implements [`Authorizer`]; this crate does not handle tokens.

use std::fmt;

use larder_serving::Selection;

/// The headers of a call, in addition to its message.
pub type Headers = hyper::HeaderMap;

/// Authorizes calls. Health checks and reflection need no authorization.
pub trait Authorizer: fmt::Debug + Send + Sync {
    /// Checks whether the sender of these headers has permission for an action.
    ///
    /// # Errors
    /// [`Denied`], with the message for the caller.
    fn check(&self, headers: &Headers, action: Action<'_>) -> Result<(), Denied>;
}

/// The permission that a call needs.
#[derive(Clone, Copy, Debug)]
pub enum Action<'w> {
    /// Call any method; checked before the message is read.
    Connect,
    /// Look up features.
    Lookup(&'w Selection<'w>),
    /// See the name of a feature service, view or feature in an error.
    Name(&'w str),
    /// Write rows.
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
