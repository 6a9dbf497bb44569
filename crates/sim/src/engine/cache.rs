//! The block cache of one pod: reference-counted blocks of a fixed number of tokens, as in vLLM.
//!
//! A block is either *referenced* by running sequences or *free*. A free block keeps its key, and with it the
//! prefix it stands for, until it is handed out again; free blocks are handed out in the order in which they
//! became free (least recently used first), blocks without a key before any other. A sequence gives its blocks back
//! last one first, so that the end of a prompt is forgotten before its beginning.
//!
//! Several blocks may carry one key (two sequences computed the same tokens): lookups use the oldest of them.
//!
//! Every operation is all or nothing, and constant time per block. A used block costs about 40 bytes; unused
//! capacity costs nothing.

use std::collections::{HashMap, hash_map};

use crate::ids::BuildIdHasher;

/// A block, by its position in the cache.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockId(u32);

impl BlockId {
    /// The position as a number.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The cache was asked for more blocks than it has free.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not enough free blocks")]
pub struct Full;

/// What [`BlockCache::entries`] tells of one block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The block.
    pub block: BlockId,
    /// The key, once the block is full.
    pub key: Option<u64>,
    /// Number of sequences that hold it.
    pub references: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub struct BlockCache {
    capacity: u32,
    /// Every block used so far; those behind the end are free and without key.
    blocks: Vec<Block>,
    /// The blocks of each key.
    by_key: HashMap<u64, Twins, BuildIdHasher>,
    /// Ends of the list of free used blocks, least recently freed first.
    head: u32,
    tail: u32,
    referenced: u32,
    /// The keys of evicted blocks, if anybody asks for them.
    evicted: Option<Vec<u64>>,
}

#[derive(Debug)]
struct Block {
    key: Option<u64>,
    references: u32,
    /// Neighbours in the list of free blocks; meaningless while referenced.
    previous: u32,
    next: u32,
    /// Neighbours in the list of blocks with the same key; meaningless without key.
    older: u32,
    younger: u32,
}

/// The ends of the list of blocks with one key, which is in order of sealing.
#[derive(Clone, Copy, Debug)]
struct Twins {
    oldest: u32,
    youngest: u32,
}

/// The end of a list.
const NIL: u32 = u32::MAX;

impl BlockCache {
    /// An empty cache of `capacity` blocks.
    pub fn new(capacity: u32) -> Self {
        Self {
            capacity: capacity.min(NIL - 1),
            blocks: Vec::new(),
            by_key: HashMap::default(),
            head: NIL,
            tail: NIL,
            referenced: 0,
            evicted: None,
        }
    }

    /// Remembers from now on what is evicted, for [`take_evicted`](Self::take_evicted).
    pub fn watch(&mut self) {
        self.evicted = Some(Vec::new());
    }

    /// The keys of the blocks that were handed out again since the last time, in that order.
    pub fn take_evicted(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.evicted.iter_mut().flat_map(|evicted| evicted.drain(..))
    }

    /// Forgets every key of a free block; referenced blocks stay.
    pub fn forget(&mut self) {
        for index in 0..self.blocks.len() as u32 {
            if self.blocks[index as usize].references == 0 {
                self.drop_key(index);
            }
        }
    }

    /// Takes the blocks named by `hits` (which [`find`](Self::find) has found) and `fresh` new ones, and appends
    /// them to `table`.
    pub fn acquire(
        &mut self,
        hits: &[u64],
        fresh: usize,
        table: &mut Vec<BlockId>,
    ) -> Result<(), Full> {
        let found = hits.iter().map_while(|key| self.oldest(*key));
        let revived = found.filter(|&b| self.blocks[b as usize].references == 0).count();
        if fresh + revived > self.free() {
            return Err(Full);
        }
        table.reserve(hits.len() + fresh);
        for key in hits {
            // A key that is gone ends the run of hits; the caller sees it in the length of the table.
            let Some(index) = self.oldest(*key) else { break };
            if self.blocks[index as usize].references == 0 {
                self.unlink(index);
                self.referenced += 1;
            }
            self.blocks[index as usize].references += 1;
            table.push(BlockId(index));
        }
        for _ in 0..fresh {
            table.push(self.take()?);
        }
        Ok(())
    }

