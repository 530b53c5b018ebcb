//! Writes of all protocols: authorization, the limit on concurrent writes, and threads that may block.

use std::sync::Arc;

use larder_common::compute::{WRITE_NICE, lower_priority};
use larder_ingest::{CurrentWriter, RowWriter};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

use super::{Authorization, Denied, RenewDefinitions};

/// Runs the writes of all protocols.
#[derive(Debug)]
pub struct WriteService {
    writer: Arc<dyn CurrentWriter>,
    definitions: Arc<dyn RenewDefinitions>,
    /// Limits concurrent writes, because each write keeps its rows in memory while it waits for the store, which runs
    /// one write transaction at a time.
    permits: Arc<Semaphore>,
}

/// Access to the writer for one permitted write.
#[derive(Debug)]
pub struct WriteAccess {
    writer: Arc<dyn CurrentWriter>,
    definitions: Arc<dyn RenewDefinitions>,
}

/// Why a write failed.
#[derive(Debug)]
pub enum WriteFailure<E> {
    /// The caller lacks permission.
    Denied(Denied),
    /// Too many writes are in progress.
    Busy,
    /// The write panicked.
    Panicked(JoinError),
    /// An error of the write itself.
    Failed(E),
}

/// The maximum number of concurrent writes, across all listeners and protocols.
pub const CONCURRENT_WRITES_MAX: usize = 32;

// === impl WriteService ===

impl WriteService {
    /// Creates a service that writes with the current writer, and reloads `definitions` before writes.
    #[must_use]
    pub fn new(writer: Arc<dyn CurrentWriter>, definitions: Arc<dyn RenewDefinitions>) -> Self {
        Self { writer, definitions, permits: Arc::new(Semaphore::new(CONCURRENT_WRITES_MAX)) }
    }

    /// Runs a write on a thread that may block.
    ///
    /// # Errors
    /// [`WriteFailure`].
    pub async fn write<T, E>(
        &self,
        authorization: &Authorization,
        work: impl FnOnce(&WriteAccess) -> Result<T, E> + Send + 'static,
    ) -> Result<T, WriteFailure<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        authorization.check_write().map_err(WriteFailure::Denied)?;
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_full| WriteFailure::Busy)?;
        let access = self.access();
        let done = spawn_blocking(move || {
            let _permit = permit;
            // Writes must not delay lookups. The thread keeps the lower priority after the write.
            lower_priority(WRITE_NICE);
            work(&access)
        });
        done.await.map_err(WriteFailure::Panicked)?.map_err(WriteFailure::Failed)
    }

    /// Returns the writer for a load that a caller requests. Reloads changed definitions first, as
    /// [`RenewDefinitions::renew`] does if the caller does not allow cached ones. The limit on concurrent writes does
    /// not apply to loads, which have their own limits.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn loader(&self, authorization: &Authorization) -> Result<Arc<dyn RowWriter>, Denied> {
        authorization.check_write()?;
        let access = self.access();
        // As in Feast, the views come from the current registry. The result is not needed: if the reload panics, the
        // panic hook logs that.
        let _ = spawn_blocking(move || access.definitions.renew(false)).await;
        Ok(self.writer.current())
    }

    fn access(&self) -> WriteAccess {
        WriteAccess { writer: Arc::clone(&self.writer), definitions: Arc::clone(&self.definitions) }
    }
}

// === impl WriteAccess ===

impl WriteAccess {
    /// Returns the current writer. Reloads changed definitions first, unless cached definitions are allowed: see
    /// [`RenewDefinitions::renew`]. Blocks.
    #[must_use]
    pub fn writer(&self, caller_allows_cache: bool) -> Arc<dyn RowWriter> {
        self.definitions.renew(caller_allows_cache);
        self.writer.current()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::RwLock, task::yield_now};

    use super::*;
    use crate::Authenticator;

    /// Replaces the writer and the definitions, which the writes of these tests do not use.
    #[derive(Debug)]
    struct Unused;

    impl CurrentWriter for Unused {
        fn current(&self) -> Arc<dyn RowWriter> {
            unreachable!("no write of these tests uses it")
        }
    }

    impl RenewDefinitions for Unused {
        fn renew(&self, _caller_allows_cache: bool) -> bool {
            false
        }

        fn forbids_cached(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn write_beyond_limit_is_busy() {
        let service = Arc::new(WriteService::new(Arc::new(Unused), Arc::new(Unused)));
        let caller = Authenticator::open().authenticate_anonymous().unwrap();
        let gate = Arc::new(RwLock::new(()));
        let write = || {
            let (service, caller, gate) = (Arc::clone(&service), caller.clone(), Arc::clone(&gate));
            let work = move |_: &WriteAccess| {
                let _open = gate.blocking_read();
                Ok::<_, ()>(())
            };
            async move { service.write(&caller, work).await }
        };
        let closed = gate.write().await;
        let held: Vec<_> = (0..CONCURRENT_WRITES_MAX).map(|_| tokio::spawn(write())).collect();
        // Each task takes its permit when it is first polled.
        yield_now().await;
        assert!(matches!(write().await, Err(WriteFailure::Busy)), "one write beyond the limit");
        drop(closed);
        for one in held {
            assert!(one.await.unwrap().is_ok());
        }
        assert!(write().await.is_ok(), "the permits are free again");
    }
}
