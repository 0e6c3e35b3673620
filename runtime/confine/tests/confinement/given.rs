//! What a test gives to the process that is confined, and what came out of it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use kakoi_confine::StartFailure;
use kakoi_policy::confinement::{
    CONFINEMENT_FORMAT, CapabilitySets, Confinement, Filesystem, Filter, Identity, Instruction, Landlock,
    Limits, NetworkMode, PathRule, PolicyIdentity, Reach, Receipt, Seccomp, UserNamespace,
};
use kakoi_policy::kernel::Arch;
use serde::{Deserialize, Serialize};

use super::{CHOWN, READ, SETUID, sets};

/// What the confined process is told, in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Given {
    pub confinement: Confinement,
    /// `exec --user`.
    pub exec_as: Option<Identity>,
    /// Prepared as libcontainer would, less one thing.
    pub flaw: Option<String>,
    /// Descriptor 77, inherited.
    pub leak: bool,
    /// Descriptor 77, meant to be inherited.
    pub preserve: bool,
    pub directory_as_input: bool,
    pub directory_outside: bool,
    pub hide_landlock: bool,
    pub user_namespace: bool,
    /// The listener of a filter is given its descriptor.
    pub deliver: bool,
    /// The executed program is set-user-ID root.
    pub set_user_id: bool,
}

/// What a failed process or a started one tells first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Receipt(Receipt),
    Failure(StartFailure),
}

#[derive(Debug)]
pub struct Outcome {
    told: Option<Told>,
    lines: Vec<String>,
    status: ExitStatus,
}

#[cfg(target_arch = "x86_64")]
mod calls {
    pub const ALLOWED: u32 = 39; // getpid
    pub const DENIED: u32 = 63; // uname
    pub const LANDLOCK: u32 = 444;
    pub const AUDIT_ARCH: u32 = 0xc000_003e;
    /// read, pread64, readv, prctl.
    pub const SILENT: [u32; 4] = [0, 17, 19, 157];
}
#[cfg(target_arch = "aarch64")]
mod calls {
    pub const ALLOWED: u32 = 172;
    pub const DENIED: u32 = 160;
    pub const LANDLOCK: u32 = 444;
    pub const AUDIT_ARCH: u32 = 0xc000_00b7;
    pub const SILENT: [u32; 4] = [63, 67, 65, 167];
}
pub use calls::{ALLOWED as CALL_ALLOWED, DENIED as CALL_DENIED, SILENT};

/// A number that no kernel has given out.
pub const CALL_UNKNOWN: u32 = 4000;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// A filter that refuses some calls with EPERM.
pub fn filter(purpose: &str, refused: &[u32]) -> Filter {
    let refused = refused.iter().map(|call| (*call, RET_ERRNO | libc::EPERM as u32));
    program(purpose, u32::MAX, refused)
}

/// A filter that answers ENOSYS to everything above the last call of 2026.
fn unknown_filter() -> Filter {
    program("unknown calls", 500, std::iter::empty())
}

/// A filter that asks a listener about one call.
pub fn asking_filter(call: u32, listener: &std::path::Path) -> Filter {
    const RET_USER_NOTIF: u32 = 0x7fc0_0000;
    let mut filter = program("asked calls", u32::MAX, [(call, RET_USER_NOTIF)].into_iter());
    filter.log = false;
    filter.listener = Some(kakoi_policy::confinement::Listener {
        path: listener.to_str().expect("a plain name").to_owned(),
        metadata: String::new(),
    });
    filter
}

/// A filter that hides landlock from its own process.
pub fn landlock_hidden() -> Filter {
    program(
        "landlock hidden",
        u32::MAX,
        [(calls::LANDLOCK, RET_ERRNO | libc::ENOSYS as u32)].into_iter(),
    )
}

fn program(purpose: &str, last: u32, refused: impl Iterator<Item = (u32, u32)>) -> Filter {
    let mut program = vec![
        Instruction(0x20, 0, 0, 4),
        Instruction(0x15, 1, 0, calls::AUDIT_ARCH),
        Instruction(0x06, 0, 0, RET_KILL_PROCESS),
        Instruction(0x20, 0, 0, 0),
        Instruction(0x25, 0, 1, last),
        Instruction(0x06, 0, 0, RET_ERRNO | libc::ENOSYS as u32),
    ];
    for (call, answer) in refused {
        program.push(Instruction(0x15, 0, 1, call));
        program.push(Instruction(0x06, 0, 0, answer));
    }
    program.push(Instruction(0x06, 0, 0, RET_ALLOW));
    Filter {
        purpose: purpose.to_owned(),
        log: true,
        speculation_allowed: false,
        wait_killable: false,
        listener: None,
        program,
    }
}

