//! The writer for the current definitions: the engine that the last reload made.

use std::sync::Arc;

use arc_swap::ArcSwap;
use larder_ingest::{CurrentWriter, RowWriter};
use larder_sync::SyncEngine;

/// The engine in service, as the servers see it.
#[derive(Debug)]
pub(super) struct EngineWriter(pub(super) Arc<ArcSwap<SyncEngine>>);

impl CurrentWriter for EngineWriter {
    fn current(&self) -> Arc<dyn RowWriter> {
        self.0.load_full()
    }
}
