//! DNS messages (RFC 1035), as far as a server of few names that forwards the rest must read them.
//!
//! Pure. Everything read here comes from containers or from the network: every offset is looked at, a name that leads to itself ends. What
//! is forwarded passes as it is, so that record types that nobody here knows come through.
//!
//! ```text
//! message    id · flags · number of questions · of answers · of authorities · of additionals, each be16 · sections
//! flags      response 0x8000 · opcode 0x7800 · authoritative 0x0400 · truncated 0x0200 · recursion desired 0x0100, available 0x0080 · code 0x000f
//! name       labels (length u8, 1 to 63 · bytes) · 0; in a record also 0xc000 + offset of where it goes on
//! question   name · type be16 · class be16
//! record     name · type be16 · class be16 · seconds to live be32 · length be16 · data
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub(super) const A: u16 = 1;
pub(super) const CNAME: u16 = 5;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
pub(super) const ANY: u16 = 255;
const OPT: u16 = 41;
const CLASS_IN: u16 = 1;

const HEADER_BYTES: usize = 12;
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;

/// RFC 1035: of a whole name, with its lengths.
const NAME_BYTES_MAX: usize = 255;
/// A name has at most 127 labels; more jumps than that lead in circles.
const JUMPS_MAX: usize = 127;
/// Answers that are looked at for addresses: more than fit a datagram.
const RECORDS_MAX: usize = 512;

/// What a datagram holds where nobody said otherwise, and what we say.
pub(super) const DATAGRAM_BYTES: usize = 512;
const OWN_DATAGRAM_BYTES: u16 = 1232;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// A query that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub id: u16,
    recursion_desired: bool,
    /// Lower case, without the final dot. `None`: it has labels that no name of ours has.
    pub name: Option<String>,
    pub kind: u16,
    pub is_internet: bool,
    /// Name, type and class as they came.
    question: Vec<u8>,
    /// What a datagram to the asker may hold, if it said so (EDNS, RFC 6891).
    edns: Option<u16>,
}

