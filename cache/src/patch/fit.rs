//! Which tensors of a model a patch changes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::error::{FitError, MOST_NAMED};
use super::keys::Naming;
use super::names::Names;
use super::parts::{Part, PartKind};
use super::{Component, Patch, Scale, Unmatched, Why};
use crate::model::{Dtype, Model, escape};

/// How many parts that fit nothing are kept; all are counted.
const MOST_KEPT: usize = 1000;

/// What becomes of parts that fit nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strictness {
    /// They are an error.
    #[default]
    Strict,
    /// They are listed. That nothing fits is still an error.
    Lenient,
}

/// Which tensors of a model a patch changes, and what it has that fits none.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The changes, in the order of the model's tensors; low-rank ones before differences, rows last.
    pub edits: Vec<Edit>,
    /// The first thousand parts that fit nothing.
    pub unmatched: Vec<Unmatched>,
    /// How many fit nothing.
    pub unmatched_count: usize,
    /// How many parts are by their names for other components of a pipeline, such as those for a text
    /// encoder where the model is a UNet. That is no error.
    pub elsewhere: usize,
}

/// A change of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// The tensor: an index into [`Model::tensors`] of the model.
    pub target: usize,
    /// Its shape afterwards, if nothing else changes it.
    pub shape: Box<[usize]>,
    /// What changes.
    pub change: Change,
    /// Whether the model's tensor is of a type that cannot be merged with, such as quantised blocks:
    /// then the factors can only be used beside it.
    pub is_beside_only: bool,
}

/// What changes in a tensor, by indices into [`Model::tensors`] of the patch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A product of small matrices is added: up · down, or with a core up · mid · down.
    LowRank {
        /// `[rank, in…]`.
        down: usize,
        /// `[out, rank]`.
        up: usize,
        /// `[rank, rank, height, width]`.
        mid: Option<usize>,
        /// How the product is scaled.
        scale: Scale,
    },
    /// Another tensor of the same shape is added.
    Difference {
        /// That tensor.
        from: usize,
    },
    /// Rows are appended.
    Rows {
        /// The tensors that have them, in the order of the file.
        from: Vec<usize>,
        /// How many rows these are together.
        rows: usize,
    },
}

impl Change {
    /// The tensors of the patch that this takes, alpha included.
    pub fn tensors(&self) -> impl Iterator<Item = usize> {
        let (few, rows): (_, &[usize]) = match self {
            Change::LowRank {
                down,
                up,
                mid,
                scale,
            } => {
                let alpha = match scale.alpha {
                    super::Alpha::Tensor(at) => Some(at),
                    _ => None,
                };
                ([Some(*down), Some(*up), *mid, alpha], &[])
            }
            Change::Difference { from } => ([Some(*from), None, None, None], &[]),
            Change::Rows { from, .. } => ([None; 4], from),
        };
        few.into_iter().flatten().chain(rows.iter().copied())
    }

    /// How many rows it adds.
    pub(super) fn appended_rows(&self) -> usize {
        match self {
            Change::Rows { rows, .. } => *rows,
            Change::LowRank { .. } | Change::Difference { .. } => 0,
        }
    }

    /// Low-rank changes, differences and rows.
    fn kind(&self) -> u8 {
        match self {
            Change::LowRank { .. } => 0,
            Change::Difference { .. } => 1,
            Change::Rows { .. } => 2,
        }
    }
}

impl Patch {
    /// Finds which tensors of a model this changes. Looks at names and shapes alone.
    ///
    /// # Errors
    /// [`FitError`] if nothing fits, if it is `Strict` and a part does not, if two parts change the
    /// same tensor in the same way, or if it is not known for which of two components the model is.
    pub fn fit(&self, base: &Model, strictness: Strictness) -> Result<Fit, FitError> {
        let parts = || {
            self.parts
                .parts
                .iter()
                .filter(|part| self.takes(part.component))
        };
        let names = Names::of(base, parts().any(|part| part.naming == Naming::Flat));
        let mut placed: Vec<(&Part, Result<usize, Unmatched>)> = Vec::new();
        let mut elsewhere = 0;
        for part in parts() {
            // What is named by its whole name, or goes by its width, is at home in any model.
            let is_for_it = names.has(part.component) || is_whole_word(part);
            match is_for_it {
                true => placed.push((part, self.target(part, base, &names))),
                false => elsewhere += 1,
            }
        }
        if let Some(encoder) = self.encoder(base, &placed)? {
            let all = placed.len();
            placed.retain(|(part, _)| match part.component {
                Component::TextEncoder(number) => number == encoder,
                _ => true,
            });
            elsewhere += all - placed.len();
        }
        let mut edits: BTreeMap<(usize, u8), (Edit, usize)> = BTreeMap::new();
        let mut unmatched = Unfit::default();
        for (part, target) in placed {
            match target {
                Ok(target) => {
                    if let Err(fault) = self.add(&mut edits, part, target, base)? {
                        unmatched.note(fault);
                    }
                }
                Err(fault) => unmatched.note(fault),
            }
        }
        for other in &self.parts.others {
            unmatched.note(Unmatched {
                key: self.info(*other).name.clone(),
                why: Why::NotOfAPatch,
                needed: "a name that trainers of patches give".to_owned(),
            });
        }
        let edits: Vec<Edit> = edits.into_values().map(|(edit, _)| edit).collect();
        self.judge(edits, unmatched, elsewhere, base, strictness)
    }

