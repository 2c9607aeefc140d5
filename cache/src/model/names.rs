//! Finding a tensor by its name.

use std::hash::{BuildHasher, RandomState};

use super::tensor::TensorInfo;

/// An open-addressed table of positions in a tensor table, about 8 bytes per tensor: the names
/// themselves stay where they are. Keyed by a random hash, because whoever makes a file chooses its
/// names.
#[derive(Clone)]
pub(super) struct NameIndex {
    hasher: RandomState,
    /// Positions + 1; 0 is free. A power of two, at least a quarter free.
    slots: Box<[u32]>,
}

/// What has a name.
pub(super) trait Named {
    /// The name.
    fn name(&self) -> &str;
}

impl Named for TensorInfo {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Two positions of one name.
#[derive(Debug)]
pub(super) struct Twice(pub usize, pub usize);

impl NameIndex {
    /// Indexes `tensors`, fewer than 2³² (a header of 100 MB has no room for more).
    pub(super) fn new(tensors: &[impl Named]) -> Result<Self, Twice> {
        let slots = (tensors.len() / 3 * 4 + 4).next_power_of_two();
        let mut index = Self {
            hasher: RandomState::new(),
            slots: vec![0; slots].into_boxed_slice(),
        };
        for (position, tensor) in tensors.iter().enumerate() {
            let (slot, found) = index.probe(tensor.name(), tensors);
            if let Some(first) = found {
                return Err(Twice(first, position));
            }
            index.slots[slot] = position as u32 + 1;
        }
        Ok(index)
    }

    /// The position of `name` in the table that the index was made from.
    pub(super) fn position(&self, name: &str, tensors: &[impl Named]) -> Option<usize> {
        self.probe(name, tensors).1
    }

    fn probe(&self, name: &str, tensors: &[impl Named]) -> (usize, Option<usize>) {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(name) as usize & mask;
        loop {
            match self.slots[slot] as usize {
                0 => return (slot, None),
                taken if tensors[taken - 1].name() == name => return (slot, Some(taken - 1)),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}
