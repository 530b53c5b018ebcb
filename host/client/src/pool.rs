//! The idle connections of a process.

use std::{
    mem, process,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustls::ClientConfig;

use crate::{Route, stream::Stream};

/// The idle connections of a client. A fork of the process gets an empty pool.
pub(crate) struct Pool {
    current: ArcSwap<ProcessPool>,
}

/// The connections and the TLS configuration of one process.
pub(crate) struct ProcessPool {
    pid: u32,
    idle: Mutex<IdleConnections>,
    pub(crate) tls: OnceLock<Arc<ClientConfig>>,
}

#[derive(Default)]
struct IdleConnections {
    /// Connections that have only sent lookups in JSON. The server answers these with less work than others, until the
    /// first other request on a connection.
    lookups: Vec<IdleConnection>,
    others: Vec<IdleConnection>,
}

struct IdleConnection {
    stream: Stream,
    since: Instant,
}

/// The maximum number of idle connections of each kind.
const IDLE_MAX: usize = 64;
/// How long an idle connection is kept. By default, the server closes it after 75 seconds.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

// === impl Pool ===

impl Pool {
    pub(crate) fn new() -> Self {
        Self { current: ArcSwap::from_pointee(ProcessPool::new()) }
    }

    /// Returns the pool of this process.
    pub(crate) fn of_process(&self) -> Arc<ProcessPool> {
        let pool = self.current.load_full();
        if pool.pid == process::id() {
            return pool;
        }
        // This is the first call after a fork.
        let own = Arc::new(ProcessPool::new());
        let of_parent = self.current.swap(Arc::clone(&own));
        if of_parent.pid == own.pid {
            // Another thread was faster.
            self.current.store(Arc::clone(&of_parent));
            return of_parent;
        }
        // The child's copies of the parent's connections are closed, which does not end the connections. If a thread of
        // the parent held the lock, they are leaked, because they may be in an inconsistent state.
        let emptied = of_parent.idle.try_lock().map(|mut idle| *idle = IdleConnections::default()).is_ok();
        if !emptied {
            mem::forget(of_parent);
        }
        own
    }
}

// === impl ProcessPool ===

impl ProcessPool {
    fn new() -> Self {
        Self { pid: process::id(), idle: Mutex::default(), tls: OnceLock::new() }
    }

    /// Takes the connection that was used last, unless it has been idle for too long.
    pub(crate) fn take(&self, route: Route) -> Option<Stream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let last = idle.of(route).pop()?;
        if last.since.elapsed() < IDLE_TIME_MAX {
            return Some(last.stream);
        }
        // All other connections have been idle for longer.
        idle.of(route).clear();
        None
    }

    pub(crate) fn put(&self, route: Route, stream: Stream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.of(route);
        if idle.len() < IDLE_MAX {
            idle.push(IdleConnection { stream, since: Instant::now() });
        }
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&self) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = IdleConnections::default();
    }
}

// === impl IdleConnections ===

impl IdleConnections {
    fn of(&mut self, route: Route) -> &mut Vec<IdleConnection> {
        if route == Route::Lookup { &mut self.lookups } else { &mut self.others }
    }
}
