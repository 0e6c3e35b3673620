//! The boot state for boot scripts: two blocks of 4 KiB, as `env import -c ADDRESS 1000` of U-Boot reads them.
//!
//! ```text
//! first ──►  0     4                                                     4096
//!            ├─────┼──────────────────────────────────────────────┬───────┤
//!            │ CRC │ boot_good=a␀boot_left=3␀boot_seq=7␀boot_try=b␀␀│ zeros │   and the same at `second`
//!            └─────┴──────────────────────────────────────────────┴───────┘
//!            CRC-32 (IEEE, little endian) of bytes 4 to 4096
//!
//! boot_seq   counts what the system wrote    boot_try   a, b or none
//! boot_good  a or b                          boot_left  0 to 9, boots left of the trial
//! ```
//!
//! Of two whole blocks that with the higher boot_seq counts; of equal ones that with the lower boot_left, else the first. The system writes with a new
//! number, the script only counts boot_left down, and both write into the block that does not count: whatever a power cut leaves there, the other holds.
//! With no whole block the script starts slot a, and so that is what is read. `integration/device/boot.cmd` is such a script.

use super::boot::{BootControl, Control, ControlError, Slot, get, put};
use super::medium::{Medium, Variables, decode, encode};

const BLOCK_BYTES: usize = 4096;
/// The largest number that a boot loader of 32 bits compares rightly.
const SEQUENCE_MAX: u32 = i32::MAX as u32;

/// The two blocks on their medium.
pub struct BootBlocks<M> {
    medium: M,
    first: u64,
    second: u64,
}

struct Block {
    sequence: u32,
    control: Control,
}

impl<M: Medium> BootBlocks<M> {
    /// Blocks at these offsets in bytes. Refused where one lies over the other.
    pub fn new(medium: M, first: u64, second: u64) -> Result<Self, ControlError> {
        if first.abs_diff(second) < BLOCK_BYTES as u64 {
            return Err(ControlError::Layout {
                size: BLOCK_BYTES,
                first,
                second,
            });
        }
        Ok(Self {
            medium,
            first,
            second,
        })
    }

    /// Gives the medium back.
    pub fn into_medium(self) -> M {
        self.medium
    }

    fn block(&mut self, at: u64) -> Result<Option<Block>, ControlError> {
        let mut bytes = vec![0; BLOCK_BYTES];
        self.medium
            .read_at(at, &mut bytes)
            .map_err(|cause| ControlError::Medium { act: "read", cause })?;
        Ok(decode(&bytes, 4).and_then(|variables| {
            let sequence = variables.get("boot_seq")?.parse().ok()?;
            let control = get(&variables)?;
            Some(Block { sequence, control })
        }))
    }

    /// The block that counts, and where the other one lies.
    fn counting(&mut self) -> Result<(Block, u64), ControlError> {
        let rank = |block: &Block| {
            let left = block.control.trial.map_or(0, |trial| trial.left);
            (block.sequence, u8::MAX - left)
        };
        Ok(match (self.block(self.first)?, self.block(self.second)?) {
            (Some(first), Some(second)) if rank(&second) > rank(&first) => (second, self.first),
            (Some(first), _) => (first, self.second),
            (None, Some(second)) => (second, self.first),
            (None, None) => {
                let control = Control {
                    good: Slot::A,
                    trial: None,
                };
                (Block { sequence: 0, control }, self.first)
            }
        })
    }
}

impl<M: Medium> BootControl for BootBlocks<M> {
    fn read(&mut self) -> Result<Control, ControlError> {
        Ok(self.counting()?.0.control)
    }

    fn write(&mut self, control: Control) -> Result<(), ControlError> {
        let (now, at) = self.counting()?;
        if now.sequence >= SEQUENCE_MAX {
            return Err(ControlError::Full);
        }
        let mut variables = Variables::from([("boot_seq".to_owned(), (now.sequence + 1).to_string())]);
        put(&mut variables, control);
        let bytes = encode(&variables, BLOCK_BYTES, None).ok_or(ControlError::Full)?;
        store(&mut self.medium, at, &bytes)?;
        if self.read()? != control {
            return Err(ControlError::ReadBack);
        }
        Ok(())
    }
}

/// Writes a copy, waits until it is on the medium and reads it back.
pub(super) fn store(medium: &mut impl Medium, at: u64, bytes: &[u8]) -> Result<(), ControlError> {
    let failed = |act| move |cause| ControlError::Medium { act, cause };
    medium.write_at(at, bytes).map_err(failed("write"))?;
    medium.sync().map_err(failed("sync"))?;
    let mut back = vec![0; bytes.len()];
    medium.read_at(at, &mut back).map_err(failed("read"))?;
    if back != bytes {
        return Err(ControlError::ReadBack);
    }
    Ok(())
}
