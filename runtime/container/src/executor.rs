//! The first process between libcontainer's last step and the app.
//!
//! Owns our side of libcontainer's `Executor`: search the program before `create` answers; after `start` run the startContainer hooks, confine,
//! execute. Runs in the child, single-threaded, inside the container. Invariant: nothing happens between confinement and
//! `execve` but one write to the status pipe, and each way out of here but `execve` is told through that pipe.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use kakoi_confine::{Entry, StartFailure, apply_with};
use kakoi_policy::confinement::{Confinement, Listener};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use crate::frames::FailureKind;
use crate::hook::{self, Hook, HookState};
use crate::launch::{Command, exit_code};
use crate::notify::Notify;
use crate::outcome::{self, Failure};

/// All that the first process needs after libcontainer is done with it.
#[derive(Clone)]
pub(crate) struct FirstProcess {
    confinement: Rc<Confinement>,
    args: Rc<Vec<String>>,
    env: RefCell<Vec<String>>,
    status: Rc<OwnedFd>,
    preserve_fds: u32,
    keyring: Option<String>,
    hooks: Rc<(Vec<Hook>, HookState)>,
    notify: Option<Rc<Notify>>,
    init: bool,
    ends_with_caller: bool,
}

/// The parts of [`FirstProcess`].
pub(crate) struct Parts {
    pub confinement: Confinement,
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// The writing end of the status pipe, close-on-exec and above the preserved descriptors.
    pub status: OwnedFd,
    /// How many descriptors from 3 on the app keeps.
    pub preserve_fds: u32,
    /// The name of the session keyring to make; `None` keeps the caller's.
    pub keyring: Option<String>,
    /// Hooks that run inside the container directly before the app.
    pub start_container: Vec<Hook>,
    /// What those hooks read.
    pub state: HookState,
    /// How to reach the listener of a filter that asks one.
    pub notify: Option<Notify>,
    /// Whether process 1 is an init of ours.
    pub init: bool,
    /// Whether the kernel kills the first process when its parent ends.
    pub ends_with_caller: bool,
}

impl FirstProcess {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            confinement: Rc::new(parts.confinement),
            args: Rc::new(parts.args),
            env: RefCell::new(parts.env),
            status: Rc::new(parts.status),
            preserve_fds: parts.preserve_fds,
            keyring: parts.keyring,
            hooks: Rc::new((parts.start_container, parts.state)),
            notify: parts.notify.map(Rc::new),
            init: parts.init,
            ends_with_caller: parts.ends_with_caller,
        }
    }

    fn command(&self) -> Result<Command, Failure> {
        Command::new(&self.args, &self.env.borrow())
    }

    /// Comes back only with a reason.
    fn launch(&self) -> Failure {
        let command = match self.command() {
            Ok(command) => command,
            Err(failure) => return failure,
        };
        let (hooks, state) = &*self.hooks;
        if let Err(error) = hook::run_all(hooks, state, Some(&self.env.borrow())) {
            let message = format!("run startContainer hook: {}", chain(&error));
            return Failure::new(FailureKind::Runtime, "startContainer", message);
        }
        // After libcontainer has changed ids, which would clear it.
        if self.ends_with_caller
            && let Err(error) = kakoi_sys::process::set_parent_death_signal(nix::sys::signal::Signal::SIGKILL)
        {
            return Failure::new(FailureKind::Runtime, "end with the caller", chain(&error));
        }
        if self.init
            && let Err(failure) = crate::init::divide(&self.confinement, self.status.as_raw_fd())
        {
            return failure;
        }
        // The shim blocks signals for its signalfd and Rust ignores SIGPIPE: the app must inherit neither.
        if let Err(error) =
            kakoi_sys::event::reset_signal_actions().and_then(|()| kakoi_sys::event::unblock_all())
        {
            return Failure::new(FailureKind::Runtime, "signals", chain(&error));
        }
        let preserved = crate::create::kept(self.preserve_fds);
        let mut deliver = |listener: &Listener, descriptor: BorrowedFd<'_>| match &self.notify {
            Some(notify) => notify.deliver(listener, descriptor, state),
            None => Err(kakoi_sys::CallError {
                call: "sendmsg",
                errno: kakoi_sys::Errno::ENOTCONN,
            }),
        };
        let applied = apply_with(
            &self.confinement,
            Entry::FirstProcess,
            &preserved,
            Some(&mut deliver),
        );
        let receipt = match applied {
            Ok(receipt) => receipt,
            Err(error) => return confinement_failure(&error),
        };
        if let Err(error) = outcome::tell_started(self.status.as_fd(), &receipt) {
            return Failure::new(FailureKind::Runtime, "status pipe", chain(&error));
        }
        command.execute()
    }
}

impl Executor for FirstProcess {
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        if let Some(name) = &self.keyring {
            // A kernel without keyrings has nothing to share; any other answer would leave the caller's keyring to the app.
            match kakoi_sys::system::new_session_keyring(name) {
                Ok(()) => {}
                Err(error) if matches!(error.errno, kakoi_sys::Errno::ENOSYS | kakoi_sys::Errno::EDQUOT) => {
                    tracing::warn!(errno = %error.errno, "no session keyring for the container, ignoring");
                }
                Err(error) => {
                    let failure = Failure::new(FailureKind::Runtime, "session keyring", chain(&error));
                    return Err(self.refuse(failure));
                }
            }
        }
        // The kernel's own name for the program would show the runtime's until execve; nothing depends on it.
        self.command()
            .and_then(|command| command.check())
            .map_err(|failure| self.refuse(failure))
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is handed to execve as a value. libcontainer's map has lost its order, so only HOME, which it looked up in the
        // container's own user database, is taken from it.
        let mut env = self.env.borrow_mut();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            let home = envs.get("HOME").map_or("/", String::as_str);
            env.push(format!("HOME={home}"));
        }
        Ok(())
    }

    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let failure = self.launch();
        if let Err(error) = outcome::tell_failed(self.status.as_fd(), &failure) {
            tracing::error!(error = %chain(&error), status = self.status.as_raw_fd(), "cannot tell why the app does not run");
        }
        kakoi_sys::process::exit_now(exit_code(failure.kind))
    }
}

impl FirstProcess {
    /// Tells a failure before `start` both ways: libcontainer carries the text, the pipe the kind.
    fn refuse(&self, failure: Failure) -> ExecutorValidationError {
        if let Err(error) = outcome::tell_failed(self.status.as_fd(), &failure) {
            tracing::error!(error = %chain(&error), "cannot tell why the container is refused");
        }
        ExecutorValidationError::ArgValidationError(failure.message)
    }
}

/// A refusal of the confinement as it travels through the pipe.
pub(crate) fn confinement_failure(error: &kakoi_confine::ApplyError) -> Failure {
    let StartFailure { step, rule, message } = StartFailure::from(error);
    Failure {
        kind: FailureKind::Confinement,
        step,
        rule,
        message,
    }
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