    fn judge(
        &self,
        edits: Vec<Edit>,
        unmatched: Unfit,
        elsewhere: usize,
        base: &Model,
        strictness: Strictness,
    ) -> Result<Fit, FitError> {
        let Unfit { mut first, count } = unmatched;
        if edits.is_empty() {
            first.truncate(MOST_NAMED);
            return Err(FitError::Nothing {
                path: self.model().path().into(),
                patch: self.model().kind().to_string(),
                base: label(base),
                first,
                count,
                others: elsewhere,
            });
        }
        if count > 0 && strictness == Strictness::Strict {
            first.truncate(MOST_NAMED);
            return Err(FitError::Unmatched {
                path: self.model().path().into(),
                base: label(base),
                first,
                count,
                fits: edits.len(),
            });
        }
        Ok(Fit {
            edits,
            unmatched: first,
            unmatched_count: count,
            elsewhere,
        })
    }

    /// Which text encoder the model is, where the patch is for several and the model does not say:
    /// the one whose parts fit, since their widths and depths differ.
    fn encoder(
        &self,
        base: &Model,
        placed: &[(&Part, Result<usize, Unmatched>)],
    ) -> Result<Option<u8>, FitError> {
        // Fitting parts, all parts, and a target of each.
        let mut encoders: BTreeMap<u8, (usize, usize, Vec<usize>)> = BTreeMap::new();
        for (part, target) in placed {
            if let Component::TextEncoder(number) = part.component {
                let (fits, all, targets) = encoders.entry(number).or_default();
                *all += 1;
                *fits += usize::from(target.is_ok());
                targets.extend(target.as_ref().ok());
            }
        }
        let share = |number: &u8| {
            let (fits, all, _) = &encoders[number];
            *fits as f64 / (*all).max(1) as f64
        };
        let mut best: Vec<u8> = encoders.keys().copied().collect();
        best.sort_by(|a, b| share(b).total_cmp(&share(a)).then(a.cmp(b)));
        let [first, second, ..] = best[..] else {
            return Ok(None);
        };
        let targets: &Vec<usize> = &encoders[&first].2;
        let are_apart = || !encoders[&second].2.iter().any(|at| targets.contains(at));
        if share(&first) == 0.0 {
            return Ok(None);
        }
        if share(&second) > 0.0 && are_apart() {
            // A checkpoint that has both.
            return Ok(None);
        }
        if share(&first) == share(&second) {
            return Err(FitError::WhichComponent {
                path: self.model().path().into(),
                base: label(base),
                first: Component::TextEncoder(first),
                second: Component::TextEncoder(second),
            });
        }
        Ok(Some(first))
    }

    /// Adds a part to the edit of its target.
    fn add(
        &self,
        edits: &mut BTreeMap<(usize, u8), (Edit, usize)>,
        part: &Part,
        target: usize,
        base: &Model,
    ) -> Result<Result<(), Unmatched>, FitError> {
        let tensor = &base.tensors()[target];
        let mut shape = tensor.shape.clone();
        let change = match part.kind {
            PartKind::LowRank {
                down,
                up,
                mid,
                scale,
            } => Change::LowRank {
                down,
                up,
                mid,
                scale,
            },
            PartKind::Difference(from) | PartKind::BiasDifference(from) => {
                Change::Difference { from }
            }
            PartKind::Rows(at) => {
                let own = &self.info(at).shape;
                let own = if own.len() == 1 { 1 } else { own[0] };
                let known = edits.get_mut(&(target, 2)).map(|(edit, _)| edit);
                let rows = match known.as_ref().map(|edit| &edit.change) {
                    Some(Change::Rows { rows, .. }) => *rows,
                    _ => 0,
                };
                let rows = rows.checked_add(own);
                let Some(rows) = rows.filter(|rows| fits_memory(&shape, *rows)) else {
                    return Ok(Err(Unmatched {
                        key: self.info(at).name.clone(),
                        why: Why::Shape {
                            target: tensor.name.clone(),
                            has: shape,
                        },
                        needed: "fewer rows than memory can hold".to_owned(),
                    }));
                };
                shape[0] += rows;
                // Behind those that there are, in place: a file can have a million of them.
                if let Some(edit) = known
                    && let Change::Rows { from, rows: all } = &mut edit.change
                {
                    from.push(at);
                    (*all, edit.shape) = (rows, shape);
                    return Ok(Ok(()));
                }
                Change::Rows {
                    from: vec![at],
                    rows,
                }
            }
        };
        match edits.entry((target, change.kind())) {
            Entry::Occupied(entry) => {
                let (_, first) = entry.get();
                Err(FitError::Twice {
                    path: self.model().path().into(),
                    target: tensor.name.clone(),
                    first: self.info(*first).name.clone(),
                    second: self.info(part.tensor()).name.clone(),
                })
            }
            Entry::Vacant(entry) => {
                let edit = Edit {
                    target,
                    shape,
                    change,
                    is_beside_only: !matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16),
                };
                entry.insert((edit, part.tensor()));
                Ok(Ok(()))
            }
        }
    }
}

fn is_whole_word(part: &Part) -> bool {
    part.component == Component::Any && part.naming == Naming::Exact
}

fn fits_memory(shape: &[usize], more: usize) -> bool {
    let rows = shape.first().copied().unwrap_or(0).checked_add(more);
    let size = shape
        .iter()
        .skip(1)
        .try_fold(8_usize, |size, &next| size.checked_mul(next));
    let bytes = rows
        .zip(size)
        .and_then(|(rows, size)| rows.checked_mul(size));
    bytes.is_some_and(|bytes| bytes <= isize::MAX as usize)
}

fn label(model: &Model) -> String {
    format!("{} ({})", escape(model.name()), model.kind())
}

/// What fits nothing, the first of it.
#[derive(Default)]
struct Unfit {
    first: Vec<Unmatched>,
    count: usize,
}

impl Unfit {
    fn note(&mut self, unmatched: Unmatched) {
        self.count += 1;
        if self.first.len() < MOST_KEPT {
            self.first.push(unmatched);
        }
    }
}
