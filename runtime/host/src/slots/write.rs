//! Brings an image into a slot: streamed into its place, each block verified as it comes, nothing beside it.
//!
//! Owns the order. A block that the slot holds already stays, which is also how a write that was cut goes on; one of zeros is written; one that the running
//! slot holds anywhere is copied from there; the others are fetched, in runs. Invariants: what is not the block that the index names is not written;
//! nothing is said to be written before it is synced. Whether what the medium keeps is right is [`read_back`]'s to say.

use std::error::Error;
use std::io;

use super::index::{Hash, Index, hash_of};
use super::medium::Medium;

/// Bytes that are read at once where blocks are looked for.
const READ_BYTES: u64 = 1 << 20;
/// Bytes between two syncs: what a cut costs to write again, and what the page cache has to hold.
const SYNC_BYTES: u64 = 16 << 20;
/// Bytes in the middle of a run that are fetched although they are there: a request more costs about as much.
const GAP_BYTES: u64 = 16 << 10;
/// Bytes between two words about how far it is.
const TELL_BYTES: u64 = 1 << 20;

/// Why a slot was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The slot fails.
    #[error("cannot {act} the slot")]
    Slot {
        /// What was tried.
        act: &'static str,
        /// What the disk says.
        #[source]
        cause: io::Error,
    },
    /// The slot has no room for the image.
    #[error("the slot has {room} bytes, the image {bytes}")]
    TooSmall {
        /// Bytes of the slot.
        room: u64,
        /// Bytes of the image.
        bytes: u64,
    },
    /// The blocks cannot be had; that may pass.
    #[error("cannot fetch the image")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    /// Whoever was asked gave something else.
    #[error("block {block} of the image is not what its index says")]
    Wrong {
        /// Which.
        block: usize,
    },
    /// Nobody wants it any more.
    #[error("it was called off")]
    CalledOff,
}

impl WriteError {
    /// Whether the image itself can never be written here: then it is not to be tried again by itself.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::TooSmall { .. } | Self::Wrong { .. })
    }
}

/// Where the blocks that are not there come from.
pub trait Source {
    /// Gives the bytes `from..to` to `take`, in order and in pieces of any size. Ranges are asked for from front to back.
    fn fetch(
        &mut self,
        from: u64,
        to: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError>;

    /// What was given last is wrong. Says whether there is somebody else to ask.
    fn distrust(&mut self) -> bool;
}

/// How the bytes of an image came into the slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// They were there.
    pub kept: u64,
    /// They are zeros.
    pub zeros: u64,
    /// The running slot had them.
    pub copied: u64,
    /// They were fetched.
    pub fetched: u64,
    /// What was fetched beside them: between two blocks that were missing, or wrong.
    pub beside: u64,
}

impl Moved {
    /// All that is in the slot.
    pub fn sum(&self) -> u64 {
        self.kept + self.zeros + self.copied + self.fetched
    }
}

/// Is told how far it is; answers whether to go on.
pub type Tell<'a> = &'a mut dyn FnMut(&Moved) -> bool;

/// A slot to be written, and how much room it has.
pub struct Room<'a> {
    /// The slot.
    pub slot: &'a mut dyn Medium,
    /// Its bytes.
    pub bytes: u64,
}

/// Writes the image into the slot. A slot that is right already is not written to.
pub fn write(
    index: &Index,
    into: Room<'_>,
    running: Option<Room<'_>>,
    source: &mut dyn Source,
    tell: Tell<'_>,
) -> Result<Moved, WriteError> {
    if into.bytes < index.bytes() {
        return Err(WriteError::TooSmall {
            room: into.bytes,
            bytes: index.bytes(),
        });
    }
    let mut writing = Writing {
        index,
        slot: into.slot,
        missing: vec![true; index.count()],
        moved: Moved::default(),
        told: 0,
        unsynced: 0,
        fetched_to: 0,
        tell,
    };
    writing.keep()?;
    writing.zero()?;
    if let Some(running) = running {
        writing.copy(running)?;
    }
    writing.fetch(source)?;
    writing.sync()?;
    Ok(writing.moved)
}

