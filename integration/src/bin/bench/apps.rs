//! From one version of a web app to the next, seen by a client that asks all the time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kakoi_integration::command::run;
use kakoi_integration::wait;

use crate::Bench;

/// Updates that are measured of each kind.
const UPDATES: usize = 5;
/// Before a client that nobody answered asks again: what the figures are exact to.
const PAUSE: Duration = Duration::from_millis(1);
const PORT: u16 = 18080;

/// What one client saw.
struct Seen {
    answered: usize,
    failed: usize,
    /// The longest time from one answer to the next.
    gap: Duration,
}

/// A web server that ends at once when it is told to.
fn document(generation: usize, handover: &str) -> String {
    format!(
        "kakoi: 1\nkind: App\nname: bench\ngeneration: {generation}\nimage: busybox:test\npolicy: docker-default\nports: [\"{PORT}:80\"]\n\
         command: [sh, -c, \"mkdir -p /tmp/www; echo {generation} > /tmp/www/index.html; httpd -f -p 80 -h /tmp/www & trap 'exit 0' TERM; wait\"]\n\
         health: {{http: {{port: 80, path: /}}, period: 100ms}}\nupdate: {{trial: 300ms, handover: {handover}}}\n"
    )
}

fn is_answered() -> bool {
    let ask = || -> std::io::Result<bool> {
        let target = SocketAddr::from(([127, 0, 0, 1], PORT));
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn client(ends: Arc<AtomicBool>) -> JoinHandle<Seen> {
    thread::spawn(move || {
        let mut seen = Seen {
            answered: 0,
            failed: 0,
            gap: Duration::ZERO,
        };
        let mut last = Instant::now();
        while !ends.load(Ordering::Relaxed) {
            if is_answered() {
                seen.answered += 1;
                seen.gap = seen.gap.max(last.elapsed());
                last = Instant::now();
            } else {
                seen.failed += 1;
                wait::poll(PAUSE, || None::<()>);
            }
        }
        seen
    })
}

/// Prints how long nobody answered, and how many requests failed, over updates of both kinds.
pub fn print(bench: &Bench) {
    println!(
        "\n| from one version of a web app to the next, {UPDATES} updates | requests | failed | longest gap, median | promise |\n\
         | --- | ---: | ---: | ---: | --- |"
    );
    let mut generation = 0;
    for (handover, promise) in [("stop-then-start", "≤ 200 ms"), ("start-then-stop", "none fails")] {
        let mut all = Vec::new();
        for _ in 0..=UPDATES {
            generation += 1;
            let text = document(generation, handover);
            let apply = || run(&mut bench.kakoi(&["app", "apply", "-"]), text.as_bytes());
            if all.is_empty() {
                apply().ok();
                wait::poll(Duration::from_secs(20), || is_answered().then_some(())).expect("it serves");
                all.push(None);
                continue;
            }
            let ends = Arc::new(AtomicBool::new(false));
            let clients = client(ends.clone());
            apply().ok();
            ends.store(true, Ordering::Relaxed);
            all.push(Some(clients.join().expect("no panic")));
        }
        let all: Vec<Seen> = all.into_iter().flatten().collect();
        let mut gaps: Vec<Duration> = all.iter().map(|seen| seen.gap).collect();
        gaps.sort();
        println!(
            "| {handover} | {} | {} | {:.0} ms | {promise} |",
            all.iter().map(|seen| seen.answered + seen.failed).sum::<usize>(),
            all.iter().map(|seen| seen.failed).sum::<usize>(),
            gaps[gaps.len() / 2].as_secs_f64() * 1e3
        );
    }
    bench.ok(&["app", "remove", "bench"]);
}
