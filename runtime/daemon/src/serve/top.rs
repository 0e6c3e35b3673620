//! The processes of a container, in ps(1)'s columns.

use kakoi_api::container::TopAnswer;
use kakoi_container::frames::{ProcessRow, Reply as ShimReply, Request};

use super::reply::{self, Reply};
use super::router::Asked;
use crate::life::stop;
use crate::refusal::{Answer, Refusal};
use crate::shim;

/// `GET /containers/{id}/top`
pub async fn top(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    if !container.shared().phase.is_up() {
        return Err(stop::not_running(&container));
    }
    let columns = columns(asked.query.get("ps_args").unwrap_or("-ef"))?;
    let rows = match shim::ask(&asked.engine.paths.run_dir(&container.id), &Request::Top).await {
        Ok((ShimReply::Top(rows), _)) => rows,
        Ok((other, _)) => return Err(Refusal::broken(format!("the supervisor answered {other:?}"))),
        Err(error) => return Err(stop::talk_failed(&container, error)),
    };
    let engine = &asked.engine;
    engine
        .events
        .tell("container", "top", &container.id, container.attributes());
    let now = jiff::Timestamp::now().as_second();
    let processes = rows
        .iter()
        .map(|row| columns.iter().map(|title| cell(title, row, now)).collect())
        .collect();
    Ok(reply::ok(&TopAnswer {
        titles: columns.into_iter().map(str::to_owned).collect(),
        processes,
    }))
}

/// Which columns `ps` would show.
fn columns(arguments: &str) -> Answer<Vec<&'static str>> {
    const KNOWN: [(&str, &str); 15] = [
        ("uid", "UID"),
        ("user", "USER"),
        ("pid", "PID"),
        ("ppid", "PPID"),
        ("c", "C"),
        ("stime", "STIME"),
        ("start", "START"),
        ("tty", "TTY"),
        ("time", "TIME"),
        ("cmd", "CMD"),
        ("args", "COMMAND"),
        ("comm", "COMMAND"),
        ("stat", "STAT"),
        ("rss", "RSS"),
        ("etimes", "ELAPSED"),
    ];
    let words: Vec<&str> = arguments.split_whitespace().collect();
    match words[..] {
        ["-ef" | "-e" | "-f" | "ef"] => Ok(vec!["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        ["aux" | "-aux"] => Ok(vec![
            "USER", "PID", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND",
        ]),
        ["-o" | "-eo" | "o", list] => list
            .split(',')
            .map(|word| {
                let found = KNOWN.iter().find(|(name, _)| *name == word.trim());
                found
                    .map(|(_, title)| *title)
                    .ok_or_else(|| Refusal::bad(format!("unknown ps column {word:?}")))
            })
            .collect(),
        _ => Err(Refusal::bad(format!(
            "ps arguments {arguments:?} are not known; use -ef, aux or -o with columns"
        ))),
    }
}

fn cell(title: &str, row: &ProcessRow, now: i64) -> String {
    let started = i64::try_from(row.started_at_s).unwrap_or(now);
    match title {
        "UID" | "USER" => row.uid.to_string(),
        "PID" => row.pid.to_string(),
        "PPID" => row.parent_pid.to_string(),
        "C" => {
            let lived_ms = u64::try_from((now - started).max(1)).unwrap_or(1) * 1000;
            (row.cpu_ms * 100 / lived_ms).min(99).to_string()
        }
        "STIME" | "START" => jiff::Timestamp::from_second(started)
            .map(|time| time.strftime("%H:%M").to_string())
            .unwrap_or_default(),
        "TTY" => match (row.terminal >> 8 & 0xfff, row.terminal & 0xff) {
            (136..=143, minor) => format!("pts/{minor}"),
            _ => "?".into(),
        },
        "TIME" => {
            let seconds = row.cpu_ms / 1000;
            format!(
                "{:02}:{:02}:{:02}",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            )
        }
        "STAT" => row.state.to_string(),
        "RSS" => (row.resident_bytes >> 10).to_string(),
        "ELAPSED" => (now - started).max(0).to_string(),
        _ => row.command.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_follow_the_arguments() {
        assert_eq!(columns("-ef").expect("valid").len(), 8);
        assert_eq!(columns("-o pid,cmd").expect("valid"), ["PID", "CMD"]);
        for bad in ["", "-o pid,nope", "--forest x y"] {
            assert!(columns(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cells_read_like_ps() {
        let row = ProcessRow {
            pid: 7,
            parent_pid: 1,
            uid: 0,
            state: 'S',
            started_at_s: 90,
            cpu_ms: 3_661_000,
            resident_bytes: 4096,
            terminal: 0x8800,
            command: "sleep 1".into(),
        };
        let cell = |title| cell(title, &row, 100);
        assert_eq!(
            (cell("TIME"), cell("TTY"), cell("RSS"), cell("ELAPSED")),
            ("01:01:01".into(), "pts/0".into(), "4".into(), "10".into())
        );
        assert_eq!((cell("CMD"), cell("C")), ("sleep 1".into(), "99".into()));
    }
}
