//! An assembler from decisions about system calls to classic BPF.
//!
//! Owns the shape of a program: which entry point (architecture), then a binary search over call numbers, then the conditions on arguments,
//! which seccompiler translates. Neighbouring numbers with one answer are one leaf, so that a profile of 350 calls is some 200 instructions
//! instead of 1,800: it loads in a tenth of the time at each start and costs an uncached call a handful of jumps. The kernel's bitmap of calls
//! that are always allowed (since Linux 5.11) understands every instruction used before a condition.
//!
//! Knows nothing of policies. Invariant: every path through a program ends in a return, and no program exceeds the kernel's limit.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::confinement::Instruction;
use crate::model::{Condition, Operator, Width};
use crate::syscalls::Entry;

/// The kernel's limit (BPF_MAXINSNS).
pub(crate) const INSTRUCTIONS_MAX: usize = 4096;

/// Set in the number of a call that comes through x86_64's x32 entry.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

pub(crate) const RET_KILL_PROCESS: u32 = 0x8000_0000;
pub(crate) const RET_KILL_THREAD: u32 = 0;
pub(crate) const RET_TRAP: u32 = 0x0003_0000;
pub(crate) const RET_ERRNO: u32 = 0x0005_0000;
pub(crate) const RET_USER_NOTIF: u32 = 0x7fc0_0000;
pub(crate) const RET_TRACE: u32 = 0x7ff0_0000;
pub(crate) const RET_LOG: u32 = 0x7ffc_0000;
pub(crate) const RET_ALLOW: u32 = 0x7fff_0000;

const LD_ABS: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;

/// Conditions and what is returned if all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    pub(crate) when: Vec<Condition>,
    pub(crate) ret: u32,
}

/// What one entry point does.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) entry: Entry,
    /// Numbers with an answer of their own; branches are tried in order, then `otherwise`.
    pub(crate) calls: BTreeMap<u32, Call>,
    /// The answer for every other number.
    pub(crate) otherwise: u32,
    /// On x86_64, the answer for x32 calls; `None` treats them as the x86_64 call of the same number.
    pub(crate) x32: Option<u32>,
}

/// What happens to one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) branches: Vec<Branch>,
    pub(crate) otherwise: u32,
}

/// A program could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Too many rules.
    #[error("the system call filter has {length} instructions, but the kernel takes at most 4096")]
    TooLong {
        /// How many it would have.
        length: usize,
    },
    /// seccompiler refused a condition.
    #[error("translate a condition on a system call's argument")]
    Condition {
        /// Why.
        #[source]
        source: seccompiler::BackendError,
    },
}

/// Assembles a program; `foreign` is returned for entry points without a section.
pub(crate) fn assemble(sections: &[Section], foreign: u32) -> Result<Vec<Instruction>, AssembleError> {
    let bodies = sections.iter().map(body).collect::<Result<Vec<_>, _>>()?;
    let mut program = vec![Instruction(LD_ABS, 0, 0, OFFSET_ARCH)];
    // Two instructions a section: compare, and jump to its body behind all comparisons and the return.
    let table = 2 * sections.len();
    let mut start = 0;
    for (at, (section, body)) in sections.iter().zip(&bodies).enumerate() {
        let behind = table - 2 * (at + 1) + 1;
        program.push(Instruction(JEQ, 0, 1, section.entry.audit()));
        program.push(Instruction(JA, 0, 0, length(behind + start)));
        start += body.len();
    }
    program.push(ret(foreign));
    program.extend(bodies.into_iter().flatten());
    if program.len() > INSTRUCTIONS_MAX {
        return Err(AssembleError::TooLong {
            length: program.len(),
        });
    }
    Ok(program)
}

fn length(n: usize) -> u32 {
    u32::try_from(n).expect("programs are cut off long before 2^32 instructions")
}

fn ret(value: u32) -> Instruction {
    Instruction(RET, 0, 0, value)
}

fn body(section: &Section) -> Result<Vec<Instruction>, AssembleError> {
    let mut code = vec![Instruction(LD_ABS, 0, 0, OFFSET_NR)];
    if section.entry == Entry::X86_64 {
        match section.x32 {
            Some(answer) => {
                code.push(Instruction(JGE, 0, 1, X32_BIT));
                code.push(ret(answer));
            }
            // AND A, !X32_BIT
            None => code.push(Instruction(0x54, 0, 0, !X32_BIT)),
        }
    }
    code.extend(search(&leaves(section)?));
    Ok(code)
}

/// Code for the numbers from `first` up to the next leaf.
struct Leaf {
    first: u32,
    code: Vec<Instruction>,
}

