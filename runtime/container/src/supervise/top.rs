//! The container's processes as `ps` would show them.
//!
//! Owns the reading of `/proc/<pid>`. Every field there is chosen by the process itself at worst; nothing is trusted beyond its length.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{SysconfVar, sysconf};

use crate::frames::ProcessRow;

/// Rows answered at once.
const ROWS_MAX: usize = 4096;

/// Arguments shown, in bytes.
const COMMAND_BYTES_MAX: usize = 4096;

/// Describes those of `pids` that still run.
pub(super) fn rows(pids: impl IntoIterator<Item = i32>) -> Vec<ProcessRow> {
    let ticks = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok());
    let page = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u64::try_from(bytes).ok());
    let units = Units {
        ticks: ticks.unwrap_or(100),
        page_bytes: page.unwrap_or(4096),
        boot_s: boot_s(),
    };
    pids.into_iter()
        .take(ROWS_MAX)
        .filter_map(|pid| row(pid, &units))
        .collect()
}

struct Units {
    ticks: u64,
    page_bytes: u64,
    boot_s: u64,
}

fn boot_s() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0)
}

fn row(pid: i32, units: &Units) -> Option<ProcessRow> {
    let folder = format!("/proc/{pid}");
    let uid = fs::metadata(&folder).ok()?.uid();
    let stat = fs::read(format!("{folder}/stat")).ok()?;
    let command = fs::read(format!("{folder}/cmdline")).unwrap_or_default();
    parse(pid, uid, &String::from_utf8_lossy(&stat), &command, units)
}

fn parse(pid: i32, uid: u32, stat: &str, cmdline: &[u8], units: &Units) -> Option<ProcessRow> {
    // The name may hold spaces and parentheses: the last one ends it.
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(start + 1..end)?;
    let fields: Vec<&str> = stat.get(end + 2..)?.split(' ').collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let cmdline = &cmdline[..cmdline.len().min(COMMAND_BYTES_MAX)];
    let text = String::from_utf8_lossy(cmdline);
    let words = text.trim_end_matches('\0').replace('\0', " ");
    Some(ProcessRow {
        pid,
        parent_pid: fields.get(1)?.parse().ok()?,
        uid,
        state: fields.first()?.chars().next()?,
        started_at_s: units.boot_s + number(19) / units.ticks,
        cpu_ms: (number(11) + number(12)).saturating_mul(1000) / units.ticks,
        resident_bytes: number(21).saturating_mul(units.page_bytes),
        terminal: number(4),
        command: if words.is_empty() {
            format!("[{name}]")
        } else {
            words
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let units = Units {
            ticks: 100,
            page_bytes: 4096,
            boot_s: 1000,
        };
        let stat = "42 (a) S 1 (b) R 7 42 42 34816 42 0 0 0 0 0 150 50 0 0 20 0 1 0 500 1000 3 0\n";
        let row = parse(42, 1000, stat, b"sh\0-c\0x\0", &units).expect("a row");
        assert_eq!((row.parent_pid, row.state, row.terminal), (7, 'R', 34816));
        assert_eq!(
            (row.cpu_ms, row.started_at_s, row.resident_bytes),
            (2000, 1005, 3 * 4096)
        );
        assert_eq!(row.command, "sh -c x");
        let kernel = parse(42, 0, stat, b"", &units).expect("a row");
        assert_eq!(kernel.command, "[a) S 1 (b]");
        assert!(parse(42, 0, "garbage", b"", &units).is_none());
    }

    #[test]
    fn a_running_process_has_a_row_and_an_ended_one_has_none() {
        let own = std::process::id().cast_signed();
        let rows = rows([own, i32::MAX]);
        assert_eq!(rows.iter().map(|row| row.pid).collect::<Vec<_>>(), [own]);
        assert!(rows[0].started_at_s > 0 && rows[0].resident_bytes > 0);
    }
}
