//! What one container may take from its neighbours beside its limits: weights, reservations, processors, scheduling, log space.
//!
//! Owns [`Neighbours`], the part of a ceiling that says so, its grammar, and its judgement. None of it is ever trimmed: a weight or a
//! priority that is not what was asked for is another app. Invariant: what an owner's ceiling does not name is what every container has anyway.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ceiling, Excess, Judge, flag};
use crate::decode::fields::{Fields, scalar};
use crate::diagnostics::{Origin, Report};
use crate::model::Sited;
use crate::request::{Amount, NeighbourRequests};
use crate::units;
use crate::yaml::Node;

/// The fields that this module reads.
pub(crate) const KEYS: [&str; 8] = [
    "oom_score_adj",
    "oom_kill_disable",
    "cpu_shares",
    "io_weight",
    "memory_reservation",
    "cpus",
    "ulimits",
    "log",
];

/// Resource limits by their names in lower case without prefix (setrlimit(2)); that of open files is among `limits`.
pub const ULIMITS: [&str; 15] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The weight of a container that asks for none.
const CPU_SHARES: u64 = 1024;
/// The same of block I/O.
const IO_WEIGHT: u64 = 500;
/// The highest number of a processor that a list may name.
const PROCESSOR_MAX: u32 = 8191;

/// The most of a resource limit that gives no priority over other processes: nice 0, and no real-time scheduling.
const PRIORITIES: [(&str, u64); 2] = [("nice", 20), ("rtprio", 0)];

type Most = Sited<Option<u64>>;

/// The most that a container may take from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// The lowest that an app may be given; 0 where the owner says nothing.
    oom_score_adj: Sited<i64>,
    oom_kill_disable: Sited<bool>,
    cpu_shares: Most,
    io_weight: Most,
    memory_reservation: Most,
    /// The processors for containers; `None` is all.
    cpus: Option<Sited<BTreeSet<u32>>>,
    ulimits: BTreeMap<String, Most>,
    /// Bytes of kept output, beyond what the daemon keeps of everyone.
    log: Most,
    whole: Origin,
}

pub(super) fn decode(fields: &mut Fields, whole: &Origin, report: &mut Report<'_>) -> Neighbours {
    let mut most = |name: &str, otherwise, what, read: fn(&str) -> Option<u64>| {
        fields.take(name, report).map_or_else(
            || Sited::new(Some(otherwise), whole.clone()),
            |node| amount(&node, name, what, read, report),
        )
    };
    let bytes = "a size such as `64MiB`";
    let cpu_shares = most(
        "cpu_shares",
        CPU_SHARES,
        "a weight such as `2048`",
        units::integer,
    );
    let io_weight = most("io_weight", IO_WEIGHT, "a weight such as `800`", units::integer);
    let memory_reservation = most("memory_reservation", 0, bytes, units::bytes);
    let log = most("log", 0, bytes, units::bytes);
    Neighbours {
        oom_score_adj: oom_score_adj(fields, whole, report),
        oom_kill_disable: flag(fields, "oom_kill_disable", whole, report),
        cpu_shares,
        io_weight,
        memory_reservation,
        cpus: cpus(fields, report),
        ulimits: ulimits(fields, report),
        log,
        whole: whole.clone(),
    }
}

fn amount(
    node: &Node,
    name: &str,
    what: &str,
    read: fn(&str) -> Option<u64>,
    report: &mut Report<'_>,
) -> Most {
    let origin = report.origin(node.span);
    let text = scalar(node, what, report).unwrap_or_default();
    let value = match text.as_str() {
        "unlimited" => None,
        text => read(text).or_else(|| {
            report.error(node.span, format!("`{name}` is {what}, or `unlimited`"));
            Some(0)
        }),
    };
    Sited::new(value, origin)
}

