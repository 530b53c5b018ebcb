//! The settings of the store.

use std::path::PathBuf;

use super::{HotCacheConfig, SpaceLimits};

/// The location of the store and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The directory of the store file. It is created if it does not exist.
    pub data_dir: PathBuf,
    /// The maximum number of bytes of file pages that the embedded database caches.
    pub page_cache_bytes_max: usize,
    /// The row cache in front of the database.
    pub hot: HotCacheConfig,
    /// Limits on the disk space of the store file.
    pub space: SpaceLimits,
    /// Whether opening the store reads the whole file and checks every page. Otherwise, pages are not verified, and a
    /// row is checked when it is read.
    pub check_on_open: bool,
}

// === impl StoreConfig ===

impl StoreConfig {
    /// Returns the configuration of a store in this directory, with the default limits.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            page_cache_bytes_max: 256 << 20,
            hot: HotCacheConfig::default(),
            space: SpaceLimits::default(),
            check_on_open: false,
        }
    }
}