/// Why a query is not taken: nothing is answered, or this much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Not a query at all.
    Silent,
    /// A header that says what is wrong.
    Answered(Vec<u8>),
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let both = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([both[0], both[1]]))
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DATAGRAM_BYTES);
    for number in [id, flags].into_iter().chain(counts) {
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

impl Query {
    /// Reads a query. One question is all that any resolver asks.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        let (id, flags) = be16(bytes, 0).zip(be16(bytes, 2)).ok_or(Unusable::Silent)?;
        // An answer to an answer would go on for ever.
        if flags & RESPONSE != 0 || bytes.len() < HEADER_BYTES {
            return Err(Unusable::Silent);
        }
        let refuse = |code: Code| {
            let flags = RESPONSE | flags & (OPCODE | RECURSION_DESIRED) | RECURSION_AVAILABLE | code as u16;
            Unusable::Answered(header(id, flags, [0; 4]))
        };
        if flags & OPCODE != 0 {
            return Err(refuse(Code::NotImplemented));
        }
        let malformed = || refuse(Code::FormatError);
        if be16(bytes, 4) != Some(1) {
            return Err(malformed());
        }
        let (name, end) = read_plain_name(bytes, HEADER_BYTES).ok_or_else(malformed)?;
        let kind = be16(bytes, end).ok_or_else(malformed)?;
        let class = be16(bytes, end + 2).ok_or_else(malformed)?;
        Ok(Self {
            id,
            recursion_desired: flags & RECURSION_DESIRED != 0,
            name: plain_text(&name),
            kind,
            is_internet: class == CLASS_IN,
            question: bytes[HEADER_BYTES..end + 4].to_vec(),
            edns: read_edns(bytes, end + 4),
        })
    }

    /// How large a datagram may be.
    pub fn datagram_bytes(&self) -> usize {
        self.edns
            .map_or(DATAGRAM_BYTES, |bytes| usize::from(bytes).max(DATAGRAM_BYTES))
    }

    /// An answer of our own: records of the asked name.
    pub fn reply(&self, code: Code, records: &[(u16, Vec<u8>)], seconds: u32) -> Vec<u8> {
        let recursion = if self.recursion_desired {
            RECURSION_DESIRED
        } else {
            0
        };
        let authority = if code == Code::NoError { AUTHORITATIVE } else { 0 };
        let flags = RESPONSE | authority | recursion | RECURSION_AVAILABLE | code as u16;
        let count = records.len() as u16;
        let mut bytes = header(self.id, flags, [1, count, 0, u16::from(self.edns.is_some())]);
        bytes.extend(&self.question);
        for (kind, data) in records {
            // The name is the question's.
            bytes.extend((0xc000 | HEADER_BYTES as u16).to_be_bytes());
            bytes.extend(kind.to_be_bytes());
            bytes.extend(CLASS_IN.to_be_bytes());
            bytes.extend(seconds.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        if self.edns.is_some() {
            bytes.push(0);
            bytes.extend(OPT.to_be_bytes());
            bytes.extend(OWN_DATAGRAM_BYTES.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    /// The answer without its content, which says: ask again over TCP.
    pub fn truncated(&self) -> Vec<u8> {
        let recursion = if self.recursion_desired {
            RECURSION_DESIRED
        } else {
            0
        };
        let flags = RESPONSE | TRUNCATED | recursion | RECURSION_AVAILABLE;
        let mut bytes = header(self.id, flags, [1, 0, 0, 0]);
        bytes.extend(&self.question);
        bytes
    }

    /// Whether bytes are an answer to this question under an id: what else comes from there was not asked for.
    pub fn is_answered_by(&self, bytes: &[u8], id: u16) -> bool {
        let end = HEADER_BYTES + self.question.len();
        be16(bytes, 0) == Some(id)
            && be16(bytes, 2).is_some_and(|flags| flags & RESPONSE != 0)
            && be16(bytes, 4) == Some(1)
            && bytes
                .get(HEADER_BYTES..end)
                .is_some_and(|question| question.eq_ignore_ascii_case(&self.question))
    }

    /// Addresses that an answer gives for the asked name, directly or by way of other names, and for how long. None of an answer that breaks
    /// the format.
    pub fn addresses(&self, answer: &[u8]) -> Vec<(IpAddr, Duration)> {
        self.read_addresses(answer).unwrap_or_default()
    }

    fn read_addresses(&self, answer: &[u8]) -> Option<Vec<(IpAddr, Duration)>> {
        let mut wanted = vec![read_plain_name(answer, HEADER_BYTES)?.0];
        let mut at = HEADER_BYTES + self.question.len();
        let mut found = Vec::new();
        for _ in 0..usize::from(be16(answer, 6)?).min(RECORDS_MAX) {
            let record = read_record(answer, at)?;
            at = record.end;
            if record.class != CLASS_IN || !wanted.contains(&record.name) {
                continue;
            }
            let lifetime = Duration::from_secs(u64::from(record.seconds));
            let address = match (record.kind, record.data.len()) {
                (A, 4) => <[u8; 4]>::try_from(record.data).ok().map(IpAddr::from),
                (AAAA, 16) => <[u8; 16]>::try_from(record.data).ok().map(IpAddr::from),
                (CNAME, _) => {
                    wanted.push(read_name(answer, record.data_at)?.0);
                    None
                }
                _ => None,
            };
            found.extend(address.map(|address| (address, lifetime)));
        }
        Some(found)
    }
}

/// Gives a message another id.
pub(super) fn set_id(bytes: &mut [u8], id: u16) {
    if let Some(place) = bytes.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// Whether an answer says that the server cannot, or does not want to.
pub(super) fn is_failure(answer: &[u8]) -> bool {
    let code = be16(answer, 2).unwrap_or_default() & 0xf;
    code == Code::ServerFailure as u16 || code == Code::Refused as u16 || code == Code::NotImplemented as u16
}

struct Record<'a> {
    name: Vec<u8>,
    kind: u16,
    class: u16,
    seconds: u32,
    data: &'a [u8],
    data_at: usize,
    end: usize,
}

fn read_record(bytes: &[u8], at: usize) -> Option<Record<'_>> {
    let (name, at) = read_name(bytes, at)?;
    let seconds = u32::from(be16(bytes, at + 4)?) << 16 | u32::from(be16(bytes, at + 6)?);
    let data_at = at + 10;
    let end = data_at + usize::from(be16(bytes, at + 8)?);
    Some(Record {
        name,
        kind: be16(bytes, at)?,
        class: be16(bytes, at + 2)?,
        seconds,
        data: bytes.get(data_at..end)?,
        data_at,
        end,
    })
}

/// The size that an OPT record behind the question gives; a query has no other records.
fn read_edns(bytes: &[u8], at: usize) -> Option<u16> {
    let additionals = be16(bytes, 10)?;
    let no_others = be16(bytes, 6) == Some(0) && be16(bytes, 8) == Some(0);
    let record = read_record(bytes, at).filter(|_| no_others && additionals > 0)?;
    (record.kind == OPT).then_some(record.class)
}

/// A name in one piece, lower case, as labels with lengths; and where it ends.
fn read_plain_name(bytes: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let (name, end) = read_name(bytes, at)?;
    (end - at == name.len()).then_some((name, end))
}

/// A name with its jumps followed, lower case; and where it ends in its own place.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut name = Vec::new();
    let mut end = None;
    let mut jumps = 0;
    loop {
        let length = *bytes.get(at)?;
        match length >> 6 {
            0 => {
                let label = bytes.get(at..at + 1 + usize::from(length))?;
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() > NAME_BYTES_MAX {
                    return None;
                }
                at += label.len();
                if length == 0 {
                    return Some((name, end.unwrap_or(at)));
                }
            }
            3 => {
                end.get_or_insert(at + 2);
                jumps += 1;
                if jumps > JUMPS_MAX {
                    return None;
                }
                at = usize::from(be16(bytes, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
}

/// Labels as text with dots, if they are of printable letters without dots.
fn plain_text(name: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = name;
    while let Some((length, bytes)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, after) = bytes.split_at_checked(usize::from(*length))?;
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
        rest = after;
    }
    Some(text)
}

/// A name as the data of a record; `None` if it is too long, or empty between dots.
pub(super) fn name_data(name: &str) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length))?;
        data.push(length);
        data.extend(label.as_bytes());
    }
    data.push(0);
    (data.len() <= NAME_BYTES_MAX).then_some(data)
}

/// The address that is asked for by a name of the reverse tree (RFC 1035, RFC 3596).
pub(super) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut address = [0; 4];
        let mut labels = octets.split('.');
        for octet in address.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(address).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut number = 0_u128;
    let mut labels = digits.split('.');
    for place in 0..32 {
        let digit = labels.next().filter(|label| label.len() == 1)?;
        number |= u128::from(u8::from_str_radix(digit, 16).ok()?) << (4 * place);
    }
    labels.next().is_none().then(|| Ipv6Addr::from(number).into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A query as a resolver writes it.
    pub fn ask(id: u16, name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut bytes = header(id, RECURSION_DESIRED, [1, 0, 0, u16::from(edns.is_some())]);
        bytes.extend(name_data(name).expect("a name"));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        if let Some(size) = edns {
            bytes.push(0);
            bytes.extend(OPT.to_be_bytes());
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    pub fn code(answer: &[u8]) -> u16 {
        be16(answer, 2).expect("a header") & 0xf
    }

    pub fn is_truncated(answer: &[u8]) -> bool {
        be16(answer, 2).expect("a header") & TRUNCATED != 0
    }

    #[test]
    fn a_query_is_read_and_answered() {
        let bytes = ask(7, "Web.Example", A, Some(1400));
        let query = Query::parse(&bytes).expect("well formed");
        assert_eq!(query.name.as_deref(), Some("web.example"));
        assert_eq!((query.kind, query.id, query.datagram_bytes()), (A, 7, 1400));
        let answer = query.reply(Code::NoError, &[(A, vec![10, 0, 0, 2]), (AAAA, vec![0; 16])], 60);
        assert!(query.is_answered_by(&answer, 7));
        assert!(!query.is_answered_by(&answer, 8));
        assert!(!query.is_answered_by(&bytes, 7));
        let minute = Duration::from_secs(60);
        assert_eq!(
            query.addresses(&answer),
            [
                (IpAddr::from([10, 0, 0, 2]), minute),
                (IpAddr::from([0; 16]), minute)
            ]
        );
        let other = Query::parse(&ask(7, "other.example", A, None)).expect("well formed");
        assert!(!other.is_answered_by(&answer, 7));
    }

    #[test]
    fn addresses_are_those_of_the_name_and_its_aliases() {
        let query = Query::parse(&ask(1, "www.a", A, None)).expect("well formed");
        let mut answer = query.reply(Code::NoError, &[(CNAME, b"\x03cdn\xc0\x10".to_vec())], 5);
        answer[7] = 3;
        // `cdn.a`, by a jump to where the first record's data stand; then one that nobody asked for.
        answer.extend(b"\xc0\x23\x00\x01\x00\x01\x00\x00\x00\x07\x00\x04\x01\x02\x03\x04");
        answer.extend(b"\x04evil\x00\x00\x01\x00\x01\x00\x00\x00\x07\x00\x04\x06\x06\x06\x06");
        assert_eq!(
            query.addresses(&answer),
            [(IpAddr::from([1, 2, 3, 4]), Duration::from_secs(7))]
        );
    }

    #[test]
    fn what_is_no_query_is_not_taken() {
        let good = ask(1, "a.b", A, None);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Query::parse(&bytes)
        };
        for silent in [Query::parse(&[]), Query::parse(&good[..11]), changed(2, 0x80)] {
            assert_eq!(silent, Err(Unusable::Silent));
        }
        let code_of = |unusable: Result<Query, Unusable>| match unusable {
            Err(Unusable::Answered(bytes)) => code(&bytes),
            other => panic!("taken: {other:?}"),
        };
        // Questions: none, two; a label too long; cut off; a jump, to itself and elsewhere.
        for malformed in [
            changed(5, 0),
            changed(5, 2),
            changed(12, 0x40),
            changed(12, 63),
            Query::parse(&good[..good.len() - 1]),
            changed(12, 0xc0),
        ] {
            assert_eq!(code_of(malformed), Code::FormatError as u16);
        }
        assert_eq!(code_of(changed(2, 0x28)), Code::NotImplemented as u16);
        let mut long = header(1, 0, [1, 0, 0, 0]);
        for _ in 0..64 {
            long.extend(b"\x03abc");
        }
        long.extend([0, 0, 1, 0, 1]);
        assert_eq!(code_of(Query::parse(&long)), Code::FormatError as u16);
    }

    #[test]
    fn names_of_the_reverse_tree_are_addresses() {
        let six = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa";
        for (name, address) in [
            ("2.0.17.172.in-addr.arpa", Some("172.17.0.2")),
            (six, Some("4321:0:1:2:3:4:567:89ab")),
            ("0.17.172.in-addr.arpa", None),
            ("1.2.0.17.172.in-addr.arpa", None),
            ("256.0.17.172.in-addr.arpa", None),
            ("1.ip6.arpa", None),
            ("ip6.arpa", None),
            ("web", None),
        ] {
            let expected: Option<IpAddr> = address.map(|text| text.parse().expect("an address"));
            assert_eq!(reverse(name), expected, "{name}");
        }
    }

    /// Whatever comes in, reading it ends and does not panic.
    #[test]
    fn noise_is_survived() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let query = Query::parse(&ask(1, "www.example.com", A, Some(1232))).expect("well formed");
        let answer = query.reply(
            Code::NoError,
            &[
                (CNAME, b"\x03cdn\xc0\x10".to_vec()),
                (A, vec![1, 2, 3, 4]),
                (AAAA, vec![9; 16]),
            ],
            5,
        );
        let mut taken = 0;
        for _ in 0..50_000 {
            let mut bytes = if random() % 2 == 0 {
                ask(random() as u16, "www.example.com", random() as u16, Some(512))
            } else {
                answer.clone()
            };
            for _ in 0..random() % 8 {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = [0, 0xc0, 0xff, random() as u8][(random() % 4) as usize];
            }
            bytes.truncate((random() % (bytes.len() as u64 + 1)) as usize);
            if let Ok(read) = Query::parse(&bytes) {
                taken += 1;
                assert!(read.question.len() <= bytes.len());
                assert!(read.reply(Code::NoError, &[], 0).len() >= HEADER_BYTES);
            }
            assert!(query.addresses(&bytes).len() <= RECORDS_MAX);
            is_failure(&bytes);
        }
        assert!(taken > 1000, "{taken} were queries");
    }
}
