//! Times as the wire writes them, and as clients write them.

use jiff::Timestamp;

/// Now, RFC 3339 with nanoseconds.
pub fn now() -> String {
    format(Timestamp::now())
}

/// RFC 3339 with nanoseconds.
pub fn format(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// Reads what clients give as `since` and `until`: seconds since 1970 with an optional fraction, RFC 3339, or a duration that lies
/// before `now` (`10m`, `1h30m`). `None` where it is none of these.
pub fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Some(span) = parse_duration_ns(text) {
        return Timestamp::from_nanosecond(now.as_nanosecond() - i128::from(span)).ok();
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return local
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds, nanoseconds).ok()
}

/// Reads a duration in Go's notation (`1h2m3.5s`, `300ms`) as nanoseconds; a unit is required.
pub fn parse_duration_ns(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum = 0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        sum += number
            * match &rest[..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (sum < i64::MAX as f64).then_some(sum as i64)
}

/// A duration for people, in Docker's words (`3 minutes`, `About an hour`).
pub fn human(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_that_clients_use() {
        let now = Timestamp::new(1_000_000, 0).expect("in range");
        let seconds = |text| parse(text, now).map(|time| time.as_nanosecond());
        assert_eq!(seconds("10"), Some(10_000_000_000));
        assert_eq!(seconds("10.5"), Some(10_500_000_000));
        assert_eq!(seconds("1970-01-01T00:00:10Z"), Some(10_000_000_000));
        assert_eq!(seconds("1970-01-01T00:00:10"), Some(10_000_000_000));
        assert_eq!(seconds("1m"), Some(999_940_000_000_000));
        for bad in ["", "soon", "1.x", "1.0000000001"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn writes_durations_in_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
        ] {
            assert_eq!(human(seconds), words);
        }
        for (seconds, words) in [
            (180, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86400 * 3, "3 days"),
        ] {
            assert_eq!(human(seconds), words);
        }
    }
}
