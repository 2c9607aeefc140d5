//! Which stretches of which files are mapped, and what is copied beside them.

use std::ops::Range;

use crate::model::{Model, TensorInfo};

/// Copies begin on cache lines, as in `anonymous` storage.
const ALIGNMENT: u64 = 64;

/// A stretch of a file that is mapped in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Which of the model's files.
    pub(super) file: usize,
    /// Where in the file, whole pages.
    pub(super) offset: u64,
    /// Where in the region.
    pub(super) at: u64,
    /// Whole pages; the last may reach beyond the end of the file.
    pub(super) len: u64,
}

/// Where each tensor comes to lie in a region of mapped files, with the copies at its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The place of each tensor in the region, bytes.
    pub(super) offsets: Vec<u64>,
    pub(super) stretches: Vec<Stretch>,
    /// The tensors that are copied, in file order: their elements are not aligned in the file.
    pub(super) copied: Vec<usize>,
    /// Where the copies are, whole pages.
    pub(super) copies: Range<u64>,
}

impl Plan {
    pub(super) fn new(model: &Model) -> Plan {
        let page = rustix::param::page_size() as u64;
        Plan::of(model.tensors(), model.files().len(), page)
    }

    fn of(tensors: &[TensorInfo], files: usize, page: u64) -> Plan {
        let mut ranges: Vec<Option<Range<u64>>> = vec![None; files];
        // Views of one storage may overlap, but two tensors that are written to may not.
        let mut covered = vec![0_u64; files];
        let is_mapped = tensors.iter().map(|tensor| {
            let covered = &mut covered[tensor.file as usize];
            let apart = tensor.offset >= *covered && tensor.tied_to.is_none();
            let is_mapped = apart && tensor.bytes > 0 && tensor.is_aligned();
            if is_mapped {
                *covered = tensor.offset.saturating_add(tensor.bytes);
            }
            is_mapped
        });
        let is_mapped: Vec<bool> = is_mapped.collect();
        let mapped = tensors.iter().zip(&is_mapped);
        for (tensor, _) in mapped.filter(|(_, is_mapped)| **is_mapped) {
            let end = tensor.offset.saturating_add(tensor.bytes);
            let range = &mut ranges[tensor.file as usize];
            *range = Some(match range {
                Some(known) => known.start.min(tensor.offset)..known.end.max(end),
                None => tensor.offset..end,
            });
        }
        let mut stretches = Vec::new();
        let mut end = 0_u64;
        // Where byte 0 of each file would lie.
        let mut origins = vec![0_u64; files];
        for (file, range) in ranges.into_iter().enumerate() {
            let Some(range) = range else { continue };
            let offset = range.start / page * page;
            // What saturates exceeds any memory, and is refused as that.
            let len = (range.end - offset)
                .checked_next_multiple_of(page)
                .unwrap_or(u64::MAX / page * page);
            origins[file] = end.wrapping_sub(offset);
            stretches.push(Stretch {
                file,
                offset,
                at: end,
                len,
            });
            end = end.saturating_add(len);
        }
        let first_copy = end;
        let mut copied = Vec::new();
        let mut offsets: Vec<u64> = Vec::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            let at = if is_mapped[index] {
                origins[tensor.file as usize].wrapping_add(tensor.offset)
            } else if let Some(tied) = tensor.tied_to {
                offsets[tied as usize]
            } else if tensor.bytes == 0 {
                0
            } else {
                let at = end.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
                end = at.saturating_add(tensor.bytes);
                copied.push(index);
                at
            };
            offsets.push(at);
        }
        let end = end.checked_next_multiple_of(page);
        Plan {
            offsets,
            stretches,
            copied,
            copies: first_copy..end.unwrap_or(u64::MAX / page * page),
        }
    }

    /// The whole region, bytes; at least a page.
    pub(super) fn len(&self) -> u64 {
        self.copies.end.max(rustix::param::page_size() as u64)
    }

    /// What of it is mapped files.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.copies.start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Dtype;

    fn tensor(file: u32, offset: u64, bytes: u64, dtype: Dtype) -> TensorInfo {
        TensorInfo {
            name: format!("{file}.{offset}").into(),
            dtype,
            shape: Box::default(),
            file,
            offset,
            bytes,
            tied_to: None,
        }
    }

    proptest! {
        #[test]
        fn every_tensor_lies_in_its_stretch_or_apart_in_the_copies(
            sizes in proptest::collection::vec((0_u32..3, 0_u64..20_000, 0_usize..3), 0..40),
            starts in proptest::collection::vec(8_u64..100_000, 3),
        ) {
            let dtypes = [Dtype::U8, Dtype::BF16, Dtype::F64];
            let mut ends = starts.clone();
            let mut tensors = Vec::new();
            for (file, bytes, dtype) in sizes {
                let end = &mut ends[file as usize];
                tensors.push(tensor(file, *end, bytes, dtypes[dtype]));
                *end += bytes;
            }
            let plan = Plan::of(&tensors, 3, 4096);
            let mut last = plan.copies.start;
            for (index, (tensor, at)) in tensors.iter().zip(&plan.offsets).enumerate() {
                if tensor.bytes == 0 {
                    continue;
                }
                if plan.copied.contains(&index) {
                    prop_assert!(!tensor.is_aligned() && at.is_multiple_of(64));
                    prop_assert!(*at >= last && at + tensor.bytes <= plan.copies.end);
                    last = at + tensor.bytes;
                    continue;
                }
                let mut stretches = plan.stretches.iter();
                let stretch = stretches.find(|stretch| stretch.file == tensor.file as usize);
                let stretch = stretch.unwrap();
                prop_assert_eq!(at - stretch.at, tensor.offset - stretch.offset);
                prop_assert!(at + tensor.bytes <= stretch.at + stretch.len);
            }
            let mapped: u64 = plan.stretches.iter().map(|stretch| stretch.len).sum();
            prop_assert_eq!(mapped, plan.mapped_bytes());
            for part in plan.stretches.windows(2) {
                prop_assert_eq!(part[0].at + part[0].len, part[1].at);
            }
        }
    }

    #[test]
    fn a_model_of_which_nothing_is_aligned_maps_nothing() {
        let tensors = [tensor(0, 9, 8, Dtype::F64), tensor(0, 17, 8, Dtype::F64)];
        let plan = Plan::of(&tensors, 1, 4096);
        assert_eq!((plan.mapped_bytes(), plan.copies.end), (0, 4096));
        assert_eq!((plan.stretches.len(), &plan.copied[..]), (0, &[0, 1][..]));
    }

    #[test]
    fn tied_tensors_lie_in_one_place() {
        let mut tensors = [tensor(0, 9, 8, Dtype::F64), tensor(0, 9, 8, Dtype::F64)];
        tensors[1].tied_to = Some(0);
        let plan = Plan::of(&tensors, 1, 4096);
        assert_eq!(plan.offsets[0], plan.offsets[1]);
        assert_eq!(plan.copied, [0]);
    }
}
