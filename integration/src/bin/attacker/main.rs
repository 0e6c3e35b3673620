//! An intruder in a container: `attacker NAME` tries one attack, `attacker all` each in a child of its own, `attacker list` names them.
//!
//! Each attack prints `<name> effective <what>`, `<name> refused <errno>` or `<name> absent <why>`. It is exempt from the ban on unsafe
//! code, which stays in `raw`: its trade is calling the kernel in ways that no safe wrapper offers. Attacks stop short of harm even where
//! they are effective, because the suite first shows them to be effective on the machine that runs it.

mod filesystem;
mod kernel;
mod network;
mod process;
mod raw;

use std::process::ExitCode;

use nix::sys::wait::WaitStatus;
use raw::Outcome;

/// One attack.
struct Attack {
    name: &'static str,
    /// The class or advisory it stands for.
    stands_for: &'static str,
    run: fn() -> Outcome,
}

const fn attack(name: &'static str, stands_for: &'static str, run: fn() -> Outcome) -> Attack {
    Attack {
        name,
        stands_for,
        run,
    }
}

fn attacks() -> impl Iterator<Item = &'static Attack> {
    kernel::ATTACKS
        .iter()
        .chain(network::ATTACKS)
        .chain(filesystem::ATTACKS)
        .chain(process::ATTACKS)
}

fn report(attack: &Attack) -> bool {
    let (word, detail, effective) = match (attack.run)() {
        Outcome::Effective(detail) => ("effective", detail, true),
        Outcome::Refused(detail) => ("refused", detail, false),
        Outcome::Absent(detail) => ("absent", detail, false),
    };
    println!("{} {word} {detail}", attack.name);
    effective
}

/// Runs one attack in a child; a child that is killed was refused by force.
fn report_isolated(attack: &Attack) -> bool {
    match raw::isolated(|| i32::from(report(attack))) {
        Ok(WaitStatus::Exited(_, code)) => code == 1,
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            println!("{} refused {signal}", attack.name);
            false
        }
        Ok(other) => {
            println!("{} refused {other:?}", attack.name);
            false
        }
        Err(errno) => {
            println!("{} refused fork: {errno:?}", attack.name);
            false
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let names: Vec<_> = arguments.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["list"] => {
            for attack in attacks() {
                println!("{}\t{}", attack.name, attack.stands_for);
            }
            ExitCode::SUCCESS
        }
        ["all"] => {
            let effective = attacks().filter(|attack| report_isolated(attack)).count();
            println!("total {effective} effective of {}", attacks().count());
            ExitCode::SUCCESS
        }
        ["whoami"] => {
            println!("{} {}", nix::unistd::getuid(), nix::unistd::geteuid());
            ExitCode::SUCCESS
        }
        ["time"] => process::time_calls(),
        ["exec", rest @ ..] if !rest.is_empty() => process::execute(rest),
        ["hold", what] => process::hold(what),
        ["serve", protocol, port] => network::serve(protocol, port),
        ["ask", target] => network::ask(target),
        ["connect", address] => network::connect(address),
        ["egress", port] => network::egress(port),
        ["abstract", name] => network::connect_abstract(name),
        ["touch", path] => filesystem::touch(path),
        ["swap", one, other] => filesystem::swap(one, other),
        ["read", path] => filesystem::read(path),
        [_, ..] => {
            let mut found = true;
            for name in &names {
                match attacks().find(|attack| attack.name == *name) {
                    Some(attack) => {
                        report_isolated(attack);
                    }
                    None => {
                        eprintln!("attacker: no attack is called {name}; see `attacker list`");
                        found = false;
                    }
                }
            }
            if found {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(2)
            }
        }
        [] => {
            eprintln!(
                "usage: attacker NAME... | all | list | whoami | exec PROGRAM... | hold KIND | connect ADDRESS | egress PORT | serve tcp|udp PORT | ask HOST:PORT"
            );
            ExitCode::from(2)
        }
    }
}
