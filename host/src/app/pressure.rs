//! What happens when the process comes close to its memory limit: caches shrink first, then large requests are refused.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use larder_common::memory::{MemoryBudget, memory_limit, resident_bytes};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use tokio::time::{MissedTickBehavior, interval};

use super::App;

/// How close to the limit the process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Normal,
    /// Caches shrink and accept no new entries.
    ShrinkCaches,
    /// Large requests are refused too.
    RefuseLarge,
}

/// The current level, with the shares of the limit at which it changes.
#[derive(Debug, Default)]
struct Ladder {
    level: Level,
    /// When caches shrank last.
    shrunk: Option<Instant>,
}

struct PressureMetrics {
    limit: Gauge,
    level: Gauge,
    in_flight: Gauge,
    in_flight_max: Gauge,
    shrinks: Counter,
    refusals: Counter,
}

/// The percentages of the limit at which a level starts and ends. They differ because freed memory returns to the
/// operating system only after some seconds, so a level that ended at once would start again at once.
const SHRINK_FROM: u64 = 85;
const SHRINK_BELOW: u64 = 80;
const REFUSE_FROM: u64 = 93;
const REFUSE_BELOW: u64 = 90;

/// The interval of memory checks.
const EVERY: Duration = Duration::from_millis(100);

/// How often the limit is read again: it can change while the process runs.
const LIMIT_EVERY: u32 = 100;

/// After this long, memory that the caches freed has returned to the operating system.
const SHRINK_EVERY: Duration = Duration::from_secs(12);

// === impl Ladder ===

impl Ladder {
    /// Moves to the level for this much memory.
    fn step(&mut self, resident: u64, limit: u64) -> Level {
        let percent = |percent: u64| limit / 100 * percent;
        let holds =
            |level: Level, from: u64, below: u64| resident >= percent(if self.level >= level { below } else { from });
        self.level = if holds(Level::RefuseLarge, REFUSE_FROM, REFUSE_BELOW) {
            Level::RefuseLarge
        } else if holds(Level::ShrinkCaches, SHRINK_FROM, SHRINK_BELOW) {
            Level::ShrinkCaches
        } else {
            Level::Normal
        };
        self.level
    }

    /// Whether to shrink caches now.
    fn shrinks(&mut self, now: Instant) -> bool {
        let waits = self.shrunk.is_some_and(|shrunk| now.saturating_duration_since(shrunk) < SHRINK_EVERY);
        let shrinks = self.level >= Level::ShrinkCaches && !waits;
        if shrinks {
            self.shrunk = Some(now);
        }
        shrinks
    }
}

// === impl PressureMetrics ===

impl PressureMetrics {
    fn bind() -> Self {
        describe_gauge!(
            "larder_memory_limit_bytes",
            "Memory limit of the process, from its control groups or the machine."
        );
        describe_gauge!("larder_memory_level", "0: normal; 1: caches shrink; 2: large requests are refused too.");
        describe_gauge!(
            "larder_in_flight_bytes",
            "Memory held by request and response bodies in flight, over all listeners."
        );
        describe_gauge!("larder_in_flight_max_bytes", "Limit of the memory for request and response bodies in flight.");
        describe_counter!(
            "larder_memory_steps_total",
            "How often resident memory came close to its limit, by what was done: shrink_caches, refuse_large."
        );
        let steps = |step: &'static str| counter!("larder_memory_steps_total", "step" => step);
        Self {
            limit: gauge!("larder_memory_limit_bytes"),
            level: gauge!("larder_memory_level"),
            in_flight: gauge!("larder_in_flight_bytes"),
            in_flight_max: gauge!("larder_in_flight_max_bytes"),
            shrinks: steps("shrink_caches"),
            refusals: steps("refuse_large"),
        }
    }
}

/// Watches the process's memory until the server stops.
#[expect(clippy::cast_precision_loss, reason = "gauges of bytes, far below 2^53")]
pub(super) async fn watch_memory(app: Arc<App>, memory: Arc<MemoryBudget>) {
    let metrics = PressureMetrics::bind();
    metrics.in_flight_max.set(memory.bytes_max() as f64);
    let mut ladder = Ladder::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut limit = memory_limit();
    for tick in 0_u32.. {
        ticks.tick().await;
        if tick % LIMIT_EVERY == 0 {
            limit = memory_limit();
            metrics.limit.set(limit.unwrap_or(0) as f64);
        }
        metrics.in_flight.set(memory.used() as f64);
        // Only Linux has these figures.
        let (Some(limit), Some(resident)) = (limit, resident_bytes()) else { continue };
        let before = ladder.level;
        let level = ladder.step(resident, limit);
        if level != before {
            note(before, level, resident, limit);
            metrics.level.set(f64::from(level as u8));
            memory.set_tight(level == Level::RefuseLarge);
            app.store.close_hot_cache(level >= Level::ShrinkCaches);
            if level == Level::RefuseLarge {
                metrics.refusals.increment(1);
            }
        }
        if ladder.shrinks(Instant::now()) {
            metrics.shrinks.increment(1);
            let (store, snapshot) = (Arc::clone(&app.store), app.current.load_full());
            // This thread must not iterate over a large cache. A panic there is already logged.
            let _ = tokio::task::spawn_blocking(move || {
                store.shrink_hot_cache();
                snapshot.drop_plans();
            })
            .await;
        }
    }
}

fn note(before: Level, level: Level, resident: u64, limit: u64) {
    match level {
        Level::RefuseLarge => {
            tracing::warn!(resident, limit, "memory is close to its limit; refusing large requests");
        }
        Level::ShrinkCaches if before < level => {
            tracing::warn!(resident, limit, "memory is close to its limit; shrinking caches");
        }
        Level::ShrinkCaches => tracing::info!(resident, limit, "memory use decreased; accepting large requests again"),
        Level::Normal => tracing::info!(resident, limit, "memory use is back to normal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_resident_memory() {
        let mut ladder = Ladder::default();
        for (resident, level) in [
            (84, Level::Normal),
            (85, Level::ShrinkCaches),
            (81, Level::ShrinkCaches),
            (92, Level::ShrinkCaches),
            (93, Level::RefuseLarge),
            (91, Level::RefuseLarge),
            (89, Level::ShrinkCaches),
            (79, Level::Normal),
            (84, Level::Normal),
            (99, Level::RefuseLarge),
            (10, Level::Normal),
        ] {
            assert_eq!(ladder.step(resident * 10, 1_000), level, "at {resident} percent");
        }
    }

    #[test]
    fn caches_shrink_once_in_a_while() {
        let mut ladder = Ladder { level: Level::ShrinkCaches, shrunk: None };
        let now = Instant::now();
        assert!(ladder.shrinks(now) && !ladder.shrinks(now + SHRINK_EVERY / 2));
        assert!(ladder.shrinks(now + SHRINK_EVERY));
        ladder.level = Level::Normal;
        assert!(!ladder.shrinks(now + 10 * SHRINK_EVERY));
    }
}
