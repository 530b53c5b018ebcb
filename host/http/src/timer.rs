//! A coarse clock and timer for waits that rarely expire, such as the wait for the headers of the next request, which
//! starts after every request.
//!
//! A precise timer would read the clock, take a lock and add an entry to a timer wheel for every request. Here, each
//! worker thread has a task that reads the clock once per tick and wakes the sleeps that are due. If the thread did not
//! use the clock during a tick, the task pauses: it sleeps until the next deadline, or until the clock is used again.
//! So an idle thread is woken only by its deadlines.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use tokio::time::{sleep_until, timeout_at};

/// A timer for hyper on a worker thread. [`run`] must run on the same thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoarseTimer;

/// A sleep that ends at its deadline or up to one tick later.
#[derive(Debug)]
pub(super) struct CoarseSleep {
    deadline: Instant,
    /// The index in [`Waiting::slots`]; `None` before the first poll.
    slot: Option<usize>,
}

/// The pending sleeps of this thread.
#[derive(Debug, Default)]
struct Waiting {
    slots: Vec<Option<(Instant, Waker)>>,
    free: Vec<usize>,
}

thread_local! {
    /// The time of the last tick. `None` while the clock is paused.
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether the clock was used after the last tick.
    static IS_USED: Cell<bool> = const { Cell::new(false) };
    /// The waker of the clock's task while the clock is paused.
    static PAUSED: Cell<Option<Waker>> = const { Cell::new(None) };
    static WAITING: RefCell<Waiting> = RefCell::default();
}

/// Runs this thread's clock. Never returns.
pub(super) async fn run(tick: Duration) {
    loop {
        let now = precise_now();
        NOW.set(Some(now));
        IS_USED.set(false);
        for waker in WAITING.with_borrow_mut(|waiting| waiting.take_due(now)) {
            waker.wake();
        }
        sleep_until((now + tick).into()).await;
        if !IS_USED.get() {
            pause(now + tick).await;
        }
    }
}

/// Pauses the clock until it is used, or until the next deadline.
async fn pause(earliest: Instant) {
    NOW.set(None);
    let resumed = poll_fn(|cx| {
        if NOW.get().is_some() {
            return Poll::Ready(());
        }
        PAUSED.set(Some(cx.waker().clone()));
        Poll::Pending
    });
    match WAITING.with_borrow(Waiting::next) {
        Some(next) => _ = timeout_at(next.max(earliest).into(), resumed).await,
        None => resumed.await,
    }
    PAUSED.set(None);
}

/// Resumes the clock if it is paused. Returns the precise time.
#[cold]
fn resume() -> Instant {
    let now = precise_now();
    if let Some(clock) = PAUSED.take() {
        NOW.set(Some(now));
        clock.wake();
    }
    now
}

/// Returns the time of Tokio's clock, which tests can pause.
fn precise_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the tick for timeouts of this length: an eighth of the timeout, but at least 5 ms and at most 1 s.
pub(super) fn tick_for(bound: Duration) -> Duration {
    (bound / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

// === impl CoarseTimer ===

impl CoarseTimer {
    /// Returns the time `duration` from now, by the coarse clock.
    pub(super) fn after(duration: Duration) -> Instant {
        Self.now() + duration
    }
}

impl Timer for CoarseTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(CoarseSleep::new(deadline))
    }

    fn now(&self) -> Instant {
        IS_USED.set(true);
        NOW.get().unwrap_or_else(resume)
    }
}

// === impl CoarseSleep ===

impl CoarseSleep {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, slot: None }
    }

    /// Sets another deadline. The waiting task must poll the sleep again.
    pub(super) fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Future for CoarseSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if CoarseTimer.now() >= self.deadline {
            return Poll::Ready(());
        }
        let (deadline, slot) = (self.deadline, self.slot);
        self.slot = Some(WAITING.with_borrow_mut(|waiting| waiting.register(slot, deadline, cx.waker())));
        Poll::Pending
    }
}

impl Sleep for CoarseSleep {}

impl Drop for CoarseSleep {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // When the thread ends, its list of sleeps may already be destroyed.
            let _ = WAITING.try_with(|waiting| waiting.borrow_mut().release(slot));
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn register(&mut self, slot: Option<usize>, deadline: Instant, waker: &Waker) -> usize {
        let slot = slot.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        match &mut self.slots[slot] {
            // Keeps the earlier deadline. If the deadline was postponed, the task is woken too early, and waits again.
            Some((wakes_at, known)) if known.will_wake(waker) => *wakes_at = deadline.min(*wakes_at),
            empty => *empty = Some((deadline, waker.clone())),
        }
        slot
    }