/// Reads the slot from its medium and says whether every block is right.
pub fn read_back(index: &Index, slot: &mut dyn Medium) -> Result<bool, WriteError> {
    slot.sync().map_err(failed("sync"))?;
    slot.forget().map_err(failed("read back"))?;
    let mut all = true;
    let per_read = (READ_BYTES / index.block_bytes()).max(1) as usize;
    let mut buffer = Vec::new();
    for first in (0..index.count()).step_by(per_read) {
        let last = (first + per_read).min(index.count());
        let (from, to) = (index.place(first).0, index.place(last - 1).1);
        buffer.resize((to - from) as usize, 0);
        slot.read_at(from, &mut buffer).map_err(failed("read back"))?;
        let blocks = buffer.chunks(index.block_bytes() as usize).zip(first..last);
        all &= blocks.fold(true, |all, (bytes, block)| all & index.is_right(block, bytes));
    }
    Ok(all)
}

fn failed(act: &'static str) -> impl Fn(io::Error) -> WriteError {
    move |cause| WriteError::Slot { act, cause }
}

struct Writing<'a> {
    index: &'a Index,
    slot: &'a mut dyn Medium,
    missing: Vec<bool>,
    moved: Moved,
    told: u64,
    unsynced: u64,
    /// No block before this one is missing, once what can be had here was had.
    fetched_to: usize,
    tell: Tell<'a>,
}

