//! The chain of the audit log: one line for each decision, each bound to all before it.
//!
//! Owns the form of a line and the rule by which lines hang together; where lines lie, and when they are on disk, is the daemon's. Nothing in a line
//! is written anew when it is verified: the bytes as they stand are what was hashed.
//!
//! ```text
//! segment   {"audit":1,"seq":7,"before":"<64 hex digits>"}                          the number of its first entry, and the chain before it
//! entry     {"seq":7,"at":"2026-12-01T06:00:00.000000000Z","who":"uid 0","from":"kakoid.sock","what":"POST /containers/create?name=web",
//!            "verdict":"refused","why":"…","chain":"<64 hex digits>"}                one line
//! chain     SHA-256 over the chain before it (32 bytes, zeroes before the first entry) and the entry's bytes before `,"chain":`
//! ```
//!
//! A line that was changed, left out, moved or put between others breaks the chain there. Lines that were cut off the end break nothing: whoever
//! wants to see that keeps a head ([`Head`]) elsewhere, and asks whether the log leads through it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the form.
const FORMAT: u32 = 1;
/// Characters of one text of an entry; a request's path with its query fits.
const TEXT_CHARS_MAX: usize = 512;
/// Longest line: four texts, of which every character may be escaped to six bytes, or take four.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// What stands between an entry's fields and its chain, and behind that.
const OPENING: &str = ",\"chain\":\"";
const CLOSING: &str = "\"}";
const HEX_DIGITS: usize = 64;

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was allowed, and done.
    Allowed,
    /// Somebody's rule refused it.
    Refused,
    /// It was allowed, and did not work or made no sense.
    Failed,
}

impl Verdict {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When, RFC 3339.
    pub at: String,
    /// Who asked.
    pub who: String,
    /// By which entrance, from where.
    pub from: String,
    /// What was asked for.
    pub what: String,
    /// The verdict.
    pub verdict: Verdict,
    /// By which rule, or why it failed; empty where it was allowed.
    pub why: String,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number; the first is 1.
    pub seq: u64,
    /// The decision.
    pub decision: Decision,
}

#[derive(Serialize)]
struct Written<'s> {
    seq: u64,
    at: &'s str,
    who: &'s str,
    from: &'s str,
    what: &'s str,
    verdict: Verdict,
    why: &'s str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    seq: u64,
    at: String,
    who: String,
    from: String,
    what: String,
    verdict: Verdict,
    why: String,
    chain: Link,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    audit: u32,
    seq: u64,
    before: Link,
}

/// The chain's value behind an entry.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Link([u8; 32]);

impl Link {
    /// The value before the first entry.
    pub const NONE: Self = Self([0; 32]);

    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let bytes: &[u8; HEX_DIGITS] = text.as_bytes().try_into().ok()?;
        let mut link = [0; 32];
        for (byte, pair) in link.iter_mut().zip(bytes.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(link))
    }

    fn after(self, fields: &[u8]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(&self.0);
        context.update(fields);
        let mut link = [0; 32];
        link.copy_from_slice(context.finish().as_ref());
        Self(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        link.to_string()
    }
}

impl TryFrom<String> for Link {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not 64 lower-case hex digits")
    }
}

/// The end of a log: how many entries there are, and what binds them all. Written `SEQ:CHAIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry; 0 where there is none.
    pub seq: u64,
    /// The chain behind it.
    pub chain: Link,
}

impl Head {
    /// A log without an entry.
    pub const NONE: Self = Self {
        seq: 0,
        chain: Link::NONE,
    };

    /// Reads `SEQ:CHAIN`.
    pub fn parse(text: &str) -> Option<Self> {
        let (seq, chain) = text.split_once(':')?;
        Some(Self {
            seq: seq.parse().ok()?,
            chain: Link::parse(chain)?,
        })
    }

    /// The first line of a segment that goes on here, without its line break.
    pub fn opening(&self) -> String {
        let opening = Opening {
            audit: FORMAT,
            seq: self.seq + 1,
            before: self.chain,
        };
        serde_json::to_string(&opening).expect("numbers and text")
    }

    /// The next entry as a line, without its line break, and the head behind it. Longer texts are cut.
    pub fn extend(&self, decision: &Decision) -> (String, Self) {
        let cut = |text: &str| -> String { text.chars().take(TEXT_CHARS_MAX).collect() };
        let seq = self.seq + 1;
        let fields = Written {
            seq,
            at: &cut(&decision.at),
            who: &cut(&decision.who),
            from: &cut(&decision.from),
            what: &cut(&decision.what),
            verdict: decision.verdict,
            why: &cut(&decision.why),
        };
        let mut line = serde_json::to_string(&fields).expect("numbers and text");
        line.pop();
        let chain = self.chain.after(line.as_bytes());
        line.push_str(OPENING);
        line.push_str(&chain.to_string());
        line.push_str(CLOSING);
        (line, Self { seq, chain })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.seq, self.chain)
    }
}

