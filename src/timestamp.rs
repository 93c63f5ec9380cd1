//! Points in time as text: RFC 3339 in UTC, for lines of the log and for `created` in state.json.
//!
//! Not for: durations, and not for reading such a text.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// `time` in UTC to the second: `2026-11-21T10:55:01Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = to_seconds(time).0;
    text.push('Z');
    text
}

/// `time` in UTC to the nanosecond, without zeros at the end: `2026-11-21T10:55:01.5Z`.
pub fn rfc3339_nanos(time: SystemTime) -> String {
    let (mut text, nanos) = to_seconds(time);
    if nanos != 0 {
        let digits = format!("{nanos:09}");
        let _ = write!(text, ".{}", digits.trim_end_matches('0')); // a String takes everything
    }
    text.push('Z');
    text
}

fn to_seconds(time: SystemTime) -> (String, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"), since.subsec_nanos())
}

/// The date `days` after 1970-01-01, as (year, month, day).
///
/// The computation lets a year begin in March, so that the leap day is its last day. The calendar repeats after 400
/// years; such a period is an era here.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn dates_are_right_around_leap_days_and_turns_of_centuries() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_258_501, "2026-11-21T10:55:01Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(at(seconds, 0)), text);
        }
    }

    #[test]
    fn nanoseconds_lose_their_last_zeros() {
        assert_eq!(rfc3339_nanos(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_nanos(at(0, 120_000_000)), "1970-01-01T00:00:00.12Z");
        assert_eq!(rfc3339_nanos(at(1, 1)), "1970-01-01T00:00:01.000000001Z");
    }
}
