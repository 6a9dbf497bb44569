//! `strftime` of a template's `strftime_now`.

use std::fmt::Write;

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats seconds since 1970 in UTC, the zone of an engine's container, as C's `strftime` does in
/// the C locale. Directives it does not know are written as they are.
pub(super) fn strftime(seconds: i64, format: &str) -> String {
    let time = Civil::from(seconds);
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut directive = chars.next();
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        time.write(&mut out, directive, bare);
    }
    out
}

/// A moment by the Gregorian calendar.
struct Civil {
    year: i64,
    /// From 0.
    month: usize,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// Sunday is 0.
    week_day: usize,
    /// From 1.
    year_day: i64,
    unix: i64,
}

impl From<i64> for Civil {
    fn from(unix: i64) -> Self {
        // Far from overflow, however wrong a clock is.
        let seconds = unix.clamp(-(1 << 40), 1 << 40);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Eras of 400 years that begin on 1 March of the year 0.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let march_day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * march_day + 2) / 153;
        let month = if march_month < 10 { march_month + 2 } else { march_month - 10 };
        let year = era * 400 + year_of_era + i64::from(month < 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let year_day = if month < 2 { march_day - 305 } else { march_day + 60 + i64::from(leap) };
        Civil {
            year,
            month: month as usize,
            day: march_day - (153 * march_month + 2) / 5 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            week_day: (days + 4).rem_euclid(7) as usize,
            year_day,
            unix: seconds,
        }
    }
}

impl Civil {
    fn write(&self, out: &mut String, directive: Option<char>, bare: bool) {
        let day = DAYS.get(self.week_day).copied().unwrap_or_default();
        let month = MONTHS.get(self.month).copied().unwrap_or_default();
        let twelve = (self.hour + 11) % 12 + 1;
        let (number, width) = match directive {
            Some('a') => return out.push_str(day.get(..3).unwrap_or_default()),
            Some('A') => return out.push_str(day),
            Some('b' | 'h') => return out.push_str(month.get(..3).unwrap_or_default()),
            Some('B') => return out.push_str(month),
            Some('c') => return out.push_str(&strftime(self.unix, "%a %b %e %H:%M:%S %Y")),
            Some('D' | 'x') => return out.push_str(&strftime(self.unix, "%m/%d/%y")),
            Some('F') => return out.push_str(&strftime(self.unix, "%Y-%m-%d")),
            Some('T' | 'X') => return out.push_str(&strftime(self.unix, "%H:%M:%S")),
            Some('R') => return out.push_str(&strftime(self.unix, "%H:%M")),
            Some('p') => return out.push_str(if self.hour < 12 { "AM" } else { "PM" }),
            Some('n') => return out.push('\n'),
            Some('t') => return out.push('\t'),
            Some('f') => return out.push_str("000000"),
            // The naive time of `datetime.now()` has no zone.
            Some('z' | 'Z') => return,
            Some('%') => return out.push('%'),
            Some('e') if !bare => {
                let _ = write!(out, "{:2}", self.day);
                return;
            }
            Some('d' | 'e') => (self.day, 2),
            Some('H') => (self.hour, 2),
            Some('I') => (twelve, 2),
            Some('j') => (self.year_day, 3),
            Some('m') => (self.month as i64 + 1, 2),
            Some('M') => (self.minute, 2),
            Some('S') => (self.second, 2),
            Some('s') => (self.unix, 0),
            Some('u') => ((self.week_day as i64 + 6) % 7 + 1, 0),
            Some('w') => (self.week_day as i64, 0),
            Some('y') => (self.year.rem_euclid(100), 2),
            Some('Y') => (self.year, 4),
            unknown => {
                out.push('%');
                out.extend(bare.then_some('-'));
                return out.extend(unknown);
            }
        };
        let width = if bare { 0 } else { width };
        let _ = write!(out, "{number:0width$}");
    }
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 Thu 001"),
            (951_782_400, "2000-02-29 00:00:00 Tue 060"),
            (978_220_799, "2000-12-30 23:59:59 Sat 365"),
            (1_709_251_199, "2024-02-29 23:59:59 Thu 060"),
            (1_709_251_200, "2024-03-01 00:00:00 Fri 061"),
            (1_795_212_480, "2026-11-20 22:08:00 Fri 324"),
            (-1, "1969-12-31 23:59:59 Wed 365"),
            (4_107_542_400, "2100-03-01 00:00:00 Mon 060"),
        ] {
            assert_eq!(strftime(seconds, "%Y-%m-%d %H:%M:%S %a %j"), expected);
        }
    }

    #[test]
    fn directives_of_templates_are_known() {
        let time = 1_722_470_405;
        assert_eq!(strftime(time, "%d %b %Y"), "01 Aug 2024");
        assert_eq!(strftime(time, "%A, %B %-d, %Y"), "Thursday, August 1, 2024");
        assert_eq!(
            strftime(time, "%e|%I:%M %p|%y|%F %T|100%%"),
            " 1|12:00 AM|24|2024-08-01 00:00:05|100%"
        );
        assert_eq!(strftime(time, "%Q %-Q 50%"), "%Q %-Q 50%");
        assert!(!strftime(i64::MAX, "%Y").is_empty());
    }
}
