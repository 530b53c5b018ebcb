//! A pool of threads for long-running work, so that this work does not delay serving threads.
//!
//! A task that takes long calls [`checkpoint`] from time to time. If another owner is scheduled next, the task is paused, and
//! one of the pool's spare threads runs the other owner's task. So while a spare thread is idle, a long task delays those of
//! other owners by at most 5 ms of CPU time and the time between two checkpoints.

mod fair_queue;

use std::{
    cell::RefCell,
    collections::HashSet,
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

use self::fair_queue::{FairQueue, Turn};
use crate::telemetry;

/// A pool of threads with lower priority than serving threads, and a bounded queue that its owners share fairly.
#[derive(Debug)]
pub struct Compute {
    shared: Arc<Shared>,
}

/// The owner of a task. Owners get equal shares of the threads' CPU time and of a full queue.
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
    /// Notified if a task can be started or resumed, or if the pool was dropped. Idle threads wait for it.
    changed: Condvar,
    /// Notified if a paused task may continue.
    resumed: Condvar,
}

#[derive(Debug)]
struct Queue {
    tasks: FairQueue<Box<dyn Task>>,
    /// The number of running tasks, without paused ones.
    running: usize,
    /// The maximum number of running tasks.
    running_max: usize,
    /// The number of threads that wait for a task.
    idle: usize,
    /// The numbers of the paused tasks that may continue.
    resumed: HashSet<u64>,
    /// Whether the pool was dropped.
    is_closed: bool,
}

/// A task in the queue.
trait Task: Send + std::fmt::Debug {
    /// Does the work and sends its result, if a caller waits for it.
    fn run(self: Box<Self>);
    /// Reports that the work does not run.
    fn reject(self: Box<Self>);
    /// Returns whether no caller waits for the result.
    fn is_abandoned(&self) -> bool;
    /// Returns a function that returns this.
    fn abandonment(&self) -> Box<dyn Fn() -> bool>;
}

struct Work<T, F> {
    work: F,
    sender: Sender<T>,
}

/// The sender of a result. It is shared with [`Running`], and taken when the result is sent.
type Sender<T> = Arc<Mutex<Option<oneshot::Sender<Result<T, Full>>>>>;

/// The task of the current thread.
struct Running {
    shared: Arc<Shared>,
    owner: Owner,
    /// The CPU time of the thread up to which the owner was charged.
    charged: Duration,
    is_abandoned: Box<dyn Fn() -> bool>,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// The minimum number of threads of a pool in addition to those that may run at a time, and so of paused tasks.
const SPARE_THREADS: usize = 16;
/// A task is paused only after it used this CPU time, because a switch of threads costs some microseconds.
const SLICE: Duration = Duration::from_millis(5);

/// The niceness of the pool's threads.
const NICE: i32 = 10;

/// The niceness of threads for writes. Lookups have priority, but a write holds the store's only writer, so it must not
/// starve on a busy machine. At niceness 10, a small write took 110 ms instead of 30 ms while both cores of the machine
/// were busy.
pub const WRITE_NICE: i32 = 3;

// === impl Compute ===

impl Compute {
    /// Starts threads with this name, of which at most `threads` run at a time, and a queue in which at most `waiting_max`
    /// tasks wait. The threads end when the pool is dropped, after the waiting tasks.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(name: &str, threads: usize, waiting_max: usize) -> io::Result<Self> {
        let running_max = threads.max(1);
        let queue = Mutex::new(Queue {
            tasks: FairQueue::new(waiting_max),
            running: 0,
            running_max,
            idle: 0,
            resumed: HashSet::new(),
            is_closed: false,
        });
        // The threads that were started end if this is dropped because of an error.
        let compute = Self { shared: Arc::new(Shared { queue, changed: Condvar::new(), resumed: Condvar::new() }) };
        for i in 0..running_max + SPARE_THREADS.max(2 * running_max) {
            let shared = Arc::clone(&compute.shared);
            let thread = thread::Builder::new().name(format!("{name}-{i}"));
            thread.spawn(move || shared.run_tasks())?;
        }
        Ok(compute)
    }

