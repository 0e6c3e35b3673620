//! The boot state in U-Boot's own environment, of which there are two copies (`CONFIG_SYS_REDUNDAND_ENVIRONMENT`, two lines of fw_env.config).
//!
//! ```text
//! 0     4      5                                        size
//! ├─────┼──────┼─────────────────────────────────┬───────┤
//! │ CRC │ flag │ NAME=VALUE␀ ... NAME=VALUE␀ ␀     │ zeros │
//! └─────┴──────┴─────────────────────────────────┴───────┘
//! CRC-32 (IEEE, little endian) of bytes 5 to size
//! ```
//!
//! The copy with the higher flag counts, where 0 follows 255; of equal ones the first. A write goes to the other copy with the next flag, as saveenv does
//! on block devices. Variables of others are kept. One copy alone is refused by being no choice: a power cut while it is written would leave none.

use super::block::store;
use super::boot::{BootControl, Control, ControlError, get, put};
use super::medium::{Medium, Variables, decode, encode};

/// Beyond this no boot loader's environment goes; a larger number is a mistake in a configuration.
const COPY_BYTES_MAX: usize = 1 << 20;

/// The two copies on their medium.
pub struct UbootEnvironment<M> {
    medium: M,
    first: u64,
    second: u64,
    size: usize,
}

struct Copy {
    flag: u8,
    variables: Variables,
}

impl<M: Medium> UbootEnvironment<M> {
    /// Copies of `size` bytes at these offsets in bytes. Refused where one lies over the other.
    pub fn new(medium: M, first: u64, second: u64, size: usize) -> Result<Self, ControlError> {
        if !(64..=COPY_BYTES_MAX).contains(&size) || first.abs_diff(second) < size as u64 {
            return Err(ControlError::Layout { size, first, second });
        }
        Ok(Self {
            medium,
            first,
            second,
            size,
        })
    }

    /// Gives the medium back.
    pub fn into_medium(self) -> M {
        self.medium
    }

    fn copy(&mut self, at: u64) -> Result<Option<Copy>, ControlError> {
        let mut bytes = vec![0; self.size];
        self.medium
            .read_at(at, &mut bytes)
            .map_err(|cause| ControlError::Medium { act: "read", cause })?;
        Ok(decode(&bytes, 5).map(|variables| Copy {
            flag: bytes[4],
            variables,
        }))
    }

    /// The copy that counts, and where the other one lies.
    fn counting(&mut self) -> Result<(Copy, u64), ControlError> {
        match (self.copy(self.first)?, self.copy(self.second)?) {
            (Some(first), Some(second)) => {
                let second_is_newer = match (first.flag, second.flag) {
                    (u8::MAX, 0) => true,
                    (0, u8::MAX) => false,
                    (first, second) => second > first,
                };
                Ok(if second_is_newer {
                    (second, self.first)
                } else {
                    (first, self.second)
                })
            }
            (Some(first), None) => Ok((first, self.second)),
            (None, Some(second)) => Ok((second, self.first)),
            (None, None) => Err(ControlError::Damaged),
        }
    }
}

impl<M: Medium> BootControl for UbootEnvironment<M> {
    fn read(&mut self) -> Result<Control, ControlError> {
        get(&self.counting()?.0.variables).ok_or(ControlError::Damaged)
    }

    fn write(&mut self, control: Control) -> Result<(), ControlError> {
        let (mut now, at) = self.counting()?;
        put(&mut now.variables, control);
        let flag = now.flag.wrapping_add(1);
        let bytes = encode(&now.variables, self.size, Some(flag)).ok_or(ControlError::Full)?;
        store(&mut self.medium, at, &bytes)?;
        if self.read()? != control {
            return Err(ControlError::ReadBack);
        }
        Ok(())
    }
}