/// Why a log does not hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line is longer than any entry.
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    Long,
    /// A line is no entry.
    #[error("a line is no entry of an audit log")]
    Form,
    /// The log does not begin with a segment.
    #[error("the log does not begin as a segment of an audit log does")]
    Beginning,
    /// A segment of another version.
    #[error("the segment has format {0}; this version reads format {FORMAT}")]
    Format(u32),
    /// An entry is missing or is at another place.
    #[error("entry {found} stands where entry {expected} belongs")]
    Order {
        /// What belongs there.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// What stands there is not what was written.
    #[error("entry {0} is not what was written, or something before it is not")]
    Chain(u64),
}

/// A log that is verified line by line, from a beginning that is taken as it stands.
#[derive(Debug, Default)]
pub struct Verifier {
    head: Option<Head>,
    first: u64,
    missing: Vec<Head>,
}

impl Verifier {
    /// A log that shall lead through heads that somebody kept elsewhere.
    pub fn through(heads: impl IntoIterator<Item = Head>) -> Self {
        Self {
            missing: heads.into_iter().filter(|head| *head != Head::NONE).collect(),
            ..Self::default()
        }
    }

    /// Takes the next line, without its line break; an entry is given back. After a fault nothing more may be taken.
    ///
    /// # Errors
    /// What is wrong with the line where it stands.
    pub fn take(&mut self, line: &[u8]) -> Result<Option<Entry>, Fault> {
        if line.len() > LINE_BYTES_MAX {
            return Err(Fault::Long);
        }
        if let Ok(opening) = serde_json::from_slice::<Opening>(line) {
            return self.open(&opening).map(|()| None);
        }
        let head = self.head.ok_or(Fault::Beginning)?;
        let read: Read = serde_json::from_slice(line).map_err(|_| Fault::Form)?;
        let tail = OPENING.len() + HEX_DIGITS + CLOSING.len();
        let fields = line.len().checked_sub(tail).map(|at| line.split_at(at));
        let (fields, tail) = fields.ok_or(Fault::Form)?;
        if tail != format!("{OPENING}{}{CLOSING}", read.chain).as_bytes() {
            return Err(Fault::Form);
        }
        if read.seq != head.seq + 1 {
            return Err(Fault::Order {
                expected: head.seq + 1,
                found: read.seq,
            });
        }
        let chain = head.chain.after(fields);
        if chain != read.chain {
            return Err(Fault::Chain(read.seq));
        }
        self.reach(Head { seq: read.seq, chain });
        Ok(Some(Entry {
            seq: read.seq,
            decision: Decision {
                at: read.at,
                who: read.who,
                from: read.from,
                what: read.what,
                verdict: read.verdict,
                why: read.why,
            },
        }))
    }

    fn open(&mut self, opening: &Opening) -> Result<(), Fault> {
        if opening.audit != FORMAT {
            return Err(Fault::Format(opening.audit));
        }
        let before = Head {
            seq: opening.seq.checked_sub(1).ok_or(Fault::Form)?,
            chain: opening.before,
        };
        match self.head {
            None => {
                self.first = opening.seq;
                self.reach(before);
                Ok(())
            }
            Some(head) if head.seq != before.seq => Err(Fault::Order {
                expected: head.seq + 1,
                found: opening.seq,
            }),
            Some(head) if head.chain != before.chain => Err(Fault::Chain(opening.seq)),
            Some(_) => Ok(()),
        }
    }

    fn reach(&mut self, head: Head) {
        self.missing.retain(|missing| *missing != head);
        self.head = Some(head);
    }

