//! Instants and durations in microseconds, and their text formats.

use std::time::Duration;

use jiff::{
    Timestamp,
    civil::{DateTime, Time, datetime},
    fmt::temporal::Pieces,
    tz::Offset,
};

/// An instant or a duration in microseconds. An instant is the time since the Unix epoch, UTC.
pub type Micros = i64;

/// The value that Feast stores and serves for a null `UNIX_TIMESTAMP`, in seconds.
pub const NULL_TIMESTAMP_SECONDS: i64 = i64::MIN;

const EPOCH: DateTime = datetime(1970, 1, 1, 0, 0, 0, 0);
const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Parses a date or an instant in ISO 8601 format. Text without an offset is in UTC. A date without a time means
/// midnight. Returns `None` for any other text.
#[must_use]
pub fn parse_time(text: &str) -> Option<Micros> {
    parse_exact_time(text).map(|(micros, _)| micros)
}

/// Parses like [`parse_time`], and also returns the remaining nanoseconds, from 0 to 999.
#[must_use]
pub fn parse_exact_time(text: &str) -> Option<(Micros, u32)> {
    let text = text.trim();
    let nanos = match text.parse::<Timestamp>() {
        Ok(instant) => instant.as_nanosecond(),
        Err(_) => nanos_of_parts(text)?,
    };
    Some((Micros::try_from(nanos.div_euclid(1_000)).ok()?, u32::try_from(nanos.rem_euclid(1_000)).ok()?))
}

/// Parses text that [`Timestamp`] does not parse: text without an offset, and times at the end of the year 9999 that
/// are beyond the range of [`Timestamp`].
fn nanos_of_parts(text: &str) -> Option<i128> {
    let parts = Pieces::parse(text).ok()?;
    let local = parts.date().to_datetime(parts.time().unwrap_or_else(Time::midnight));
    let offset_seconds = parts.to_numeric_offset().map_or(0, Offset::seconds);
    let nanos = local.duration_since(EPOCH).as_nanos() - i128::from(offset_seconds) * NANOS_PER_SECOND;
    let last = DateTime::MAX.duration_since(EPOCH).as_nanos();
    (Timestamp::MIN.as_nanosecond()..=last).contains(&nanos).then_some(nanos)
}

/// The text of an instant: `2026-11-23T07:13:10Z`, with 3 or 6 fractional digits if needed. This is the JSON format of
/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339 {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

// === impl Rfc3339 ===

impl Rfc3339 {
    /// More than the length of `-YYYYYY-MM-DDTHH:MM:SS.ffffffZ`, the longest text of an `i64` of microseconds.
    const BYTES_MAX: usize = 32;

    /// Formats an instant.
    #[must_use]
    pub fn of(instant: Micros) -> Self {
        let seconds = instant.div_euclid(MICROS_PER_SECOND);
        let fraction = instant.rem_euclid(MICROS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);

        let mut text = Self { bytes: [0; Self::BYTES_MAX], len: 0 };
        if year < 0 {
            text.push(b'-');
        }
        let year = year.unsigned_abs();
        if year > 9_999 {
            text.digits(year / 10_000, 2);
        }
        text.digits(year / 100 % 100, 2);
        text.digits(year % 100, 2);
        text.push(b'-');
        text.digits(u64::from(month), 2);
        text.push(b'-');
        text.digits(u64::from(day), 2);
        text.push(b'T');
        let of_day = of_day.unsigned_abs();
        text.digits(of_day / 3_600, 2);
        text.push(b':');
        text.digits(of_day / 60 % 60, 2);
        text.push(b':');
        text.digits(of_day % 60, 2);
        if fraction != 0 {
            text.push(b'.');
            if fraction % 1_000 == 0 {
                text.digits((fraction / 1_000).unsigned_abs(), 3);
            } else {
                text.digits(fraction.unsigned_abs(), 6);
            }
        }
        text.push(b'Z');
        text
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The bytes are always ASCII.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Returns the text's bytes, all ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
    }

    /// Appends the last `width` digits of a number.
    fn digits(&mut self, mut value: u64, width: u8) {
        let start = usize::from(self.len);
        self.len += width;
        for digit in self.bytes[start..start + usize::from(width)].iter_mut().rev() {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
        }
    }
}

/// Converts days since 1970-01-01 to a date of the proleptic Gregorian calendar.
///
/// The algorithm is Howard Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
}

