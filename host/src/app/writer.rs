//! Connects the listeners, which write rows, to the current sync engine, which a reload replaces.

use std::sync::Arc;

use arc_swap::ArcSwap;
use larder_ingest::{CurrentWriter, RowWriter};
use larder_sync::SyncEngine;

/// Returns the current engine as a [`RowWriter`].
#[derive(Debug)]
pub(super) struct EngineWriter(pub(super) Arc<ArcSwap<SyncEngine>>);

impl CurrentWriter for EngineWriter {
    fn current(&self) -> Arc<dyn RowWriter> {
        self.0.load_full()
    }
}
