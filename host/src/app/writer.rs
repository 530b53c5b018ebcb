//! The writer for the current definitions: the engine that was created with them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use larder_ingest::{CurrentWriter, RowWriter};
use larder_sync::SyncEngine;

/// Gives servers the current engine as a [`RowWriter`].
#[derive(Debug)]
pub(super) struct EngineWriter(pub(super) Arc<ArcSwap<SyncEngine>>);

impl CurrentWriter for EngineWriter {
    fn current(&self) -> Arc<dyn RowWriter> {
        self.0.load_full()
    }
}
