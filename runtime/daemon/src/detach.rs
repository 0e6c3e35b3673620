//! The keys by which a client leaves a terminal without ending the container.

use crate::refusal::{Answer, Refusal};

/// Longest sequence: more is a mistake.
const KEYS_MAX: usize = 16;

/// Looks for the detaching keys in what a client types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`; empty means the default.
    pub fn parse(text: &str) -> Answer<Self> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let bad = || {
            Refusal::bad(format!(
                "Invalid detach keys ({text}) provided: unknown character"
            ))
        };
        let keys = text
            .split(',')
            .map(|key| {
                match (
                    key.as_bytes(),
                    key.to_ascii_lowercase().strip_prefix("ctrl-").map(str::as_bytes),
                ) {
                    ([byte], _) if byte.is_ascii() => Ok(*byte),
                    (_, Some([letter @ b'a'..=b'z'])) => Ok(letter - b'a' + 1),
                    (_, Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => Ok(sign - b'@'),
                    (_, Some(b"delete")) => Ok(127),
                    _ => Err(bad()),
                }
            })
            .collect::<Answer<Vec<u8>>>()?;
        if keys.len() > KEYS_MAX {
            return Err(bad());
        }
        Ok(Self { keys, matched: 0 })
    }

    /// Passes bytes on and says whether the keys were complete; keys that turn out to be no detaching are passed on late.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in bytes {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if byte == self.keys[0] {
                self.matched = 1;
            } else {
                out.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detaches_only_on_the_whole_sequence() {
        let mut keys = DetachKeys::parse("").expect("the default");
        let mut out = Vec::new();
        assert!(!keys.feed(b"ls\x10", &mut out));
        assert_eq!(out, b"ls");
        assert!(!keys.feed(b"x", &mut out));
        assert_eq!(out, b"ls\x10x");
        assert!(keys.feed(b"\x10\x11rest", &mut out));
        assert_eq!(out, b"ls\x10x");
    }

    #[test]
    fn reads_keys_and_refuses_nonsense() {
        assert_eq!(DetachKeys::parse("a,ctrl-[").expect("valid").keys, [b'a', 0x1b]);
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p,,", &"a,".repeat(20)] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
