//! Definitions that may have changed since they were read.

use std::fmt;

/// Takes up definitions that changed, when a request wants them as they are now and not as they were last read.
pub trait RenewDefinitions: fmt::Debug + Send + Sync {
    /// Reads changed definitions, unless both the caller and the configuration allow definitions that were read
    /// before. Returns whether other definitions are served now. Blocks: it may read files, and ask S3.
    fn renew(&self, caller_allows_cache: bool) -> bool;

    /// Whether requests that do not say so want definitions as they are now.
    fn is_always_wanted(&self) -> bool;
}
