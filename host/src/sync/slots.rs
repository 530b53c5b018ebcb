//! How many loads hold rows in memory at once. Loads that callers ask for are counted apart from those of the schedule, so
//! that neither keep the others waiting.
//!
//! A load that waits for a source that hangs keeps its slot, because it keeps its memory. One that has not read a row
//! yet has none.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// The slots of a host for one kind of load.
#[derive(Debug)]
pub(super) struct LoadSlots {
    max: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// The right to hold the rows of a load in memory.
#[derive(Debug)]
pub(super) struct LoadSlot<'s> {
    slots: &'s LoadSlots,
}

/// Loads by the schedule or by command that hold rows in memory at once. README's bound on memory counts these and
/// [`ASKED_AT_ONCE_MAX`].
pub const LOADS_AT_ONCE_MAX: usize = 2;
/// Loads that callers asked for over HTTP that hold rows in memory at once.
pub const ASKED_AT_ONCE_MAX: usize = 4;
/// A load that waits tells its caller so often that it does.
const TELL_EVERY: Duration = Duration::from_millis(500);

// === impl LoadSlots ===

impl LoadSlots {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: Mutex::default(), freed: Condvar::new() }
    }

    /// Waits for a slot. `go_on` is called from time to time meanwhile, and ends the wait by returning false.
    pub(super) fn take(&self, go_on: &mut dyn FnMut() -> bool) -> Option<LoadSlot<'_>> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used >= self.max {
            let waited = self.freed.wait_timeout(used, TELL_EVERY);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            used = now;
            if timeout.timed_out() {
                drop(used);
                if !go_on() {
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
    fn load_beyond_the_bound_waits_for_a_slot_or_for_its_caller() {
        let slots = LoadSlots::new(3);
        let mut held: Vec<_> = (0..3).map(|_| slots.take(&mut || unreachable!()).unwrap()).collect();
        let mut told = 0;
        let refused = slots.take(&mut || {
            told += 1;
            told < 2
        });
        assert!(refused.is_none(), "the caller gave up");
        assert_eq!(told, 2);
        thread::scope(|scope| {
            let (taken, was_taken) = mpsc::channel();
            let slots = &slots;
            scope.spawn(move || taken.send(slots.take(&mut || true).is_some()).unwrap());
            assert!(was_taken.recv_timeout(Duration::from_millis(50)).is_err(), "all slots are used");
            held.pop();
            assert!(was_taken.recv().unwrap());
        });
    }
}
