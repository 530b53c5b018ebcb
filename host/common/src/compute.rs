//! A pool of threads for long-running work, so that this work does not delay serving threads.

mod fair_queue;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use self::fair_queue::FairQueue;
use crate::telemetry;

/// A pool of threads with lower priority than serving threads, and a bounded queue that its owners share fairly.
#[derive(Debug)]
pub struct Compute {
    shared: Arc<Shared>,
}

/// Whose work it is. Owners get equal shares of the threads' CPU time and of a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(u64);

/// The error for work that did not run because the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tasks are waiting")]
pub struct Full;

/// The state that a pool and its threads share.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Notified if a task was added, or if the pool was dropped.
    changed: Condvar,
}

#[derive(Debug)]
struct Queue {
    tasks: FairQueue<Box<dyn Task>>,
    /// Whether the pool was dropped.
    is_closed: bool,
}

/// A task in the queue.
trait Task: Send + std::fmt::Debug {
    /// Does the work and sends its result, unless nobody waits for it.
    fn run(self: Box<Self>);
    /// Reports that the work does not run.
    fn reject(self: Box<Self>);
}

struct Work<T, F> {
    work: F,
    sender: oneshot::Sender<Result<T, Full>>,
}

/// The niceness of the pool's threads.
const NICE: i32 = 10;

/// The niceness of threads for writes. Lookups have priority, but a write holds the store's only writer, so it must not
/// starve on a busy machine. At niceness 10, a small write took 110 ms instead of 30 ms while both cores of the machine
/// were busy.
pub const WRITE_NICE: i32 = 3;

// === impl Compute ===

impl Compute {
    /// Starts threads with this name, and a queue in which at most `waiting_max` tasks wait. The threads end when the
    /// pool is dropped, after the waiting tasks.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(name: &str, threads: usize, waiting_max: usize) -> io::Result<Self> {
        let queue = Mutex::new(Queue { tasks: FairQueue::new(waiting_max), is_closed: false });
        // The threads that were started end if this is dropped because of an error.
        let compute = Self { shared: Arc::new(Shared { queue, changed: Condvar::new() }) };
        for i in 0..threads.max(1) {
            let shared = Arc::clone(&compute.shared);
            let thread = thread::Builder::new().name(format!("{name}-{i}"));
            thread.spawn(move || shared.run_tasks())?;
        }
        Ok(compute)
    }

    /// Runs work on one of the threads. The caller can wait for the result synchronously or asynchronously. The receiver
    /// gets [`Full`] if the work lost its place in a full queue to the work of another owner. If the work panics, the
    /// receiver gets an error.
    ///
    /// # Errors
    /// If the queue is full. In that case, the work does not run.
    pub fn try_run<T: Send + 'static>(
        &self,
        owner: Owner,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, Full>>, Full> {
        let (sender, receiver) = oneshot::channel();
        let pushed = self.shared.lock().tasks.push(owner, Box::new(Work { work, sender }));
        match pushed {
            Ok(displaced) => {
                self.shared.changed.notify_one();
                if let Some(displaced) = displaced {
                    displaced.reject();
                }
                Ok(receiver)
            }
            Err(_) => Err(Full),
        }
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

// === impl Owner ===

impl Owner {
    /// The owner of work that needs no share of its own.
    pub const COMMON: Self = Self(0);

    /// Returns an owner that differs from all others of this process.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two values are never equal, which nobody expects of a default")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs tasks until the pool is dropped.
    fn run_tasks(&self) {
        lower_priority(NICE);
        while let Some((owner, task)) = self.next() {
            let started = thread_cpu_time();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task.run())) {
                let panic = telemetry::panic_message(&*panic);
                tracing::error!(panic, "a task on a compute thread panicked; this is a bug in Larder");
            }
            self.lock().tasks.finish(owner, thread_cpu_time().saturating_sub(started));
        }
    }

    /// Waits for the next task. Returns `None` after the last one.
    fn next(&self) -> Option<(Owner, Box<dyn Task>)> {
        let mut queue = self.lock();
        loop {
            match queue.tasks.pop() {
                None if queue.is_closed => return None,
                None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                next => return next,
            }
        }
    }
}

// === impl Work ===

impl<T: Send, F: FnOnce() -> T + Send> Task for Work<T, F> {
    fn run(self: Box<Self>) {
        // If the receiver was dropped, the result is not needed.
        if !self.sender.is_closed() {
            let _ = self.sender.send(Ok((self.work)()));
        }
    }

    fn reject(self: Box<Self>) {
        // The same applies here.
        let _ = self.sender.send(Err(Full));
    }
}

impl<T, F> std::fmt::Debug for Work<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

/// Returns the CPU time that the current thread has used.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Sets the niceness of the current thread, if the operating system allows it. The maximum is 19.
pub fn lower_priority(nice: i32) {
    // On Linux, priorities belong to threads, despite the name of the call.
    let _ = rustix::process::setpriority_process(None, nice);
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Starts a pool with one thread that is busy. Returns a function that lets the thread go on.
    fn busy(waiting_max: usize) -> (Compute, impl FnOnce()) {
        let compute = Compute::start("test", 1, waiting_max).unwrap();
        let barrier = Arc::new(Barrier::new(2));
        let reached = Arc::clone(&barrier);
        let first = compute.try_run(Owner::COMMON, move || {
            reached.wait();
            reached.wait();
        });
        let _ = barrier.wait();
        (compute, move || {
            barrier.wait();
            drop(first);
        })
    }

    #[test]
    fn full_queue_and_panic_are_reported() {
        let (compute, go_on) = busy(2);
        // Two tasks can wait, and a third task is rejected.
        let panicking = compute.try_run(Owner::COMMON, || -> i32 { panic!("on purpose") }).unwrap();
        let last = compute.try_run(Owner::COMMON, || 3).unwrap();
        assert_eq!(compute.try_run(Owner::COMMON, || 4).unwrap_err(), Full);
        go_on();
        assert!(panicking.blocking_recv().is_err());
        assert_eq!(last.blocking_recv(), Ok(Ok(3)));
    }

    #[test]
    fn full_queue_is_shared_by_owners() {
        let (compute, go_on) = busy(2);
        let (crowd, other) = (Owner::new(), Owner::new());
        let kept = compute.try_run(crowd, || 1).unwrap();
        let displaced = compute.try_run(crowd, || 2).unwrap();
        let others = compute.try_run(other, || 3).unwrap();
        assert_eq!(displaced.blocking_recv(), Ok(Err(Full)));
        assert_eq!(compute.try_run(other, || 4).unwrap_err(), Full, "each owner has half of the queue");
        go_on();
        assert_eq!((kept.blocking_recv(), others.blocking_recv()), (Ok(Ok(1)), Ok(Ok(3))));
    }

    #[test]
    fn waiting_tasks_run_after_drop() {
        let (compute, go_on) = busy(2);
        let last = compute.try_run(Owner::COMMON, || 1).unwrap();
        drop(compute);
        go_on();
        assert_eq!(last.blocking_recv(), Ok(Ok(1)));
    }
}
