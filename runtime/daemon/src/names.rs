//! Ids and names: making them up and judging those from outside.

use std::fs::File;
use std::io::{self, Read};

/// The rule for names of containers and volumes, in words for people.
pub const RULE: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]* of at most 200 characters";

/// Longest name of a container or volume, in bytes: a file name's limit less room for a suffix.
pub const NAME_BYTES_MAX: usize = 200;

const ADJECTIVES: &[&str] = &[
    "able", "agile", "ample", "brave", "brisk", "calm", "civil", "clear", "cosy", "crisp", "daring", "deft",
    "eager", "early", "even", "fair", "firm", "fleet", "fond", "frank", "gentle", "glad", "grand", "hardy",
    "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild",
    "modest", "neat", "nimble", "noble", "patient", "plain", "polite", "prompt", "proud", "quick", "quiet",
    "ready", "robust", "serene", "sharp", "sober", "steady", "sturdy", "swift", "tidy", "trusty", "upbeat",
    "vivid", "warm", "witty", "zesty",
];

const NOUNS: &[&str] = &[
    "acorn",
    "alder",
    "anchor",
    "arbour",
    "aspen",
    "badger",
    "bamboo",
    "barn",
    "basil",
    "beacon",
    "beech",
    "birch",
    "bridge",
    "brook",
    "burrow",
    "cabin",
    "cedar",
    "clover",
    "cobble",
    "cottage",
    "courtyard",
    "crane",
    "cypress",
    "dovecote",
    "elm",
    "fern",
    "finch",
    "ford",
    "garden",
    "gate",
    "grove",
    "harbour",
    "hawthorn",
    "hazel",
    "hedge",
    "heron",
    "ivy",
    "juniper",
    "lantern",
    "larch",
    "latch",
    "lodge",
    "maple",
    "meadow",
    "mill",
    "moss",
    "oak",
    "orchard",
    "otter",
    "palisade",
    "pine",
    "plum",
    "pond",
    "poplar",
    "quarry",
    "reed",
    "rowan",
    "spruce",
    "stile",
    "thicket",
    "trellis",
    "wall",
    "willow",
    "wren",
];

/// `N` random bytes from the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A new id: 64 lower-case hex digits, never all decimal in the first twelve (a short id would pass for a number).
pub fn new_id() -> io::Result<String> {
    loop {
        let id: String = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        if id[..12].bytes().any(|digit| digit.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// Whether `text` has the form of an id.
pub fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// A made-up container name; with a number behind it once `attempt` says that plain ones were taken.
pub fn invented(attempt: u32) -> io::Result<String> {
    let [a, b, c, d] = random::<4>()?;
    let pick = |list: &[&'static str], high: u8, low: u8| {
        list[usize::from(u16::from_be_bytes([high, low])) % list.len()]
    };
    let mut name = format!("{}_{}", pick(ADJECTIVES, a, b), pick(NOUNS, c, d));
    if attempt > 5 {
        name.push_str(&u16::from_be_bytes(random::<2>()?).to_string());
    }
    Ok(name)
}

/// Whether `name` may name a container or a volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, as Podman's may. Docker's have two characters at least.
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_BYTES_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_names_as_podman_does() {
        for good in ["h", "7", "ab", "a0", "my-app_1.x", "0a"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "",
            "-",
            "_",
            "-ab",
            ".ab",
            "_ab",
            "a/b",
            "a b",
            "ä1",
            "a\n",
            "..",
            &"a".repeat(201),
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn makes_up_valid_names_and_ids() {
        for attempt in 0..20 {
            let name = invented(attempt).expect("random bytes");
            assert!(is_valid(&name), "{name}");
        }
        let id = new_id().expect("random bytes");
        assert!(is_id(&id) && !is_id(&id[1..]) && !is_id(&id.to_ascii_uppercase()));
        assert_ne!(id, new_id().expect("random bytes"));
    }

    #[test]
    fn words_are_unique() {
        for list in [ADJECTIVES, NOUNS] {
            let set: std::collections::BTreeSet<_> = list.iter().collect();
            assert_eq!(set.len(), list.len());
        }
    }
}
