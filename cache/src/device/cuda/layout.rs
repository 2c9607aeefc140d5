//! How a model lies in a device's memory.

use std::collections::HashMap;

use super::tensors::Tensors;
use crate::model::{Dtype, Model};

/// Tensors begin where vector loads like it, and where they do in RAM under storage `anonymous` and
/// `pinned`, so that neighbours there are neighbours here.
pub(super) const ALIGNMENT: u64 = 64;

/// What pools hand out is whole units of it (seen of `cuMemAllocAsync`, whose addresses are aligned
/// so).
const UNIT: u64 = 512;

/// Tensors of fewer bytes share allocations.
///
/// candle's storage is elements of one type, of which tensors can be views, but not everything in
/// candle looks where a view begins: `QTensor::quantize` takes the storage's first elements for the
/// tensor's, and `to_device`, `to_vec` and `copy` take all of the storage along. So only what is
/// small, and is hardly quantised, shares, and never more than [`SHARED`].
const SMALL: u64 = 64 << 10;

/// What an allocation that tensors share has at most, bytes.
const SHARED: u64 = 4 << 20;

/// One allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Area {
    /// What it is made of.
    pub(super) made_of: MadeOf,
    /// What its tensors take, alignment included, bytes.
    pub(super) len: u64,
    /// What it counts against the budget.
    pub(super) charge: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MadeOf {
    /// Elements of one type, of small tensors.
    Elements(Dtype),
    /// One tensor alone.
    Tensor(u32),
    /// One quantised tensor, in memory that the tensor library allocates.
    Quantised(u32),
}

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) area: usize,
    /// Bytes from the area's start.
    pub(super) at: u64,
}

/// Where every tensor of a model lies.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) areas: Vec<Area>,
    pub(super) homes: Vec<Home>,
}

impl Layout {
    pub(super) fn new(model: &Model, library: &dyn Tensors) -> Layout {
        let mut areas: Vec<Area> = Vec::new();
        let mut homes: Vec<Home> = Vec::with_capacity(model.tensors().len());
        // The area of each type that small tensors go to.
        let mut open: HashMap<Dtype, usize> = HashMap::new();
        for (index, tensor) in (0..).zip(model.tensors()) {
            if let Some(tied) = tensor.tied_to {
                homes.push(homes[tied as usize]);
                continue;
            }
            if let Some(bytes) = library.quantised_bytes(tensor) {
                homes.push(Home {
                    area: areas.len(),
                    at: 0,
                });
                areas.push(Area {
                    made_of: MadeOf::Quantised(index),
                    len: tensor.bytes,
                    charge: whole(bytes),
                });
                continue;
            }
            let shares = is_cut(tensor.dtype) && tensor.bytes < SMALL;
            let made_of = match shares {
                true => MadeOf::Elements(tensor.dtype),
                false => MadeOf::Tensor(index),
            };
            let fits = |area: &Area| area.len + SMALL <= SHARED && area.made_of == made_of;
            let known = open
                .get(&tensor.dtype)
                .copied()
                .filter(|area| shares && fits(&areas[*area]));
            let area = known.unwrap_or_else(|| {
                areas.push(Area {
                    made_of,
                    len: 0,
                    charge: 0,
                });
                areas.len() - 1
            });
            if shares {
                open.insert(tensor.dtype, area);
            }
            let taken = &mut areas[area].len;
            let at = taken.next_multiple_of(ALIGNMENT);
            *taken = at.saturating_add(tensor.bytes);
            homes.push(Home { area, at });
        }
        for area in &mut areas {
            if !matches!(area.made_of, MadeOf::Quantised(_)) {
                // Without bytes there would be nothing to be a view of.
                area.charge = whole(area.len.max(1));
            }
        }
        Layout { areas, homes }
    }

    /// What it counts against the budget, bytes.
    pub(super) fn charge(&self) -> u64 {
        self.areas
            .iter()
            .fold(0, |sum, area| sum.saturating_add(area.charge))
    }

    /// The part of it in memory that the tensor library allocates.
    pub(super) fn outside(&self) -> u64 {
        let outside = |area: &&Area| matches!(area.made_of, MadeOf::Quantised(_));
        let charges = self.areas.iter().filter(outside).map(|area| area.charge);
        charges.fold(0, u64::saturating_add)
    }
}

/// Whether tensors of this type can be views of a larger one.
fn is_cut(dtype: Dtype) -> bool {
    dtype.block().is_none()
        && dtype.bitsize().is_multiple_of(8)
        && !matches!(dtype, Dtype::F8_E8M0)
        && dtype.candle().is_some()
}

fn whole(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX)
}
