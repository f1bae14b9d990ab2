//! Dates and times for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// A day in UTC, from seconds since the Unix epoch.
pub(super) fn date(unix_s: u64) -> String {
    let (year, month, day) = civil(unix_s / 86_400);
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
    let [year @ 1970..=9999, month @ 1..=12, day @ 1..=31] = numbers[..] else { return Err(wrong()) };
    // 400-year eras from 0000-03-01, as `civil` counts them back.
    let year = year - u64::from(month <= 2);
    let (era, year_of_era, month_from_march) = (year / 400, year % 400, (month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let unix_s = days.checked_sub(719_468).ok_or_else(wrong)? * 86_400;
    // A day that its month does not have comes out as another one.
    if date(unix_s) == text { Ok(unix_s) } else { Err(wrong()) }
}

/// Now, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The Gregorian date of a day counted from 1970-01-01, by counting 400-year eras from 0000-03-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
