//! OCI hooks: programs that run at fixed points of a container's life.
//!
//! Owns running a list of them: the state document on standard input, the environment that the document gives, the timeout. Refuses to
//! know at which point it is called. Invariant: a hook never inherits the image's environment unless the specification
//! says so (startContainer), and never a descriptor of ours.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

/// One hook as the OCI document gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Arguments, the first being the program's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// `NAME=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Seconds until it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

/// All hooks of a container (config.md, "POSIX-platform Hooks").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// In the runtime's namespaces, after the container's were made. Deprecated in favour of the two below.
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, before the root is changed.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before the root is changed.
    pub create_container: Vec<Hook>,
    /// Inside the container, before the app.
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the app was started.
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container was deleted.
    pub poststop: Vec<Hook>,
}

/// The state document of runtime.md, which hooks read and `state` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState {
    /// The version of the specification.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// `creating`, `created`, `running`, `stopped`.
    pub status: String,
    /// The first process as the reader sees it; 0 where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Annotations of the document.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started or waited for.
    #[error("run hook {path}")]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("hook failed with {}: {path}", ending(*.status))]
    Status {
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It did not end in time.
    #[error("hook {path} took longer than {seconds} s")]
    Timeout {
        /// The program.
        path: PathBuf,
        /// Its time.
        seconds: u32,
    },
    /// The state could not be written as JSON.
    #[error("encode the state for hooks")]
    State(#[source] serde_json::Error),
}

/// How a program ended, in words.
fn ending(status: std::process::ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

/// Runs hooks in order and stops at the first that fails. `inherited` is the environment of hooks that name none.
pub fn run_all(hooks: &[Hook], state: &HookState, inherited: Option<&[String]>) -> Result<(), HookError> {
    if hooks.is_empty() {
        return Ok(());
    }
    let document = serde_json::to_vec(state).map_err(HookError::State)?;
    hooks.iter().try_for_each(|hook| run(hook, &document, inherited))
}

/// Runs hooks in order, all of them; what fails is returned to be logged. For poststart and poststop, whose failures the specification
/// has a runtime warn about and nothing more.
pub fn run_each(hooks: &[Hook], state: &HookState) -> Vec<HookError> {
    match serde_json::to_vec(state) {
        Ok(document) => hooks
            .iter()
            .filter_map(|hook| run(hook, &document, None).err())
            .collect(),
        Err(error) => vec![HookError::State(error)],
    }
}

fn run(hook: &Hook, document: &[u8], inherited: Option<&[String]>) -> Result<(), HookError> {
    let failed = |source| HookError::Run {
        path: hook.path.clone(),
        source,
    };
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    // A hook without an environment has the runtime's, as with every runtime; one that runs inside has the container's.
    if let Some(env) = hook.env.as_deref().or(inherited) {
        command
            .env_clear()
            .envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    let mut child = command.stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(document)
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        // A hook may well end without reading its state; anything else is a failure of ours.
        let ended = child.kill().and_then(|()| child.wait());
        return Err(failed(ended.err().unwrap_or(error)));
    }
    if let Some(seconds) = hook.timeout.filter(|seconds| *seconds > 0) {
        let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let pidfd = kakoi_sys::process::pidfd_open(id)
            .map_err(|error| failed(std::io::Error::from_raw_os_error(error.errno as i32)))?;
        let limit = i32::try_from(u64::from(seconds).saturating_mul(1000)).unwrap_or(i32::MAX);
        let mut waited = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let ready = poll(
            &mut waited,
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
        )
        .map_err(|errno| failed(errno.into()))?;
        if ready == 0 {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(HookError::Timeout {
                path: hook.path.clone(),
                seconds,
            });
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(HookError::Status {
            path: hook.path.clone(),
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> HookState {
        HookState {
            oci_version: "1.0.2".into(),
            id: "c".into(),
            status: "creating".into(),
            pid: Some(1),
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
        }
    }

    fn shell(script: &str, timeout: Option<u32>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook {
            path: "/bin/sh".into(),
            args: Some(args),
            env: None,
            timeout,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_the_environment_it_names() {
        let mut good = shell(
            "grep -q '\"id\":\"c\"' && test -z \"$CARGO\" && test \"$A\" = 1",
            None,
        );
        good.env = Some(vec!["A=1".to_owned(), "PATH=/bin:/usr/bin".to_owned()]);
        run_all(&[good.clone()], &state(), None).expect("it ran");
        let error = run_all(&[shell("exit 3", None), good], &state(), None).expect_err("the first failed");
        assert!(matches!(error, HookError::Status { .. }));
    }

    #[test]
    fn a_hook_that_hangs_is_killed() {
        let error = run_all(&[shell("exec sleep 60", Some(1))], &state(), None).expect_err("too slow");
        assert!(matches!(error, HookError::Timeout { seconds: 1, .. }));
        assert_eq!(
            run_each(&[shell("exit 1", None), shell("exit 0", None)], &state()).len(),
            1
        );
    }
}