fn leaves(section: &Section) -> Result<Vec<Leaf>, AssembleError> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut push = |first: u32, code: Vec<Instruction>| {
        if leaves.last().is_none_or(|last| last.code != code) {
            leaves.push(Leaf { first, code });
        }
    };
    let otherwise = vec![ret(section.otherwise)];
    let mut next = 0u32;
    for (number, call) in &section.calls {
        if *number > next {
            push(next, otherwise.clone());
        }
        push(*number, chain(call)?);
        next = number.saturating_add(1);
    }
    push(next, otherwise);
    Ok(leaves)
}

fn chain(call: &Call) -> Result<Vec<Instruction>, AssembleError> {
    let mut code = Vec::new();
    for branch in &call.branches {
        if !branch.when.is_empty() {
            code.extend(conditions(&branch.when)?);
        }
        code.push(ret(branch.ret));
        if branch.when.is_empty() {
            return Ok(code);
        }
    }
    // One chain without effect is the same leaf as its neighbour's plain answer.
    if call.branches.iter().all(|branch| branch.ret == call.otherwise) {
        return Ok(vec![ret(call.otherwise)]);
    }
    code.push(ret(call.otherwise));
    Ok(code)
}

/// Translates conditions; on the first that fails, the code jumps over the one instruction that is to follow it.
fn conditions(when: &[Condition]) -> Result<Vec<Instruction>, AssembleError> {
    let conditions = when
        .iter()
        .map(|condition| {
            let operator = match condition.operator {
                Operator::Eq => SeccompCmpOp::Eq,
                Operator::Ne => SeccompCmpOp::Ne,
                Operator::Lt => SeccompCmpOp::Lt,
                Operator::Le => SeccompCmpOp::Le,
                Operator::Gt => SeccompCmpOp::Gt,
                Operator::Ge => SeccompCmpOp::Ge,
                Operator::MaskedEq(mask) => SeccompCmpOp::MaskedEq(mask),
            };
            let width = match condition.width {
                Width::Low32 => SeccompCmpArgLen::Dword,
                Width::Full64 => SeccompCmpArgLen::Qword,
            };
            SeccompCondition::new(condition.argument, width, operator, condition.value)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| AssembleError::Condition { source })?;
    let rule = SeccompRule::new(conditions).map_err(|source| AssembleError::Condition { source })?;
    let program: BpfProgram = rule.into();
    // The two jumps in front of a rule link rules in a program of seccompiler's own; here each rule is entered from above.
    let linked = program.len() > 2 && program[..2].iter().all(|i| i.code == JA);
    let program = if linked { &program[2..] } else { &program[..] };
    Ok(program
        .iter()
        .map(|i| Instruction(i.code, i.jt, i.jf, i.k))
        .collect())
}

/// Code that finds the leaf of the number in the accumulator.
fn search(leaves: &[Leaf]) -> Vec<Instruction> {
    if leaves.len() == 1 {
        return leaves[0].code.clone();
    }
    let (low, high) = leaves.split_at(leaves.len() / 2);
    let pivot = high[0].first;
    let (low, high) = (search(low), search(high));
    let mut code = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(over) => code.push(Instruction(JGE, over, 0, pivot)),
        Err(_) => {
            // A conditional jump reaches 255 instructions, an unconditional one as far as needed.
            code.push(Instruction(JGE, 0, 1, pivot));
            code.push(Instruction(JA, 0, 0, length(low.len())));
        }
    }
    code.extend(low);
    code.extend(high);
    code
}

/// What a program returns for a call: a small interpreter, for tests and for explaining a stored [`Filter`](crate::confinement::Filter).
/// `None` if the program is not well formed, which the kernel would have refused.
pub fn evaluate(program: &[Instruction], arch: u32, number: u32, arguments: &[u64; 6]) -> Option<u32> {
    let mut data = [0u32; 16];
    data[0] = number;
    data[1] = arch;
    for (n, argument) in arguments.iter().enumerate() {
        data[4 + 2 * n] = u32::try_from(argument & 0xffff_ffff).ok()?;
        data[5 + 2 * n] = u32::try_from(argument >> 32).ok()?;
    }
    let (mut a, mut pc) = (0u32, 0usize);
    loop {
        let Instruction(code, jt, jf, k) = *program.get(pc)?;
        pc += 1;
        let taken = match code {
            LD_ABS => {
                a = *data.get(usize::try_from(k).ok()? / 4)?;
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            RET => return Some(k),
            JA => {
                pc = pc.checked_add(usize::try_from(k).ok()?)?;
                continue;
            }
            JEQ => a == k,
            0x25 => a > k,
            JGE => a >= k,
            0x45 => a & k != 0,
            _ => return None,
        };
        pc += usize::from(if taken { jt } else { jf });
    }
}
