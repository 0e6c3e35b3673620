//! The attacker's way into the kernel: any system call, with any arguments, past every wrapper that would refuse the odd ones.
//!
//! Owns the attacker's unsafe code, all of it. Invariant: every pointer it is handed stays alive during the call, because callers pass
//! addresses of locals that outlive the statement.

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

/// What an attack came to.
pub enum Outcome {
    /// The kernel did what the attacker wanted.
    Effective(String),
    /// It did not.
    Refused(String),
    /// This kernel has nothing to attack here.
    Absent(String),
}

impl From<Result<usize, Errno>> for Outcome {
    fn from(result: Result<usize, Errno>) -> Self {
        match result {
            Ok(value) => Self::Effective(format!("returned {value}")),
            Err(errno) => Self::Refused(format!("{errno:?}")),
        }
    }
}

/// Makes a system call with up to six arguments; pointers are passed as numbers.
pub fn call(number: libc::c_long, arguments: &[usize]) -> Result<usize, Errno> {
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = six;
    // SAFETY: the attacker passes only null, deliberately wrong addresses that the kernel checks, and addresses of live locals.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Errno::result(result).map(|value| value as usize)
}

/// Runs `attack` in a child, because many attacks that succeed would change the attacker; tells how the child died if it did.
pub fn isolated(attack: impl FnOnce() -> i32) -> Result<WaitStatus, Errno> {
    // SAFETY: the attacker has one thread, so the child may do anything the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => std::process::exit(attack()),
        ForkResult::Parent { child } => waitpid(child, None),
    }
}

/// Starts a child that waits to be attacked, and hands its id to `attack`.
pub fn with_victim<T>(attack: impl FnOnce(Pid) -> T) -> Result<T, Errno> {
    // SAFETY: as in `isolated`; the child only waits.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => {
            let result = attack(child);
            let killed = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            let reaped = waitpid(child, None);
            killed.and(reaped).map(|_| result)
        }
    }
}

/// Calls the kernel by its 32-bit entry, whose numbers a filter written for 64 bits would misread.
#[cfg(target_arch = "x86_64")]
pub fn int80(number: u32) -> i32 {
    let result: i32;
    // SAFETY: the interrupt changes only eax and what the kernel may clobber, which is declared; the call (getpid) takes no argument.
    unsafe {
        core::arch::asm!("int 0x80", inout("eax") number => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// A path as the kernel wants it.
pub fn c_path(path: &str) -> Vec<u8> {
    let mut bytes = path.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The address of bytes or of a structure, as an argument.
pub fn address<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>() as usize
}

/// The address of a buffer that the kernel writes to.
pub fn address_mut<T: ?Sized>(value: &mut T) -> usize {
    std::ptr::from_mut(value).cast::<u8>() as usize
}
