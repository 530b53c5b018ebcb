//! Limits and measures the CPU time of a call.
//!
//! The limit is CPU time and not elapsed time, so that a result does not depend on other load on the machine.
//!
//! Reading a thread's CPU time is a system call, which would double the cost of a short call. So the clock is first read
//! when the timer ticks for the first time during a call, and most calls end before that. The time before the first
//! tick is not limited; it is at most one tick of elapsed time unless the thread of the timer gets no CPU time.

use std::time::{Duration, Instant};

use larder_common::compute::thread_cpu_time;
use wasmtime::UpdateDeadline;

use super::engine::{TICK, ticks};

/// The clock of the current call of an instance.
#[derive(Debug)]
pub(super) struct CallClock {
    /// The maximum CPU time.
    limit: Duration,
    started: Instant,
    /// The state of the clocks at the first tick of the timer.
    first_tick: Option<FirstTick>,
    exceeded: Option<Exceeded>,
}

/// The cost of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// The elapsed time.
    pub(super) elapsed: Duration,
    /// The CPU time. Before the first tick of the timer, this is the elapsed time, but at most one tick.
    pub(super) cpu: Duration,
}

/// The limit that a call exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// The limit on CPU time.
    Cpu(Duration),
    /// The limit on elapsed time.
    Elapsed(Duration),
}

#[derive(Clone, Copy, Debug)]
struct FirstTick {
    /// The elapsed time of the call.
    elapsed: Duration,
    /// The CPU time of the thread.
    cpu: Duration,
}

/// The limit on elapsed time is this many times the limit on CPU time. It ends calls on a machine that is so busy that
/// the thread gets almost no CPU time.
const ELAPSED_FACTOR: u32 = 100;
/// The minimum limit on elapsed time.
const ELAPSED_MIN: Duration = Duration::from_secs(30);

// === impl Cost ===

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
    }
}

// === impl CallClock ===

impl CallClock {
    pub(super) fn new() -> Self {
        Self { limit: Duration::ZERO, started: Instant::now(), first_tick: None, exceeded: None }
    }

    /// Starts a call.
    pub(super) fn start(&mut self, limit: Duration) {
        *self = Self { limit, ..Self::new() };
    }

    /// Returns the number of ticks after which [`CallClock::on_deadline`] has to be called for the first time.
    pub(super) const fn first_deadline() -> u64 {
        1
    }

    /// Decides whether a call may continue after its deadline.
    pub(super) fn on_deadline(&mut self) -> UpdateDeadline {
        self.decide(self.started.elapsed(), thread_cpu_time())
    }

    fn decide(&mut self, elapsed: Duration, cpu: Duration) -> UpdateDeadline {
        let Some(first) = self.first_tick else {
            self.first_tick = Some(FirstTick { elapsed, cpu });
            return UpdateDeadline::Continue(ticks(self.limit));
        };
        let used = cpu.saturating_sub(first.cpu);
        let elapsed_max = (self.limit * ELAPSED_FACTOR).max(ELAPSED_MIN);
        self.exceeded = if used >= self.limit {
            Some(Exceeded::Cpu(self.limit))
        } else if elapsed >= elapsed_max {
            Some(Exceeded::Elapsed(elapsed_max))
        } else {
            return UpdateDeadline::Continue(ticks(self.limit.saturating_sub(used)));
        };
        UpdateDeadline::Interrupt
    }

    /// Returns the limit that the call exceeded, if it was interrupted.
    pub(super) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded
    }

    /// Returns the cost of the call so far.
    pub(super) fn cost(&self) -> Cost {
        let elapsed = self.started.elapsed();
        let cpu = match self.first_tick {
            None => elapsed.min(TICK),
            Some(first) => first.elapsed.min(TICK) + thread_cpu_time().saturating_sub(first.cpu),
        };
        Cost { elapsed, cpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn continued(decision: UpdateDeadline) -> Option<u64> {
        match decision {
            UpdateDeadline::Continue(ticks) => Some(ticks),
            _ => None,
        }
    }

    fn started(limit: Duration) -> CallClock {
        let mut clock = CallClock::new();
        clock.start(limit);
        clock
    }

    #[test]
    fn cpu_time_ends_a_call() {
        let mut clock = started(10 * MS);
        assert_eq!(continued(clock.decide(MS, 500 * MS)), Some(11));
        assert_eq!(continued(clock.decide(12 * MS, 508 * MS)), Some(3));
        assert_eq!(clock.exceeded(), None);
        assert_eq!(continued(clock.decide(15 * MS, 510 * MS)), None);
        assert_eq!(clock.exceeded(), Some(Exceeded::Cpu(10 * MS)));
    }

    #[test]
    fn waiting_for_a_core_costs_nothing() {
        let mut clock = started(10 * MS);
        clock.decide(MS, 500 * MS);
        for second in 1..30 {
            assert_eq!(continued(clock.decide(second * 1_000 * MS, 501 * MS)), Some(10), "{second} s");
        }
        assert_eq!(continued(clock.decide(ELAPSED_MIN, 501 * MS)), None);
        assert_eq!(clock.exceeded(), Some(Exceeded::Elapsed(ELAPSED_MIN)));
    }

    #[test]
    fn next_call_starts_from_zero() {
        let mut clock = started(10 * MS);
        clock.decide(MS, 500 * MS);
        clock.decide(MS, 511 * MS);
        assert!(clock.exceeded().is_some());
        clock.start(10 * MS);
        assert_eq!(clock.exceeded(), None);
        assert_eq!(continued(clock.decide(MS, 511 * MS)), Some(11), "the first tick");
    }

    #[test]
    fn cost_is_cpu_time_after_first_tick() {
        let mut clock = started(10 * MS);
        std::thread::sleep(3 * MS);
        assert_eq!(clock.cost().cpu, TICK, "the thread slept");
        clock.on_deadline();
        let before = thread_cpu_time();
        std::thread::sleep(20 * MS);
        assert!(clock.cost().cpu < 20 * MS, "{:?}", clock.cost());
        while thread_cpu_time() < before + 5 * MS {}
        assert!(clock.cost().cpu >= TICK + 5 * MS, "{:?}", clock.cost());
    }
}
