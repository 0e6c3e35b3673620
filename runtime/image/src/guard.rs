//! A watch over streams from outside: how far they expand, and what they leave on the disk.
//!
//! Owns [`Guarded`], which stands between a decoder and what reads it. Refuses to know what flows. Invariant: what was refused once stays an
//! error, so no caller can read on.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::limits::Limits;

/// How many bytes flow between two looks at the disk.
const LOOK_EVERY_BYTES: u64 = 4 << 20;

/// Why a stream was stopped. Travels inside an `io::Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefusal {
    /// It expands like a bomb.
    #[error("compressed data expands more than {max} times")]
    Expansion {
        /// [`Limits::expansion_max`].
        max: u64,
    },
    /// The disk would be left too full.
    #[error(
        "no space left on device: {reserve_bytes} bytes are kept free; remove what nothing uses (kakoi system prune), or images (kakoi rmi)"
    )]
    Disk {
        /// [`Limits::reserve_bytes`].
        reserve_bytes: u64,
    },
}

/// Too little room for what is about to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no space left on device: at least {needed} bytes are needed and {free} are free, of which {reserve} are kept; remove what nothing uses (kakoi system prune), or images (kakoi rmi)"
)]
pub struct RoomError {
    /// Bytes that will be written for certain.
    pub needed: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes of these that are kept free ([`Limits::reserve_bytes`]).
    pub reserve: u64,
}

/// Looks for room before anything is written.
pub(crate) fn check_room(disk: &Path, needed: u64, limits: &Limits) -> io::Result<Result<(), RoomError>> {
    let (free, reserve) = (free_bytes(disk)?, limits.reserve_bytes);
    Ok(match needed > free.saturating_sub(reserve) {
        true => Err(RoomError {
            needed,
            free,
            reserve,
        }),
        false => Ok(()),
    })
}

/// Counts what is taken from a reader, for a [`Guarded`] further up.
pub(crate) struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R> Counted<R> {
    pub(crate) fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let count = Rc::new(Cell::new(0));
        let counted = Self {
            inner,
            count: Rc::clone(&count),
        };
        (counted, count)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Reads on for as long as expansion and disk allow.
pub(crate) struct Guarded<R> {
    inner: R,
    compressed: Rc<Cell<u64>>,
    bytes: u64,
    looked_at: u64,
    disk: PathBuf,
    expansion_max: u64,
    expansion_free_bytes: u64,
    reserve_bytes: u64,
    refusal: Option<StreamRefusal>,
}

impl<R: Read> Guarded<R> {
    /// `compressed` counts what the decoder below has taken in; `disk` is where the stream ends up.
    pub(crate) fn new(inner: R, compressed: Rc<Cell<u64>>, disk: &Path, limits: &Limits) -> Self {
        Self {
            inner,
            compressed,
            bytes: 0,
            looked_at: 0,
            disk: disk.to_owned(),
            expansion_max: limits.expansion_max,
            expansion_free_bytes: limits.expansion_free_bytes,
            reserve_bytes: limits.reserve_bytes,
            refusal: None,
        }
    }

    fn judge(&mut self) -> io::Result<()> {
        let allowed = self.compressed.get().saturating_mul(self.expansion_max);
        if self.bytes > self.expansion_free_bytes && self.bytes > allowed {
            self.refusal = Some(StreamRefusal::Expansion {
                max: self.expansion_max,
            });
        } else if self.looked_at == 0 || self.bytes.saturating_sub(self.looked_at) >= LOOK_EVERY_BYTES {
            self.looked_at = self.bytes.max(1);
            if free_bytes(&self.disk)? < self.reserve_bytes {
                self.refusal = Some(StreamRefusal::Disk {
                    reserve_bytes: self.reserve_bytes,
                });
            }
        }
        match self.refusal {
            None => Ok(()),
            Some(refusal) => Err(as_io_error(refusal)),
        }
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(refusal) = self.refusal {
            return Err(as_io_error(refusal));
        }
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        self.judge()?;
        Ok(count)
    }
}

fn as_io_error(refusal: StreamRefusal) -> io::Error {
    let kind = match refusal {
        StreamRefusal::Expansion { .. } => io::ErrorKind::InvalidData,
        StreamRefusal::Disk { .. } => io::ErrorKind::StorageFull,
    };
    io::Error::new(kind, refusal)
}

/// Bytes free to root on the file system that holds `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let statistics = nix::sys::statvfs::statvfs(path)?;
    Ok(statistics
        .blocks_free()
        .saturating_mul(statistics.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            expansion_max: 10,
            expansion_free_bytes: 100,
            reserve_bytes: 0,
            ..Limits::DEVICE
        }
    }

    #[test]
    fn a_bomb_is_stopped_and_stays_stopped() {
        let compressed = Rc::new(Cell::new(20));
        let mut calm = Guarded::new(
            io::repeat(0).take(200),
            Rc::clone(&compressed),
            Path::new("/"),
            &limits(),
        );
        assert_eq!(io::copy(&mut calm, &mut io::sink()).expect("within"), 200);
        let mut bomb = Guarded::new(io::repeat(0).take(201), compressed, Path::new("/"), &limits());
        assert!(io::copy(&mut bomb, &mut io::sink()).is_err());
        assert!(bomb.read(&mut [0]).is_err());
    }

    #[test]
    fn a_full_disk_stops_before_it_is_full() {
        let full = Limits {
            reserve_bytes: u64::MAX,
            ..limits()
        };
        let mut stream = Guarded::new(&b"x"[..], Rc::new(Cell::new(1)), Path::new("/"), &full);
        let error = stream.read(&mut [0]).expect_err("no disk has so much");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
