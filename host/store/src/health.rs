//! The health of an open store: damage found in its file, or a path that no longer names the file.
//!
//! In both cases, the server is not ready, and nothing is written to the file. Both cases can end without a restart: a
//! repair removes damage (`repair.rs`), and a missing file can be moved back. A write to a damaged store starts a
//! repair if one is due, and fails unless the repair succeeds.

use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{StoreError, identity::FileIdentity, metrics::StoreMetrics, open_marker::OpenMarker};

#[derive(Debug)]
pub(super) struct Health {
    /// The first damage since the last repair.
    damage: Mutex<Option<String>>,
    is_damaged: AtomicBool,
    /// The error message while the path does not name the open file; otherwise `None`.
    gone: Mutex<Option<String>>,
    identity: Mutex<FileIdentity>,
    /// The size of the file in bytes after the last commit, reopening or rebuild. Between two of these, the file must
    /// not shrink.
    len: AtomicU64,
    /// The earliest time for the next repair after a failed one.
    retry_at: Mutex<Option<Instant>>,
    /// Notified when the health of the store may have changed, or when views may have become loaded or damaged.
    changes: watch::Sender<()>,
}

/// The delay before a failed repair is retried. A repair copies the whole store, so it must not be retried often.
const REPAIR_RETRY: Duration = Duration::from_secs(30);

// === impl Health ===

impl Health {
    /// Creates the health state of a file that was just opened.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let identity = FileIdentity::of(path)?;
        Ok(Self {
            damage: Mutex::default(),
            is_damaged: AtomicBool::new(false),
            gone: Mutex::default(),
            identity: Mutex::new(identity),
            len: AtomicU64::new(identity.check(path)?),
            retry_at: Mutex::default(),
            changes: watch::Sender::new(()),
        })
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn note_change(&self) {
        self.changes.send_replace(());
    }

    /// Returns the reason why the server should get no traffic, if there is one.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.gone).clone().or_else(|| lock(&self.damage).clone())
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Returns the first damage since the last repair.
    pub(super) fn damage(&self) -> Option<String> {
        lock(&self.damage).clone()
    }

    /// Records damage. The first damage since the last repair is logged and recorded for the next start.
    pub(super) fn note_damage(&self, what: &str, path: &Path, marker: &OpenMarker, metrics: &StoreMetrics) {
        metrics.damage.increment(1);
        let mut damage = lock(&self.damage);
        if damage.is_some() {
            return;
        }
        tracing::error!(
            path = %path.display(), what,
            "the store is damaged; the server is not ready until the store is rebuilt and the affected views are \
             loaded again"
        );
        marker.note_damage(what);
        *damage = Some(what.to_owned());
        self.is_damaged.store(true, Ordering::Release);
        drop(damage);
        self.note_change();
    }

    /// Records that the file was rebuilt.
    pub(super) fn note_repaired(&self, path: &Path) -> Result<(), StoreError> {
        let identity = FileIdentity::of(path)?;
        *lock(&self.identity) = identity;
        self.len.store(identity.check(path)?, Ordering::Relaxed);
        *lock(&self.damage) = None;
        *lock(&self.retry_at) = None;
        self.is_damaged.store(false, Ordering::Release);
        Ok(())
    }

    pub(super) fn note_repair_failed(&self) {
        *lock(&self.retry_at) = Instant::now().checked_add(REPAIR_RETRY);
    }

    /// Returns whether there is damage to repair and a repair may be tried now.
    pub(super) fn is_repair_due(&self) -> bool {
        self.is_damaged() && lock(&self.retry_at).is_none_or(|at| at <= Instant::now())
    }

    /// Checks that the path still names the open file, and returns the file's length in bytes. Logs when the result
    /// changes.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the path names another file or no file, or if its metadata cannot be read.
    pub(super) fn check_file(&self, path: &Path) -> Result<u64, StoreError> {
        let checked = lock(&self.identity).check(path);
        let mut gone = lock(&self.gone);
        match &checked {
            Ok(_) if gone.is_some() => {
                *gone = None;
                self.note_change();
                tracing::info!(path = %path.display(), "the store file is available again; writes resume");
            }
            Err(error) if gone.is_none() => {
                *gone = Some(error.to_string());
                self.note_change();
                tracing::error!(%error, "the store file is gone; writes fail and the server is not ready");
            }
            Ok(_) | Err(_) => {}
        }
        checked
    }

    /// Records the length of the file after a commit. Call this function while no other commit can run.
    pub(super) fn note_len(&self, len: u64) {
        self.len.store(len, Ordering::Relaxed);
    }

    /// Returns a description of the truncation if the file is shorter than after the last commit; otherwise `None`.
    /// Call this function while no commit can run.
    pub(super) fn truncation(&self, len: u64) -> Option<String> {
        let known = self.len.load(Ordering::Relaxed);
        (len < known).then(|| format!("the file was truncated from {known} to {len} bytes"))
    }
}

fn lock<T>(locked: &Mutex<T>) -> MutexGuard<'_, T> {
    locked.lock().unwrap_or_else(PoisonError::into_inner)
}