pub fn other_arch() -> Arch {
    if Arch::native() == Some(Arch::X86_64) {
        Arch::Aarch64
    } else {
        Arch::X86_64
    }
}

impl Given {
    /// User 0 with two capabilities.
    pub fn root() -> Self {
        Self::new(
            Identity {
                uid: 0,
                gid: 0,
                groups: vec![],
                umask: 0o27,
            },
            sets(CHOWN | SETUID),
        )
    }

    /// Another user, who holds none of the two.
    pub fn user(uid: u32, gid: u32) -> Self {
        let sets = CapabilitySets {
            permitted: 0,
            effective: 0,
            ..sets(CHOWN | SETUID)
        };
        Self::new(
            Identity {
                uid,
                gid,
                groups: vec![20, 100],
                umask: 0o22,
            },
            sets,
        )
    }

    fn new(identity: Identity, capabilities: CapabilitySets) -> Self {
        let confinement = Confinement {
            format: CONFINEMENT_FORMAT,
            arch: Arch::native().expect("tests run where Kakoi does"),
            policy: PolicyIdentity {
                name: "test".into(),
                sha256: "0".repeat(64),
            },
            identity,
            no_new_privileges: true,
            capabilities,
            seccomp: Seccomp::Filters(vec![unknown_filter(), filter("denied calls", &[CALL_DENIED])]),
            landlock: Landlock::Unconfined,
            devices: vec![],
            limits: Limits {
                memory_bytes: None,
                swap_bytes: None,
                cpu_millis: None,
                pids: None,
                open_files: None,
                io_read_bytes_per_second: None,
                io_write_bytes_per_second: None,
                tmpfs_bytes: None,
            },
            filesystem: Filesystem {
                read_only_root: false,
                masked_paths: vec![],
                read_only_paths: vec![],
                mounts: vec![],
            },
            network: NetworkMode::None,
            reach: Reach::Networks,
            user_namespace: UserNamespace::Host,
            losses: vec![],
        };
        Self {
            confinement,
            exec_as: None,
            flaw: None,
            leak: false,
            preserve: false,
            directory_as_input: false,
            directory_outside: false,
            hide_landlock: false,
            user_namespace: false,
            deliver: false,
            set_user_id: false,
        }
    }

    /// User 0 under a policy, compiled for this kernel.
    pub fn policy(text: &str) -> Self {
        Self::policy_of(text, 0, 0)
    }

