//! A pool of threads for long-running work, so that this work does not delay serving threads.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tokio::sync::oneshot;

use crate::telemetry;

/// A pool of threads with lower priority than serving threads, and a bounded queue.
#[derive(Debug)]
pub struct Compute {
    queue: SyncSender<Work>,
}

/// The error for work that was not queued because the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tasks are waiting")]
pub struct Full;

type Work = Box<dyn FnOnce() + Send>;

/// The niceness of the pool's threads.
const NICE: i32 = 10;

/// The niceness of threads for writes. Lookups have priority, but a write holds the store's only writer, so it must not
/// starve on a busy machine. At niceness 10, a small write took 110 ms instead of 30 ms while both cores of the machine
/// were busy.
pub const WRITE_NICE: i32 = 3;

// === impl Compute ===

impl Compute {
    /// Starts threads with this name, and a queue in which at most `waiting_max` tasks wait. The threads end when the
    /// pool is dropped.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(name: &str, threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (queue, work) = sync_channel::<Work>(waiting_max);
        let work = Arc::new(Mutex::new(work));
        for i in 0..threads.max(1) {
            let work = Arc::clone(&work);
            let thread = thread::Builder::new().name(format!("{name}-{i}"));
            thread.spawn(move || run(&work))?;
        }
        Ok(Self { queue })
    }

    /// Runs work on one of the threads. The caller can wait for the result synchronously or asynchronously. If the work
    /// panics, the receiver gets an error.
    ///
    /// # Errors
    /// If the queue is full. In that case, the work does not run.
    pub fn try_run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Full> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move || {
            // If the receiver was dropped, the result is not needed.
            if !sender.is_closed() {
                let _ = sender.send(work());
            }
        });
        match self.queue.try_send(work) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Full),
        }
    }
}

fn run(work: &Mutex<Receiver<Work>>) {
    lower_priority(NICE);
    loop {
        // One thread holds the lock while it waits for work. The other threads wait for the lock.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(next) = next else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(next)) {
            let panic = telemetry::panic_message(&*panic);
            tracing::error!(panic, "a task on a compute thread panicked; this is a bug in Larder");
        }
    }
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

    #[test]
    fn full_queue_and_panic_are_reported() {
        let compute = Compute::start("test", 1, 2).unwrap();
        let barrier = Arc::new(Barrier::new(2));
        let (entered, leaves) = (Arc::clone(&barrier), Arc::clone(&barrier));
        let first = compute.try_run(move || {
            entered.wait();
            entered.wait();
            1
        });
        leaves.wait();
        // The thread is busy: two tasks can wait, and a third task is rejected.
        let second = compute.try_run(|| -> i32 { panic!("on purpose") }).unwrap();
        let third = compute.try_run(|| 3).unwrap();
        assert_eq!(compute.try_run(|| 4).unwrap_err(), Full);
        leaves.wait();
        assert_eq!(first.unwrap().blocking_recv(), Ok(1));
        assert!(second.blocking_recv().is_err());
        assert_eq!(third.blocking_recv(), Ok(3));
    }
}