    /// Gives a block that has become full its key. Returns whether it had none.
    pub fn seal(&mut self, block: BlockId, key: u64) -> bool {
        let Some(sealed) = self.blocks.get_mut(block.index()) else { return false };
        if sealed.key.is_some() {
            return false;
        }
        sealed.key = Some(key);
        sealed.older = NIL;
        sealed.younger = NIL;
        match self.by_key.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Twins { oldest: block.0, youngest: block.0 });
            }
            hash_map::Entry::Occupied(mut twins) => {
                let before = std::mem::replace(&mut twins.get_mut().youngest, block.0);
                self.blocks[block.index()].older = before;
                self.blocks[before as usize].younger = block.0;
            }
        }
        true
    }

    /// Gives one reference to each block of `table` back and empties it.
    pub fn release(&mut self, table: &mut Vec<BlockId>) {
        for block in table.drain(..).rev() {
            let Some(released) = self.blocks.get_mut(block.index()) else { continue };
            released.references = released.references.saturating_sub(1);
            if released.references == 0 {
                self.referenced -= 1;
                // A block that holds nothing for anybody is the first to be used again.
                if released.key.is_none() {
                    self.prepend(block.0);
                } else {
                    self.append(block.0);
                }
            }
        }
    }

    /// How many leading keys of a chain are present.
    pub fn find(&self, chain: &[u64]) -> usize {
        chain.iter().take_while(|key| self.by_key.contains_key(key)).count()
    }

    /// The number of blocks.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// The number of blocks that no sequence holds.
    pub fn free(&self) -> usize {
        (self.capacity - self.referenced) as usize
    }

    /// The number of blocks that sequences hold.
    pub fn referenced(&self) -> usize {
        self.referenced as usize
    }

    /// The number of different keys present.
    pub fn keys(&self) -> usize {
        self.by_key.len()
    }

    /// Every used block: first the free ones in the order in which they will be handed out, then the referenced.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let mut at = self.head;
        let free = std::iter::from_fn(move || {
            let block = self.blocks.get(at as usize)?;
            let entry = Entry { block: BlockId(at), key: block.key, references: 0 };
            at = block.next;
            Some(entry)
        });
        let all = self.blocks.iter().enumerate().map(|(index, block)| Entry {
            block: BlockId(index as u32),
            key: block.key,
            references: block.references,
        });
        free.chain(all.filter(|entry| entry.references > 0))
    }

    /// Hands out the block that is first in line.
    fn take(&mut self) -> Result<BlockId, Full> {
        let used = self.blocks.len() as u32;
        let index = if used < self.capacity {
            self.blocks.push(Block {
                key: None,
                references: 0,
                previous: NIL,
                next: NIL,
                older: NIL,
                younger: NIL,
            });
            used
        } else if self.head != NIL {
            let index = self.head;
            self.unlink(index);
            if let (Some(evicted), Some(key)) = (&mut self.evicted, self.blocks[index as usize].key)
            {
                evicted.push(key);
            }
            self.drop_key(index);
            index
        } else {
            return Err(Full);
        };
        self.blocks[index as usize].references = 1;
        self.referenced += 1;
        Ok(BlockId(index))
    }

    /// Takes the key from a block; a twin answers for the key from now on, if there is one.
    fn drop_key(&mut self, index: u32) {
        let block = &mut self.blocks[index as usize];
        let Some(key) = block.key.take() else { return };
        let (older, younger) = (block.older, block.younger);
        if older == NIL && younger == NIL {
            self.by_key.remove(&key);
            return;
        }
        let Some(twins) = self.by_key.get_mut(&key) else { return };
        match older {
            NIL => twins.oldest = younger,
            older => self.blocks[older as usize].younger = younger,
        }
        match younger {
            NIL => twins.youngest = older,
            younger => self.blocks[younger as usize].older = older,
        }
    }

    fn oldest(&self, key: u64) -> Option<u32> {
        self.by_key.get(&key).map(|twins| twins.oldest)
    }

    fn append(&mut self, index: u32) {
        let block = &mut self.blocks[index as usize];
        block.previous = self.tail;
        block.next = NIL;
        match self.tail {
            NIL => self.head = index,
            tail => self.blocks[tail as usize].next = index,
        }
        self.tail = index;
    }

    fn prepend(&mut self, index: u32) {
        let block = &mut self.blocks[index as usize];
        block.previous = NIL;
        block.next = self.head;
        match self.head {
            NIL => self.tail = index,
            head => self.blocks[head as usize].previous = index,
        }
        self.head = index;
    }

    fn unlink(&mut self, index: u32) {
        let Block { previous, next, .. } = self.blocks[index as usize];
        match previous {
            NIL => self.head = next,
            previous => self.blocks[previous as usize].next = next,
        }
        match next {
            NIL => self.tail = previous,
            next => self.blocks[next as usize].previous = previous,
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
