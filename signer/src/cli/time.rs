//! Dates and times for people.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::calendar;

/// A day in UTC, from seconds since the Unix epoch.
pub(super) fn date(unix_s: u64) -> String {
    let (year, month, day) = calendar::date(unix_s / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Day and time in UTC, from milliseconds since the Unix epoch.
pub(super) fn date_time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{} {hours:02}:{minutes:02}:{:02}.{:03}", date(seconds), seconds % 60, unix_ms % 1_000)
}

/// A length of time such as `90s`, `30m`, `1h` or `30d`, in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no time: write a number and s, m, h or d, e.g. 30m");
    let unit_s = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(unit_s).ok_or_else(wrong)
}

/// The beginning of a day such as `2024-05-01`, in UTC, in seconds since the Unix epoch.
pub(super) fn day(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no day since 1970: write YYYY-MM-DD");
    let numbers: Vec<u64> = text.split('-').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let [year, month, day] = numbers[..] else { return Err(wrong()) };
    let unix_s = calendar::days(year, month, day).ok_or_else(wrong)? * 86_400;
    // As it would be written.
    if date(unix_s) == text { Ok(unix_s) } else { Err(wrong()) }
}

/// Now, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(["90s", "30m", "1h", "30d"].map(seconds), [Ok(90), Ok(1_800), Ok(3_600), Ok(2_592_000)]);
        for wrong in ["", "1", "h", "1w", "-1h", "1 h", "é", "99999999999999999999h", "9999999999999999h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn days_are_read_as_they_are_written() {
        for unix_s in [0, 951_782_400, 1_795_305_600] {
            assert_eq!(day(&date(unix_s)), Ok(unix_s));
        }
        for wrong in ["", "2024-05", "2024-5-1", "2023-02-29", "2024-13-01", "1969-12-31", "yesterday", "2024-05-01-"] {
            assert!(day(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn known_days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_305_600), "2026-11-22");
        assert_eq!(date_time(1_795_305_600_042), "2026-11-22 00:00:00.042");
    }
}
