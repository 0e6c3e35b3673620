//! Words, sizes and times for people, and what people write read back.
//!
//! Owns Docker's ways to write sizes (`12.3MB`) and spans (`2 minutes ago`), to read sizes (`512m`) and durations (`1m30s`). Pure: the time of now
//! is handed in. Invariant: text of a container or daemon never reaches a terminal with control characters in it.

/// How many characters of an id are shown.
const ID_SHOWN: usize = 12;

/// Why a size, a duration or a number cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not a size.
    #[error("{text:?} is not a size: write a number and b, k, m, g or t, as in 512m")]
    Size {
        /// What was written.
        text: String,
    },
    /// Not a duration.
    #[error("{text:?} is not a duration: write a number and ms, s, m or h, as in 1m30s")]
    Duration {
        /// What was written.
        text: String,
    },
}

/// Replaces control characters (escape sequences of a terminal among them), except line breaks and tabs.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// The same for a table's cell, where line breaks and tabs would break the table.
pub fn cell(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// An id without its algorithm, short or whole.
pub fn short_id(id: &str, is_whole: bool) -> String {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    if is_whole {
        id.to_owned()
    } else {
        hex.chars().take(ID_SHOWN).collect()
    }
}

/// Cuts a text to a number of characters; the last one then is an ellipsis.
pub fn ellipsis(text: &str, characters_max: usize) -> String {
    if text.chars().count() <= characters_max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(characters_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A size in decimal units with three significant digits (`12.3MB`).
pub fn decimal_size(bytes: f64) -> String {
    sized(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// A size in binary units with four significant digits (`1.953MiB`).
pub fn binary_size(bytes: f64) -> String {
    sized(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn sized(amount: f64, step: f64, units: &[&str], digits: i32) -> String {
    let mut unit = 0;
    // The sum of no numbers is minus zero.
    let mut amount = if amount == 0.0 { 0.0 } else { amount };
    while amount >= step && unit + 1 < units.len() {
        amount /= step;
        unit += 1;
    }
    // As C's %.*g writes it: significant digits, without trailing zeros.
    let whole_digits = if amount >= 1.0 {
        amount.log10().floor() as i32 + 1
    } else {
        1
    };
    let decimals = usize::try_from((digits - whole_digits).max(0)).unwrap_or(0);
    let mut text = format!("{amount:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", units[unit])
}

/// A span of time as people say it (`About a minute`, `3 weeks`).
pub fn span(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago something was, both in seconds since 1970; nothing for Docker's "never".
pub fn ago(then: i64, now: i64) -> String {
    if then <= 0 {
        String::new()
    } else {
        format!("{} ago", span(now - then))
    }
}

/// Reads a size with Docker's binary suffixes: `64`, `64b`, `512m`, `1.5g`, `2GiB`.
pub fn parse_size(text: &str) -> Result<i64, TextError> {
    let wrong = || TextError::Size {
        text: text.to_owned(),
    };
    let lower = text.trim().to_ascii_lowercase();
    let split = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(wrong()),
    };
    let amount: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = amount * 1024f64.powi(power);
    if bytes.is_finite() && bytes < i64::MAX as f64 {
        Ok(bytes as i64)
    } else {
        Err(wrong())
    }
}

/// Reads a duration as Go writes it (`1h2m3s`, `500ms`, `1.5s`), into nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, TextError> {
    let wrong = || TextError::Duration {
        text: text.to_owned(),
    };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let split = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let amount: f64 = rest[..split].parse().map_err(|_| wrong())?;
        let tail = &rest[split..];
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let nanoseconds = match &tail[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        total += amount * nanoseconds;
        rest = &tail[end..];
    }
    if total < i64::MAX as f64 {
        Ok(total as i64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_docker_s() {
        for (bytes, expected) in [
            (0.0, "0B"),
            (-0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (4_860_000.0, "4.86MB"),
            (12_345_678.0, "12.3MB"),
            (123_456_789.0, "123MB"),
        ] {
            assert_eq!(decimal_size(bytes), expected);
        }
        for (bytes, expected) in [
            (0.0, "0B"),
            (1536.0, "1.5KiB"),
            (2_048_000.0, "1.953MiB"),
            (8_261_357_568.0, "7.694GiB"),
        ] {
            assert_eq!(binary_size(bytes), expected);
        }
    }

    #[test]
    fn spans_are_docker_s() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (120, "2 minutes"),
            (3700, "About an hour"),
            (86_400, "24 hours"),
            (3 * 86_400, "3 days"),
            (20 * 86_400, "2 weeks"),
            (100 * 86_400, "3 months"),
            (1000 * 86_400, "2 years"),
        ] {
            assert_eq!(span(seconds), expected);
        }
        assert_eq!(ago(0, 100), "");
    }

    #[test]
    fn sizes_are_read_and_refused() {
        for (text, bytes) in [
            ("0", 0),
            ("64b", 64),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "m", "1x", "-1", "1.2.3", "99999999999p", "1 2"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_refused() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("1s", 1_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanoseconds));
        }
        for text in ["", "s", "1", "1d", "1s2", "-1s", "99999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc"), "a\u{fffd}[31mb\nc");
        assert_eq!(cell("a\nb\x07"), "a b\u{fffd}");
    }
}
