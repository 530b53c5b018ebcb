//! The policy for rows that are older than their view's `ttl`.

/// How a value is served if its row is older than its view's `ttl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlPolicy {
    /// The value is served, and its status is `OUTSIDE_MAX_AGE`.
    #[default]
    Mark,
    /// Null is served instead, with status `OUTSIDE_MAX_AGE`.
    Null,
    /// The value is served with status `PRESENT`, as in Feast's Python server.
    Ignore,
}