/// The lowest OOM score adjustment; absent is 0, which spares nobody.
fn oom_score_adj(fields: &mut Fields, whole: &Origin, report: &mut Report<'_>) -> Sited<i64> {
    let Some(node) = fields.take("oom_score_adj", report) else {
        return Sited::new(0, whole.clone());
    };
    let value = scalar(&node, "`oom_score_adj`", report).map(|text| text.parse::<i64>());
    let least = match value {
        Some(Ok(least)) if (-1000..=0).contains(&least) => least,
        Some(_) => {
            report
                .error(
                    node.span,
                    "`oom_score_adj` is the lowest an app may have: -1000 to 0",
                )
                .help("write `oom_score_adj: -500`");
            0
        }
        None => 0,
    };
    Sited::new(least, report.origin(node.span))
}

fn cpus(fields: &mut Fields, report: &mut Report<'_>) -> Option<Sited<BTreeSet<u32>>> {
    let node = fields.take("cpus", report)?;
    let text = scalar(&node, "a list of processors", report)?;
    let Some(set) = processors(&text).filter(|set| !set.is_empty()) else {
        report
            .error(node.span, "`cpus` is a list of processors")
            .help("write `cpus: 1-3` or `cpus: \"0,2\"`");
        // Fails closed, should anybody go on with it: no processor is in it.
        return Some(Sited::new(BTreeSet::new(), report.origin(node.span)));
    };
    Some(Sited::new(set, report.origin(node.span)))
}

