//! From the tensors of a file to the parts of a patch: which matrices belong together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::error::{Broken, Fault, MOST_NAMED, PatchError};
use super::keys::{Key, Naming, Slot};
use super::settings::{Said, Settings};
use super::{Alpha, Component, Scale};
use crate::model::{Dtype, Model, TensorInfo};

/// What changes one tensor of a model, or adds to it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) component: Component,
    pub(super) naming: Naming,
    pub(super) module: Box<str>,
    pub(super) kind: PartKind,
}

#[derive(Debug)]
pub(super) enum PartKind {
    LowRank {
        down: usize,
        up: usize,
        mid: Option<usize>,
        scale: Scale,
    },
    Difference(usize),
    BiasDifference(usize),
    Rows(usize),
}

impl Part {
    /// A tensor of the patch that is of this part.
    pub(super) fn tensor(&self) -> usize {
        match self.kind {
            PartKind::LowRank { down, .. } => down,
            PartKind::Difference(at) | PartKind::BiasDifference(at) | PartKind::Rows(at) => at,
        }
    }
}

/// The parts of a file, and the tensors that are none.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) parts: Vec<Part>,
    pub(super) others: Vec<usize>,
}

/// The tensors of one module.
#[derive(Default)]
struct Module {
    down: Option<usize>,
    up: Option<usize>,
    mid: Option<usize>,
    alpha: Option<usize>,
    difference: Option<usize>,
    bias: Option<usize>,
    rows: Option<usize>,
}

type Name = (Component, Naming, String);

/// What was found wrong, the first few of it.
#[derive(Default)]
struct Faults {
    first: Vec<Broken>,
    count: usize,
}

impl Faults {
    fn note(&mut self, tensor: &TensorInfo, fault: Fault) {
        self.count += 1;
        if self.first.len() < MOST_NAMED {
            let key = tensor.name.clone();
            self.first.push(Broken { key, fault });
        }
    }
}

/// Sorts the tensors of a patch. Reads nothing of the file.
pub(super) fn parts(model: &Model) -> Result<Parts, PatchError> {
    let tensors = model.tensors();
    let mut faults = Faults::default();
    let mut unsupported = None;
    let mut others = Vec::new();
    let mut modules: Vec<(Name, Module)> = Vec::new();
    let mut positions: HashMap<Name, usize> = HashMap::new();
    for (at, tensor) in tensors.iter().enumerate() {
        // Which token the rows of a textual inversion were learnt for.
        if tensor.name.starts_with("string_to_token.") {
            continue;
        }
        let key = Key::parse(&tensor.name);
        let Some(key) = key.filter(|key| key.slot != Slot::Rows || is_rows(tensor)) else {
            others.push(at);
            continue;
        };
        if let Slot::Unsupported(kind) = key.slot {
            let (_, _, keys) = unsupported.get_or_insert((kind, at, 0));
            *keys += 1;
            continue;
        }
        let name = (key.component, key.naming, key.module);
        let position = match positions.entry(name) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                modules.push((entry.key().clone(), Module::default()));
                *entry.insert(modules.len() - 1)
            }
        };
        let module = &mut modules[position].1;
        let slot = match key.slot {
            Slot::Down => &mut module.down,
            Slot::Up => &mut module.up,
            Slot::Mid => &mut module.mid,
            Slot::Alpha => &mut module.alpha,
            Slot::Difference => &mut module.difference,
            Slot::BiasDifference => &mut module.bias,
            Slot::Rows | Slot::Unsupported(_) => &mut module.rows,
        };
        match slot {
            Some(first) => faults.note(
                tensor,
                Fault::Twice {
                    other: tensors[*first].name.clone(),
                },
            ),
            slot => *slot = Some(at),
        }
    }
    if let Some((kind, first, keys)) = unsupported {
        return Err(PatchError::Unsupported {
            path: model.path().into(),
            kind,
            keys,
            first: tensors[first].name.clone(),
        });
    }
    let is_unsaid = |(_, module): &(Name, Module)| module.down.is_some() && module.alpha.is_none();
    let settings = match modules.iter().any(is_unsaid) {
        true => Settings::of(model),
        false => Settings::default(),
    };
    let mut parts = Vec::new();
    for (name, module) in modules {
        module.sort(
            name,
            tensors,
            &settings,
            &mut parts,
            &mut others,
            &mut faults,
        );
    }
    if faults.count > 0 {
        return Err(PatchError::Broken {
            path: model.path().into(),
            first: faults.first,
            count: faults.count,
        });
    }
    if parts.is_empty() {
        return Err(PatchError::NotAPatch {
            path: model.path().into(),
            tensors: tensors.len(),
            first: tensors
                .first()
                .map(|tensor| tensor.name.clone())
                .unwrap_or_default(),
        });
    }
    Ok(Parts { parts, others })
}

/// Names of words may be those of anything, but rows have one or two dimensions.
fn is_rows(tensor: &TensorInfo) -> bool {
    matches!(tensor.shape.len(), 1 | 2)
}