    /// Where the log ends so far; `None` before anything was taken.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The number of the first entry that the log holds; what was before it is gone.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// A head that the log does not lead through, of those that it shall. One that begins behind a head cannot show that it leads through it.
    pub fn missing(&self) -> Option<Head> {
        self.missing.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(what: &str) -> Decision {
        Decision {
            at: "2026-12-01T06:00:00.000000000Z".into(),
            who: "uid 0".into(),
            from: "kakoid.sock".into(),
            what: what.into(),
            verdict: Verdict::Refused,
            why: "a \"rule\"\nof two lines".into(),
        }
    }

    fn log(count: usize) -> (Vec<String>, Head) {
        let (mut lines, mut head) = (vec![Head::NONE.opening()], Head::NONE);
        for number in 0..count {
            if number == 3 {
                lines.push(head.opening());
            }
            let (line, next) = head.extend(&decision(&format!("POST /{number}")));
            lines.push(line);
            head = next;
        }
        (lines, head)
    }

    fn verify<'l>(lines: impl IntoIterator<Item = &'l [u8]>) -> Result<Head, Fault> {
        let mut verifier = Verifier::default();
        for line in lines {
            verifier.take(line)?;
        }
        verifier.head().ok_or(Fault::Beginning)
    }

    fn bytes(lines: &[String]) -> Vec<&[u8]> {
        lines.iter().map(String::as_bytes).collect()
    }

    #[test]
    fn a_log_reads_back_as_it_was_written() {
        let (lines, head) = log(5);
        assert_eq!(verify(bytes(&lines)), Ok(head));
        assert_eq!(Head::parse(&head.to_string()), Some(head));
        let mut verifier = Verifier::default();
        let entries: Vec<Entry> = lines
            .iter()
            .filter_map(|line| verifier.take(line.as_bytes()).expect("whole"))
            .collect();
        assert_eq!(entries.len(), 5);
        assert_eq!(entries[4].decision, decision("POST /4"));
        assert_eq!((verifier.first(), entries[0].seq), (1, 1));
        // A log whose beginning is gone hangs together from where it begins now.
        let rest = &lines[lines
            .iter()
            .rposition(|line| line.contains("\"audit\""))
            .expect("two")..];
        assert_eq!(verify(bytes(rest)), Ok(head));
    }

    /// Whatever bit of whatever byte is turned.
    #[test]
    fn one_flipped_bit_breaks_it() {
        let (lines, _) = log(5);
        let whole = lines.join("\n").into_bytes();
        let mut flips = 0;
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let verdict = verify(flipped.split(|byte| *byte == b'\n'));
                assert!(verdict.is_err(), "bit {bit} of byte {at}: {verdict:?}");
                flips += 1;
            }
        }
        assert!(flips > 8000);
    }

    #[test]
    fn lines_that_are_left_out_moved_repeated_or_made_up_break_it() {
        let (lines, _) = log(5);
        let all = bytes(&lines);
        for at in 0..all.len() - 1 {
            let mut without = all.clone();
            without.remove(at);
            // The header of a later segment alone says nothing that the entries do not say.
            let is_later_header = at > 0 && lines[at].contains("\"audit\"");
            assert_eq!(verify(without).is_ok(), is_later_header, "line {at}");
            let mut swapped = all.clone();
            swapped.swap(at, at + 1);
            assert!(
                verify(swapped).is_err() || lines[at].contains("audit") || lines[at + 1].contains("audit")
            );
            let mut doubled = all.clone();
            doubled.insert(at, all[at]);
            assert!(
                verify(doubled).is_err() || lines[at].contains("audit"),
                "line {at}"
            );
        }
        let other = log(2).0[2].replace("POST /1", "POST /9");
        let made_up: Vec<&[u8]> = vec![all[0], all[1], other.as_bytes()];
        assert_eq!(verify(made_up), Err(Fault::Chain(2)));
        for bad in [
            "",
            "{}",
            "[]",
            "no",
            "{\"seq\":1}",
            r#"{"audit":2,"seq":1,"before":""}"#,
        ] {
            assert!(verify([bad.as_bytes()]).is_err(), "{bad:?}");
        }
    }

    /// What a verification from elsewhere has to notice and the lines alone cannot show.
    #[test]
    fn a_head_that_was_kept_tells_of_a_cut() {
        let (lines, head) = log(5);
        let leads = |lines: &[String], head| {
            let mut verifier = Verifier::through([head]);
            for line in lines {
                verifier.take(line.as_bytes()).expect("hangs together");
            }
            verifier.missing().is_none()
        };
        assert!(leads(&lines, head));
        assert!(!leads(&lines[..lines.len() - 1], head));
        let (_, earlier) = log(2);
        assert!(leads(&lines, earlier));
        let forged = Head { seq: 2, ..head };
        assert!(!leads(&lines, forged));
    }

    #[test]
    fn texts_are_bounded() {
        let long = decision(&"\u{1}".repeat(100_000));
        let (line, _) = Head::NONE.extend(&long);
        assert!(line.len() <= LINE_BYTES_MAX, "{}", line.len());
    }
}
