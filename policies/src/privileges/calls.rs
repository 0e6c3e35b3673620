//! System calls: compares the loaded programs themselves, call by call, along every path that their conditions on arguments open.

use std::collections::BTreeSet;

use super::Found;
use crate::bpf::{RET_ALLOW, RET_LOG, RET_TRACE, RET_USER_NOTIF, X32_BIT};
use crate::confinement::{Confinement, Filter, Instruction, Seccomp};
use crate::constants;
use crate::syscalls::Entry;

/// Paths that are followed for one call: what has more conditions than any policy writes is taken to gain.
const PATHS_MAX: usize = 4096;
/// Ways of calling that are told of one call; more are summed up.
const EXAMPLES_MAX: usize = 8;
/// A number that no table has and no kernel gives out soon: it stands for every call that is newer than this program.
const UNKNOWN: u32 = 0x2fff_ffff;

/// Where `socket`'s third argument lies, and the protocols that its other two say already: none, TCP and UDP.
const PROTOCOL: u32 = 32;
const USUAL: [u32; 3] = [0, 6, 17];

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

pub(super) fn beyond(from: &Confinement, to: &Confinement, found: &mut Found) {
    let (from_filters, to_filters) = match (&from.seccomp, &to.seccomp) {
        (Seccomp::Unconfined, _) => return,
        (Seccomp::Filters(_), Seccomp::Unconfined) => {
            return found.add("system calls", "all of them, unfiltered");
        }
        (Seccomp::Filters(from), Seccomp::Filters(to)) => (from, to),
    };
    if from_filters == to_filters {
        return;
    }
    let native = Entry::from(to.arch);
    let foreign = match native {
        Entry::X86_64 | Entry::I386 => Entry::I386,
        Entry::Aarch64 | Entry::Arm => Entry::Arm,
    };
    let compare = |entry: Entry, bits: u32| -> Vec<String> {
        let calls = entry.table().iter().map(|(name, number)| (*name, *number));
        let calls = calls.chain([("calls newer than this version knows", UNKNOWN)]);
        let gained: BTreeSet<String> = calls
            .filter_map(|(name, number)| gained(name, from_filters, to_filters, entry, number | bits))
            .collect();
        gained.into_iter().collect()
    };
    let mut tell = |how: &str, calls: Vec<String>| {
        if !calls.is_empty() {
            found.add("system calls", format!("{}{how}", calls.join(", ")));
        }
    };
    tell("", compare(native, 0));
    tell(" through the 32-bit entry", compare(foreign, 0));
    if native == Entry::X86_64 {
        tell(" through the x32 entry", compare(native, X32_BIT));
    }
}

/// The call's name, where `to` lets it through with arguments with which `from` does not.
fn gained(name: &str, from: &[Filter], to: &[Filter], entry: Entry, number: u32) -> Option<String> {
    let (mut is_gained, mut was_allowed) = (false, false);
    let mut with: BTreeSet<String> = BTreeSet::new();
    let mut path = Path::default();
    for _ in 0..PATHS_MAX {
        path.begin(entry.audit(), number);
        let (before, after) = (path.allows(from), path.allows(to));
        if !path.is_impossible {
            was_allowed |= before;
            is_gained |= after && !before;
            if after && !before {
                with.insert(path.words(name));
            }
        }
        if !path.next() {
            return is_gained.then(|| match was_allowed || with.len() > 1 {
                true => format!("{name} (with {})", further(&with)),
                false => name.to_owned(),
            });
        }
    }
    Some(format!("{name} (its conditions are too many to compare)"))
}

/// Arguments with which a call is gained: those that are named by a value, as far as they are few.
fn further(with: &BTreeSet<String>) -> String {
    let named: Vec<&str> = with
        .iter()
        .map(String::as_str)
        .filter(|words| !words.is_empty())
        .collect();
    // Who may call in a way may call in it with more said.
    let is_wider = |words: &&str| {
        let mut others = named.iter().filter_map(|other| words.strip_prefix(other));
        !others.any(|rest| rest.starts_with(' '))
    };
    let few: Vec<&str> = named.iter().copied().filter(is_wider).collect();
    match few.len() {
        1..=EXAMPLES_MAX if named.len() == with.len() => few.join(", or "),
        _ => "further arguments".to_owned(),
    }
}

/// A question that a program asks of a word that only the call's caller knows.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Test {
    word: u32,
    mask: u32,
    code: u16,
    operand: u32,
}

impl Test {
    /// The words of the arguments come after number, architecture and address, the lower half first (`struct seccomp_data`).
    fn words(self, call: &str) -> String {
        let argument = self.word.saturating_sub(16) / 8;
        let prefix = match (call, argument) {
            ("socket" | "socketpair", 0) => "AF_",
            ("socket" | "socketpair", 1) => "SOCK_",
            ("socket" | "socketpair", 2) => "IPPROTO_",
            _ => "",
        };
        let mut known = constants::ARGUMENTS.iter();
        let is_it =
            |(name, value): &&(&str, u64)| name.starts_with(prefix) && *value == u64::from(self.operand);
        if let Some((name, _)) = known.find(is_it).filter(|_| !prefix.is_empty()) {
            return (*name).to_owned();
        }
        let half = if self.word.is_multiple_of(8) {
            ""
        } else {
            ", upper half"
        };
        let mask = match self.mask {
            u32::MAX => String::new(),
            mask => format!(" & {mask:#x}"),
        };
        match self.operand {
            small @ 0..10 => format!("argument {argument}{half}{mask} = {small}"),
            large => format!("argument {argument}{half}{mask} = {large:#x}"),
        }
    }

