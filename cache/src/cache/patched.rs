//! Models with patches: what a lease of them takes, found once for each set of patches.

use std::sync::{Arc, Mutex, PoisonError};

use super::wanted::Way;
use crate::error::Error;
use crate::model::{Model, ModelId};
use crate::patch::{
    self, Edit, Fitted, Strictness, Unmatched, merged_model, patched_name, scale_of,
};

/// So many sets of patches are remembered.
const MOST_KEPT: usize = 64;

/// A model with patches.
#[derive(Debug)]
pub(crate) struct Patched {
    pub(crate) name: String,
    pub(crate) patches: Vec<Beside>,
    /// The tensors that change, merged; `None` where that cannot be.
    pub(crate) merged: Option<Model>,
    /// Why it cannot be: a tensor, and its type.
    beside_only: Option<(String, String)>,
}

/// A patch, as it is leased beside a model.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) fitted: Fitted,
    /// Strength × alpha / rank of each edit.
    pub(crate) scales: Vec<f64>,
    /// Those of its tensors that change this model.
    pub(crate) factors: Model,
    /// Their positions in the patch, ascending.
    positions: Vec<usize>,
    pub(crate) unmatched: Vec<Unmatched>,
}

impl Beside {
    /// The edits of a tensor of the model, with their scales.
    pub(crate) fn edits(&self, target: usize) -> impl Iterator<Item = (&Edit, f64)> {
        let edits = self.fitted.edits.iter().zip(&self.scales);
        let edits = edits.filter(move |(edit, _)| edit.target == target);
        edits.map(|(edit, scale)| (edit, *scale))
    }

    /// Where a tensor of the patch is among the factors.
    pub(crate) fn position(&self, tensor: usize) -> Option<usize> {
        self.positions.binary_search(&tensor).ok()
    }
}

impl Patched {
    fn new(
        base: &Model,
        wanted: &[(patch::Patch, f64)],
        strictness: Strictness,
    ) -> Result<Patched, Error> {
        let mut patches = Vec::with_capacity(wanted.len());
        for (patch, strength) in wanted {
            let fit = patch.fit(base, strictness)?;
            let fitted = Fitted {
                patch: patch.clone(),
                strength: *strength,
                edits: fit.edits,
            };
            let scale = |edit: &Edit| {
                let scale = strength * scale_of(patch, &edit.change)?;
                if !scale.is_finite() {
                    return Err(not_finite(patch, *strength));
                }
                Ok(scale)
            };
            let scales = fitted.edits.iter().map(scale);
            let scales: Vec<f64> = scales.collect::<Result<_, Error>>()?;
            let positions = positions(&fitted);
            patches.push(Beside {
                factors: patch.model().factors(&positions),
                positions,
                scales,
                unmatched: fit.unmatched,
                fitted,
            });
        }
        let fitted: Vec<Fitted> = patches.iter().map(|one| one.fitted.clone()).collect();
        let mut edits = fitted.iter().flat_map(|one| &one.edits);
        let beside_only = edits.find(|edit| edit.is_beside_only).map(|edit| {
            let tensor = &base.tensors()[edit.target];
            (tensor.name.to_string(), tensor.dtype.to_string())
        });
        Ok(Patched {
            name: patched_name(base, &fitted),
            merged: match &beside_only {
                Some(_) => None,
                None => merged_model(base, fitted)?,
            },
            beside_only,
            patches,
        })
    }

    /// Whether they can come in this way.
    pub(super) fn allows(&self, way: Way, model: &Model) -> Result<(), Error> {
        match (&self.beside_only, way) {
            (Some((tensor, dtype)), Way::Merged) => Err(Error::BesideOnly {
                model: model.name().to_owned(),
                tensor: tensor.clone(),
                dtype: dtype.clone(),
            }),
            _ => Ok(()),
        }
    }
}

fn not_finite(patch: &patch::Patch, strength: f64) -> Error {
    Error::Strength {
        patch: patch.model().name().to_owned(),
        strength,
    }
}

/// The tensors of a patch that its edits take.
fn positions(fitted: &Fitted) -> Vec<usize> {
    let tensors = fitted.patch.model().tensors();
    let edits = fitted.edits.iter();
    let taken = edits.flat_map(|edit| edit.change.tensors());
    let mut positions: Vec<usize> = taken.collect();
    // With those in whose bytes they lie.
    let homes = positions.iter().filter_map(|at| tensors[*at].tied_to);
    let homes: Vec<usize> = homes.map(|home| home as usize).collect();
    positions.extend(homes);
    positions.sort_unstable();
    positions.dedup();
    positions
}

/// Sets of patches that were found before.
#[derive(Debug, Default)]
pub(super) struct KnownPatches {
    /// The last one asked for at the end.
    kept: Mutex<Vec<(Key, Arc<Patched>)>>,
}

#[derive(Debug, PartialEq)]
struct Key {
    base: ModelId,
    strictness: Strictness,
    /// Patches, and the bits of their strengths.
    patches: Vec<(patch::Patch, u64)>,
}

impl KnownPatches {
    /// What a lease of a model with these patches takes; `None` where nothing changes.
    pub(super) fn of(
        &self,
        base: &Model,
        wanted: &[(patch::Patch, f64)],
        strictness: Strictness,
    ) -> Result<Option<Arc<Patched>>, Error> {
        for (patch, strength) in wanted {
            if !strength.is_finite() {
                return Err(not_finite(patch, *strength));
            }
        }
        let acting = wanted.iter().filter(|(_, strength)| *strength != 0.0);
        let acting: Vec<(patch::Patch, f64)> = acting.cloned().collect();
        // That the others fit is asked all the same: another strength will be given next.
        for (patch, _) in wanted.iter().filter(|(_, strength)| *strength == 0.0) {
            patch.fit(base, strictness)?;
        }
        if acting.is_empty() {
            return Ok(None);
        }
        let key = Key {
            base: base.id(),
            strictness,
            patches: acting
                .iter()
                .map(|(patch, strength)| (patch.clone(), strength.to_bits()))
                .collect(),
        };
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = kept();
            if let Some(at) = kept.iter().position(|(known, _)| *known == key) {
                let one = kept.remove(at);
                let patched = Arc::clone(&one.1);
                kept.push(one);
                return Ok(Some(patched));
            }
        }
        let patched = Arc::new(Patched::new(base, &acting, strictness)?);
        let mut kept = kept();
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push((key, Arc::clone(&patched)));
        Ok(Some(patched))
    }

    /// Forgets what was found for a model.
    pub(super) fn forget(&self, base: &Model) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(key, _)| key.base != base.id());
    }
}
