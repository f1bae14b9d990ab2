//! The Gregorian calendar in UTC, as days since 1970-01-01.

/// Days from 0000-03-01, where 400-year eras are counted from, to 1970-01-01.
const TO_1970: u64 = 719_468;
const DAYS_OF_ERA: u64 = 146_097;

/// Year, month and day of a day.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + TO_1970;
    let (era, day_of_era) = (shifted / DAYS_OF_ERA, shifted % DAYS_OF_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The day of this date, from 1970 to 9999; `None` if there is no such date.
pub(crate) fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let from_march = year - u64::from(month <= 2);
    let (era, year_of_era, month_from_march) = (from_march / 400, from_march % 400, (month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let all = era * DAYS_OF_ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // A day that its month does not have comes out as another one.
    all.checked_sub(TO_1970).filter(|days| date(*days) == (year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_the_one_after_the_day_before() {
        let mut last = (1969, 12, 31);
        for n in 0..200_000 {
            let (year, month, day) = date(n);
            let follows = (year, month, day) == (last.0, last.1, last.2 + 1)
                || day == 1 && ((year, month) == (last.0, last.1 + 1) || (year, month, last.1) == (last.0 + 1, 1, 12));
            assert!(follows, "{last:?}, {:?}", date(n));
            assert_eq!(days(year, month, day), Some(n));
            last = (year, month, day);
        }
    }

    #[test]
    fn dates_that_do_not_exist_have_no_day() {
        assert_eq!((days(1970, 1, 1), days(2000, 2, 29), days(9999, 12, 31)), (Some(0), Some(11_016), Some(2_932_896)));
        for (year, month, day) in
            [(1969, 12, 31), (2023, 2, 29), (2100, 2, 29), (2024, 4, 31), (2024, 0, 1), (2024, 13, 1), (10_000, 1, 1)]
        {
            assert_eq!(days(year, month, day), None, "{year}-{month}-{day}");
        }
    }
}
