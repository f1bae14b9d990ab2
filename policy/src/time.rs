//! Times as approvers read them: `2026-11-23T09:00:00Z`, in UTC, to the second (RFC 3339).

const DAY_S: u64 = 86_400;

/// The latest time that is written: the last second of the year 9999.
pub const MAX_S: u64 = 253_402_300_799;

/// Seconds since the Unix epoch as text; later than [`MAX_S`] is written as [`MAX_S`].
pub fn print(unix_s: u64) -> String {
    let unix_s = unix_s.min(MAX_S);
    let (year, month, day) = civil(unix_s / DAY_S);
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The seconds since the Unix epoch that [`print`] writes as exactly this text.
pub fn parse(text: &str) -> Option<u64> {
    let field = |at: usize, length: usize| text.get(at..at + length).and_then(digits);
    let (year, month, day) = (field(0, 4)?, field(5, 2)?, field(8, 2)?);
    let (hour, minute, second) = (field(11, 2)?, field(14, 2)?, field(17, 2)?);
    let unix_s = seconds(year, month, day, [hour, minute, second])?;
    (print(unix_s) == text).then_some(unix_s)
}

/// The seconds since the Unix epoch of a time in UTC; `None` if there is no such time, or it is before the epoch.
pub(crate) fn seconds(year: u64, month: u64, day: u64, [hour, minute, second]: [u64; 3]) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let shifted_year = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (civil(days) == (year, month, day)).then_some(days * DAY_S + hour * 3_600 + minute * 60 + second)
}

/// A number of nothing but digits.
pub(crate) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The Gregorian date of a day counted from 1970-01-01, by counting 400-year eras from 0000-03-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_305_600, "2026-11-22T00:00:00Z"),
            (MAX_S, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(print(unix_s), text);
            assert_eq!(parse(text), Some(unix_s));
        }
        assert!((0..MAX_S).step_by(7_654_321).all(|unix_s| parse(&print(unix_s)) == Some(unix_s)));
    }

    #[test]
    fn a_time_that_is_none_or_written_otherwise_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T09:60:00Z",
            "2026-11-23T09:00:60Z",
            "2026-11-23t09:00:00Z",
            "2026-11-23T09:00:00+00:00",
            "2026-11-23T09:00:00Z ",
            "+026-11-23T09:00:00Z",
            "1969-12-31T23:59:59Z",
            "２026-11-23T09:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
