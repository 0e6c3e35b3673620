//! What a filter answers to a call, without the kernel.
//!
//! A small interpreter of the classic BPF that seccomp accepts. It lets [`crate::apply`] know whether it may still ask the kernel
//! something once the filters are loaded. It decides nothing: the kernel runs its own.

use kakoi_policy::confinement::Instruction;
use kakoi_policy::kernel::Arch;

/// What a program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The call goes through, logged or not.
    Allow,
    /// Anything else, and anything this interpreter does not understand.
    Refuse,
}

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;

/// Runs a program for a call whose arguments are all zero.
pub(crate) fn verdict(program: &[Instruction], arch: Arch, call: u32) -> Verdict {
    match run(program, arch, call) {
        Some(RET_ALLOW | RET_LOG) => Verdict::Allow,
        _ => Verdict::Refuse,
    }
}

fn run(program: &[Instruction], arch: Arch, call: u32) -> Option<u32> {
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        // Jumps only go forward, so this ends with the program.
        let &Instruction(code, jump_true, jump_false, operand) = program.get(at)?;
        at += 1;
        let jump = |taken: bool| usize::from(if taken { jump_true } else { jump_false });
        match code {
            0x20 => accumulator = load(operand, arch, call)?,
            0x54 => accumulator &= operand,
            0x05 => at = at.checked_add(operand as usize)?,
            0x15 => at += jump(accumulator == operand),
            0x25 => at += jump(accumulator > operand),
            0x35 => at += jump(accumulator >= operand),
            0x45 => at += jump(accumulator & operand != 0),
            0x06 => return Some(operand),
            _ => return None,
        }
    }
}

/// Reads a word of `struct seccomp_data`.
fn load(offset: u32, arch: Arch, call: u32) -> Option<u32> {
    match offset {
        0 => Some(call),
        4 => Some(match arch {
            Arch::X86_64 => 0xc000_003e,
            Arch::Aarch64 => 0xc000_00b7,
        }),
        8..64 if offset.is_multiple_of(4) => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(call: u32) -> Vec<Instruction> {
        vec![
            Instruction(0x20, 0, 0, 0),
            Instruction(0x15, 0, 1, call),
            Instruction(0x06, 0, 0, RET_ALLOW),
            Instruction(0x06, 0, 0, 0x0005_0001),
        ]
    }

    #[test]
    fn one_call_is_let_through_and_its_neighbour_is_not() {
        assert_eq!(verdict(&only(7), Arch::X86_64, 7), Verdict::Allow);
        assert_eq!(verdict(&only(7), Arch::X86_64, 8), Verdict::Refuse);
    }

    #[test]
    fn a_broken_program_refuses() {
        assert_eq!(verdict(&[], Arch::X86_64, 7), Verdict::Refuse);
        assert_eq!(
            verdict(&[Instruction(0x05, 0, 0, u32::MAX)], Arch::X86_64, 7),
            Verdict::Refuse
        );
        assert_eq!(
            verdict(&[Instruction(0x20, 0, 0, 999)], Arch::X86_64, 7),
            Verdict::Refuse
        );
    }
}
