//! Versions that take over from one that runs: under a steady load not one request finds nobody, whatever comes of the update.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kakoi_integration::command::Ran;
use kakoi_integration::host::Host;
use kakoi_integration::{needs_root, network, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
/// Requests that must have been made before and after a change.
const REQUESTS: usize = 50;

/// A web server that says which version it is, and ends when it is told to.
fn document(generation: u64, page: &str, rest: &str) -> String {
    format!(
        "kakoi: 1\nkind: App\nname: web\ngeneration: {generation}\nimage: busybox:test\npolicy: docker-default\nports: [\"8080:80\"]\n\
         command: [sh, -c, \"mkdir -p /tmp/www; echo {page} > /tmp/www/index.html; httpd -f -p 80 -h /tmp/www & trap 'exit 0' TERM; wait\"]\n{rest}"
    )
}

const BESIDE: &str = "health: {http: {port: 80, path: /}, period: 100ms}\nupdate: {trial: 300ms, attempts: 1, handover: start-then-stop, drain: 5s}\n";

fn apply(host: &Host, text: &str) -> Ran {
    host.kakoi_with(&["app", "apply", "-"], text.as_bytes())
}

fn ask(target: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, page)) if head.contains(" 200 ") => Ok(page.trim().to_owned()),
        _ => Err(std::io::Error::other(format!("no page: {answer:?}"))),
    }
}

/// Clients that ask all the time, over both families.
struct Load {
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<(BTreeSet<String>, Vec<String>)>>,
}

