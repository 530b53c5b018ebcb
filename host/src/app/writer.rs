//! The writer for the current definitions: the engine that the last reload created.

use std::sync::Arc;

use arc_swap::ArcSwap;
use larder_ingest::{CurrentWriter, RowWriter};
use larder_sync::SyncEngine;

/// The current engine, for servers.
#[derive(Debug)]
pub(super) struct EngineWriter(pub(super) Arc<ArcSwap<SyncEngine>>);

impl CurrentWriter for EngineWriter {
    fn current(&self) -> Arc<dyn RowWriter> {
        self.0.load_full()
    }
}
