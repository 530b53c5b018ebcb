//! Reloads of definitions that may have changed since they were read.

use std::fmt;

/// Reloads changed definitions for a request that asks for the current ones.
pub trait RenewDefinitions: fmt::Debug + Send + Sync {
    /// Reads changed definitions, unless both the caller and the configuration allow cached ones. Returns whether the
    /// served definitions changed. Blocks: it may read files and objects in S3.
    fn renew(&self, caller_allows_cache: bool) -> bool;

    /// Whether requests get the current definitions by default.
    fn is_always_wanted(&self) -> bool;
}
