//! The thread that compares versions of plugins.
//!
//! Its priority is the lowest one, and it uses at most a share of one core, so that a comparison does not delay requests
//! even if the process has a limit on its CPU time. If several comparisons have samples, the one that used the least CPU
//! time is next, so a slow version delays only its own comparison by more than one sample.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use larder_common::{
    compute::{lower_priority, thread_cpu_time},
    telemetry,
};

/// Work for the thread: the samples of a comparison.
pub(super) trait ShadowWork: Send + Sync + std::fmt::Debug {
    /// Computes the next sample. Returns `false` if there is none.
    fn compute_next(&self) -> bool;
}

/// The thread, which ends when this value is dropped.
#[derive(Debug)]
pub(super) struct ShadowThread(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified if a comparison was added, and if the thread has to end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    comparisons: Vec<Registered>,
    is_closed: bool,
}

#[derive(Debug)]
struct Registered {
    comparison: Weak<dyn ShadowWork>,
    /// The CPU time of its samples. For a new comparison, it starts with the lowest time of all others.
    used: Duration,
}

/// How often the thread checks whether there are samples. Requests do not notify it, because that is a system call.
const POLL: Duration = Duration::from_millis(20);
/// The maximum pause after a sample.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const NICE: i32 = 19;

// === impl ShadowThread ===

impl ShadowThread {
    /// Starts the thread. `cpu_percent` is the percentage of the CPU time of one core that it may use, from 1 to 100.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(cpu_percent: u32) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let running = Arc::clone(&shared);
        thread::Builder::new().name("plugin-shadow".to_owned()).spawn(move || running.run(cpu_percent))?;
        Ok(Arc::new(Self(shared)))
    }

    /// Adds a comparison, until it is dropped.
    pub(super) fn add(&self, comparison: Weak<dyn ShadowWork>) {
        let mut state = self.0.lock();
        let used = state.comparisons.iter().map(|known| known.used).min().unwrap_or_default();
        state.comparisons.push(Registered { comparison, used });
        drop(state);
        self.0.changed.notify_one();
    }
}

impl Drop for ShadowThread {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement, so the state behind a poisoned lock is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, cpu_percent: u32) {
        lower_priority(NICE);
        loop {
            let Some(candidates) = self.candidates() else { return };
            let computed = candidates.iter().find_map(|comparison| Some((comparison, compute(&**comparison)?)));
            let pause = match computed {
                Some((comparison, used)) => {
                    self.charge(comparison, used);
                    (used * (100 - cpu_percent.min(100)) / cpu_percent.max(1)).min(PAUSE_MAX)
                }
                None => POLL,
            };
            drop(candidates);
            let state = self.lock();
            if !state.is_closed && !pause.is_zero() {
                drop(self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Returns the comparisons. The one that used the least CPU time is the first one. Waits if there are none. Returns
    /// `None` if the thread has to end.
    fn candidates(&self) -> Option<Vec<Arc<dyn ShadowWork>>> {
        let mut state = self.lock();
        loop {
            state.comparisons.retain(|known| known.comparison.strong_count() > 0);
            if state.is_closed {
                return None;
            }
            if !state.comparisons.is_empty() {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.comparisons.sort_by_key(|known| known.used);
        Some(state.comparisons.iter().filter_map(|known| known.comparison.upgrade()).collect())
    }

    fn charge(&self, comparison: &Arc<dyn ShadowWork>, used: Duration) {
        let mut state = self.lock();
        let is_it = |known: &&mut Registered| std::ptr::addr_eq(known.comparison.as_ptr(), Arc::as_ptr(comparison));
        if let Some(known) = state.comparisons.iter_mut().find(is_it) {
            known.used += used;
        }
    }
}

/// Computes the next sample of a comparison. Returns the CPU time, or `None` if there is no sample.
fn compute(comparison: &dyn ShadowWork) -> Option<Duration> {
    let before = thread_cpu_time();
    match catch_unwind(AssertUnwindSafe(|| comparison.compute_next())) {
        Ok(true) => {}
        Ok(false) => return None,
        Err(panic) => {
            let panic = telemetry::panic_message(&*panic);
            tracing::error!(panic, "a comparison of plugins panicked; this is a bug in Larder");
        }
    }
    Some(thread_cpu_time().saturating_sub(before))
}