impl Writing<'_> {
    fn is_complete(&self) -> bool {
        !self.missing.contains(&true)
    }

    fn tell(&mut self) -> Result<(), WriteError> {
        if self.moved.sum() < self.told + TELL_BYTES && self.moved.sum() < self.index.bytes() {
            return Ok(());
        }
        self.told = self.moved.sum();
        match (self.tell)(&self.moved) {
            true => Ok(()),
            false => Err(WriteError::CalledOff),
        }
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        self.unsynced = 0;
        self.slot.sync().map_err(failed("sync"))
    }

    /// Writes a block that was found to be right.
    fn put(&mut self, block: usize, bytes: &[u8]) -> Result<(), WriteError> {
        let (from, _) = self.index.place(block);
        self.slot.write_at(from, bytes).map_err(failed("write"))?;
        self.missing[block] = false;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Finds what the slot holds already. What cannot be read is written.
    fn keep(&mut self) -> Result<(), WriteError> {
        let mut buffer = Vec::new();
        let per_read = (READ_BYTES / self.index.block_bytes()).max(1) as usize;
        for first in (0..self.index.count()).step_by(per_read) {
            let last = (first + per_read).min(self.index.count());
            let (from, to) = (self.index.place(first).0, self.index.place(last - 1).1);
            buffer.resize((to - from) as usize, 0);
            if self.slot.read_at(from, &mut buffer).is_err() {
                continue;
            }
            let blocks = buffer.chunks(self.index.block_bytes() as usize);
            for (bytes, block) in blocks.zip(first..last) {
                if self.index.is_right(block, bytes) {
                    self.missing[block] = false;
                    self.moved.kept += bytes.len() as u64;
                }
            }
            self.tell()?;
        }
        Ok(())
    }

    /// Writes what is all zeros, which is most of what a file system has free.
    fn zero(&mut self) -> Result<(), WriteError> {
        let zeros = vec![0; self.index.block_bytes() as usize];
        let known = hash_of(&zeros);
        for block in 0..self.index.count() {
            let (from, to) = self.index.place(block);
            let is_whole = to - from == self.index.block_bytes();
            if self.missing[block] && is_whole && *self.index.hash(block) == known {
                self.put(block, &zeros)?;
                self.moved.zeros += to - from;
                self.tell()?;
            }
        }
        Ok(())
    }

    /// Copies what the running slot has, wherever it has it: files move when others before them grow.
    fn copy(&mut self, running: Room<'_>) -> Result<(), WriteError> {
        let mut wanted: Vec<(u64, u32)> = (0..self.index.count())
            .filter(|block| self.missing[*block])
            .map(|block| (prefix(self.index.hash(block)), block as u32))
            .collect();
        wanted.sort_unstable();
        let mut buffer = vec![0; READ_BYTES as usize];
        let mut at = 0;
        while at < running.bytes && !self.is_complete() {
            let count = READ_BYTES.min(running.bytes - at) as usize;
            // A running slot with a damaged sector still has the others.
            if running.slot.read_at(at, &mut buffer[..count]).is_ok() {
                for bytes in buffer[..count].chunks(self.index.block_bytes() as usize) {
                    self.copy_where_wanted(&wanted, bytes)?;
                }
            }
            at += count as u64;
        }
        Ok(())
    }

    fn copy_where_wanted(&mut self, wanted: &[(u64, u32)], bytes: &[u8]) -> Result<(), WriteError> {
        let hash = hash_of(bytes);
        let key = prefix(&hash);
        let first = wanted.partition_point(|(known, _)| *known < key);
        for (_, block) in wanted[first..].iter().take_while(|(known, _)| *known == key) {
            let block = *block as usize;
            if self.missing[block] && self.index.is_right(block, bytes) {
                self.put(block, bytes)?;
                self.moved.copied += bytes.len() as u64;
                self.tell()?;
            }
        }
        Ok(())
    }

    /// Fetches the rest; asks somebody else where a block is wrong, as long as there is somebody.
    fn fetch(&mut self, source: &mut dyn Source) -> Result<(), WriteError> {
        while let Some((first, last)) = self.next_run() {
            match self.fetch_run(first, last, source) {
                Err(WriteError::Wrong { .. }) if source.distrust() => {}
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// The blocks from the first that is missing to before the first longer gap.
    fn next_run(&mut self) -> Option<(usize, usize)> {
        let gap_max = (GAP_BYTES / self.index.block_bytes()) as usize;
        let rest = &self.missing[self.fetched_to..];
        let first = self.fetched_to + rest.iter().position(|missing| *missing)?;
        self.fetched_to = first;
        let mut last = first + 1;
        for block in first + 1..self.index.count() {
            if self.missing[block] {
                last = block + 1;
            } else if block - last >= gap_max {
                break;
            }
        }
        Some((first, last))
    }

    fn fetch_run(&mut self, first: usize, last: usize, source: &mut dyn Source) -> Result<(), WriteError> {
        let (from, to) = (self.index.place(first).0, self.index.place(last - 1).1);
        let mut block = first;
        let mut held: Vec<u8> = Vec::new();
        source.fetch(from, to, &mut |mut bytes| {
            while !bytes.is_empty() {
                let (start, end) = self.index.place(block.min(last - 1));
                if block >= last {
                    return Err(WriteError::Wrong { block });
                }
                let wants = (end - start) as usize - held.len();
                let (now, rest) = bytes.split_at(wants.min(bytes.len()));
                held.extend_from_slice(now);
                bytes = rest;
                if held.len() as u64 == end - start {
                    self.take(block, &held)?;
                    held.clear();
                    block += 1;
                }
            }
            Ok(())
        })?;
        match block == last {
            true => Ok(()),
            false => Err(WriteError::Wrong { block }),
        }
    }

    fn take(&mut self, block: usize, bytes: &[u8]) -> Result<(), WriteError> {
        let is_right = self.index.is_right(block, bytes);
        if !is_right || !self.missing[block] {
            self.moved.beside += bytes.len() as u64;
        }
        match (is_right, self.missing[block]) {
            (false, _) => Err(WriteError::Wrong { block }),
            // It lies in a gap.
            (true, false) => Ok(()),
            (true, true) => {
                self.put(block, bytes)?;
                self.moved.fetched += bytes.len() as u64;
                self.tell()
            }
        }
    }
}

/// The beginning of a hash: enough to find it by.
fn prefix(hash: &Hash) -> u64 {
    let (first, _) = hash.as_chunks::<8>();
    u64::from_be_bytes(first[0])
}
