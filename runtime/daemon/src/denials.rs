//! Refused system calls of containers, as the kernel reports them.
//!
//! Owns a bounded book of them for each container, and the events that tell of them. They are hints for people and not a ledger: the kernel drops
//! what is not read in time, and names a process that may be gone before it can be looked up. Both are counted. Invariants: whatever a container
//! does, it costs a bounded amount of memory, reading and events; a daemon that hears nothing says why.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kakoi_policy::system_call_name;
use kakoi_sys::audit::{Heard, Reader, Refusal as Record};

use crate::clock;
use crate::engine::Engine;
use crate::life::container::Container;
use crate::refusal::chain;

/// Kinds of refusals kept of one container: an app that is refused more than this is not understood by reading more of them.
const ROWS_MAX: usize = 32;
/// Records read in one turn, and the least time that it takes: a container that does nothing but being refused costs the daemon at most this much.
const TURN_RECORDS_MAX: usize = 256;
const TURN_TIME_MIN: Duration = Duration::from_millis(500);
/// The reader's stack: a record takes 9 KiB of it.
const STACK_BYTES: usize = 128 << 10;
/// Events about one container in a minute.
const EVENTS_PER_MINUTE_MAX: u32 = 10;
/// How far up a process's parents are looked at: one that is ending has left its control group already.
const PARENTS_MAX: usize = 4;

/// One kind of refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The call.
    pub call: String,
    /// What the process called itself.
    pub program: String,
    /// What the filter did (`refused`, `killed` …).
    pub action: &'static str,
    /// How often it was heard.
    pub count: u64,
    /// When first and last, RFC 3339.
    pub first: String,
    /// As above.
    pub last: String,
}

/// What one container was refused, the latest last.
#[derive(Debug, Default)]
struct Book {
    rows: Vec<Row>,
    minute: Option<Instant>,
    told: u32,
}

impl Book {
    /// Notes a refusal; answers how often it was heard where that is to be told.
    fn note(
        &mut self,
        call: String,
        program: String,
        action: &'static str,
        when: &str,
        now: Instant,
    ) -> Option<u64> {
        let same = |row: &Row| row.call == call && row.program == program && row.action == action;
        let mut row = match self.rows.iter().position(same) {
            Some(at) => self.rows.remove(at),
            None => {
                if self.rows.len() == ROWS_MAX {
                    self.rows.remove(0);
                }
                Row {
                    call,
                    program,
                    action,
                    count: 0,
                    first: when.to_owned(),
                    last: String::new(),
                }
            }
        };
        row.count += 1;
        row.last = when.to_owned();
        let count = row.count;
        self.rows.push(row);
        // The first, the tenth, the hundredth: enough to see that it goes on.
        let is_round = count == 10_u64.pow(count.ilog10());
        (is_round && self.may_tell(now)).then_some(count)
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        if self
            .minute
            .is_none_or(|begun| now.duration_since(begun) >= MINUTE)
        {
            (self.minute, self.told) = (Some(now), 0);
        }
        self.told += 1;
        self.told <= EVENTS_PER_MINUTE_MAX
    }
}

/// What was heard, and whether anything can be.
#[derive(Debug, Default)]
struct Heardings {
    why_not: Option<String>,
    books: HashMap<String, Book>,
    unattributed: u64,
    missed: u64,
}

/// All that was heard.
#[derive(Debug, Default)]
pub struct Denials(Mutex<Heardings>);

/// What is known of one container.
#[derive(Debug)]
pub struct Known {
    /// Why nothing is heard, where that is so.
    pub why_not: Option<String>,
    /// What was refused, the latest first.
    pub rows: Vec<Row>,
    /// Refusals of any container or other process that was gone before it could be looked up.
    pub unattributed: u64,
    /// How often the kernel dropped records that were not read in time.
    pub missed: u64,
}

impl Denials {
    /// What is known of a container.
    pub fn of(&self, container_id: &str) -> Known {
        let heard = self.0.lock().expect("no panic while locked");
        let rows = heard.books.get(container_id).map(|book| book.rows.as_slice());
        Known {
            why_not: heard.why_not.clone(),
            rows: rows.unwrap_or_default().iter().rev().cloned().collect(),
            unattributed: heard.unattributed,
            missed: heard.missed,
        }
    }

    /// Forgets a container.
    pub fn forget(&self, container_id: &str) {
        self.0
            .lock()
            .expect("no panic while locked")
            .books
            .remove(container_id);
    }

    fn give_up(&self, why: String) {
        tracing::warn!(why, "refused system calls will not be told");
        self.0.lock().expect("no panic while locked").why_not = Some(why);
    }
}

/// Begins to listen.
pub fn begin(engine: &Arc<Engine>) {
    let reader = match Reader::open() {
        Ok(reader) => reader,
        Err(error) => {
            engine.denials.give_up(format!(
                "the kernel's records of refused system calls cannot be read here: {}",
                chain(&error)
            ));
            return;
        }
    };
    let listening = engine.clone();
    // A thread of its own: a process that is refused may be gone before the daemon comes to its next turn, and can then not be looked up.
    let begun = std::thread::Builder::new()
        .name("denials".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let why = listen(&listening, &reader);
            listening.denials.give_up(why);
        });
    if let Err(cause) = begun {
        engine
            .denials
            .give_up(format!("no thread can be had for the kernel's records: {cause}"));
    }
}

