//! Kakoi beside its peers with networks, and behind the stock Docker client: lives on a bridge, lists, throughput, output.
//!
//! Everybody runs in one network namespace of the bench's own, so that nobody touches the host's links and rules.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kakoi_integration::command::run;

use kakoi_integration::{http, wait};

use crate::peers::{self, Peer};
use crate::{Bench, Row, print_race, race};

/// Containers in a list.
const LISTED: usize = 100;
/// Bytes that one container sends, and that one prints.
const SENT_BYTES: u64 = 512 << 20;
const PRINTED_BYTES: u64 = 100 << 20;
/// Rounds of what takes milliseconds and starts no process.
const ROUNDS_OF_ANSWERS: usize = 30;
/// Rounds of what takes seconds.
const ROUNDS: usize = 5;

/// One engine behind one command line: its words, and its image.
struct Engine {
    name: String,
    base: Vec<String>,
    run: Vec<&'static str>,
    image: &'static str,
}

impl Engine {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.base[0]);
        command.args(&self.base[1..]).args(words);
        command
    }

    fn run_command(&self, flags: &[&str], program: &[&str]) -> Command {
        let mut command = self.command(&["run"]);
        command.args(&self.run).args(flags).arg(self.image).args(program);
        command
    }

    fn ok(&self, words: &[&str]) -> String {
        run(&mut self.command(words), b"").ok()
    }
}

/// Kakoi by its own command, by Docker's, and the peers.
fn engines(bench: &Bench) -> Vec<Engine> {
    let folder = bench.folder.path();
    let own = [
        vec![bench.release.join("kakoi").display().to_string()],
        crate::flags(folder).to_vec(),
    ];
    let mut all = vec![Engine {
        name: "kakoi".into(),
        base: own.concat(),
        run: vec!["--policy", "docker-default"],
        image: "busybox:test",
    }];
    let socket = format!("--host=unix://{}", folder.join("run/docker.sock").display());
    let bases = peers::bases(folder);
    if bases.iter().any(|(name, _)| name.starts_with("docker")) {
        all.push(Engine {
            name: "docker's client, kakoid".into(),
            base: vec!["docker".into(), socket],
            run: vec![],
            image: "busybox:test",
        });
    }
    for (name, base) in bases {
        let run = match name.starts_with("podman") {
            true => vec![
                "--cgroup-parent",
                peers::CGROUP,
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=4096:4096",
            ],
            false => vec![],
        };
        all.push(Engine {
            name,
            base,
            run,
            image: "kakoi-bench:1",
        });
    }
    all
}

/// Prints everything that has to do with networks and clients.
pub fn print(bench: &Bench) {
    let engines = engines(bench);
    lives(&engines);
    lists(&engines);
    seconds(
        "sending 512 MiB from a container to the host, over its bridge",
        &engines,
        sending,
    );
    seconds(
        "100 MiB of output, read by who runs the container",
        &engines,
        printing,
    );
}

fn lives(engines: &[Engine]) {
    let mut peers: Vec<Peer> = engines
        .iter()
        .map(|engine| {
            let words = engine.run_command(&["--rm"], &["true"]);
            let words: Vec<_> = words.get_args().map(std::ffi::OsStr::to_owned).collect();
            let program = engine.base[0].clone();
            Peer::new(&format!("{}: run --rm", engine.name), move |_| {
                let mut command = Command::new(&program);
                command.args(&words);
                command
            })
        })
        .collect();
    print_race("a container's life on a bridge, whole command", race(&mut peers));
}

fn lists(engines: &[Engine]) {
    let has_client = |engine: &&Engine| engine.base[0] == "docker";
    let clients: Vec<&Engine> = engines.iter().filter(has_client).collect();
    for engine in &clients {
        for number in 0..LISTED {
            engine.ok(&[
                "create",
                "--name",
                &format!("listed-{number}"),
                engine.image,
                "true",
            ]);
        }
    }
    let mut peers: Vec<Peer> = clients
        .iter()
        .map(|engine| {
            let base = engine.base.clone();
            Peer::new(&engine.name, move |_| {
                let mut command = Command::new(&base[0]);
                command.args(&base[1..]).args(["ps", "--all"]);
                command
            })
        })
        .collect();
    print_race(&format!("docker ps --all, {LISTED} containers"), race(&mut peers));
    print_race(
        &format!("the daemon's part of it: GET /containers/json?all=1, {LISTED} containers"),
        (answers(&clients), vec![]),
    );
    for engine in &clients {
        let names: Vec<String> = (0..LISTED).map(|number| format!("listed-{number}")).collect();
        let names = names.iter().map(String::as_str);
        engine.ok(&["rm"].into_iter().chain(names).collect::<Vec<_>>());
    }
}

