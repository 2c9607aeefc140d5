//! An ordered map of free ranges that joins neighbours.

use std::collections::BTreeMap;

/// Ranges of addresses, disjoint, neighbours joined. Ranges of different homes never join: homes
/// are mapped with a page between them.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    ranges: BTreeMap<usize, usize>,
    bytes: usize,
}

impl Extents {
    /// Bytes in all ranges.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a range that overlaps none.
    pub(crate) fn insert(&mut self, mut start: usize, mut len: usize) {
        if len == 0 {
            return;
        }
        self.bytes += len;
        if let Some((&before, &size)) = self.ranges.range(..start).next_back() {
            debug_assert!(before + size <= start, "ranges overlap");
            if before + size == start {
                start = before;
                len += size;
            }
        }
        if let Some(size) = self.ranges.remove(&(start + len)) {
            len += size;
        }
        self.ranges.insert(start, len);
    }

    /// Takes up to `wanted` bytes from one range: the smallest that holds them all, else the
    /// largest there is.
    pub(crate) fn take(&mut self, wanted: usize) -> Option<(usize, usize)> {
        let fits = self.ranges.iter().filter(|(_, len)| **len >= wanted);
        let best = fits.min_by_key(|(_, len)| **len);
        let (&start, &len) = best.or_else(|| self.ranges.iter().max_by_key(|(_, len)| **len))?;
        self.ranges.remove(&start);
        let taken = len.min(wanted);
        if taken < len {
            self.ranges.insert(start + taken, len - taken);
        }
        self.bytes -= taken;
        Some((start, taken))
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        self.ranges.iter().map(|(start, len)| (*start, *len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extents_agree_with_a_set_of_pages(
            operations in proptest::collection::vec((any::<bool>(), 1_usize..16), 1..200)
        ) {
            let mut extents = Extents::default();
            let mut free: Vec<bool> = vec![false; 256];
            let mut taken: Vec<(usize, usize)> = vec![(0, 256)];
            for (give, amount) in operations {
                if give {
                    if let Some((start, len)) = taken.pop() {
                        let part = len.min(amount);
                        extents.insert(start, part);
                        free[start..start + part].fill(true);
                        if part < len {
                            taken.push((start + part, len - part));
                        }
                    }
                } else if let Some((start, len)) = extents.take(amount) {
                    prop_assert!(len <= amount);
                    prop_assert!(free[start..start + len].iter().all(|page| *page));
                    free[start..start + len].fill(false);
                    taken.push((start, len));
                }
                prop_assert_eq!(extents.bytes(), free.iter().filter(|page| **page).count());
                let ranges: Vec<_> = extents.iter().collect();
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 < pair[1].0, "neighbours are joined");
                }
            }
        }
    }
}
