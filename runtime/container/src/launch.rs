//! The last step of a process before it is the app: finding its program and executing it.
//!
//! Owns the search in `PATH` and the exit codes that go with it. Runs inside the container, in the child, for the first process and for every
//! one that `exec` adds. Invariant: `execve` gets a path with a slash, never a name that libc would search for.

use std::ffi::{CStr, CString};
use std::path::Path;

use kakoi_sys::{CallError, Errno};
use nix::unistd::{AccessFlags, access};

use crate::frames::FailureKind;
use crate::outcome::Failure;

/// The search path of a process whose environment has none: that of the OCI image specification's usual base images.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Program, arguments and environment, ready for `execve`.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    /// Takes arguments and `NAME=value` strings; refuses none at all and zero bytes.
    pub(crate) fn new(args: &[String], env: &[String]) -> Result<Self, Failure> {
        let refuse = |what: &str| Failure::new(FailureKind::Runtime, "arguments", what.to_owned());
        if args.first().is_none_or(String::is_empty) {
            return Err(Failure::new(
                FailureKind::CommandNotFound,
                "arguments",
                "no program to run",
            ));
        }
        let zero = |texts: &[String], what: &str| {
            texts
                .iter()
                .map(|text| CString::new(text.as_str()).map_err(|_| refuse(what)))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            args: zero(args, "an argument contains a zero byte")?,
            env: zero(env, "an environment variable contains a zero byte")?,
        })
    }

    /// The program's name as asked for.
    fn name(&self) -> String {
        self.args[0].to_string_lossy().into_owned()
    }

    /// Paths that `execve` is tried with, in order.
    fn candidates(&self) -> Vec<CString> {
        let program = self.args[0].to_bytes();
        if program.contains(&b'/') {
            return vec![self.args[0].clone()];
        }
        let path = self
            .env
            .iter()
            .rev()
            .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
        path.unwrap_or(PATH_DEFAULT.as_bytes())
            .split(|byte| *byte == b':')
            .filter_map(|folder| {
                // An empty element would mean the working directory, which an image must not choose silently.
                let mut joined = if folder.is_empty() {
                    b".".to_vec()
                } else {
                    folder.to_vec()
                };
                joined.push(b'/');
                joined.extend_from_slice(program);
                CString::new(joined).ok()
            })
            .collect()
    }

    /// Tells, before anything irrevocable, whether there is such a program: a start that must fail fails at `create`.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let mut denied = None;
        for candidate in self.candidates() {
            let path = Path::new(std::ffi::OsStr::new(candidate.to_str().unwrap_or_default()));
            match access(path, AccessFlags::X_OK) {
                Ok(()) if path.is_dir() => denied = Some(Errno::EACCES),
                Ok(()) => return Ok(()),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => denied = Some(errno),
            }
        }
        Err(self.failure(denied.unwrap_or(Errno::ENOENT)))
    }

    /// Executes the program; returns only to say why it could not.
    pub(crate) fn execute(&self) -> Failure {
        let argv: Vec<&CStr> = self.args.iter().map(CString::as_c_str).collect();
        let envp: Vec<&CStr> = self.env.iter().map(CString::as_c_str).collect();
        let mut denied = None;
        for candidate in self.candidates() {
            let CallError { errno, .. } = kakoi_sys::process::execve(&candidate, &argv, &envp);
            match errno {
                Errno::ENOENT | Errno::ENOTDIR => {}
                // As execvp(3): a program that may not be executed does not hide one further on.
                Errno::EACCES => denied = Some(errno),
                errno => return self.failure(errno),
            }
        }
        self.failure(denied.unwrap_or(Errno::ENOENT))
    }

    fn failure(&self, errno: Errno) -> Failure {
        let (kind, words) = match errno {
            Errno::ENOENT | Errno::ENOTDIR => (
                FailureKind::CommandNotFound,
                "executable file not found in the container".to_owned(),
            ),
            Errno::EACCES | Errno::ENOEXEC | Errno::EPERM | Errno::EISDIR | Errno::ELOOP => {
                (FailureKind::CommandNotExecutable, errno.desc().to_owned())
            }
            errno => (FailureKind::Runtime, errno.desc().to_owned()),
        };
        Failure::new(kind, "execve", format!("execute {:?}: {words}", self.name()))
    }
}

/// The exit code of a process that could not execute its program.
pub(crate) fn exit_code(kind: FailureKind) -> i32 {
    match kind {
        FailureKind::CommandNotFound => 127,
        FailureKind::CommandNotExecutable => 126,
        _ => 125,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(args: &[&str], env: &[&str]) -> Result<Command, Failure> {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Command::new(&own(args), &own(env))
    }

    #[test]
    fn the_search_takes_the_containers_path() {
        let found = command(&["sh", "-c"], &["A=1", "PATH=/a::/b"])
            .expect("a command")
            .candidates();
        assert_eq!(found, [c"/a/sh".into(), c"./sh".into(), CString::from(c"/b/sh")]);
        let given = command(&["./sh"], &["PATH=/a"]).expect("a command").candidates();
        assert_eq!(given, [CString::from(c"./sh")]);
    }

    #[test]
    fn what_cannot_run_says_whose_fault_it_is() {
        assert!(
            command(&["sh"], &["PATH=/nowhere:/bin"])
                .expect("a command")
                .check()
                .is_ok()
        );
        let missing = command(&["/nowhere/sh"], &[])
            .expect("a command")
            .check()
            .expect_err("missing");
        assert_eq!(missing.kind, FailureKind::CommandNotFound);
        let folder = command(&["/etc"], &[])
            .expect("a command")
            .check()
            .expect_err("a folder");
        assert_eq!(folder.kind, FailureKind::CommandNotExecutable);
        assert_eq!(
            command(&[], &[]).expect_err("none").kind,
            FailureKind::CommandNotFound
        );
        assert!(command(&["a\0b"], &[]).is_err());
    }
}
