//! What a part of a patch needs of a model, and whether a tensor has it.

use super::keys::Naming;
use super::names::{Found, Names};
use super::parts::{Part, PartKind};
use super::{Component, Patch, Unmatched, Why};
use crate::model::{Model, TensorInfo, escape};

/// How the tensors are named that have a row for each word.
const EMBEDDINGS: [&str; 7] = [
    "token_embedding.weight",
    "embed_tokens.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "token_embd.weight",
    "shared.weight",
    "wte.weight",
];

impl Patch {
    pub(super) fn info(&self, at: usize) -> &TensorInfo {
        &self.model().tensors()[at]
    }

    /// The tensor of a model that a part changes.
    pub(super) fn target(
        &self,
        part: &Part,
        base: &Model,
        names: &Names<'_>,
    ) -> Result<usize, Unmatched> {
        let found = match part.kind {
            PartKind::Rows(at) => return self.embedding(at, base),
            PartKind::BiasDifference(_) => names.bias(part.component, part.naming, &part.module),
            _ => names.weight(part.component, part.naming, &part.module),
        };
        let why = match found {
            Found::One(at) => return self.fits(part, base, at).map(|()| at),
            Found::Several => Why::Several,
            Found::Nothing => Why::NoTarget,
        };
        Err(self.unmatched(part, why, self.needed(part)))
    }

    fn unmatched(&self, part: &Part, why: Why, needed: String) -> Unmatched {
        let key = self.info(part.tensor()).name.clone();
        Unmatched { key, why, needed }
    }

    /// The shape that a part gives what it changes.
    fn shape(&self, part: &Part) -> Vec<usize> {
        match part.kind {
            PartKind::LowRank { down, up, mid, .. } => {
                let (down, up) = (&self.info(down).shape, &self.info(up).shape);
                let spatial = match mid {
                    Some(mid) => &self.info(mid).shape[2..],
                    None => &down[2..],
                };
                [&[up[0], down[1]], spatial].concat()
            }
            PartKind::Difference(at) | PartKind::BiasDifference(at) | PartKind::Rows(at) => {
                self.info(at).shape.to_vec()
            }
        }
    }

    /// The tensor that a part would have needed.
    fn needed(&self, part: &Part) -> String {
        let module = escape(&part.module);
        let ending = match part.kind {
            PartKind::BiasDifference(_) => ".bias",
            _ => ".weight",
        };
        let name = match part.naming {
            Naming::Exact => format!("`{module}`"),
            Naming::Dotted => format!("`{module}{ending}`"),
            Naming::Flat => format!("a `…{ending}` that is `{module}` with underscores for dots"),
        };
        let of = match part.component {
            Component::Any => String::new(),
            component => format!(" of {component}"),
        };
        format!("{name}{of}, of shape {:?}", self.shape(part))
    }

    fn fits(&self, part: &Part, base: &Model, at: usize) -> Result<(), Unmatched> {
        let target = &base.tensors()[at];
        let shape = self.shape(part);
        let is_low_rank = matches!(part.kind, PartKind::LowRank { .. });
        let fits = is_same(&shape, &target.shape);
        let turned = shape.len() == 2 && *target.shape == [shape[1], shape[0]];
        if is_low_rank && turned && (!fits || is_conv1d(base, &target.name)) {
            let why = Why::Transposed {
                target: target.name.clone(),
            };
            let needed = format!("shape {shape:?}, outputs first");
            return Err(self.unmatched(part, why, needed));
        }
        if fits {
            return Ok(());
        }
        let why = Why::Shape {
            target: target.name.clone(),
            has: target.shape.clone(),
        };
        Err(self.unmatched(part, why, format!("shape {shape:?}")))
    }

    /// The embedding that rows go to: the one that the caller names, or the only one of their width.
    fn embedding(&self, at: usize, base: &Model) -> Result<usize, Unmatched> {
        let tensor = self.info(at);
        let width = tensor.shape.last().copied().unwrap_or(0);
        let unmatched = |why, needed| Unmatched {
            key: tensor.name.clone(),
            why,
            needed,
        };
        let named = self.embedding.as_deref();
        let needed = match named {
            Some(name) => format!("`{}` of shape [words, {width}]", escape(name)),
            None => format!("one embedding of tokens, of shape [words, {width}]"),
        };
        let is_meant = |tensor: &TensorInfo| match named {
            Some(name) => *tensor.name == *name,
            None => is_embedding(tensor),
        };
        let tensors = base.tensors().iter().enumerate();
        let candidates: Vec<_> = tensors.filter(|(_, tensor)| is_meant(tensor)).collect();
        let fits = |tensor: &TensorInfo| tensor.shape.len() == 2 && tensor.shape[1] == width;
        // Of tied ones the first is meant.
        let mut fitting = candidates
            .iter()
            .filter(|(_, tensor)| fits(tensor) && tensor.tied_to.is_none());
        match (fitting.next(), fitting.next()) {
            (Some((at, _)), None) => Ok(*at),
            (Some(_), Some(_)) => Err(unmatched(
                Why::Several,
                format!("{needed}: say which by `Patch::with_embedding`"),
            )),
            (None, _) => Err(match candidates.first() {
                Some((_, tensor)) => {
                    let why = Why::Shape {
                        target: tensor.name.clone(),
                        has: tensor.shape.clone(),
                    };
                    unmatched(why, needed)
                }
                None => unmatched(Why::NoTarget, needed),
            }),
        }
    }
}

fn is_embedding(tensor: &TensorInfo) -> bool {
    EMBEDDINGS.iter().any(|name| {
        let before = tensor.name.strip_suffix(name);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

/// Whether shapes are the same but for dimensions of 1 at their ends: linear layers are convolutions
/// of one point in some programs.
pub(super) fn is_same(a: &[usize], b: &[usize]) -> bool {
    fn trimmed(shape: &[usize]) -> &[usize] {
        let ones = shape.iter().rev().take_while(|&&size| size == 1).count();
        &shape[..shape.len() - ones.min(shape.len().saturating_sub(1))]
    }
    trimmed(a) == trimmed(b)
}

/// Whether a weight is of GPT-2's `Conv1D`, which is square at times but has inputs first
/// (`transformers/pytorch_utils.py`): its layer's fused projection tells.
fn is_conv1d(base: &Model, name: &str) -> bool {
    let Some(layer) = name.strip_suffix(".c_proj.weight") else {
        return false;
    };
    let layer = layer.rsplit_once('.').map_or("", |(before, _)| before);
    let fused = base.tensor(&format!("{layer}.attn.c_attn.weight"));
    fused.is_some_and(|(_, fused)| match *fused.shape {
        [inputs, outputs] => inputs.checked_mul(3) == Some(outputs),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_at_the_end_are_left_out() {
        assert!(is_same(&[4, 3], &[4, 3, 1, 1]));
        assert!(is_same(&[4, 1], &[4, 1, 1]));
        assert!(is_same(&[1], &[1, 1]));
        assert!(!is_same(&[4, 3, 3, 3], &[4, 27]));
        assert!(!is_same(&[4, 3], &[3, 4]));
        assert!(!is_same(&[4, 1, 3], &[4, 3]));
        assert!(is_same(&[], &[]));
    }
}