/// Reads `0-1,3`.
fn processors(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last > PROCESSOR_MAX {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

fn list(set: &BTreeSet<u32>) -> String {
    let words: Vec<String> = set.iter().map(u32::to_string).collect();
    words.join(",")
}

fn ulimits(fields: &mut Fields, report: &mut Report<'_>) -> BTreeMap<String, Most> {
    let mut all = BTreeMap::new();
    let Some(mut fields) = fields
        .take("ulimits", report)
        .and_then(|node| Fields::open(node, "`ulimits`", &ULIMITS, report))
    else {
        return all;
    };
    for name in ULIMITS {
        if let Some(node) = fields.take(name, report) {
            let most = amount(&node, name, "a number or a size", units::bytes, report);
            all.insert(name.to_owned(), most);
        }
    }
    all
}

/// Judges what a container that is already made is to take from its neighbours.
///
/// # Errors
/// Everything that is too much.
pub fn bound_neighbours(policy: &str, asked: &NeighbourRequests, ceiling: &Ceiling) -> Result<(), Excess> {
    let mut judge = Judge::new(ceiling, Vec::new());
    judge.neighbours(asked);
    if judge.is_refusal() {
        return Err(judge.refusal(policy));
    }
    Ok(())
}

impl Ceiling {
    /// The processors that a container gets which asks for none, as a list; `None` is all.
    pub fn cpus(&self) -> Option<String> {
        self.neighbours.cpus.as_ref().map(|cpus| list(&cpus.value))
    }

    /// Resource limits that the owner bounds, for containers that do not ask: name and the most.
    pub fn ulimits(&self) -> impl Iterator<Item = (&str, u64)> {
        let bounded = |(name, most): (&'_ String, &Most)| Some((name.as_str().to_owned(), most.value?));
        let all: Vec<_> = self.neighbours.ulimits.iter().filter_map(bounded).collect();
        all.into_iter()
            .filter_map(|(name, most)| Some((*ULIMITS.iter().find(|known| **known == name)?, most)))
    }
}

impl Judge<'_> {
    pub(super) fn neighbours(&mut self, asked: &NeighbourRequests) {
        let most = self.ceiling.neighbours.clone();
        let plain = |value: u64| value.to_string();
        for (value, most, what, flag, word, show) in [
            (
                asked.cpu_shares,
                &most.cpu_shares,
                "a weight of processors of",
                "--cpu-shares",
                "cpu_shares",
                plain as fn(u64) -> String,
            ),
            (
                asked.io_weight,
                &most.io_weight,
                "a weight of block I/O of",
                "--blkio-weight",
                "io_weight",
                plain,
            ),
            (
                asked.memory_reservation,
                &most.memory_reservation,
                "a reservation of memory of",
                "--memory-reservation",
                "memory_reservation",
                units::show_bytes,
            ),
            (
                asked.log,
                &most.log,
                "output kept, more than kakoid.yaml keeps of everyone, of",
                "--log-opt",
                "log",
                units::show_bytes,
            ),
        ] {
            if let Some(value) = value {
                self.at_most(value, most, (what, flag, word), show);
            }
        }
        for (name, amount) in &asked.ulimits {
            let priority = PRIORITIES.iter().find(|(known, _)| known == name);
            let otherwise = priority.map(|(_, value)| Sited::new(Some(*value), most.whole.clone()));
            if let Some(most) = most.ulimits.get(name).cloned().or(otherwise) {
                let what = format!("a resource limit `{name}` of");
                let (flag, word) = (format!("--ulimit {name}"), format!("ulimits.{name}"));
                self.at_most(*amount, &most, (&what, &flag, &word), plain);
            }
        }
        self.processors(asked);
        self.oom_kill_disable(asked);
    }

    fn at_most(
        &mut self,
        asked: Amount,
        most: &Most,
        (what, flag, word): (&str, &str, &str),
        show: fn(u64) -> String,
    ) {
        let Some(limit) = most.value else { return };
        if asked.value().is_some_and(|asked| asked <= limit) {
            return;
        }
        self.fatal = true;
        let shown = asked.value().map_or_else(|| "unlimited".to_owned(), show);
        let allowed = show(limit);
        self.excess(
            format!("{what} {shown}"),
            &Origin::flag(flag),
            format!("at most {allowed}"),
            &most.origin,
            format!("ask for at most {allowed}; or the owner writes `{word}: {shown}`"),
        );
    }

    fn processors(&mut self, asked: &NeighbourRequests) {
        let (Some(text), Some(most)) = (&asked.cpus, &self.ceiling.neighbours.cpus) else {
            return;
        };
        // A list that cannot be read is refused as one that asks for more.
        if processors(text).is_some_and(|asked| asked.is_subset(&most.value)) {
            return;
        }
        self.fatal = true;
        let allowed = list(&most.value);
        let line = most.origin.clone();
        self.excess(
            format!("processors {text}"),
            &Origin::flag("--cpuset-cpus"),
            format!("processors {allowed}"),
            &line,
            format!("ask for processors among {allowed}"),
        );
    }

    /// A container that the kernel may not kill at its limit of memory hangs there, and with it whoever waits for what it holds.
    fn oom_kill_disable(&mut self, asked: &NeighbourRequests) {
        let most = &self.ceiling.neighbours.oom_kill_disable;
        if !asked.oom_kill_disable || most.value {
            return;
        }
        self.fatal = true;
        let line = most.origin.clone();
        self.excess(
            "no kill at the limit of memory".to_owned(),
            &Origin::flag("--oom-kill-disable"),
            "the kernel's kill".to_owned(),
            &line,
            "leave the flag out; or the owner writes `oom_kill_disable: true`".to_owned(),
        );
    }

    /// A process that the kernel spares is spared at its neighbours' expense.
    pub(super) fn oom_score_adj(&mut self, asked: &Sited<i64>) {
        let least = &self.ceiling.neighbours.oom_score_adj;
        if asked.value >= least.value {
            return;
        }
        self.fatal = true;
        self.excess(
            format!("an OOM score adjustment of {}", asked.value),
            &asked.origin,
            format!("at least {}", least.value),
            &least.origin.clone(),
            format!(
                "ask for at least {}; or the owner writes `oom_score_adj: {}`",
                least.value, asked.value
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ceiling: &str, asked: &NeighbourRequests) -> Result<(), String> {
        let ceiling = Ceiling::parse("ceiling.yaml", &format!("kakoi: 1\n{ceiling}\n")).expect("valid");
        bound_neighbours("app", asked, &ceiling).map_err(|excess| excess.to_string())
    }

    /// Field, what a ceiling without it allows, what it refuses, a line that allows it.
    #[test]
    fn what_the_owner_does_not_name_is_what_everyone_has() {
        let none = NeighbourRequests::default;
        let ulimit = |name: &str, amount| NeighbourRequests {
            ulimits: vec![(name.to_owned(), amount)],
            ..none()
        };
        let shares = |amount| NeighbourRequests {
            cpu_shares: Some(Amount::At(amount)),
            ..none()
        };
        let weight = |amount| NeighbourRequests {
            io_weight: Some(Amount::At(amount)),
            ..none()
        };
        let reservation = |amount| NeighbourRequests {
            memory_reservation: Some(Amount::At(amount)),
            ..none()
        };
        let log = |amount| NeighbourRequests {
            log: Some(amount),
            ..none()
        };
        let stubborn = NeighbourRequests {
            oom_kill_disable: true,
            ..none()
        };
        let cases = [
            (shares(1024), shares(1025), "cpu_shares: 1025"),
            (weight(500), weight(501), "io_weight: 501"),
            (reservation(0), reservation(1), "memory_reservation: 1MiB"),
            (none(), log(Amount::At(4096)), "log: 4KiB"),
            (none(), log(Amount::Unlimited), "log: unlimited"),
            (none(), stubborn, "oom_kill_disable: true"),
            (
                ulimit("nice", Amount::At(20)),
                ulimit("nice", Amount::At(21)),
                "ulimits: {nice: 40}",
            ),
            (
                ulimit("rtprio", Amount::At(0)),
                ulimit("rtprio", Amount::At(1)),
                "ulimits: {rtprio: 99}",
            ),
            (
                ulimit("memlock", Amount::Unlimited),
                ulimit("rtprio", Amount::Unlimited),
                "ulimits: {rtprio: unlimited}",
            ),
        ];
        for (usual, more, line) in cases {
            judged("", &usual).expect(line);
            let refusal = judged("", &more).expect_err(line);
            let word = line.split([':', ' ']).next().expect("a word");
            assert!(refusal.contains(&format!("`{word}")), "{line}: {refusal}");
            judged(line, &more).expect(line);
        }
    }

    #[test]
    fn what_the_owner_names_is_the_most() {
        let asked = |cpus: &str, memlock| NeighbourRequests {
            cpus: Some(cpus.to_owned()),
            ulimits: vec![("memlock".to_owned(), memlock)],
            ..NeighbourRequests::default()
        };
        let line = "cpus: \"1-3,5\"\nulimits: {memlock: 64KiB}";
        judged(line, &asked("1,3-3,5", Amount::At(65_536))).expect("within");
        for (cpus, memlock, says) in [
            ("0", Amount::At(0), "processors 0 (--cpuset-cpus)"),
            ("1-4", Amount::At(0), "among 1,2,3,5"),
            ("4294967296", Amount::At(0), "processors 4294967296"),
            ("1", Amount::At(65_537), "`memlock` of 65537 (--ulimit memlock)"),
            ("1", Amount::Unlimited, "`memlock` of unlimited"),
        ] {
            let refusal = judged(line, &asked(cpus, memlock)).expect_err(cpus);
            assert!(refusal.contains(says), "{says}: {refusal}");
        }
        let ceiling = Ceiling::parse("c", &format!("kakoi: 1\n{line}\n")).expect("valid");
        assert_eq!(ceiling.cpus().as_deref(), Some("1,2,3,5"));
        assert_eq!(ceiling.ulimits().collect::<Vec<_>>(), [("memlock", 65_536)]);
        assert_eq!(Ceiling::built_in().cpus(), None);
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for text in [
            "cpus: 3-1",
            "cpus: all",
            "cpus: 0-100000",
            "cpu_shares: many",
            "io_weight: -1",
            "memory_reservation: 10q",
            "ulimits: {nofile: 5}",
            "ulimits: {memlok: 5}",
            "ulimits: 5",
            "oom_kill_disable: maybe",
            "oom_score_adj: 5",
            "log: yes",
        ] {
            let error = Ceiling::parse("c.yaml", &format!("kakoi: 1\n{text}\n")).expect_err(text);
            assert!(error.to_string().contains("c.yaml:2:"), "{text}: {error}");
        }
    }
}