    fn holds(self, value: u32) -> bool {
        let value = value & self.mask;
        match self.code {
            JEQ => value == self.operand,
            JGT => value > self.operand,
            JGE => value >= self.operand,
            _ => value & self.operand != 0,
        }
    }
}

/// What a program has loaded.
#[derive(Clone, Copy)]
enum Loaded {
    Known(u32),
    Argument { word: u32, mask: u32 },
}

/// One way through all programs: the answers to their questions, the same for every one of them.
#[derive(Default)]
struct Path {
    answers: Vec<bool>,
    asked: usize,
    facts: Vec<(Test, bool)>,
    is_impossible: bool,
    arch: u32,
    number: u32,
}

impl Path {
    fn begin(&mut self, arch: u32, number: u32) {
        (self.asked, self.is_impossible) = (0, false);
        self.facts.clear();
        (self.arch, self.number) = (arch, number);
    }

    /// Goes on to the next way; `false` where there is none.
    fn next(&mut self) -> bool {
        while self.answers.last() == Some(&false) {
            self.answers.pop();
        }
        match self.answers.last_mut() {
            Some(last) => {
                *last = false;
                true
            }
            None => false,
        }
    }

    /// What this way says of arguments by their values.
    fn words(&self, call: &str) -> String {
        let named = self
            .facts
            .iter()
            .filter(|(test, answer)| *answer && test.code == JEQ);
        // The upper half of a small number says nothing to a person.
        let mut named: Vec<Test> = named
            .map(|(test, _)| *test)
            .filter(|test| test.word.is_multiple_of(8) || test.operand != 0)
            .filter(|test| !(call == "socket" && test.word == PROTOCOL && USUAL.contains(&test.operand)))
            .collect();
        named.sort_by_key(|test| test.word);
        let words: Vec<String> = named.into_iter().map(|test| test.words(call)).collect();
        words.join(" ")
    }

    /// Whether every program lets the call through. Whoever is asked by a listener or tracer may let it.
    fn allows(&mut self, filters: &[Filter]) -> bool {
        let mut is_allowed = true;
        for filter in filters {
            let answer = self.run(&filter.program).map(|ret| ret & 0xffff_0000);
            is_allowed &= matches!(answer, Some(RET_ALLOW | RET_LOG | RET_TRACE | RET_USER_NOTIF));
        }
        is_allowed
    }

    /// What a program returns; `None` where it is not well formed, which the kernel would have refused.
    fn run(&mut self, program: &[Instruction]) -> Option<u32> {
        let (mut loaded, mut at) = (Loaded::Known(0), 0_usize);
        loop {
            let Instruction(code, then, otherwise, operand) = *program.get(at)?;
            at += 1;
            match code {
                LD_ABS => {
                    loaded = match operand {
                        0 => Loaded::Known(self.number),
                        4 => Loaded::Known(self.arch),
                        word => Loaded::Argument { word, mask: u32::MAX },
                    }
                }
                AND => {
                    loaded = match loaded {
                        Loaded::Known(value) => Loaded::Known(value & operand),
                        Loaded::Argument { word, mask } => Loaded::Argument {
                            word,
                            mask: mask & operand,
                        },
                    }
                }
                RET => return Some(operand),
                JA => at = at.checked_add(usize::try_from(operand).ok()?)?,
                JEQ | JGT | JGE | JSET => {
                    let is_taken = self.answer(loaded, code, operand);
                    at += usize::from(if is_taken { then } else { otherwise });
                }
                _ => return None,
            }
        }
    }

    fn answer(&mut self, loaded: Loaded, code: u16, operand: u32) -> bool {
        let (word, mask) = match loaded {
            Loaded::Argument { word, mask } => (word, mask),
            Loaded::Known(value) => {
                let test = Test {
                    word: 0,
                    mask: u32::MAX,
                    code,
                    operand,
                };
                return test.holds(value);
            }
        };
        let test = Test {
            word,
            mask,
            code,
            operand,
        };
        let of_word = self.facts.iter().filter(|(known, _)| known.word == word);
        for (known, answer) in of_word {
            if *known == test {
                return *answer;
            }
            if *answer && known.code == JEQ && known.mask & mask == mask {
                return test.holds(known.operand);
            }
        }
        let answer = match self.answers.get(self.asked) {
            Some(answer) => *answer,
            None => {
                self.answers.push(true);
                true
            }
        };
        self.asked += 1;
        if answer && code == JEQ && mask == u32::MAX {
            let is_against =
                |(known, answer): &(Test, bool)| known.word == word && known.holds(operand) != *answer;
            self.is_impossible |= self.facts.iter().any(is_against);
        }
        self.facts.push((test, answer));
        answer
    }
}
