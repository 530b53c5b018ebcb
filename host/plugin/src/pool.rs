//! Warm instances, in a drawer for each thread: taking one waits for nobody.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::guest::Guest;

/// The instances of a transform that nobody uses at the moment.
#[derive(Debug)]
pub(super) struct Pool {
    drawers: Box<[Mutex<Vec<Guest>>]>,
}

/// Instances that a drawer keeps. A thread uses one at a time; two threads may share a drawer.
const KEPT: usize = 2;

// === impl Pool ===

impl Pool {
    pub(super) fn new(threads: usize) -> Self {
        let drawers = threads.max(1).next_power_of_two();
        Self { drawers: (0..drawers).map(|_| Mutex::default()).collect() }
    }

    /// An instance from this thread's drawer.
    pub(super) fn take(&self) -> Option<Guest> {
        self.drawer().lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// An instance from anybody's drawer, for when there is no room for another.
    pub(super) fn take_any(&self) -> Option<Guest> {
        self.drawers.iter().find_map(|drawer| drawer.lock().unwrap_or_else(PoisonError::into_inner).pop())
    }

    /// Puts an instance back. One too many is dropped.
    pub(super) fn put(&self, guest: Guest) {
        let mut drawer = self.drawer().lock().unwrap_or_else(PoisonError::into_inner);
        if drawer.len() < KEPT {
            return drawer.push(guest);
        }
        // Unmapping its memory takes longer than anybody should wait.
        drop(drawer);
    }

    /// Instances in all drawers.
    pub(super) fn len(&self) -> usize {
        self.drawers.iter().map(|drawer| drawer.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn drawer(&self) -> &Mutex<Vec<Guest>> {
        // A power of two.
        &self.drawers[thread_number() & (self.drawers.len() - 1)]
    }
}

/// A number of this thread's own, counted from 0.
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