impl Module {
    fn sort(
        self,
        (component, naming, module): Name,
        tensors: &[TensorInfo],
        settings: &Settings,
        parts: &mut Vec<Part>,
        others: &mut Vec<usize>,
        faults: &mut Faults,
    ) {
        let mut add = |kind| {
            parts.push(Part {
                component,
                naming,
                module: module.as_str().into(),
                kind,
            });
        };
        match (self.down, self.up, self.mid) {
            // An alpha of nothing changes nothing.
            (None, None, None) => others.extend(self.alpha),
            (Some(down), Some(up), mid) => {
                let said = settings.of_module(component, &module);
                match said.and_then(|said| low_rank(tensors, down, up, mid, self.alpha, said)) {
                    Ok(scale) => add(PartKind::LowRank {
                        down,
                        up,
                        mid,
                        scale,
                    }),
                    Err(fault) => faults.note(&tensors[down], fault),
                }
            }
            (Some(half), None, _) => {
                let missing = "second factor (lora_up, lora_B)";
                faults.note(&tensors[half], Fault::Half { missing });
            }
            (None, Some(half), _) | (None, None, Some(half)) => {
                let missing = "first factor (lora_down, lora_A)";
                faults.note(&tensors[half], Fault::Half { missing });
            }
        }
        let rest = [
            self.difference.map(PartKind::Difference),
            self.bias.map(PartKind::BiasDifference),
            self.rows.map(PartKind::Rows),
        ];
        for kind in rest.into_iter().flatten() {
            let (PartKind::Difference(at) | PartKind::BiasDifference(at) | PartKind::Rows(at)) =
                kind
            else {
                continue;
            };
            match is_float(&tensors[at]) {
                Ok(()) => add(kind),
                Err(fault) => faults.note(&tensors[at], fault),
            }
        }
    }
}

fn is_float(tensor: &TensorInfo) -> Result<(), Fault> {
    match tensor.dtype {
        Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64 => Ok(()),
        dtype => Err(Fault::Dtype { dtype }),
    }
}

/// Whether these can be multiplied, and how the product is scaled.
fn low_rank(
    tensors: &[TensorInfo],
    down: usize,
    up: usize,
    mid: Option<usize>,
    alpha: Option<usize>,
    said: Said,
) -> Result<Scale, Fault> {
    for at in [down, up].into_iter().chain(mid) {
        is_float(&tensors[at])?;
    }
    let (down, up) = (&tensors[down].shape, &tensors[up].shape);
    let is_point = |shape: &[usize]| shape.iter().skip(2).all(|&size| size == 1);
    let needs = |shape: &[usize], needed, is| match is {
        true => Ok(()),
        false => Err(Fault::Shape {
            shape: shape.into(),
            needed,
        }),
    };
    needs(
        down,
        "[rank, in] or [rank, in, height, width]",
        down.len() >= 2,
    )?;
    needs(
        up,
        "[out, rank] or [out, rank, 1, 1]",
        up.len() >= 2 && is_point(up),
    )?;
    let rank = down[0];
    if rank == 0 || up[1] == 0 {
        return Err(Fault::ZeroRank {
            shape: down.clone(),
        });
    }
    if up[1] != rank {
        return Err(Fault::Ranks {
            down: down.clone(),
            up: up.clone(),
        });
    }
    let mut spatial = &down[2..];
    if let Some(mid) = mid {
        let mid = &tensors[mid].shape;
        if mid.len() < 2 || mid[0] != rank || mid[1] != rank {
            return Err(Fault::Core {
                mid: mid.clone(),
                rank,
            });
        }
        needs(down, "[rank, in, 1, 1] beside a core", is_point(down))?;
        spatial = &mid[2..];
    }
    let columns = spatial
        .iter()
        .try_fold(down[1], |product, &size| product.checked_mul(size));
    // Its elements may be 8 bytes each while it is merged.
    let product = columns.and_then(|columns| columns.checked_mul(up[0])?.checked_mul(8));
    if product.is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Fault::Overflow {
            rows: up[0],
            columns: columns.unwrap_or(usize::MAX),
        });
    }
    let alpha = match (alpha, said.alpha) {
        (Some(at), _) => {
            is_alpha(&tensors[at])?;
            Alpha::Tensor(at)
        }
        (None, Some(alpha)) => Alpha::Said(alpha),
        (None, None) => Alpha::Unsaid,
    };
    Ok(Scale {
        alpha,
        rank,
        is_rank_stabilised: said.is_rank_stabilised,
    })
}

fn is_alpha(tensor: &TensorInfo) -> Result<(), Fault> {
    if tensor.elements() != 1 {
        return Err(Fault::Shape {
            shape: tensor.shape.clone(),
            needed: "an alpha of one number",
        });
    }
    // Trainers that were given a whole number save it as one.
    match tensor.dtype {
        Dtype::I32 | Dtype::I64 => Ok(()),
        _ => is_float(tensor),
    }
}
