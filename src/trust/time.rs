//! Times as OpenSSH writes them: `YYYYMMDD[HHMM[SS]]`, here always with `Z`.

/// Seconds since 1970; or what is wrong, and what to write. Without `Z` OpenSSH takes the time zone of whatever host it runs on: two
/// controllers would differ.
pub(super) fn parse(text: &str) -> Result<i64, (String, &'static str)> {
    const SHAPE: &str = "write year, month, day, and if need be hour and minute, in UTC: `20270131Z` or `202701311200Z`";
    let shown: String = text.chars().take(40).collect();
    let Some(digits) = text.strip_suffix('Z') else {
        let plain = is_digits(text);
        let message =
            if plain { format!("`{shown}` has no time zone, so it would mean another time on each host") } else { not_a_time(&shown) };
        return Err((message, if plain { "append `Z` for UTC" } else { SHAPE }));
    };
    read(digits).ok_or_else(|| (not_a_time(&shown), SHAPE))
}

fn not_a_time(shown: &str) -> String {
    format!("`{shown}` is not a time")
}

fn is_digits(text: &str) -> bool {
    matches!(text.len(), 8 | 12 | 14) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn read(digits: &str) -> Option<i64> {
    if !is_digits(digits) {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |part| part.parse::<i8>().ok());
    let date = jiff::civil::Date::new(digits[..4].parse().ok()?, number(4, 6)?, number(6, 8)?).ok()?;
    let time = jiff::civil::Time::new(number(8, 10)?, number(10, 12)?, number(12, 14)?, 0).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(date.to_datetime(time)).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_utc_or_refused() {
        assert_eq!(super::parse("19700101Z"), Ok(0));
        assert_eq!(super::parse("202701311200Z"), Ok(1_801_396_800));
        assert_eq!(super::parse("20270131120001Z"), Ok(1_801_396_801));
        for bad in ["", "Z", "2027Z", "20271301Z", "20270230Z", "202701312500Z", "2027-01-31Z", "forever", "２０２７０１３１Z"] {
            assert!(super::parse(bad).unwrap_err().0.contains("is not a time"), "{bad}");
        }
        assert_eq!(super::parse("20270131").unwrap_err().1, "append `Z` for UTC");
    }
}