impl Load {
    fn start() -> Self {
        let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = ["127.0.0.1:8080", "127.0.0.1:8080", "[::1]:8080"].map(|target| {
            let (ends, asked) = (ends.clone(), asked.clone());
            let target: SocketAddr = target.parse().expect("an address");
            std::thread::spawn(move || {
                let (mut pages, mut failures) = (BTreeSet::new(), Vec::new());
                while !ends.load(Ordering::Relaxed) {
                    match ask(target) {
                        Ok(page) => drop(pages.insert(page)),
                        Err(error) => failures.push(format!("{target}: {error}")),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                (pages, failures)
            })
        });
        let load = Self {
            ends,
            asked,
            clients: clients.into(),
        };
        load.goes_on();
        load
    }

    fn goes_on(&self) {
        let until = self.asked.load(Ordering::Relaxed) + REQUESTS;
        let reached = wait::poll(LIMIT, || {
            (self.asked.load(Ordering::Relaxed) >= until).then_some(())
        });
        reached.expect("clients are answered");
    }

    /// Pages that were seen; panics where a request failed.
    #[track_caller]
    fn end(self) -> BTreeSet<String> {
        self.goes_on();
        self.ends.store(true, Ordering::Relaxed);
        let all = Mutex::new(BTreeSet::new());
        for client in self.clients {
            let (pages, failures) = client.join().expect("no panic");
            assert!(
                failures.is_empty(),
                "{} requests failed: {:?}",
                failures.len(),
                failures.first()
            );
            all.lock().expect("no panic").extend(pages);
        }
        all.into_inner().expect("no panic")
    }
}

fn status(host: &Host) -> Value {
    serde_json::from_str(&host.ok(&["app", "status", "web", "--format", "json"])).expect("JSON")
}

fn pages(pages: &[&str]) -> BTreeSet<String> {
    pages.iter().map(|page| (*page).to_owned()).collect()
}

#[test]
fn no_request_fails_while_a_version_takes_over() {
    needs_root!();
    network::own();
    let host = Host::new();
    apply(&host, &document(1, "one", BESIDE)).ok();
    let load = Load::start();
    apply(&host, &document(2, "two", BESIDE)).ok();
    assert_eq!(load.end(), pages(&["one", "two"]));
    assert_eq!(
        ask("127.0.0.1:8080".parse().expect("an address")).expect("a page"),
        "two"
    );
    assert_eq!(host.ok(&["ps", "--format", "{{.Names}}"]), "web-b");
    assert!(host.ok(&["port", "web-b"]).contains("8080"));

    // Back again by hand, as quietly.
    let load = Load::start();
    host.ok(&["app", "rollback", "web"]);
    assert_eq!(load.end(), pages(&["one", "two"]));

    // What fails beside it is never seen.
    let load = Load::start();
    let broken = document(3, "three", &BESIDE.replace("path: /}", "path: /nothing}"));
    let failed = apply(&host, &broken);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert_eq!(load.end(), pages(&["one"]));
    assert_eq!(status(&host)["Current"]["Generation"], 1);

    // A daemon that is new knows who has the ports.
    host.kill_daemon();
    host.start_daemon();
    let load = Load::start();
    apply(&host, &document(4, "four", BESIDE)).ok();
    assert_eq!(load.end(), pages(&["one", "four"]));
    host.ok(&["app", "remove", "web"]);
    assert!(ask("127.0.0.1:8080".parse().expect("an address")).is_err());
    host.is_clean();
}

/// Connection requests that were sent again since nobody had answered the first, for which TCP waits a second.
fn asked_again() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("it is there");
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut both = std::iter::zip(names.split(' '), values.split(' '));
    let (_, value) = both
        .find(|(name, _)| *name == "TCPSynRetrans")
        .expect("it is counted");
    value.parse().expect("a number")
}

/// Between the two versions whoever connects is refused at once, and can try again: nothing leads to where nobody would answer.
#[test]
fn nobody_waits_while_one_version_stops_and_the_next_starts() {
    needs_root!();
    network::own();
    let host = Host::new();
    let update = BESIDE.replace(
        "handover: start-then-stop, drain: 5s",
        "handover: stop-then-start",
    );
    apply(&host, &document(1, "one", &update)).ok();
    let ends = Arc::new(AtomicBool::new(false));
    let client = std::thread::spawn({
        let ends = ends.clone();
        move || {
            let mut pages = BTreeSet::new();
            while !ends.load(Ordering::Relaxed) {
                pages.extend(ask("127.0.0.1:8080".parse().expect("an address")));
            }
            pages
        }
    });
    let before = asked_again();
    for generation in 2..6 {
        apply(
            &host,
            &document(generation, &format!("page{generation}"), &update),
        )
        .ok();
    }
    ends.store(true, Ordering::Relaxed);
    let seen = client.join().expect("no panic");
    assert!(seen.contains("page4") && seen.contains("page5"), "{seen:?}");
    // One that is in the middle of the kernel as the link goes may be lost; where a port leads to nobody, each change of versions loses one.
    let lost = asked_again() - before;
    assert!(lost <= 1, "{lost} connection requests were lost");
    host.ok(&["app", "remove", "web"]);
    host.is_clean();
}

/// However far it had come when the daemon was killed, one of the two answers afterwards, and in the end the version that is to run.
#[test]
fn a_daemon_that_is_killed_in_a_hand_over_leaves_one_that_answers() {
    needs_root!();
    network::own();
    let host = Host::new();
    apply(&host, &document(1, "one", BESIDE)).ok();
    let target: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    for cut in 0..12 {
        let (generation, page) = (cut + 2, format!("page{cut}"));
        let mut applying = host.spawn(&["app", "apply", "--detach", "-"]);
        let text = document(generation, &page, BESIDE);
        applying
            .stdin
            .take()
            .expect("a pipe")
            .write_all(text.as_bytes())
            .expect("taken");
        applying.wait().expect("it ends");
        // Somewhere between staging and the end of the old one.
        let moment = Duration::from_millis(60 * cut);
        wait::poll(moment, || None::<()>);
        host.kill_daemon();
        host.start_daemon();
        let settled = wait::poll(LIMIT, || (status(&host)["Phase"] == "steady").then_some(()));
        settled.expect("it comes to an end");
        let runs = status(&host)["Current"]["Generation"].as_u64().expect("a number");
        let answered = wait::poll(LIMIT, || ask(target).ok());
        let expected = if runs == 1 {
            "one".to_owned()
        } else {
            format!("page{}", runs - 2)
        };
        assert_eq!(answered, Some(expected), "cut {cut}: {}", status(&host));
        assert_eq!(host.ok(&["ps", "--quiet"]).lines().count(), 1, "cut {cut}");
        host.ok(&["app", "unblock", "web"]);
    }
    host.ok(&["app", "remove", "web"]);
    host.is_clean();
}

#[test]
fn what_two_versions_cannot_share_is_refused() {
    needs_root!();
    network::own();
    let host = Host::new();
    for (rest, words) in [
        ("devices: [\"/dev/null\"]\n", "cannot have `/dev/null` at a time"),
        ("volumes: [\"data:/data\"]\n", "would write into `data` at a time"),
        ("networks: [host]\n", "the device's own ports"),
    ] {
        let refused = apply(&host, &document(1, "one", &format!("{rest}{BESIDE}")));
        assert_eq!(refused.code, 125, "{rest}");
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
        assert!(refused.stderr.contains("stop-then-start"), "{}", refused.stderr);
    }
    let drained = apply(&host, &document(1, "one", "update: {drain: 5s}\n"));
    assert!(drained.stderr.contains("`drain` without"), "{}", drained.stderr);
    let unknown = apply(
        &host,
        &document(1, "one", "update: {handover: start-than-stop}\n"),
    );
    assert!(unknown.stderr.contains("start-then-stop"), "{}", unknown.stderr);
    assert_eq!(host.ok(&["app", "list", "--quiet"]), "");
}
