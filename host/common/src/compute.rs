//! Threads for work that is expected to be long, so that it does not delay other work.

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

/// A few threads with low priority, and a queue with a limit.
#[derive(Debug)]
pub struct Compute {
    queue: SyncSender<Work>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tasks are waiting")]
pub struct Full;

type Work = Box<dyn FnOnce() + Send>;

/// The niceness of these threads, at most 19.
const NICE: i32 = 10;

/// The niceness of threads for writes: lookups have priority, but a write holds the store's only writer, so it must not
/// starve on a busy machine. At 10 a small write took 110 ms instead of 30 with both cores busy.
pub const WRITE_NICE: i32 = 3;

// === impl Compute ===

impl Compute {
    /// Starts threads with this name and a queue of this length. They end when this is dropped.
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

    /// Runs work on one of the threads. The receiver of the result can wait synchronously or asynchronously. If the
    /// work panics, there is no result.
    ///
    /// # Errors
    /// If the queue is full: the work is not run then.
    pub fn try_run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Full> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move || {
            // If the receiver is gone, the work is not needed.
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
        // One thread holds the lock while it waits for work. The others wait for the lock.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(next) = next else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(next)) {
            let why = telemetry::panic_message(&*panic);
            tracing::error!("work on a compute thread failed because of a bug in Larder: {why}");
        }
    }
}

/// Lowers this thread's priority, if the operating system allows it: sets this niceness, at most 19.
pub fn lower_priority(nice: i32) {
    // On Linux, priorities belong to threads, despite the name of the call.
    let _ = rustix::process::setpriority_process(None, nice);
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn full_queue_rejects_panic_is_contained() {
        let compute = Compute::start("test", 1, 2).unwrap();
        let barrier = Arc::new(Barrier::new(2));
        let (entered, leaves) = (Arc::clone(&barrier), Arc::clone(&barrier));
        let first = compute.try_run(move || {
            entered.wait();
            entered.wait();
            1
        });
        leaves.wait();
        // The thread is busy: two jobs may wait, a third is rejected.
        let second = compute.try_run(|| -> i32 { panic!("on purpose") }).unwrap();
        let third = compute.try_run(|| 3).unwrap();
        assert_eq!(compute.try_run(|| 4).unwrap_err(), Full);
        leaves.wait();
        assert_eq!(first.unwrap().blocking_recv(), Ok(1));
        assert!(second.blocking_recv().is_err());
        assert_eq!(third.blocking_recv(), Ok(3));
    }
}
