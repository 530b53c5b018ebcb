//! Reacts when resident memory comes close to its limit: first, caches shrink; closer to the limit, large requests are
//! also rejected.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use larder_common::{
    clock::next_beat,
    memory::{MemoryBudget, memory_limit, resident_bytes},
};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use tokio::time::{sleep_until, timeout_at};

use super::App;

/// How close the process's resident memory is to the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Normal,
    /// Caches shrink and accept no new entries.
    ShrinkCaches,
    /// In addition, large requests are rejected.
    RejectLarge,
}

/// Tracks the level, and when caches last shrank.
#[derive(Debug, Default)]
struct LevelTracker {
    level: Level,
    /// The last time that caches shrank.
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

/// The percentages of the memory limit at which a level starts (`_FROM`) and ends (`_BELOW`). They differ because freed
/// memory returns to the operating system only after a few seconds: with equal percentages, a level could end and start
/// again repeatedly.
const SHRINK_FROM: u64 = 85;
const SHRINK_BELOW: u64 = 80;
const REFUSE_FROM: u64 = 93;
const REFUSE_BELOW: u64 = 90;

/// The interval of memory checks while resident memory is close to [`SHRINK_FROM`] or above it.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// The interval of memory checks while resident memory is far below [`SHRINK_FROM`].
const EVERY_MAX: Duration = Duration::from_secs(2);
/// The assumed growth of resident memory in bytes per second, without request and response bodies. The hot cache gets
/// at most a few hundred thousand rows per second, and a load decodes 64 MiB at a time. Bodies have leases of the
/// memory budget: if these leases grow considerably, they wake the check early.
const GROWTH: u64 = 256 << 20;

/// If the leases of bodies grow by less than this many bytes, they do not wake the check early.
const GROWTH_CHECKED_MIN: usize = 8 << 20;

/// The interval at which the limit is read again, because it can change while the process runs.
const LIMIT_EVERY: Duration = Duration::from_secs(10);

/// The minimum time between two rounds of shrinking caches. It is long enough for the freed memory to return to the
/// operating system.
const SHRINK_EVERY: Duration = Duration::from_secs(12);

// === impl LevelTracker ===

impl LevelTracker {
    /// Updates the level for this much resident memory, and returns it.
    fn update(&mut self, resident: u64, limit: u64) -> Level {
        let percent = |percent: u64| limit / 100 * percent;
        let is_reached =
            |level: Level, from: u64, below: u64| resident >= percent(if self.level >= level { below } else { from });
        self.level = if is_reached(Level::RejectLarge, REFUSE_FROM, REFUSE_BELOW) {
            Level::RejectLarge
        } else if is_reached(Level::ShrinkCaches, SHRINK_FROM, SHRINK_BELOW) {
            Level::ShrinkCaches
        } else {
            Level::Normal
        };
        self.level
    }