/// Listens until that fails; answers why.
fn listen(engine: &Engine, reader: &Reader) -> String {
    // Nobody sends: waiting for it is the pause.
    let (_sender, pause) = std::sync::mpsc::channel::<()>();
    loop {
        let begun = Instant::now();
        for _ in 0..TURN_RECORDS_MAX {
            match reader.next() {
                Ok(Heard::Refusal(record)) => note(engine, record),
                Ok(Heard::Lost) => engine.denials.0.lock().expect("no panic while locked").missed += 1,
                Err(error) => return format!("the kernel's records broke off: {}", chain(&error)),
            }
        }
        if let Some(left) = TURN_TIME_MIN.checked_sub(begun.elapsed()) {
            pause.recv_timeout(left).ok();
        }
    }
}

fn note(engine: &Engine, record: Record) {
    let Some(container) = owner(engine, record.pid) else {
        engine
            .denials
            .0
            .lock()
            .expect("no panic while locked")
            .unattributed += 1;
        return;
    };
    let call = u32::try_from(record.syscall)
        .ok()
        .and_then(|number| system_call_name(record.arch, number))
        .map_or_else(|| format!("number {}", record.syscall), str::to_owned);
    // A process calls itself whatever it likes.
    let program: String = record
        .name
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let action = action(record.action);
    let told = {
        let mut heard = engine.denials.0.lock().expect("no panic while locked");
        let book = heard.books.entry(container.id.clone()).or_default();
        book.note(
            call.clone(),
            program.clone(),
            action,
            &clock::now(),
            Instant::now(),
        )
    };
    let Some(count) = told else { return };
    let mut attributes = container.attributes();
    attributes.insert("systemCall".into(), call);
    attributes.insert("program".into(), program);
    attributes.insert("count".into(), count.to_string());
    attributes.insert("policy".into(), container.shared().record.policy.name.clone());
    engine
        .events
        .tell("container", "denial", &container.id, attributes);
}

/// A filter's answer in a word. Source: seccomp(2).
fn action(answer: u32) -> &'static str {
    match answer & 0xffff_0000 {
        0x8000_0000 | 0 => "killed",
        0x0003_0000 => "trapped",
        0x7ffc_0000 => "logged",
        _ => "refused",
    }
}

/// Whose process it is: by its control group, its being a container's first process, or its parents'.
fn owner(engine: &Engine, pid: i32) -> Option<Arc<Container>> {
    let mut pid = pid;
    for _ in 0..PARENTS_MAX {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if let Some(container) = ids(&groups).find_map(|id| engine.containers.find(id).ok()) {
            return Some(container);
        }
        let all = engine.containers.all();
        if let Some(container) = all.into_iter().find(|container| container.shared().pid == pid) {
            return Some(container);
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        pid = parent(&stat).filter(|parent| *parent > 1)?;
    }
    None
}

/// Container ids among the names of control groups.
fn ids(groups: &str) -> impl Iterator<Item = &str> {
    groups
        .lines()
        .flat_map(|line| line.split('/'))
        .filter(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The parent's id. The name before it may hold anything, so the last parenthesis counts.
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(book: &mut Book, call: &str, now: Instant) -> Option<u64> {
        book.note(call.into(), "sh".into(), "refused", "now", now)
    }

    #[test]
    fn a_flood_of_refusals_stays_small_and_is_told_seldom() {
        let mut book = Book::default();
        let now = Instant::now();
        let told: Vec<u64> = (0..5000).filter_map(|_| note(&mut book, "mount", now)).collect();
        assert_eq!(told, [1, 10, 100, 1000]);
        assert_eq!((book.rows.len(), book.rows[0].count), (1, 5000));
        let told = (0..500)
            .filter_map(|n| note(&mut book, &n.to_string(), now))
            .count();
        assert_eq!(told, EVENTS_PER_MINUTE_MAX as usize - 4);
        assert_eq!(book.rows.len(), ROWS_MAX);
        assert_eq!(book.rows.last().map(|row| row.call.as_str()), Some("499"));
        let later = now + Duration::from_secs(61);
        assert_eq!(
            note(&mut book, "bpf", later),
            Some(1),
            "another minute, another word"
        );
    }

    #[test]
    fn a_row_that_is_heard_again_outlives_others() {
        let mut book = Book::default();
        let now = Instant::now();
        note(&mut book, "mount", now);
        for n in 0..ROWS_MAX * 2 {
            note(&mut book, &n.to_string(), now);
            note(&mut book, "mount", now);
        }
        assert!(book.rows.iter().any(|row| row.call == "mount"));
    }

    #[test]
    fn owners_are_found_in_what_proc_says() {
        let id = "0123456789abcdef".repeat(4);
        let groups = format!("12:pids:/kakoi/{id}\n0::/kakoi/{id}/inner\n");
        assert_eq!(ids(&groups).collect::<Vec<_>>(), [&id, &id]);
        assert_eq!(ids("0::/\n1:cpu:/user.slice/abc\n").count(), 0);
        assert_eq!(parent("7 (a) S 1) R 42 7 7 0"), Some(42));
        assert_eq!(parent("7 (a"), None);
    }

    #[test]
    fn answers_of_filters_have_words() {
        for (answer, word) in [
            (0x0005_0001, "refused"),
            (0x0005_0000, "refused"),
            (0x8000_0000, "killed"),
            (0, "killed"),
            (0x7ffc_0000, "logged"),
        ] {
            assert_eq!(action(answer), word, "{answer:#x}");
        }
    }
}
