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
    /// Creates a holder whose current snapshot is `snapshot`.
    pub fn new(snapshot: impl Into<Arc<Snapshot>>) -> Self {
        Self { snapshot: ArcSwap::new(snapshot.into()), readiness: Readiness::default() }
    }

    /// Returns a guard of the current snapshot. This is faster than [`Self::load_full`], but a guard should be held
    /// only briefly.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Returns a reference to the current snapshot, which can be held as long as needed.
    #[must_use]
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Replaces the current snapshot. Requests in flight keep the snapshot with which they began. Callers must
    /// serialize calls to this function, so that each new snapshot is derived from the snapshot that it replaces.
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
