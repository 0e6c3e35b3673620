//! Signals by name and number.

use crate::refusal::{Answer, Refusal};

/// SIGKILL.
pub const KILL: i32 = 9;
/// SIGTERM.
pub const TERM: i32 = 15;

/// The last real-time signal.
const LAST: i32 = 64;
/// The first real-time signal that programs may use (glibc and musl keep some below).
const REALTIME_FIRST: i32 = 34;

/// Names in the order of their numbers, from 1; the same on x86-64 and aarch64. Source: signal(7).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Reads `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
pub fn parse(word: &str) -> Answer<i32> {
    let invalid = || Refusal::bad(format!("invalid signal: {word}"));
    if let Ok(number) = word.parse::<i32>() {
        return if (1..=LAST).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Ok(i32::try_from(index).expect("31 names") + 1);
    }
    let number = match name {
        "IOT" => 6,
        "CLD" => 17,
        "POLL" => 29,
        "RTMIN" => REALTIME_FIRST,
        "RTMAX" => LAST,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(offset), _) => offset
                .parse::<u8>()
                .map(|offset| REALTIME_FIRST + i32::from(offset))
                .unwrap_or(0),
            (_, Some(offset)) => offset
                .parse::<u8>()
                .map(|offset| LAST - i32::from(offset))
                .unwrap_or(0),
            _ => 0,
        },
    };
    if (1..=LAST).contains(&number) {
        Ok(number)
    } else {
        Err(invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_numbers() {
        for (word, number) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("SIGSYS", 31),
            ("1", 1),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SIGIOT", 6),
        ] {
            assert_eq!(parse(word).expect(word), number);
        }
        for bad in ["", "0", "65", "-1", "SIG", "NOPE", "RTMIN+99", "RTMAX-x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
