//! Quantities as people write them: `64MiB`, `64M`, `0.5`, `500m`.
//!
//! Owns the spellings. `M` is 2^20, as Docker and Podman read it; `MB` is 10^6; `MiB` is 2^20. Pure functions from text to number, without
//! floating point, so that nothing is rounded.

/// Units of bytes, longest suffix first.
const UNITS: [(&str, u64); 14] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
    ("", 1),
];

/// Reads a size in bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(suffix, factor)| Some((lower.strip_suffix(suffix)?, *factor)))?;
    scaled(number.trim_end(), factor)
}

/// Reads processor time as thousandths of one processor: `0.5`, `1.5 cpus`, `500m`, `50%`.
pub fn cpu_millis(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    if let Some(percent) = lower.strip_suffix('%') {
        return scaled(percent.trim_end(), 10).filter(|millis| *millis > 0);
    }
    if let Some(millis) = lower.strip_suffix('m') {
        return integer(millis).filter(|millis| *millis > 0);
    }
    let number = lower
        .strip_suffix("cpus")
        .or_else(|| lower.strip_suffix("cpu"))
        .unwrap_or(&lower);
    scaled(number.trim_end(), 1_000).filter(|millis| *millis > 0)
}

/// Reads a duration of one unit (`500ms`, `30s`, `5m`, `1h`) as milliseconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    let (number, factor) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))?;
    scaled(number, factor)
}

/// Reads a decimal number without sign, without leading zeros (which some readers take for octal), or hexadecimal after `0x`.
pub fn integer(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return (!hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u64::from_str_radix(hex, 16).ok())
            .flatten();
    }
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0')))
        .then(|| text.parse().ok())
        .flatten()
}

/// Reads a mode of three or four octal digits.
pub fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let well_formed = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    well_formed
        .then(|| u32::from_str_radix(digits, 8).ok())
        .flatten()
        .filter(|mode| *mode <= 0o777)
}

/// A decimal number with a fraction, times a factor, rounded down; `None` on overflow.
fn scaled(text: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = integer(whole)?.checked_mul(factor)?;
    if fraction.is_empty() {
        return (!text.ends_with('.')).then_some(whole);
    }
    // Nine digits keep the product within 128 bits and are finer than any unit here.
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) || text.starts_with("0x") {
        return None;
    }
    let digits: u128 = fraction.parse().ok()?;
    let part = digits * u128::from(factor) / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Writes a size the way it is read back exactly.
pub fn show_bytes(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("64MiB", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("64m", Some(64 << 20)),
            ("64MB", Some(64_000_000)),
            ("1.5g", Some(3 << 29)),
            ("0", Some(0)),
            ("512", Some(512)),
            ("512b", Some(512)),
            ("1 GiB", Some(1 << 30)),
            ("0x1000", Some(4096)),
            ("", None),
            ("M", None),
            ("-1", None),
            ("010", None),
            ("1e3", None),
            ("64Mi", None),
            ("99999999999T", None),
            ("1.", None),
            ("1.0000000001M", None),
            ("18446744073709551615", Some(u64::MAX)),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
        for n in [0, 1, 1023, 1 << 10, 3 << 20, 5 << 30, u64::MAX] {
            assert_eq!(bytes(&show_bytes(n)), Some(n));
        }
    }

    #[test]
    fn processor_time_is_in_thousandths() {
        for (text, want) in [
            ("0.5", Some(500)),
            ("500m", Some(500)),
            ("2", Some(2000)),
            ("1.5 cpus", Some(1500)),
            ("50%", Some(500)),
            ("0", None),
            ("0.0001", None),
            ("m", None),
            ("half", None),
        ] {
            assert_eq!(cpu_millis(text), want, "{text}");
        }
    }

    #[test]
    fn modes_are_octal_whatever_they_look_like() {
        for (text, want) in [
            ("0022", Some(0o22)),
            ("022", Some(0o22)),
            ("0o077", Some(0o77)),
            ("0", Some(0)),
            ("088", None),
            ("1777", None),
            ("", None),
        ] {
            assert_eq!(octal(text), want, "{text}");
        }
    }
}