/// Parses a duration such as `90s`, `15m`, `6h`, `30d`, `2w`, `500ms`, `1us`, or a sum of them: `1d12h`.
///
/// # Errors
/// Returns a message that quotes the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("'{text}' is not a duration. hint: write, for example, 90s, 15m, 6h, 30d or 1d12h");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let count: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let micros: u64 = match &rest[..letters] {
            "us" => 1,
            "ms" => 1_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000,
            "h" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            _ => return Err(invalid()),
        };
        rest = rest[letters..].trim_start();
        let part = count.checked_mul(micros).map(Duration::from_micros);
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
    }
    // A duration must be addable to an instant in microseconds.
    match i64::try_from(total.as_micros()) {
        Ok(_) => Ok(total),
        Err(_) => Err(format!("the duration '{text}' is too long")),
    }
}

/// Formats a duration for [`parse_duration`], in the largest units that represent it exactly: `1d12h`. Truncates to
/// microseconds.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    const UNITS: [(u128, &str); 6] =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us")];
    let mut rest = duration.as_micros();
    let mut text = String::new();
    for (micros, unit) in UNITS {
        if rest >= micros {
            text.push_str(&format!("{}{unit}", rest / micros));
            rest %= micros;
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_print_as_protobuf_json_does() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_763_885_590_000_000, "2025-11-23T08:13:10Z"),
            (1_763_885_590_120_000, "2025-11-23T08:13:10.120Z"),
            (1_763_885_590_123_456, "2025-11-23T08:13:10.123456Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(Rfc3339::of(micros).as_str(), text);
        }
    }

    #[test]
    fn extreme_times_format_without_panic() {
        assert_eq!(Rfc3339::of(i64::MAX).as_str(), "294247-01-10T04:00:54.775807Z");
        assert!(Rfc3339::of(i64::MIN).as_str().starts_with("-290308-"));
    }

    #[test]
    fn times_parse_until_end_of_year_9999() {
        const LAST_DAY: Micros = 253_402_214_400_000_000;
        const HOUR: Micros = 3_600_000_000;
        for (text, micros) in [
            ("9999-12-30T21:59:59Z", LAST_DAY - 2 * HOUR - 1_000_000),
            ("9999-12-31", LAST_DAY),
            ("9999-12-31T00:00:00Z", LAST_DAY),
            ("9999-12-31 01:00:00", LAST_DAY + HOUR),
            ("9999-12-31T23:59:59.999999Z", LAST_DAY + 24 * HOUR - 1),
            ("9999-12-31T23:59:59.999999", LAST_DAY + 24 * HOUR - 1),
            ("2026-11-23", 1_795_392_000_000_000),
            ("2026-11-23 01:00", 1_795_392_000_000_000 + HOUR),
        ] {
            assert_eq!(parse_time(text), Some(micros), "{text}");
        }
        assert_eq!(parse_exact_time("9999-12-31T23:59:59.999999999Z"), Some((LAST_DAY + 24 * HOUR - 1, 999)));
    }

    #[test]
    fn offset_of_late_time_is_kept() {
        const LAST_DAY: Micros = 253_402_214_400_000_000;
        const HOUR: Micros = 3_600_000_000;
        for (text, micros) in [
            ("9999-12-30T21:59:59-11:00", Some(LAST_DAY + 9 * HOUR - 1_000_000)),
            ("9999-12-31T23:00:00+01:00", Some(LAST_DAY + 22 * HOUR)),
            ("9999-12-31T23:00:00+0100", Some(LAST_DAY + 22 * HOUR)),
            ("9999-12-31T12:00:00-11:00", Some(LAST_DAY + 23 * HOUR)),
            // The first of these times is in year 10000, and the second is before the range of `Timestamp`.
            ("9999-12-31T23:59:59-11:00", None),
            ("-009999-01-01T00:00:00+11:00", None),
        ] {
            assert_eq!(parse_time(text), micros, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_time_is_rejected() {
        for text in ["", "2026", "tomorrow", "Nov 1 2026", "12:00", "2026-13-01", "2026-11-01T25:00", "+01:00"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn duration_parts_are_summed() {
        for (text, seconds) in [
            ("0", 0),
            ("90s", 90),
            ("15m", 900),
            ("6h", 21_600),
            ("30d", 2_592_000),
            ("1d12h", 129_600),
            ("2w", 1_209_600),
            ("1 day 2 hours", 93_600),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn duration_round_trips() {
        for (micros, text) in [
            (0, "0"),
            (1, "1us"),
            (1_500_000, "1s500ms"),
            (90_000_000, "1m30s"),
            (129_600_000_000, "1d12h"),
            (i64::MAX.unsigned_abs(), "106751991d4h54s775ms807us"),
        ] {
            let duration = Duration::from_micros(micros);
            assert_eq!(duration_text(duration), text);
            assert_eq!(parse_duration(text).unwrap(), duration);
        }
    }

    #[test]
    fn invalid_duration_is_rejected() {
        for text in ["", "1", "d", "1x", "-1d", "1.5h", "99999999999999999999d", "1d 2", "400000y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("99999999999w").unwrap_err().contains("99999999999w"));
    }
}
