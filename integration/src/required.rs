//! What no test may be left out for want of: `KAKOI_TEST_REQUIRE`, a list with commas.
//!
//! `root` demands root and whatever `integration/provision test` installs; other words demand what one test knows of (`cosign`). One rule for all
//! crates, which include this file: most of them may not depend on this one.

/// Whether the list has a word.
pub fn is_required(word: &str) -> bool {
    let list = std::env::var("KAKOI_TEST_REQUIRE").unwrap_or_default();
    has_word(&list, word)
}

pub(crate) fn has_word(list: &str, word: &str) -> bool {
    list.split(',').any(|required| required.trim() == word)
}

/// Leaves a test out: says so on a line of its own, and fails where the list has the word.
#[track_caller]
pub fn leave_out(word: &str, why: &str) {
    assert!(
        !is_required(word),
        "KAKOI_TEST_REQUIRE={word} forbids leaving out a test: {why}"
    );
    println!("SKIP {why}");
}