/// The list as a client asks for it, without the client.
fn answers(clients: &[&Engine]) -> Vec<Row> {
    let row = |engine: &&Engine| Row {
        name: engine.name.clone(),
        millis: Vec::new(),
    };
    let mut rows: Vec<Row> = clients.iter().map(row).collect();
    for round in 0..=ROUNDS_OF_ANSWERS {
        for (engine, row) in clients.iter().zip(&mut rows) {
            let socket = engine.base[1].trim_start_matches("--host=unix://");
            let client = http::Engine::at(socket);
            let begun = Instant::now();
            let list = client.must(200, "GET", "/v1.41/containers/json?all=1", None);
            let took = begun.elapsed();
            assert!(list.as_array().is_some_and(|list| list.len() >= LISTED));
            // The first round warms caches.
            if round > 0 {
                row.millis.push(took.as_secs_f64() * 1e3);
            }
        }
    }
    rows
}

/// Times something that takes seconds, in turns; who fails is left out with a word.
fn seconds(title: &str, engines: &[Engine], measure: fn(&Engine) -> Result<f64, String>) {
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..=ROUNDS {
        for engine in engines {
            match (
                measure(engine),
                rows.iter_mut().find(|row| row.name == engine.name),
            ) {
                // The first round warms caches.
                (Ok(_), _) if round == 0 => {}
                (Ok(millis), Some(row)) => row.millis.push(millis),
                (Ok(millis), None) => rows.push(Row {
                    name: engine.name.clone(),
                    millis: vec![millis],
                }),
                (Err(why), _) if round == 0 => println!("\n{}: {title}: {why}", engine.name),
                (Err(_), _) => {}
            }
        }
    }
    let own = rows.first().map_or(f64::NAN, Row::median);
    println!("\n| {title}, medians of {ROUNDS} | time | beside Kakoi |\n| --- | ---: | ---: |");
    for row in &rows {
        println!(
            "| {} | {:.2} s | {:.2}× |",
            row.name,
            row.median() / 1e3,
            row.median() / own
        );
    }
}

/// A container serves a file; the host reads it.
fn sending(engine: &Engine) -> Result<f64, String> {
    let script = format!(
        "busybox dd if=/dev/zero of=/tmp/big bs=1M count={} 2>/dev/null; exec busybox httpd -f -p 8080 -h /tmp",
        SENT_BYTES >> 20
    );
    let name = "bench-sends";
    let flags = ["--detach", "--name", name, "--tmpfs", "/tmp:size=600m"];
    let started = run(
        &mut engine.run_command(&flags, &["busybox", "sh", "-c", &script]),
        b"",
    );
    let measured = match started.code {
        0 => read_big(engine, name),
        _ => Err(started.stderr.lines().last().unwrap_or_default().to_owned()),
    };
    run(&mut engine.command(&["rm", "--force", name]), b"");
    measured
}

fn read_big(engine: &Engine, name: &str) -> Result<f64, String> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = engine.ok(&["inspect", "--format", format, name]);
    let place = format!("{}:8080", address.trim());
    let connected = wait::poll(Duration::from_secs(20), || TcpStream::connect(&place).ok());
    let mut stream = connected.ok_or_else(|| format!("nobody serves at {place}"))?;
    let begun = Instant::now();
    stream
        .write_all(b"GET /big HTTP/1.0\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut buffer).map_err(|error| error.to_string())? {
            0 => break,
            count => total += count as u64,
        }
    }
    if total < SENT_BYTES {
        return Err(format!("only {total} bytes came"));
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// A container prints; whoever runs it reads.
fn printing(engine: &Engine) -> Result<f64, String> {
    let script =
        format!("busybox yes 0123456789012345678901234567890123456789 | busybox head -c {PRINTED_BYTES}");
    let mut command = engine.run_command(&["--rm"], &["busybox", "sh", "-c", &script]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    let mut stdout = child.stdout.take().expect("it was piped");
    loop {
        match stdout.read(&mut buffer).map_err(|error| error.to_string())? {
            0 => break,
            count => total += count as u64,
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !status.success() || total != PRINTED_BYTES {
        return Err(format!("{status}, {total} bytes came"));
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Leaves the host's network for one of the bench's own.
pub fn leave_the_hosts() -> Result<(), String> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|errno| errno.to_string())?;
    let raised = run(Command::new("ip").args(["link", "set", "lo", "up"]), b"");
    match raised.code {
        0 => Ok(()),
        _ => Err(raised.stderr),
    }
}
