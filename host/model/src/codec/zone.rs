//! The time zones of zoned timestamps, by the names that Feast stores.
//!
//! The rules are the same as in Feast 0.67 (`type_map.py`, `_zone_from_name`): a zone is a name in the IANA database,
//! or a fixed offset such as `+05:30` or `UTC-0300`. An empty name, and any other name, means UTC.

use jiff::{
    SignedDuration, Timestamp, civil,
    fmt::strtime::BrokenDownTime,
    tz::{Offset, TimeZone},
};

const EPOCH: civil::DateTime = civil::datetime(1970, 1, 1, 0, 0, 0, 0);

/// Formats an instant in a zone as ISO 8601 text. Returns `None` if the local time is out of the range of years, which
/// ends with 9999, or if the zone is an offset that is out of range.
pub(super) fn zoned_text(unix_seconds: i64, zone: &str) -> Option<String> {
    // The range of `Timestamp` ends about a day before the year 9999 does. Beyond this range, the offset at the end of
    // the range is used.
    let nearest = unix_seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    let offset = zone_of(zone)?.to_offset(Timestamp::from_second(nearest).ok()?);
    let local_seconds = unix_seconds.checked_add(i64::from(offset.seconds()))?;
    let local = EPOCH.checked_add(SignedDuration::from_secs(local_seconds)).ok()?;
    let mut parts = BrokenDownTime::from(local);
    parts.set_offset(Some(offset));
    parts.to_string("%Y-%m-%dT%H:%M:%S%:z").ok()
}

/// Returns the zone with this name. Returns `None` if the name is an offset that is out of range.
fn zone_of(name: &str) -> Option<TimeZone> {
    if name.is_empty() {
        return Some(TimeZone::UTC);
    }
    match fixed_offset(name) {
        Some(seconds) => Offset::from_seconds(seconds).ok().map(TimeZone::fixed),
        None => Some(TimeZone::get(name).unwrap_or(TimeZone::UTC)),
    }
}

/// Parses an offset as Feast's pattern does, `(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})`, to seconds. No name of the IANA
/// database matches this pattern.
fn fixed_offset(name: &str) -> Option<i32> {
    let name = name.trim();
    let offset = name.strip_prefix("UTC").or_else(|| name.strip_prefix("GMT")).unwrap_or(name);
    let (sign, digits) = match offset.as_bytes() {
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            (*sign, [*h1, *h2, *m1, *m2])
        }
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let [h1, h2, m1, m2] = digits.map(|digit| i32::from(digit - b'0'));
    let seconds = (h1 * 10 + h2) * 3_600 + (m1 * 10 + m2) * 60;
    Some(if sign == b'-' { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNE: i64 = 1_750_000_000;
    const LAST_SECOND: i64 = 253_402_300_799;

    fn assert_texts(cases: &[(i64, &str, Option<&str>)]) {
        for (seconds, zone, text) in cases {
            assert_eq!(zoned_text(*seconds, zone).as_deref(), *text, "{seconds} in '{zone}'");
        }
    }

    #[test]
    fn zone_names_resolve_as_in_feast() {
        let utc = Some("2025-06-15T15:06:40+00:00");
        let india = Some("2025-06-15T20:36:40+05:30");
        assert_texts(&[
            (JUNE, "", utc),
            (JUNE, "UTC", utc),
            (JUNE, "GMT", utc),
            (JUNE, "Zulu", utc),
            (JUNE, "-00:00", utc),
            (JUNE, "+05:30", india),
            (JUNE, "+0530", india),
            (JUNE, "UTC+05:30", india),
            (JUNE, " +05:30 ", india),
            (JUNE, "UTC-03:00", Some("2025-06-15T12:06:40-03:00")),
            (JUNE, "GMT+0100", Some("2025-06-15T16:06:40+01:00")),
            (JUNE, "+12:75", Some("2025-06-16T04:21:40+13:15")),
            (JUNE, "Europe/Berlin", Some("2025-06-15T17:06:40+02:00")),
            (JUNE, "Etc/GMT+5", Some("2025-06-15T10:06:40-05:00")),
            (JUNE, "EST", Some("2025-06-15T10:06:40-05:00")),
        ]);
    }

    #[test]
    fn unknown_zone_means_utc() {
        let utc = Some("2025-06-15T15:06:40+00:00");
        assert_texts(&[
            (JUNE, "Z", utc),
            (JUNE, "+05:30:15", utc),
            (JUNE, "+5:30", utc),
            (JUNE, "Mars/Olympus", utc),
            (JUNE, "+é0", utc),
            // In Feast, an offset that is out of range is an error.
            (JUNE, "+99:99", None),
        ]);
    }

    #[test]
    fn last_day_of_year_9999_has_text() {
        assert_texts(&[
            (LAST_SECOND, "", Some("9999-12-31T23:59:59+00:00")),
            (LAST_SECOND, "UTC", Some("9999-12-31T23:59:59+00:00")),
            (LAST_SECOND, "-05:30", Some("9999-12-31T18:29:59-05:30")),
            (LAST_SECOND, "America/New_York", Some("9999-12-31T18:59:59-05:00")),
            (LAST_SECOND, "+05:30", None),
            (LAST_SECOND + 1, "UTC", None),
            (-62_135_596_800, "UTC", Some("0001-01-01T00:00:00+00:00")),
            (i64::MIN, "UTC", None),
            (i64::MAX, "+01:00", None),
        ]);
    }
}
