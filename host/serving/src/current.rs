//! The snapshot that new requests use.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::{Readiness, Snapshot};

/// The current snapshot, which can be replaced while requests use it, and the readiness of the server.
#[derive(Debug)]
pub struct CurrentSnapshot {
    snapshot: ArcSwap<Snapshot>,
    readiness: Readiness,
}

// === impl CurrentSnapshot ===

impl CurrentSnapshot {
    /// Creates the holder of the current snapshot, with a first one.
    pub fn new(snapshot: impl Into<Arc<Snapshot>>) -> Self {
        Self { snapshot: ArcSwap::new(snapshot.into()), readiness: Readiness::default() }
    }

    /// Returns a guard of the current snapshot. To keep the snapshot for long, call [`Self::load_full`] instead.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Returns the current snapshot.
    #[must_use]
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Replaces the current snapshot. Requests in flight keep theirs. Callers must serialize calls, so that each
    /// snapshot is made from the one that it replaces.
    pub fn replace(&self, snapshot: Snapshot) {
        self.readiness.note_replaced(&self.snapshot.load());
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Returns the readiness of the server.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }
}
