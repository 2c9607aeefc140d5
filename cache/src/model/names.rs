//! Finding a tensor by its name.

use std::hash::{BuildHasher, RandomState};

use super::tensor::TensorInfo;

/// An open-addressed table of positions in a table of names, about 8 bytes per name: the names
/// themselves stay where they are. Keyed by a random hash, because whoever makes a file chooses its
/// names.
#[derive(Clone)]
pub(super) struct NameIndex {
    hasher: RandomState,
    /// 0 is free. Others are a position + 1 and, in the `tag` bits above it, what there is room for
    /// of the hash, so that hardly any name is looked at that is not the one asked for. A power of
    /// two, at least a quarter free.
    slots: Box<[u32]>,
    tag: u32,
}

/// A table of names.
pub(super) trait Names {
    /// How many: fewer than 2³² (a header of 100 MB has no room for more).
    fn count(&self) -> usize;

    /// The name at a position.
    fn name(&self, position: usize) -> &str;
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

impl<T: Named> Named for &T {
    fn name(&self) -> &str {
        (**self).name()
    }
}

impl<T: Named> Names for [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn name(&self, position: usize) -> &str {
        self[position].name()
    }
}

/// Two positions of one name.
#[derive(Debug)]
pub(super) struct Twice(pub usize, pub usize);

impl NameIndex {
    /// Indexes `names`. Of those that occur twice, the one whose second place comes first is
    /// reported.
    pub(super) fn new(names: &(impl Names + ?Sized)) -> Result<Self, Twice> {
        let count = names.count();
        let slots = (count / 3 * 4 + 4).next_power_of_two();
        let position_bits = u32::BITS - (count as u32).leading_zeros();
        let mut index = Self {
            hasher: RandomState::new(),
            slots: vec![0; slots].into_boxed_slice(),
            tag: u32::MAX.checked_shl(position_bits).unwrap_or(0),
        };
        for position in 0..count {
            let hash = index.hasher.hash_one(names.name(position));
            match index.probe(hash, names.name(position), names) {
                Ok(first) => return Err(Twice(first, position)),
                Err(free) => index.slots[free] = (position as u32 + 1) | index.tag_of(hash),
            }
        }
        Ok(index)
    }

    /// The position of `name` in the table that the index was made from.
    pub(super) fn position(&self, name: &str, names: &(impl Names + ?Sized)) -> Option<usize> {
        self.probe(self.hasher.hash_one(name), name, names).ok()
    }

    /// The index of the same names in another order: what was at a position is now at the one that
    /// `to` gives for it.
    pub(super) fn moved(mut self, to: &[u32]) -> Self {
        for slot in &mut self.slots {
            if let Some(position) = (*slot & !self.tag).checked_sub(1) {
                *slot = (*slot & self.tag) | (to[position as usize] + 1);
            }
        }
        self
    }

    /// The bits of a hash that do not choose its slot.
    fn tag_of(&self, hash: u64) -> u32 {
        (hash >> 32) as u32 & self.tag
    }

    /// The position of a name, or the free slot where it would be.
    fn probe(&self, hash: u64, name: &str, names: &(impl Names + ?Sized)) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let tag = self.tag_of(hash);
        let mut slot = hash as usize & mask;
        loop {
            let taken = self.slots[slot];
            if taken == 0 {
                return Err(slot);
            }
            if taken & self.tag == tag {
                let position = (taken & !self.tag) as usize - 1;
                if names.name(position) == name {
                    return Ok(position);
                }
            }
            slot = (slot + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    impl Named for String {
        fn name(&self) -> &str {
            self
        }
    }

    proptest! {
        #[test]
        fn an_index_finds_what_a_hash_map_finds_also_when_it_is_moved(
            names in prop::collection::vec("[ab]{0,6}", 0..200),
            asked in prop::collection::vec("[ab]{0,7}", 0..50),
        ) {
            let mut known: HashMap<&str, usize> = HashMap::new();
            let mut twice = None;
            for (position, name) in names.iter().enumerate() {
                if let Some(&first) = known.get(&**name) {
                    twice.get_or_insert((first, position));
                } else {
                    known.insert(name, position);
                }
            }
            let index = match (NameIndex::new(&names[..]), twice) {
                (Ok(index), None) => index,
                (Err(Twice(first, second)), Some(twice)) => {
                    prop_assert_eq!((first, second), twice);
                    return Ok(());
                }
                (index, twice) => panic!("{:?} beside {twice:?}", index.err()),
            };
            let all = || asked.iter().chain(&names);
            for name in all() {
                let found = index.position(name, &names[..]);
                prop_assert_eq!(found, known.get(&**name).copied());
            }
            let backwards: Vec<String> = names.iter().rev().cloned().collect();
            let to: Vec<u32> = (0..names.len() as u32).rev().collect();
            let index = index.moved(&to);
            for name in all() {
                let found = known.get(&**name).map(|position| to[*position] as usize);
                prop_assert_eq!(index.position(name, &backwards[..]), found);
            }
        }
    }
}