    /// Returns whether to shrink caches now, and records it if so.
    fn should_shrink(&mut self, now: Instant) -> bool {
        let is_too_soon = self.shrunk.is_some_and(|shrunk| now.saturating_duration_since(shrunk) < SHRINK_EVERY);
        let shrinks = self.level >= Level::ShrinkCaches && !is_too_soon;
        if shrinks {
            self.shrunk = Some(now);
        }
        shrinks
    }
}

/// Returns how many bytes resident memory can grow before caches shrink.
fn distance(resident: u64, limit: u64) -> u64 {
    (limit / 100 * SHRINK_FROM).saturating_sub(resident)
}

/// Returns the time to the next check. It is short enough that memory that grows at the rate [`GROWTH`] does not reach
/// [`SHRINK_FROM`] before the check, but at least [`EVERY_MIN`].
fn interval(distance: u64) -> Duration {
    let millis = distance.saturating_mul(1_000) / GROWTH;
    Duration::from_millis(millis).clamp(EVERY_MIN, EVERY_MAX)
}

// === impl PressureMetrics ===

impl PressureMetrics {
    fn bind() -> Self {
        describe_gauge!(
            "larder_memory_limit_bytes",
            "Memory limit of the process, from its control groups or the machine."
        );
        describe_gauge!("larder_memory_level", "0: normal; 1: caches shrink; 2: large requests are also rejected.");
        describe_gauge!(
            "larder_in_flight_bytes",
            "Memory held by request and response bodies in flight, over all listeners."
        );
        describe_gauge!("larder_in_flight_max_bytes", "Limit of the memory for request and response bodies in flight.");
        describe_counter!(
            "larder_memory_steps_total",
            "How often the server reacted to resident memory close to its limit, by step: shrink_caches, refuse_large."
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

/// Checks the memory of the process until the server stops.
#[expect(clippy::cast_precision_loss, reason = "gauges of bytes, far below 2^53")]
pub(super) async fn watch_memory(app: Arc<App>, memory: Arc<MemoryBudget>) {
    let metrics = PressureMetrics::bind();
    metrics.in_flight_max.set(memory.bytes_max() as f64);
    let mut tracker = LevelTracker::default();
    let (mut limit, mut limit_read) = (None, None::<Instant>);
    let (mut next, mut growth) = (Instant::now(), usize::MAX);
    loop {
        let earliest = Instant::now() + EVERY_MIN;
        if timeout_at(next.into(), memory.grown_by(growth)).await.is_ok() {
            sleep_until(earliest.into()).await;
        }
        if limit_read.is_none_or(|read| read.elapsed() >= LIMIT_EVERY) {
            (limit, limit_read) = (memory_limit(), Some(Instant::now()));
            metrics.limit.set(limit.unwrap_or(0) as f64);
        }
        metrics.in_flight.set(memory.used() as f64);
        // Only Linux provides these figures.
        let (Some(limit), Some(resident)) = (limit, resident_bytes()) else {
            next = next_beat(EVERY_MAX);
            continue;
        };
        let distance = distance(resident, limit);
        next = next_beat(EVERY_MAX).min(Instant::now() + interval(distance));
        // Not the whole distance, because buffers may take more memory than the lease of their body.
        growth = usize::try_from(distance / 4).unwrap_or(usize::MAX).max(GROWTH_CHECKED_MIN);
        let before = tracker.level;
        let level = tracker.update(resident, limit);
        if level != before {
            log_level(before, level, resident, limit);
            metrics.level.set(f64::from(level as u8));
            memory.set_tight(level == Level::RejectLarge);
            app.store.pause_hot_cache(level >= Level::ShrinkCaches);
            if level == Level::RejectLarge {
                metrics.refusals.increment(1);
            }
        }
        if tracker.should_shrink(Instant::now()) {
            metrics.shrinks.increment(1);
            let (store, snapshot) = (Arc::clone(&app.store), app.current.load_full());
            // The async thread must not iterate over a large cache. The panic hook logs a panic of the task.
            let _ = tokio::task::spawn_blocking(move || {
                store.shrink_hot_cache();
                snapshot.drop_plans();
            })
            .await;
        }
    }
}

fn log_level(before: Level, level: Level, resident: u64, limit: u64) {
    match level {
        Level::RejectLarge => {
            tracing::warn!(resident, limit, "memory is close to its limit; rejecting large requests");
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
        let mut tracker = LevelTracker::default();
        for (resident, level) in [
            (84, Level::Normal),
            (85, Level::ShrinkCaches),
            (81, Level::ShrinkCaches),
            (92, Level::ShrinkCaches),
            (93, Level::RejectLarge),
            (91, Level::RejectLarge),
            (89, Level::ShrinkCaches),
            (79, Level::Normal),
            (84, Level::Normal),
            (99, Level::RejectLarge),
            (10, Level::Normal),
        ] {
            assert_eq!(tracker.update(resident * 10, 1_000), level, "at {resident} percent");
        }
    }

    #[test]
    fn memory_checks_speed_up_under_pressure() {
        let mib = |mib: u64| mib << 20;
        let millis = |resident, limit| interval(distance(mib(resident), mib(limit))).as_millis();
        let limit = 1_000;
        assert_eq!([millis(0, limit), millis(338, limit)], [2_000, 2_000]);
        assert!((1_300..1_400).contains(&millis(500, limit)));
        assert!((190..200).contains(&millis(800, limit)));
        assert_eq!([millis(840, limit), millis(900, limit), millis(1_000, limit)], [100, 100, 100]);
        assert_eq!(millis(10, 1 << 40), 2_000);
    }

    #[test]
    fn shrinking_caches_is_rate_limited() {
        let mut tracker = LevelTracker { level: Level::ShrinkCaches, shrunk: None };
        let now = Instant::now();
        assert!(tracker.should_shrink(now) && !tracker.should_shrink(now + SHRINK_EVERY / 2));
        assert!(tracker.should_shrink(now + SHRINK_EVERY));
        tracker.level = Level::Normal;
        assert!(!tracker.should_shrink(now + 10 * SHRINK_EVERY));
    }
}