    /// A user under a policy.
    pub fn policy_of(text: &str, uid: u32, gid: u32) -> Self {
        let text = format!("kakoi: 1\n{text}\n");
        let policy = kakoi_policy::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}"));
        let composed = kakoi_policy::compose(&policy, &kakoi_policy::ShippedOnly)
            .unwrap_or_else(|error| panic!("{error}"));
        let identity = Identity {
            uid,
            gid,
            groups: vec![],
            umask: 0o22,
        };
        let facts = kakoi_confine::probe().expect("this kernel can be asked");
        let confinement =
            kakoi_policy::compile(&composed, &identity, &facts).expect("this kernel can enforce it");
        Self {
            confinement,
            ..Self::root()
        }
    }

    /// User 0 with everything.
    pub fn unconfined() -> Self {
        let mut given = Self::root();
        given.confinement.policy.name = "unconfined".into();
        given.confinement.no_new_privileges = false;
        given.confinement.seccomp = Seccomp::Unconfined;
        let all = kakoi_sys::capability::bounding().expect("it is readable");
        given.confinement.capabilities = sets(all);
        given
    }

    /// Runs a Perl script, which prints one line.
    pub fn perl(&self, script: &str) -> String {
        self.run(|_| vec!["/usr/bin/perl".into(), "-e".into(), script.to_owned()])
            .line(0)
            .to_owned()
    }

    /// Joins, and reports the executed program's status.
    pub fn exec(&self) -> Outcome {
        self.report(&["status"])
    }

    /// Joins, and reports something else.
    pub fn report(&self, what: &[&str]) -> Outcome {
        self.run(|program| {
            [&[program, "role-report"], what]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect()
        })
    }

    /// Is the first process, prepared with a flaw (`nothing` for none).
    pub fn first_process(&self, flaw: &str) -> Outcome {
        let mut given = self.clone();
        given.flaw = Some(flaw.to_owned());
        if flaw == "ambient" {
            // An ambient capability must be permitted and inheritable too, and those two are to be found in order.
            given.confinement.capabilities = CapabilitySets {
                permitted: CHOWN,
                effective: CHOWN,
                inheritable: CHOWN,
                ..self.confinement.capabilities
            };
        }
        given.exec()
    }

    /// Makes one system call with no arguments.
    pub fn call(&self, number: u32) -> String {
        self.perl(&format!(
            "$r = syscall({number}); print $r == -1 ? 'errno ' . ($! + 0) : 'done'"
        ))
    }

    /// Runs a program of another architecture that only ends itself.
    pub fn run_foreign(&self) -> Outcome {
        self.run(|program| {
            let path = Path::new(program).with_file_name("foreign");
            std::fs::write(&path, foreign_program()).expect("the folder is ours");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
            vec![path.to_str().expect("temporary names are plain").to_owned()]
        })
    }

    fn run(&self, command: impl Fn(&str) -> Vec<String>) -> Outcome {
        let folder = tempfile::tempdir().expect("tmp is writable");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))
            .expect("the folder is ours");
        let program = folder.path().join("program");
        std::fs::copy(std::env::current_exe().expect("it has a path"), &program).expect("there is room");
        let mode = if self.set_user_id { 0o4755 } else { 0o755 };
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).expect("the file is ours");
        let mut given = self.clone();
        if let Landlock::Ruleset(rules) = &mut given.confinement.landlock {
            // The program must be read to be executed.
            let path = folder
                .path()
                .to_str()
                .expect("temporary names are plain")
                .to_owned();
            rules.paths.push(PathRule {
                path,
                access: READ,
                optional: false,
                rule: "the test's own".into(),
            });
        }
        let file = folder.path().join("given.json");
        std::fs::write(&file, serde_json::to_vec(&given).expect("it is plain data"))
            .expect("the folder is ours");
        let mut confined = Command::new(std::env::current_exe().expect("it has a path"));
        confined
            .arg("role-confine")
            .arg(&file)
            .args(command(program.to_str().expect("temporary names are plain")));
        if self.directory_as_input {
            confined.stdin(std::fs::File::open("/etc").expect("it exists"));
        } else {
            confined.stdin(Stdio::null());
        }
        let output = confined
            .stderr(Stdio::inherit())
            .output()
            .expect("it is this program");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let told = lines.first().and_then(|line| serde_json::from_str(line).ok());
        if told.is_some() {
            lines.remove(0);
        }
        Outcome {
            told,
            lines,
            status: output.status,
        }
    }
}

impl Outcome {
    pub fn failure(&self) -> StartFailure {
        match &self.told {
            Some(Told::Failure(failure)) => failure.clone(),
            _ => panic!("it did not fail: {self:?}"),
        }
    }

    /// A field of `/proc/self/status` as the executed program read it.
    pub fn status(&self, field: &str) -> &str {
        let found = self
            .lines
            .iter()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {field}: {self:?}")).trim()
    }

    pub fn line(&self, number: usize) -> &str {
        self.lines
            .get(number)
            .unwrap_or_else(|| panic!("no line {number}: {self:?}"))
    }

    /// What the kernel was seen to hold for a mechanism.
    pub fn receipt(&self, mechanism: &str) -> &str {
        let Some(Told::Receipt(receipt)) = &self.told else {
            panic!("no receipt: {self:?}")
        };
        let step = receipt.steps.iter().find(|step| step.mechanism == mechanism);
        &step.unwrap_or_else(|| panic!("no {mechanism}: {self:?}")).held
    }

    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    pub fn killed_by(&self, signal: i32) -> bool {
        self.status.signal() == Some(signal)
    }
}

/// A 32-bit x86 program: `mov eax, 1; xor ebx, ebx; int 0x80`, which is exit(0).
fn foreign_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let code = [0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80];
    let size = HEADERS + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
