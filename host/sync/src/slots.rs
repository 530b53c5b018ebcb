//! Limits how many loads have rows in memory at the same time. Loads requested through `/materialize` have separate
//! slots, so that they do not delay the loads that the schedule or a command starts, and vice versa.
//!
//! A load takes a slot before it reads its first row, and keeps the slot until it has read and committed all rows. If
//! its source hangs, the load keeps its memory, so it also keeps the slot. Syncs that follow a change stream take no
//! slot, because they read few rows. If the table of a stream has to be scanned again, the scan takes a slot that only
//! such scans use, so it does not wait for other loads.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// The slots for one kind of load.
#[derive(Debug)]
pub(super) struct LoadSlots {
    max: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// The slots that a sync can use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots<'s> {
    /// The slots for loads.
    pub(super) loads: &'s LoadSlots,
    /// The slots for repeated scans of tables whose change stream is followed.
    pub(super) scans: &'s LoadSlots,
}

/// Permission for one load to have rows in memory. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct LoadSlot<'s> {
    slots: &'s LoadSlots,
}

/// The maximum number of concurrent loads that the schedule or a command started. The memory bound in
/// `docs/src/guides/tune.md` is calculated from this, [`CONCURRENT_SCANS_MAX`] and
/// [`larder_ingest::MATERIALIZATIONS_MAX`].
pub const CONCURRENT_LOADS_MAX: usize = 2;
/// The maximum number of concurrent repeated scans of tables whose change stream is followed. They are in addition to the
/// other loads.
pub(super) const CONCURRENT_SCANS_MAX: usize = 1;
/// The interval at which a waiting load calls `should_continue`.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

// === impl LoadSlots ===

impl LoadSlots {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: Mutex::default(), freed: Condvar::new() }
    }

    /// Waits for a slot and takes it. Calls `should_continue` every [`CHECK_INTERVAL`] during the wait, and returns
    /// `None` if it returns false.
    pub(super) fn acquire(&self, should_continue: &mut dyn FnMut() -> bool) -> Option<LoadSlot<'_>> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used >= self.max {
            let waited = self.freed.wait_timeout(used, CHECK_INTERVAL);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            used = now;
            if timeout.timed_out() {
                drop(used);
                if !should_continue() {
                    return None;
                }
                used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
        *used += 1;
        Some(LoadSlot { slots: self })
    }
}

impl Drop for LoadSlot<'_> {
    fn drop(&mut self) {
        *self.slots.used.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn excess_load_waits_for_slot() {
        let slots = LoadSlots::new(3);
        let mut held: Vec<_> = (0..3).map(|_| slots.acquire(&mut || unreachable!()).unwrap()).collect();
        let mut calls = 0;
        let refused = slots.acquire(&mut || {
            calls += 1;
            calls < 2
        });
        assert!(refused.is_none(), "the caller gave up");
        assert_eq!(calls, 2);
        thread::scope(|scope| {
            let (taken, was_taken) = mpsc::channel();
            let slots = &slots;
            scope.spawn(move || taken.send(slots.acquire(&mut || true).is_some()).unwrap());
            assert!(was_taken.recv_timeout(Duration::from_millis(50)).is_err(), "all slots are used");
            held.pop();
            assert!(was_taken.recv().unwrap());
        });
    }
}
