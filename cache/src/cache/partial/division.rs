//! Into which parts a model is cut, and which of its tensors stream together.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::Partial;
use crate::device::Device;
use crate::error::Error;
use crate::model::{Model, ModelId};

/// So many parts at most, besides what must be there.
const PARTS: u64 = 64;

/// Small tensors stream together up to about so many bytes: less of a large model gains nothing by
/// the byte, and costs by the transfer.
const UNIT: u64 = 4 << 20;

/// So many units at least, as far as that leaves them more than [`LEAST_UNIT`].
const UNITS: u64 = 256;
const LEAST_UNIT: u64 = 64 << 10;

/// Divisions that are remembered.
const MOST_KEPT: usize = 16;

/// A model, cut for partial leases.
#[derive(Debug)]
pub(crate) struct Division {
    pub(crate) model: Model,
    /// What must be there, then the rest in the order of use.
    pub(crate) parts: Box<[Model]>,
    /// What streams together, in the order of use.
    pub(crate) units: Box<[Unit]>,
    /// The unit of each tensor; `None` of what must be there.
    units_of: Box<[Option<u32>]>,
    /// Tensors whose bytes come earlier in the order, under another name.
    again: HashSet<usize>,
}

/// Tensors that stream together.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) model: Model,
    /// The part that has them where they do not stream.
    pub(crate) part: usize,
}

impl Division {
    /// Cuts a model. `kept_out` are tensors that are elsewhere anyway.
    fn new(
        model: &Model,
        partial: &Partial,
        kept_out: &dyn Fn(usize) -> bool,
    ) -> Result<Division, Error> {
        let tensors = model.tensors();
        let home = |index: usize| tensors[index].tied_to.map_or(index, |home| home as usize);
        let mut order: Vec<usize> = Vec::with_capacity(tensors.len());
        let mut seen = HashSet::with_capacity(tensors.len());
        let mut again = HashSet::new();
        let mut named_once = HashSet::new();
        let declared = named(model, &partial.order)?;
        for index in declared.into_iter().chain(0..tensors.len()) {
            let is_new = named_once.insert(index);
            if seen.insert(home(index)) {
                order.push(home(index));
            } else if is_new {
                again.insert(index);
            }
        }
        let required = named(model, &partial.required)?;
        let mut required: HashSet<usize> = required.into_iter().map(home).collect();
        // What has no bytes needs no room.
        required.extend(order.iter().filter(|index| tensors[**index].bytes == 0));

        let bytes = |index: usize| tensors[index].bytes;
        let total = order.iter().map(|index| bytes(*index));
        let total = total.fold(0, u64::saturating_add);
        let per_unit = (total / UNITS).clamp(LEAST_UNIT, UNIT);
        let rest: Vec<usize> = order
            .iter()
            .copied()
            .filter(|index| !required.contains(index))
            .collect();
        let mut cuts: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        let mut taken = 0_u64;
        for (at, index) in rest.iter().enumerate() {
            taken = taken.saturating_add(bytes(*index));
            let next = rest.get(at + 1).map_or(0, |next| bytes(*next));
            // Beside a large tensor there is room for little.
            if taken >= per_unit || (next >= per_unit && taken > next / 16) {
                cuts.push(start..at + 1);
                (start, taken) = (at + 1, 0);
            }
        }
        if start < rest.len() {
            cuts.push(start..rest.len());
        }
        // It is cut as if nothing were kept out: parts that have nothing of it are then those of other
        // leases too.
        if required.iter().all(|index| bytes(*index) == 0) && !cuts.is_empty() {
            // Something is there when a pass begins.
            required.extend(&rest[cuts.remove(0)]);
        }
        let mut whole = Builder {
            model,
            tied: tied(model),
            units_of: vec![None; tensors.len()],
        };
        let required = required.into_iter().filter(|index| !kept_out(*index));
        let mut parts = vec![whole.part(required.collect(), "required", 0.0)];
        let per_part = (total / PARTS).max(per_unit);
        let mut units: Vec<Unit> = Vec::with_capacity(cuts.len());
        let mut in_part: Vec<usize> = Vec::new();
        let mut taken = 0_u64;
        let count = cuts.len();
        for (number, cut) in cuts.into_iter().enumerate() {
            let of_unit = rest[cut.clone()].iter().map(|index| bytes(*index));
            taken = taken.saturating_add(of_unit.fold(0, u64::saturating_add));
            let indices = rest[cut].iter().copied();
            let indices: Vec<usize> = indices.filter(|index| !kept_out(*index)).collect();
            in_part.extend(&indices);
            if !indices.is_empty() {
                units.push(Unit {
                    model: whole.unit(indices, units.len()),
                    part: parts.len(),
                });
            }
            if taken >= per_part || number + 1 == count {
                taken = 0;
                if !in_part.is_empty() {
                    let position = (number + 1) as f64 / count as f64;
                    let label = format!("part {}", parts.len());
                    parts.push(whole.part(std::mem::take(&mut in_part), &label, position));
                }
            }
        }
        Ok(Division {
            model: model.clone(),
            parts: parts.into(),
            units: units.into(),
            units_of: whole.units_of.into(),
            again,
        })
    }

