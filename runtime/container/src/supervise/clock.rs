//! The time as the log and `exit.json` write it.

/// Now, in UTC, RFC 3339 with nanoseconds: `2026-11-24T17:00:00.123456789Z`.
pub(crate) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_have_one_width_so_that_they_sort_as_text() {
        let now = super::now();
        assert_eq!(now.len(), "2026-11-24T17:00:00.123456789Z".len(), "{now}");
        assert!(now.ends_with('Z'));
    }
}
