//! A coarse clock and timer for the many waits that hardly ever end: each request starts one for the headers of the
//! next.
//!
//! A precise timer costs a read of the clock, a lock and an entry in a wheel for every request. This one belongs to its
//! worker's thread: a task reads the clock once a tick, and wakes the sleeps that are due. A tick in which the thread
//! did not use the clock is the last one: the task then sleeps until the next deadline, and the next use of the clock
//! starts the ticks again. So an idle thread is woken by its deadlines only.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use tokio::time::{sleep_until, timeout_at};

/// hyper's timer on a worker's thread; [`run`] has to run there.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoarseTimer;

/// Ends up to a tick late.
#[derive(Debug)]
pub(super) struct CoarseSleep {
    deadline: Instant,
    /// The place among the waiting, once it was polled.
    place: Option<usize>,
}

/// Those who wait on this thread.
#[derive(Debug, Default)]
struct Waiting {
    places: Vec<Option<(Instant, Waker)>>,
    free: Vec<usize>,
}

thread_local! {
    /// The time of the last tick; `None` while the clock does not tick.
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether the clock was used since the last tick.
    static IS_USED: Cell<bool> = const { Cell::new(false) };
    /// The task of the clock while it is paused.
    static PAUSED: Cell<Option<Waker>> = const { Cell::new(None) };
    static WAITING: RefCell<Waiting> = RefCell::default();
}

/// Runs this thread's clock, for as long as it is polled.
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

/// Stops the clock until it is used, or until the next deadline.
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

/// Starts the clock again, if it is paused.
#[cold]
fn resume() -> Instant {
    let now = precise_now();
    if let Some(clock) = PAUSED.take() {
        NOW.set(Some(now));
        clock.wake();
    }
    now
}

/// The machine's clock; tests pause it.
fn precise_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A tick that makes a bound's end late by an eighth at most, and does not wake an idle thread all the time.
pub(super) fn tick_for(bound: Duration) -> Duration {
    (bound / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

// === impl CoarseTimer ===

impl CoarseTimer {
    /// The time that comes so much later.
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
        Self { deadline, place: None }
    }

    /// Ends at another time. Who waits for it has to poll it again.
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
        let (deadline, place) = (self.deadline, self.place);
        self.place = Some(WAITING.with_borrow_mut(|waiting| waiting.put(place, deadline, cx.waker())));
        Poll::Pending
    }
}

impl Sleep for CoarseSleep {}

impl Drop for CoarseSleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // At the thread's end there may be nobody left to tell.
            let _ = WAITING.try_with(|waiting| waiting.borrow_mut().leave(place));
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn put(&mut self, place: Option<usize>, deadline: Instant, waker: &Waker) -> usize {
        let place = place.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        match &mut self.places[place] {
            // Woken too early it waits on: it may have been put off meanwhile.
            Some((wakes_at, known)) if known.will_wake(waker) => *wakes_at = deadline.min(*wakes_at),
            empty => *empty = Some((deadline, waker.clone())),
        }
        place
    }

    fn leave(&mut self, place: usize) {
        self.places[place] = None;
        self.free.push(place);
    }

    /// The earliest deadline.
    fn next(&self) -> Option<Instant> {
        self.places.iter().flatten().map(|(deadline, _)| *deadline).min()
    }

    /// Those whose time has come. They keep their places until they leave.
    fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let due = self.places.iter_mut().filter(|waiter| waiter.as_ref().is_some_and(|(deadline, _)| *deadline <= now));
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
        WAITING.with_borrow(|waiting| waiting.places.len() - waiting.free.len())
    }

    #[test]
    fn a_sleep_ends_at_its_deadline_or_up_to_a_tick_later() {
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
    fn who_stops_waiting_leaves_its_place_to_the_next() {
        on_one_thread(async {
            let clock = tokio::spawn(run(Duration::from_millis(10)));
            tokio::time::sleep(Duration::from_millis(15)).await;
            for _ in 0..100 {
                let patience =
                    tokio::time::timeout(Duration::from_millis(1), CoarseTimer.sleep(Duration::from_secs(1)));
                patience.await.unwrap_err();
                assert_eq!(waiting(), 0);
            }
            WAITING.with_borrow(|waiting| assert_eq!(waiting.places.len(), 1));
            clock.abort();
        });
    }

    #[test]
    fn every_one_that_is_due_is_woken() {
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
            assert_eq!(NOW.get(), None, "one sleep waits, and its deadline is far");
            // A use in between changes nothing for it.
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(CoarseTimer::after(Duration::ZERO), precise_now());
            sleep.await.unwrap();
            let took = began.elapsed();
            assert!((Duration::from_secs(75)..=Duration::from_millis(75_010)).contains(&took), "{took:?}");
            clock.abort();
        });
    }

    #[test]
    fn late_sleep_wakes_a_paused_clock() {
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
    fn the_tick_follows_the_bound() {
        let tick = |millis| tick_for(Duration::from_millis(millis)).as_millis();
        assert_eq!([tick(1), tick(200), tick(75_000)], [5, 25, 1_000]);
    }
}