    /// Runs work on one of the threads. The caller can wait for the result synchronously or asynchronously. The receiver
    /// gets [`Full`] if the work of another owner displaced it from a full queue. If the work panics, the
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
        let task = Box::new(Work { work, sender: Arc::new(Mutex::new(Some(sender))) });
        let pushed = self.shared.lock().tasks.push(owner, task, |task| task.is_abandoned());
        match pushed {
            Ok(displaced) => {
                self.shared.changed.notify_one();
                displaced.into_iter().for_each(|task| task.reject());
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
    #[expect(
        clippy::new_without_default,
        reason = "two values are never equal, but default values are expected to be equal"
    )]
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
    fn run_tasks(self: Arc<Self>) {
        lower_priority(NICE);
        while let Some((owner, task)) = self.next() {
            let (shared, charged, is_abandoned) = (Arc::clone(&self), thread_cpu_time(), task.abandonment());
            RUNNING.set(Some(Running { shared, owner, charged, is_abandoned }));
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task.run())) {
                let panic = telemetry::panic_message(&*panic);
                tracing::error!(panic, "a task on a compute thread panicked; this is a bug in Larder");
            }
            let charged = RUNNING.take().map_or(charged, |running| running.charged);
            let mut queue = self.lock();
            queue.running -= 1;
            queue.tasks.finish(owner, thread_cpu_time().saturating_sub(charged));
            drop(queue);
        }
    }

    /// Waits for the next task. Returns `None` after the last one.
    fn next(&self) -> Option<(Owner, Box<dyn Task>)> {
        let mut queue = self.lock();
        loop {
            let next = if queue.running < queue.running_max { queue.tasks.pop() } else { None };
            match next {
                Some((owner, Turn::Start(task))) => {
                    queue.running += 1;
                    return Some((owner, task));
                }
                Some((_, Turn::Resume(paused))) => {
                    queue.running += 1;
                    queue.resumed.insert(paused);
                    self.resumed.notify_all();
                }
                None if queue.is_closed && queue.running == 0 => {
                    // The other threads check this, too.
                    self.changed.notify_all();
                    return None;
                }
                None => {
                    queue.idle += 1;
                    queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    queue.idle -= 1;
                }
            }
        }
    }

    /// Charges an owner for the time that its running task used. If it is another owner's turn, pauses the task until it is
    /// this owner's turn again. If the other owner's task has to be started, and no thread is idle, the task continues.
    fn take_turns(&self, owner: Owner, used: Duration) {
        let mut queue = self.lock();
        // If fewer tasks run than may, a thread that was notified has not woken up yet, and takes the other owner's task.
        if !queue.tasks.charge(owner, used) || queue.running < queue.running_max {
            return;
        }
        let Some(is_paused) = queue.tasks.next_is_paused().filter(|is_paused| *is_paused || queue.idle > 0) else {
            return;
        };
        let paused = queue.tasks.pause(owner);
        if is_paused {
            if let Some((_, Turn::Resume(next))) = queue.tasks.pop() {
                queue.resumed.insert(next);
                self.resumed.notify_all();
            }
        } else {
            queue.running -= 1;
            self.changed.notify_one();
        }
        while !queue.resumed.remove(&paused) {
            queue = self.resumed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

// === impl Work ===

impl<T: Send + 'static, F: FnOnce() -> T + Send> Task for Work<T, F> {
    fn run(self: Box<Self>) {
        if is_closed(&self.sender) {
            return;
        }
        let result = (self.work)();
        // If the receiver was dropped, the result is not needed.
        let _ = take(&self.sender).map(|sender| sender.send(Ok(result)));
    }

    fn reject(self: Box<Self>) {
        // The same applies here.
        let _ = take(&self.sender).map(|sender| sender.send(Err(Full)));
    }

    fn is_abandoned(&self) -> bool {
        is_closed(&self.sender)
    }

    fn abandonment(&self) -> Box<dyn Fn() -> bool> {
        let sender = Arc::clone(&self.sender);
        Box::new(move || is_closed(&sender))
    }
}

fn is_closed<T>(sender: &Sender<T>) -> bool {
    let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
    sender.as_ref().is_none_or(oneshot::Sender::is_closed)
}

fn take<T>(sender: &Sender<T>) -> Option<oneshot::Sender<Result<T, Full>>> {
    sender.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Gives the tasks of other owners a turn, if the current thread runs a task of a pool. Returns whether the task is
/// abandoned: no caller waits for its result. On other threads, does nothing and returns false.
#[must_use]
pub fn checkpoint() -> bool {
    RUNNING.with_borrow_mut(|running| {
        let Some(running) = running else { return false };
        let used = thread_cpu_time().saturating_sub(running.charged);
        if used >= SLICE && !(running.is_abandoned)() {
            running.shared.take_turns(running.owner, used);
            running.charged += used;
        }
        (running.is_abandoned)()
    })
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

    /// Starts a pool with one thread that is busy. Returns a function that ends its work.
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
        let (compute, resume) = busy(2);
        // Two tasks can wait, and a third task is rejected.
        let panicking = compute.try_run(Owner::COMMON, || -> i32 { panic!("on purpose") }).unwrap();
        let last = compute.try_run(Owner::COMMON, || 3).unwrap();
        assert_eq!(compute.try_run(Owner::COMMON, || 4).unwrap_err(), Full);
        resume();
        assert!(panicking.blocking_recv().is_err());
        assert_eq!(last.blocking_recv(), Ok(Ok(3)));
    }

    #[test]
    fn full_queue_is_shared_by_owners() {
        let (compute, resume) = busy(2);
        let (crowd, other) = (Owner::new(), Owner::new());
        let kept = compute.try_run(crowd, || 1).unwrap();
        let displaced = compute.try_run(crowd, || 2).unwrap();
        let others = compute.try_run(other, || 3).unwrap();
        assert_eq!(displaced.blocking_recv(), Ok(Err(Full)));
        assert_eq!(compute.try_run(other, || 4).unwrap_err(), Full, "each owner has half of the queue");
        resume();
        assert_eq!((kept.blocking_recv(), others.blocking_recv()), (Ok(Ok(1)), Ok(Ok(3))));
    }

    #[test]
    fn waiting_tasks_run_after_drop() {
        let (compute, resume) = busy(2);
        let last = compute.try_run(Owner::COMMON, || 1).unwrap();
        drop(compute);
        resume();
        assert_eq!(last.blocking_recv(), Ok(Ok(1)));
    }

    /// Uses CPU time until the function returns true.
    fn work_until(is_done: impl Fn() -> bool) {
        while !is_done() {
            let started = thread_cpu_time();
            while thread_cpu_time() < started + Duration::from_millis(1) {}
            let _ = checkpoint();
        }
    }

    #[test]
    fn long_task_is_paused_for_other_owners() {
        let compute = Compute::start("test", 1, 8).unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let is_done = |count: u64| {
            let done = Arc::clone(&done);
            move || done.load(Ordering::SeqCst) >= count
        };
        // Without pauses, these tasks would wait for the short ones, which would wait for these.
        let long = [0; 2].map(|_| {
            let is_done = is_done(4);
            compute.try_run(Owner::new(), move || work_until(is_done)).unwrap()
        });
        let short = [0; 4].map(|_| {
            let done = Arc::clone(&done);
            compute.try_run(Owner::new(), move || done.fetch_add(1, Ordering::SeqCst)).unwrap()
        });
        short.into_iter().for_each(|short| assert!(short.blocking_recv().unwrap().is_ok()));
        long.into_iter().for_each(|long| assert_eq!(long.blocking_recv(), Ok(Ok(()))));
    }

    #[test]
    fn own_tasks_wait_for_long_task() {
        let compute = Compute::start("test", 1, 8).unwrap();
        let (owner, done) = (Owner::new(), Arc::new(AtomicU64::new(0)));
        let (first, second) = (Arc::clone(&done), Arc::clone(&done));
        let long = compute.try_run(owner, move || {
            let started = thread_cpu_time();
            work_until(|| thread_cpu_time() > started + 10 * SLICE);
            first.fetch_add(1, Ordering::SeqCst)
        });
        let short = compute.try_run(owner, move || second.fetch_add(1, Ordering::SeqCst));
        let order = [long, short].map(|task| task.unwrap().blocking_recv());
        assert_eq!(order, [Ok(Ok(0)), Ok(Ok(1))]);
    }

    #[test]
    fn checkpoint_reports_abandoned_task() {
        assert!(!checkpoint(), "not a thread of a pool");
        let compute = Compute::start("test", 1, 8).unwrap();
        let ended = Arc::new(Barrier::new(2));
        let end = Arc::clone(&ended);
        let task = compute.try_run(Owner::new(), move || {
            let awaited = !checkpoint();
            end.wait();
            while !checkpoint() {}
            end.wait();
            awaited
        });
        ended.wait();
        drop(task);
        ended.wait();
    }
}