    fn release(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }

    /// Returns the earliest deadline.
    fn next(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|(deadline, _)| *deadline).min()
    }

    /// Takes the wakers of the sleeps that are due. Their slots stay in use until [`Waiting::release`].
    fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let due = self.slots.iter_mut().filter(|waiter| waiter.as_ref().is_some_and(|(deadline, _)| *deadline <= now));
        due.filter_map(Option::take).map(|(_, waker)| waker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_one_thread<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    fn waiting() -> usize {
        WAITING.with_borrow(|waiting| waiting.slots.len() - waiting.free.len())
    }

    #[test]
    fn sleep_ends_within_tick_after_deadline() {
        on_one_thread(async {
            let clock = tokio::spawn(run(Duration::from_millis(10)));
            tokio::time::sleep(Duration::from_millis(15)).await;
            let began = tokio::time::Instant::now();
            CoarseTimer.sleep(Duration::from_millis(100)).await;
            let took = began.elapsed();
            assert!((Duration::from_millis(90)..=Duration::from_millis(115)).contains(&took), "{took:?}");
            clock.abort();
        });
    }

    #[test]
    fn slot_of_dropped_sleep_is_reused() {
        on_one_thread(async {
            let clock = tokio::spawn(run(Duration::from_millis(10)));
            tokio::time::sleep(Duration::from_millis(15)).await;
            for _ in 0..100 {
                let timed_out =
                    tokio::time::timeout(Duration::from_millis(1), CoarseTimer.sleep(Duration::from_secs(1)));
                timed_out.await.unwrap_err();
                assert_eq!(waiting(), 0);
            }
            WAITING.with_borrow(|waiting| assert_eq!(waiting.slots.len(), 1));
            clock.abort();
        });
    }

    #[test]
    fn all_due_sleeps_are_woken() {
        on_one_thread(async {
            let clock = tokio::spawn(run(Duration::from_millis(10)));
            tokio::time::sleep(Duration::from_millis(15)).await;
            let sleeps: Vec<_> =
                (0..50).map(|i| tokio::spawn(CoarseTimer.sleep(Duration::from_millis(i % 7 * 10)))).collect();
            for sleep in sleeps {
                sleep.await.unwrap();
            }
            assert_eq!(waiting(), 0);
            clock.abort();
        });
    }

    #[test]
    fn idle_clock_does_not_tick() {
        on_one_thread(async {
            let clock = tokio::spawn(run(Duration::from_millis(10)));
            tokio::time::sleep(Duration::from_millis(15)).await;
            assert_eq!(NOW.get(), None, "no use for a whole tick");
            let began = tokio::time::Instant::now();
            let sleep = tokio::spawn(CoarseTimer.sleep(Duration::from_secs(75)));
            tokio::task::yield_now().await;
            assert!(NOW.get().is_some());
            tokio::time::sleep(Duration::from_millis(25)).await;
            assert_eq!(NOW.get(), None, "one sleep is pending, and its deadline is far away");
            // Uses of the clock before the deadline must not change its deadline.
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(CoarseTimer::after(Duration::ZERO), precise_now());
            sleep.await.unwrap();
            let took = began.elapsed();
            assert!((Duration::from_secs(75)..=Duration::from_millis(75_010)).contains(&took), "{took:?}");
            clock.abort();
        });
    }

    #[test]
    fn new_sleep_resumes_paused_clock() {
        on_one_thread(async {
            let clock = tokio::spawn(run(Duration::from_millis(10)));
            let far = tokio::spawn(CoarseTimer.sleep(Duration::from_secs(75)));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(NOW.get(), None);
            let began = tokio::time::Instant::now();
            tokio::spawn(CoarseTimer.sleep(Duration::from_millis(100))).await.unwrap();
            let took = began.elapsed();
            assert!((Duration::from_millis(100)..=Duration::from_millis(115)).contains(&took), "{took:?}");
            assert!(!far.is_finished());
            clock.abort();
        });
    }

    #[test]
    fn tick_is_an_eighth_within_bounds() {
        let tick = |millis| tick_for(Duration::from_millis(millis)).as_millis();
        assert_eq!([tick(1), tick(200), tick(75_000)], [5, 25, 1_000]);
    }
}
