//! Who may ask for what. Whoever builds the server says so: tokens are known elsewhere.

use std::fmt;

use larder_serving::Selection;

/// What a call brings beside its message.
pub type Headers = hyper::HeaderMap;

/// Stands before the services; health and reflection are open.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Whether the sender of these headers may have this.
    ///
    /// # Errors
    /// [`Denied`], with what the caller is told.
    fn check(&self, headers: &Headers, wish: Wish<'_>) -> Result<(), Denied>;
}

/// The permission that a call needs.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'w> {
    /// To be served at all; checked before the message is read.
    Entry,
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
    /// Nobody knows who asks.
    #[error("{0}")]
    Unknown(String),
    /// Whoever it is may not.
    #[error("{0}")]
    Forbidden(String),
}
