//! The keys that leave a container alone: `ctrl-p,ctrl-q`.
//!
//! Owns their notation and finding them in what is typed. Pure. Invariant: a prefix that comes to nothing reaches the container unchanged.

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a list of detach keys: write letters or ctrl-<letter or one of @^[\\],_>, separated by commas, as in ctrl-p,ctrl-q"
)]
pub struct KeysError {
    /// What was written.
    text: String,
}

/// The usual keys.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";
/// The longest sequence: nobody types more to leave.
const KEYS_MAX: usize = 16;

/// A sequence of keys, and how much of it has been typed.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

/// What typed bytes come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// These bytes go to the container.
    Pass(Vec<u8>),
    /// These bytes go to the container, then the person leaves.
    Leave(Vec<u8>),
}

impl DetachKeys {
    /// Reads the notation; an empty text means that no keys detach.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let wrong = || KeysError {
            text: text.to_owned(),
        };
        if text.is_empty() {
            return Ok(Self {
                keys: Vec::new(),
                typed: 0,
            });
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) if keys.len() <= KEYS_MAX => Ok(Self { keys, typed: 0 }),
            _ => Err(wrong()),
        }
    }

    /// Looks for the keys in what was typed.
    pub fn look(&mut self, bytes: &[u8]) -> Typed {
        if self.keys.is_empty() {
            return Typed::Pass(bytes.to_vec());
        }
        let mut passed = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return Typed::Leave(passed);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.typed]);
            self.typed = 0;
            if byte == self.keys[0] && self.keys.len() > 1 {
                self.typed = 1;
            } else {
                passed.push(byte);
            }
        }
        Typed::Pass(passed)
    }

    /// What of the keys was typed and held back, when no more comes.
    pub fn rest(&mut self) -> Vec<u8> {
        self.keys[..std::mem::take(&mut self.typed)].to_vec()
    }
}

fn key(text: &str) -> Option<u8> {
    let one = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Some(*byte),
        _ => None,
    };
    match text.strip_prefix("ctrl-") {
        None => one(text),
        Some(letter) => match one(letter)? {
            byte @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_') => Some(byte & 0x1f),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> DetachKeys {
        DetachKeys::parse(text).expect("they are keys")
    }

    #[test]
    fn the_usual_keys_detach() {
        let mut keys = keys(DEFAULT);
        assert_eq!(keys.look(b"ab"), Typed::Pass(b"ab".to_vec()));
        assert_eq!(keys.look(b"c\x10"), Typed::Pass(b"c".to_vec()));
        assert_eq!(keys.look(b"\x11d"), Typed::Leave(Vec::new()));
    }

    #[test]
    fn half_of_them_reaches_the_container() {
        let mut keys = keys(DEFAULT);
        assert_eq!(keys.look(b"\x10x"), Typed::Pass(b"\x10x".to_vec()));
        assert_eq!(keys.look(b"\x10\x10"), Typed::Pass(b"\x10".to_vec()));
        assert_eq!(keys.rest(), b"\x10");
        assert_eq!(keys.look(b"\x11"), Typed::Pass(b"\x11".to_vec()));
    }

    #[test]
    fn other_keys_and_none() {
        assert_eq!(keys("a,ctrl-[").look(b"xa\x1b"), Typed::Leave(b"x".to_vec()));
        assert_eq!(keys("").look(b"\x10\x11"), Typed::Pass(b"\x10\x11".to_vec()));
        for wrong in [
            "ctrl-",
            "ctrl-1",
            "ab",
            ",",
            "ctrl-p,",
            "ü",
            "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a",
        ] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
    }
}