    /// The unit of a tensor; `None` where it must be there, or is kept elsewhere.
    pub(crate) fn unit_of(&self, tensor: usize) -> Option<usize> {
        self.units_of[tensor].map(|unit| unit as usize)
    }

    /// Whether a tensor's bytes come earlier in the order, under another name: when it is asked for
    /// says nothing of what comes next.
    pub(crate) fn is_again(&self, tensor: usize) -> bool {
        self.again.contains(&tensor)
    }

    /// The memory that streaming takes on a device by default, and the least that it can do with: for
    /// any two that follow one another, and for the largest.
    pub(crate) fn pool(&self, device: &dyn Device) -> (u64, u64) {
        let charges = self.units.iter().map(|unit| device.charge(&unit.model));
        let charges: Vec<u64> = charges.collect();
        let next = charges.iter().cycle().skip(1);
        let pairs = charges.iter().zip(next).map(|(a, b)| a.saturating_add(*b));
        let largest = charges.iter().copied().max().unwrap_or(0);
        let usual = if charges.len() == 1 {
            None
        } else {
            pairs.max()
        };
        (usual.unwrap_or(largest), largest)
    }
}

/// Makes models of tensors, with those that share their bytes.
struct Builder<'a> {
    model: &'a Model,
    /// Tensors that lie in the bytes of another, by that one.
    tied: Vec<(usize, usize)>,
    units_of: Vec<Option<u32>>,
}

impl Builder<'_> {
    fn with_tied(&self, indices: Vec<usize>) -> Vec<usize> {
        let mut all: BTreeSet<usize> = BTreeSet::new();
        for index in indices {
            let from = self.tied.partition_point(|(home, _)| *home < index);
            let tied = self.tied[from..].iter();
            let tied = tied.take_while(|(home, _)| *home == index);
            all.extend(tied.map(|(_, tied)| *tied));
            all.insert(index);
        }
        all.into_iter().collect()
    }

    fn part(&self, indices: Vec<usize>, label: &str, position: f64) -> Model {
        let name = format!("{} [{label}]", self.model.name());
        let indices = self.with_tied(indices);
        self.model.part(name, &indices, position)
    }

    fn unit(&mut self, indices: Vec<usize>, number: usize) -> Model {
        let indices = self.with_tied(indices);
        for index in &indices {
            self.units_of[*index] = Some(number as u32);
        }
        self.model.part(self.model.name().to_owned(), &indices, 0.0)
    }
}

fn tied(model: &Model) -> Vec<(usize, usize)> {
    let tensors = model.tensors().iter().enumerate();
    let tied = tensors.filter_map(|(index, tensor)| Some((tensor.tied_to? as usize, index)));
    let mut tied: Vec<(usize, usize)> = tied.collect();
    tied.sort_unstable();
    tied
}

/// The tensors of these names, in that order.
fn named(model: &Model, names: &[String]) -> Result<Vec<usize>, Error> {
    let no_tensor = |name: &str| Error::NoTensor {
        model: model.name().to_owned(),
        tensor: name.to_owned(),
    };
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        if let Some((index, _)) = model.tensor(name) {
            found.push(index);
            continue;
        }
        let prefix = name.strip_suffix('*').ok_or_else(|| no_tensor(name))?;
        let before = found.len();
        let tensors = model.tensors().iter().enumerate();
        let tensors = tensors.filter(|(_, tensor)| tensor.name.starts_with(prefix));
        found.extend(tensors.map(|(index, _)| index));
        if found.len() == before {
            return Err(no_tensor(name));
        }
    }
    Ok(found)
}

/// Divisions that were made before: a model that is cut in the same way has the same parts.
#[derive(Debug, Default)]
pub(crate) struct KnownDivisions {
    /// The last one asked for at the end.
    kept: Mutex<Vec<(Key, Arc<Division>)>>,
}

#[derive(Debug, PartialEq)]
struct Key {
    model: ModelId,
    required: Vec<String>,
    order: Arc<[String]>,
    kept_out: Vec<usize>,
}

impl KnownDivisions {
    /// How a model is cut for a lease.
    pub(crate) fn of(
        &self,
        model: &Model,
        partial: &Partial,
        kept_out: &[usize],
    ) -> Result<Arc<Division>, Error> {
        let key = Key {
            model: model.id(),
            required: partial.required.clone(),
            order: Arc::clone(&partial.order),
            kept_out: kept_out.to_vec(),
        };
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = kept();
            if let Some(at) = kept.iter().position(|(known, _)| *known == key) {
                let one = kept.remove(at);
                let division = Arc::clone(&one.1);
                kept.push(one);
                return Ok(division);
            }
        }
        let out: HashSet<usize> = kept_out.iter().copied().collect();
        let division = Division::new(model, partial, &|index| out.contains(&index))?;
        let division = Arc::new(division);
        let mut kept = kept();
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push((key, Arc::clone(&division)));
        Ok(division)
    }

    /// Forgets how a model was cut.
    pub(crate) fn forget(&self, model: &Model) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(key, _)| key.model != model.id());
    }
}
