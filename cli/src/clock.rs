//! The time of now, and times for people.
//!
//! Owns the clock, so that everything else can be tested without one, and the reading of times that people write.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A time that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{flag} {text:?} is not a time: write a duration as in 10m, a date as in 2026-01-31, a time as in 2026-01-31T12:00:00, or seconds since 1970"
)]
pub struct TimeError {
    flag: &'static str,
    text: String,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

/// The present instant, as the daemon reads it.
pub fn instant() -> String {
    stamp(Timestamp::now())
}

/// A time as Docker's lists show it (`2026-01-31 12:00:00 +0000 UTC`).
pub fn local(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(timestamp) => timestamp
            .to_zoned(TimeZone::UTC)
            .strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
            .to_string(),
        Err(_) => String::new(),
    }
}

/// Reads `--since` and `--until` into what the API takes: seconds since 1970 with a fraction.
pub fn parse(flag: &'static str, text: &str) -> Result<String, TimeError> {
    let wrong = || TimeError {
        flag,
        text: text.to_owned(),
    };
    let is_number =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number(text) {
        return text.parse::<f64>().map(|_| text.to_owned()).map_err(|_| wrong());
    }
    if let Ok(nanoseconds) = crate::text::parse_duration(text) {
        let ago = jiff::SignedDuration::from_nanos(nanoseconds);
        let then = Timestamp::now().checked_sub(ago).map_err(|_| wrong())?;
        return Ok(stamp(then));
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(stamp(timestamp));
    }
    let civil = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)))
        .map_err(|_| wrong())?;
    let zoned: Zoned = civil.to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
    Ok(stamp(zoned.timestamp()))
}

fn stamp(timestamp: Timestamp) -> String {
    format!("{}.{:09}", timestamp.as_second(), timestamp.subsec_nanosecond())
}

/// Seconds since 1970 of a time in RFC 3339.
pub fn seconds_of(text: &str) -> Option<f64> {
    let time: Timestamp = text.parse().ok()?;
    Some(time.as_duration().as_secs_f64())
}

/// A time with nanoseconds, as `events` shows it.
pub fn precise(nanoseconds: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanoseconds)) {
        Ok(timestamp) => timestamp
            .to_zoned(TimeZone::UTC)
            .strftime("%Y-%m-%dT%H:%M:%S.%9fZ")
            .to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, expected) in [
            ("1700000000", "1700000000"),
            ("1700000000.5", "1700000000.5"),
            ("2023-11-14T22:13:20Z", "1700000000.000000000"),
            ("2023-11-14T22:13:20", "1700000000.000000000"),
            ("2023-11-14", "1699920000.000000000"),
        ] {
            assert_eq!(parse("--since", text).expect(text), expected);
        }
        assert!(parse("--since", "10m").is_ok());
        for text in ["", "yesterday", "1.2.3", "2023-13-01", "99999999999999h"] {
            assert!(parse("--since", text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_shown() {
        assert_eq!(local(1_700_000_000), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(
            precise(1_700_000_000_000_000_001),
            "2023-11-14T22:13:20.000000001Z"
        );
    }
}
