//! A pool of warm instances with a shard per thread, so that taking an instance rarely waits for other threads.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::guest::Guest;

/// The idle instances of a transform.
#[derive(Debug)]
pub(super) struct Pool {
    shards: Box<[Mutex<Vec<Guest>>]>,
}

/// The maximum number of idle instances in a shard. A thread uses one at a time; several threads may share a shard.
const KEPT: usize = 2;

// === impl Pool ===

impl Pool {
    pub(super) fn new(threads: usize) -> Self {
        let shards = threads.max(1).next_power_of_two();
        Self { shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Takes an instance from this thread's shard, or from another one. So there are as many instances as calls at a time,
    /// even if each call is on another thread.
    pub(super) fn take(&self) -> Option<Guest> {
        let pop = |shard: &Mutex<Vec<Guest>>| shard.lock().unwrap_or_else(PoisonError::into_inner).pop();
        pop(self.shard()).or_else(|| self.shards.iter().find_map(pop))
    }

    /// Returns an instance to the pool. Drops it if the shard is full.
    pub(super) fn put(&self, guest: Guest) {
        let mut shard = self.shard().lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() < KEPT {
            return shard.push(guest);
        }
        // Releases the lock before the instance is dropped, because unmapping the instance's memory takes long.
        drop(shard);
    }

    /// Returns the number of instances in all shards.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self) -> &Mutex<Vec<Guest>> {
        // The number of shards is a power of two.
        &self.shards[thread_number() & (self.shards.len() - 1)]
    }
}

/// Returns the number of this thread. Threads are numbered from 0, in the order of their first call.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        let number = own.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        own.set(Some(number));
        number
    })
}
