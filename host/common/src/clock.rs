//! An injected clock, so that tests can set the time that determines whether rows are fresh. The module also formats
//! times, and computes the times of schedules and periodic tasks.

use std::{
    fmt::Debug,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, tz::TimeZone};
use larder_model::model::Micros;
use tokio::sync::watch;

pub use larder_model::model::parse_time;

/// A source of the current time.
pub trait Clock: Send + Sync + Debug {
    /// Returns the time in microseconds since the Unix epoch, UTC.
    fn now(&self) -> Micros;

    /// Returns a receiver that is notified when the clock is set. A task that sleeps until a certain time can then
    /// recompute how long to sleep. Returns `None` for a clock that cannot be set.
    fn changes(&self) -> Option<watch::Receiver<()>> {
        None
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock that changes only when it is set, for tests.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    set: watch::Sender<()>,
}

/// Formats a time like Python's `str` of an aware `datetime` in UTC: `2026-11-23 08:17:22+00:00`, with six fractional
/// digits unless the fraction is zero. Feast writes times to DynamoDB in this format. Returns `None` for times before
/// the year 1, and for times after [`Timestamp::MAX`], which is about a day before the end of the year 9999.
///
/// The texts sort in the order of the times, because `+` sorts before `.`.
#[must_use]
pub fn python_text(instant: Micros) -> Option<String> {
    let at = Timestamp::from_microsecond(instant).ok()?.to_zoned(TimeZone::UTC).datetime();
    if at.year() < 1 {
        return None;
    }
    let (year, month, day, hour, minute, second) =
        (at.year(), at.month(), at.day(), at.hour(), at.minute(), at.second());
    let mut text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    let fraction = instant.rem_euclid(1_000_000);
    if fraction != 0 {
        text.push_str(&format!(".{fraction:06}"));
    }
    text.push_str("+00:00");
    Some(text)
}

/// Returns the next time of a cron schedule after a given time, in UTC. Returns `None` if the schedule is invalid or
/// has no next time.
#[must_use]
pub fn next_by_cron(line: &str, after: Micros) -> Option<Micros> {
    let cron: croner::Cron = line.parse().ok()?;
    let after = Timestamp::from_microsecond(after).ok()?.to_zoned(TimeZone::UTC);
    cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp().as_microsecond())
}

/// Returns the next beat after the current time; see [`beat_after`].
#[must_use]
pub fn next_beat(period: Duration) -> Instant {
    beat_after(Instant::now(), period)
}

/// Returns the next beat after an instant. The beats of a period are the instants that are a whole number of periods
/// after the `instant` of the first call in the process. Periodic tasks sleep until their next beat, so that they wake
/// an idle process together instead of one after the other.
#[must_use]
pub fn beat_after(instant: Instant, period: Duration) -> Instant {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = *BEGAN.get_or_init(|| instant);
    let into = instant.saturating_duration_since(began).as_nanos() % period.as_nanos().max(1);
    instant + period.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
}

// === impl SystemClock ===

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only code that reads the system clock")]
    fn now(&self) -> Micros {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX),
            Err(before) => -Micros::try_from(before.duration().as_micros()).unwrap_or(Micros::MAX),
        }
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// Creates a clock that is set to this time.
    #[must_use]
    pub fn at(now: Micros) -> Arc<Self> {
        Arc::new(Self { now: AtomicI64::new(now), set: watch::Sender::new(()) })
    }

    /// Sets the clock to this time.
    pub fn set(&self, now: Micros) {
        self.now.store(now, Ordering::Relaxed);
        self.set.send_replace(());
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.now.load(Ordering::Relaxed)
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.set.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_parse_from_dates_and_timestamps() {
        assert_eq!(parse_time("1970-01-02"), Some(86_400_000_000));
        assert_eq!(larder_model::model::parse_exact_time("1969-12-31T23:59:59.999999999Z"), Some((-1, 999)));
        assert_eq!(larder_model::model::parse_exact_time("1970-01-01 00:00:00.000001002"), Some((1, 2)));
        assert_eq!(parse_time("1970-01-01T00:00:01"), Some(1_000_000));
        assert_eq!(parse_time("1970-01-01 00:00:01.25"), Some(1_250_000));
        assert_eq!(parse_time("1970-01-01T01:00:01+01:00"), Some(1_000_000));
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        // The output of Python's `str`, which Feast writes into DynamoDB.
        assert_eq!(parse_time("1970-01-01 00:00:01+00:00"), Some(1_000_000));
        assert_eq!(parse_time("1970-01-01 02:00:01.500000+02:00"), Some(1_500_000));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn times_format_and_sort_like_python() {
        let cases = [
            (-62_135_596_800_000_000, "0001-01-01 00:00:00+00:00"),
            (-1, "1969-12-31 23:59:59.999999+00:00"),
            (1_000_000, "1970-01-01 00:00:01+00:00"),
            (1_000_001, "1970-01-01 00:00:01.000001+00:00"),
            (1_500_000, "1970-01-01 00:00:01.500000+00:00"),
            (2_000_000, "1970-01-01 00:00:02+00:00"),
        ];
        for (instant, text) in cases {
            assert_eq!(python_text(instant).as_deref(), Some(text));
            assert_eq!(parse_time(text), Some(instant));
        }
        assert!(cases.is_sorted_by_key(|(_, text)| text));
        assert_eq!([i64::MIN, -62_135_596_800_000_001, i64::MAX].map(python_text), [None, None, None]);
    }

    #[test]
    fn beats_of_different_periods_coincide() {
        let millis = Duration::from_millis;
        let began = next_beat(millis(20)).max(Instant::now());
        for after in [0, 1, 19, 20, 21, 59, 60, 12_345] {
            let after = began + millis(after);
            let (short, long) = (beat_after(after, millis(20)), beat_after(after, millis(60)));
            assert!(short > after && short <= after + millis(20) && long > after && long <= after + millis(60));
            assert_eq!(long.duration_since(short).as_nanos() % millis(20).as_nanos(), 0);
        }
    }

    #[test]
    fn cron_schedule_returns_next_time() {
        let hour = 3_600_000_000;
        assert_eq!(next_by_cron("15 */6 * * *", 0), Some(hour / 4));
        assert_eq!(next_by_cron("15 */6 * * *", hour / 4), Some(6 * hour + hour / 4), "the time itself is excluded");
        assert_eq!(next_by_cron("at noon", 0), None);
    }
}
