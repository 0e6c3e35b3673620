//! Files, TCP ports and scopes, as landlock holds them.

use std::collections::BTreeMap;

use super::{Found, Privileges};
use crate::compile::landlock::{BIND_TCP, CONNECT_TCP, SCOPE_ABSTRACT, SCOPE_SIGNAL, covers};
use crate::confinement::{Landlock, LandlockRuleset, NetworkMode};
use crate::render::rights_word;

/// Every file right that landlock has had words for.
const RIGHTS: u64 = (1 << 16) - 1;

pub(super) fn beyond(from: &Privileges, to: &Privileges, found: &mut Found) {
    let was = match &from.confinement.landlock {
        Landlock::Unconfined => return,
        Landlock::Ruleset(ruleset) => ruleset,
    };
    let nothing = LandlockRuleset {
        abi: was.abi,
        handled_fs: 0,
        handled_net: 0,
        scoped: 0,
        paths: Vec::new(),
        ports: Vec::new(),
    };
    let is = match &to.confinement.landlock {
        Landlock::Unconfined => &nothing,
        Landlock::Ruleset(ruleset) => ruleset,
    };
    paths(was, is, found);
    for (right, words) in [(BIND_TCP, "listen on"), (CONNECT_TCP, "connect to")] {
        ports(was, is, right, words, found);
    }
    let scopes = was.scoped & !is.scoped;
    // A scope that a namespace of its own makes needless is no gain.
    let shares_processes = to.shared_namespaces.iter().any(|word| word.starts_with("pid "));
    if scopes & SCOPE_SIGNAL != 0 && shares_processes {
        found.add("processes", "send signals to processes outside");
    }
    if scopes & SCOPE_ABSTRACT != 0 && to.confinement.network == NetworkMode::Host {
        found.add("network", "abstract unix sockets of the device");
    }
}

/// What may be done at a path: what is granted there or above, and what is not under control at all.
fn rights(ruleset: &LandlockRuleset, path: &str) -> u64 {
    let granted = ruleset.paths.iter().filter(|rule| covers(&rule.path, path));
    granted.fold(!ruleset.handled_fs, |rights, rule| rights | rule.access) & RIGHTS
}

fn paths(was: &LandlockRuleset, is: &LandlockRuleset, found: &mut Found) {
    let all = is.paths.iter().map(|rule| rule.path.as_str());
    let mut gained: BTreeMap<&str, u64> = BTreeMap::new();
    for path in all.chain(["/"]) {
        let more = rights(is, path) & !rights(was, path);
        // Sorted, a folder comes before what lies in it; what is told of the folder is not told again.
        if more != 0 {
            gained.insert(path, more);
        }
    }
    let mut told: Vec<(&str, u64)> = Vec::new();
    for (path, more) in gained {
        let above = told.iter().filter(|(folder, _)| covers(folder, path));
        let more = more & !above.fold(0, |known, (_, more)| known | more);
        if more != 0 {
            told.push((path, more));
        }
    }
    for (path, more) in told {
        let words = match rights_word(more).as_str() {
            "" => "special requests (names, truncating, device requests)".to_owned(),
            words => words.replace(' ', ", "),
        };
        let place = if path == "/" {
            "everywhere".to_owned()
        } else {
            format!("below {path}")
        };
        found.add("files", format!("{words} {place}"));
    }
}

fn ports(was: &LandlockRuleset, is: &LandlockRuleset, right: u64, words: &str, found: &mut Found) {
    if was.handled_net & right == 0 {
        return;
    }
    if is.handled_net & right == 0 {
        return found.add("network", format!("{words} any TCP port"));
    }
    let granted = |ruleset: &LandlockRuleset| {
        let rules = ruleset.ports.iter().filter(|rule| rule.access & right != 0);
        let mut ports: Vec<u16> = rules.map(|rule| rule.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    let had = granted(was);
    let mut more: Vec<(u16, u16)> = Vec::new();
    for port in granted(is) {
        if had.binary_search(&port).is_ok() {
            continue;
        }
        match more.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => more.push((port, port)),
        }
    }
    let ranges = more.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    let ranges: Vec<String> = ranges.collect();
    if !ranges.is_empty() {
        found.add("network", format!("{words} TCP port {}", ranges.join(", ")));
    }
}
