//! The device guard of a version 2 control group: a small program that the kernel asks before a device is opened or made.
//!
//! Version 2 has no file to write device rules to. [`assemble`] turns rules into the program's instructions and is pure;
//! [`guard_devices`] attaches it. The last rule that matches decides, and where none matches the answer is no.
//!
//! ```text
//! load kind, access, major, minor from the question
//! for each rule, the last one first:
//!     kind, access, major or minor differ → next rule
//!     answer 1 (allowed) or 0
//! answer 0
//! ```

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{CallError, Result, checked, checked_fd};
use nix::errno::Errno;

/// Most rules of one program: at 10 instructions each they stay below the 4096 that old kernels accept.
pub const RULES_MAX: usize = 400;

/// Whether a rule is about character devices, block devices or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// What may be done, as `BPF_DEVCG_ACC_*` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// From the three rights.
    pub const fn new(read: bool, write: bool, make: bool) -> Self {
        Self(make as u32 | (read as u32) << 1 | (write as u32) << 2)
    }

    /// All three.
    pub const ALL: Self = Self(7);
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it allows. An allowing rule matches a request that it covers whole, a refusing one a request that it touches.
    pub allow: bool,
    /// Kind of node.
    pub kind: DeviceKind,
    /// Major number; `None` matches every one.
    pub major: Option<u32>,
    /// Minor number; `None` matches every one.
    pub minor: Option<u32>,
    /// What is allowed or refused.
    pub access: Access,
}

/// One instruction of the extended BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    operand: u32,
}

// Registers: 0 the answer, 1 the question, 2 the kind, 3 the access, 4 and 5 the numbers.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, operand: u32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        operand,
    }
}

/// Turns rules into a program. `None` where there are more than [`RULES_MAX`].
pub fn assemble(rules: &[DeviceRule]) -> Option<Vec<Instruction>> {
    let rules = merged(rules);
    if rules.len() > RULES_MAX {
        return None;
    }
    let mut program = vec![
        instruction(LOAD_WORD, KIND, QUESTION, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, QUESTION, 4, 0),
        instruction(LOAD_WORD, MINOR, QUESTION, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let block = block(rule);
        let decides_all = !block.iter().any(|one| is_jump(one.code));
        program.extend(block);
        if decides_all {
            // What came behind could not be reached, and kernels refuse a program with such a part.
            return Some(program);
        }
    }
    program.push(instruction(MOVE, ANSWER, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    Some(program)
}

/// Joins the rights that allowing rules give to the same devices, as version 1 does, so that `r` and `w` together allow `rw`. Only while
/// no rule refuses: between refusals the order matters.
fn merged(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    if rules.iter().any(|rule| !rule.allow) {
        return rules.to_vec();
    }
    let mut joined: Vec<DeviceRule> = Vec::with_capacity(rules.len());
    for rule in rules {
        let key = |rule: &DeviceRule| (rule.kind, rule.major, rule.minor);
        match joined.iter_mut().find(|other| key(other) == key(rule)) {
            Some(other) => other.access.0 |= rule.access.0,
            None => joined.push(*rule),
        }
    }
    joined
}

fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let mut block = Vec::with_capacity(9);
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => block.push(instruction(JUMP_NOT_EQUAL, KIND, 0, 0, 1)),
        DeviceKind::Char => block.push(instruction(JUMP_NOT_EQUAL, KIND, 0, 0, 2)),
    }
    if rule.access != Access::ALL {
        block.push(instruction(MOVE_REGISTER, ANSWER, ACCESS, 0, 0));
        let (mask, jump) = if rule.allow {
            (!rule.access.0, JUMP_NOT_EQUAL)
        } else {
            (rule.access.0, JUMP_EQUAL)
        };
        block.push(instruction(AND, ANSWER, 0, 0, mask));
        block.push(instruction(jump, ANSWER, 0, 0, 0));
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            block.push(instruction(JUMP_NOT_EQUAL, register, 0, 0, number));
        }
    }
    block.push(instruction(MOVE, ANSWER, 0, 0, u32::from(rule.allow)));
    block.push(instruction(EXIT, 0, 0, 0, 0));
    let length = block.len();
    for (at, jump) in block.iter_mut().enumerate() {
        if is_jump(jump.code) {
            jump.offset = (length - at - 1) as i16;
        }
    }
    block
}

const fn is_jump(code: u8) -> bool {
    matches!(code, JUMP_EQUAL | JUMP_NOT_EQUAL)
}

const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_ATTACH: libc::c_int = 8;
const PROGRAM_DETACH: libc::c_int = 9;
const PROGRAM_BY_ID: libc::c_int = 13;
const PROGRAM_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTIPLE: u32 = 2;

/// Most programs of one group: the kernel's own limit (BPF_CGROUP_MAX_PROGS).
const PROGRAMS_MAX: usize = 64;

/// `union bpf_attr`, at a size that every kernel since 4.15 knows how to read: what lies behind the known fields is zero.
#[repr(C, align(8))]
struct Attributes([u8; 112]);

impl Attributes {
    fn new(fields: &[(usize, &[u8])]) -> Self {
        let mut bytes = [0; 112];
        for (offset, field) in fields {
            bytes[*offset..offset + field.len()].copy_from_slice(field);
        }
        Self(bytes)
    }

    fn u32_at(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(word)
    }
}

fn call(name: &'static str, command: libc::c_int, attributes: &mut Attributes) -> Result<libc::c_long> {
    // SAFETY: the attributes outlive the call and their size is given; pointers in them are to memory that the caller holds.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.0.as_mut_ptr(),
            std::mem::size_of::<Attributes>(),
        )
    };
    checked(name, done)
}

/// Guards the devices of a control group, whose folder is `group`: the new program takes the place of every one that hung there.
///
/// While both hang there, a device needs the leave of both. Needs CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN, in the first user namespace.
pub fn guard_devices(group: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<()> {
    let program = assemble(rules).ok_or(CallError {
        call: "bpf(BPF_PROG_LOAD)",
        errno: Errno::E2BIG,
    })?;
    let program = load(&program)?;
    let old = attached(group)?;
    attach(group, &program)?;
    for id in old {
        match by_id(id) {
            Ok(old) => detach(group, &old)?,
            // Gone since it was listed.
            Err(CallError {
                errno: Errno::ENOENT, ..
            }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How many device programs hang at a control group itself.
pub fn guards(group: BorrowedFd<'_>) -> Result<usize> {
    attached(group).map(|ids| ids.len())
}

fn load(program: &[Instruction]) -> Result<OwnedFd> {
    let mut attributes = Attributes::new(&[
        (0, &TYPE_CGROUP_DEVICE.to_ne_bytes()),
        (4, &(program.len() as u32).to_ne_bytes()),
        (8, &(program.as_ptr() as u64).to_ne_bytes()),
        (16, &(c"Apache-2.0".as_ptr() as u64).to_ne_bytes()),
        (68, &ATTACH_CGROUP_DEVICE.to_ne_bytes()),
    ]);
    checked_fd(
        "bpf(BPF_PROG_LOAD)",
        call("bpf(BPF_PROG_LOAD)", PROGRAM_LOAD, &mut attributes)?,
    )
}

fn attach(group: BorrowedFd<'_>, program: &OwnedFd) -> Result<()> {
    let mut attributes = at_group(group, Some(program), ALLOW_MULTIPLE);
    call("bpf(BPF_PROG_ATTACH)", PROGRAM_ATTACH, &mut attributes).map(drop)
}

fn detach(group: BorrowedFd<'_>, program: &OwnedFd) -> Result<()> {
    let mut attributes = at_group(group, Some(program), 0);
    call("bpf(BPF_PROG_DETACH)", PROGRAM_DETACH, &mut attributes).map(drop)
}

fn at_group(group: BorrowedFd<'_>, program: Option<&OwnedFd>, flags: u32) -> Attributes {
    Attributes::new(&[
        (0, &group.as_raw_fd().to_ne_bytes()),
        (4, &program.map_or(0, AsRawFd::as_raw_fd).to_ne_bytes()),
        (8, &ATTACH_CGROUP_DEVICE.to_ne_bytes()),
        (12, &flags.to_ne_bytes()),
    ])
}

fn attached(group: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut attributes = Attributes::new(&[
        (0, &group.as_raw_fd().to_ne_bytes()),
        (4, &ATTACH_CGROUP_DEVICE.to_ne_bytes()),
        (16, &(ids.as_mut_ptr() as u64).to_ne_bytes()),
        (24, &(PROGRAMS_MAX as u32).to_ne_bytes()),
    ]);
    call("bpf(BPF_PROG_QUERY)", PROGRAM_QUERY, &mut attributes)?;
    let count = (attributes.u32_at(24) as usize).min(PROGRAMS_MAX);
    Ok(ids[..count].to_vec())
}

fn by_id(id: u32) -> Result<OwnedFd> {
    let mut attributes = Attributes::new(&[(0, &id.to_ne_bytes())]);
    checked_fd(
        "bpf(BPF_PROG_GET_FD_BY_ID)",
        call("bpf(BPF_PROG_GET_FD_BY_ID)", PROGRAM_BY_ID, &mut attributes)?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would: kind 1 block, 2 character; access 1 make, 2 read, 4 write.
    fn ask(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let program = assemble(rules).expect("few rules");
        let question = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0_u32; 6], 0_usize);
        loop {
            let one = program[at];
            at += 1;
            let (to, from) = ((one.registers & 15) as usize, (one.registers >> 4) as usize);
            match one.code {
                LOAD_WORD => registers[to] = question[one.offset as usize / 4],
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE => registers[to] = one.operand,
                AND => registers[to] &= one.operand,
                SHIFT_RIGHT => registers[to] >>= one.operand,
                JUMP_EQUAL if registers[to] == one.operand => at += one.offset as usize,
                JUMP_NOT_EQUAL if registers[to] != one.operand => at += one.offset as usize,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return registers[0],
                code => panic!("{code:#x}"),
            }
        }
    }

    fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> DeviceRule {
        DeviceRule {
            allow: true,
            kind,
            major,
            minor,
            access,
        }
    }

    const READ: Access = Access::new(true, false, false);
    const WRITE: Access = Access::new(false, true, false);
    const MAKE: Access = Access::new(false, false, true);

    #[test]
    fn nothing_is_allowed_by_no_rule() {
        assert_eq!(ask(&[], 2, 2, 1, 3), 0);
    }

    #[test]
    fn an_allowed_device_opens_and_its_neighbours_do_not() {
        let rules = [
            allow(DeviceKind::Char, Some(1), Some(3), Access::new(true, true, false)),
            allow(DeviceKind::Block, Some(8), None, READ),
            allow(DeviceKind::All, None, None, MAKE),
        ];
        for (kind, access, major, minor, answer) in [
            (2, 2, 1, 3, 1),
            (2, 6, 1, 3, 1),
            (2, 7, 1, 3, 0),
            (2, 2, 1, 5, 0),
            (2, 2, 2, 3, 0),
            (1, 2, 1, 3, 0),
            (1, 2, 8, 17, 1),
            (1, 4, 8, 17, 0),
            (1, 6, 8, 17, 0),
            (1, 1, 99, 99, 1),
            (2, 1, 99, 99, 1),
            (2, 3, 99, 99, 0),
        ] {
            assert_eq!(
                ask(&rules, kind, access, major, minor),
                answer,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn rights_on_one_device_add_up() {
        let rules = [
            allow(DeviceKind::Char, Some(1), Some(3), READ),
            allow(DeviceKind::Char, Some(1), Some(3), WRITE),
        ];
        assert_eq!(ask(&rules, 2, 6, 1, 3), 1);
        assert_eq!(ask(&rules, 2, 7, 1, 3), 0);
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let all = allow(DeviceKind::All, None, None, Access::ALL);
        let no_writing = DeviceRule {
            allow: false,
            ..allow(DeviceKind::Char, Some(1), None, WRITE)
        };
        assert_eq!(ask(&[all, no_writing], 2, 2, 1, 3), 1);
        // A request to read and write is touched by the refusal of writing.
        assert_eq!(ask(&[all, no_writing], 2, 6, 1, 3), 0);
        assert_eq!(ask(&[no_writing, all], 2, 6, 1, 3), 1);
    }

    #[test]
    fn nothing_follows_a_rule_that_decides_all() {
        let none = DeviceRule {
            allow: false,
            ..allow(DeviceKind::All, None, None, Access::ALL)
        };
        let null = allow(DeviceKind::Char, Some(1), Some(3), READ);
        let program = assemble(&[null, none, null]).expect("few rules");
        assert_eq!(program, assemble(&[none, null]).expect("few rules"));
        assert_eq!(program.iter().filter(|one| one.code == EXIT).count(), 2);
        assert_eq!(
            (ask(&[none, null], 2, 2, 1, 3), ask(&[none, null], 2, 2, 1, 5)),
            (1, 0)
        );
    }

    #[test]
    fn large_numbers_are_compared_unsigned() {
        let rules = [allow(DeviceKind::Char, Some(u32::MAX), Some(0x8000_0000), READ)];
        assert_eq!(ask(&rules, 2, 2, u32::MAX, 0x8000_0000), 1);
        assert_eq!(ask(&rules, 2, 2, u32::MAX, 0x8000_0001), 0);
    }

    #[test]
    fn too_many_rules_make_no_program() {
        let rules: Vec<_> = (0..=RULES_MAX as u32)
            .map(|n| allow(DeviceKind::Char, Some(n), None, READ))
            .collect();
        assert_eq!(assemble(&rules), None);
        assert!(assemble(&rules[1..]).is_some_and(|program| program.len() < 4096));
    }
}
