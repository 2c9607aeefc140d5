//! Finding a model's tensor by the name that a patch has for its module.
//!
//! Programs save the same weights under several prefixes, so both names are looked at with and without
//! those that are known. A name with underscores for dots is never taken apart: the model's names are
//! written that way too, and compared.

use std::collections::HashMap;

use super::Component;
use super::keys::{DOTTED, Naming};
use super::unet::Unet;
use crate::model::{Model, Role};

/// What of a model a tensor is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Denoiser,
    /// A text encoder, and which one if the name says it.
    Text(Option<u8>),
    /// Of a part that no patch is for.
    Other,
    Unknown,
}

/// How names in checkpoints of several models begin (diffusers' `single_file_utils.py`).
const OF_CHECKPOINTS: &[(&str, Side)] = &[
    ("cond_stage_model.transformer.", Side::Text(Some(1))),
    ("conditioner.embedders.0.transformer.", Side::Text(Some(1))),
    ("cond_stage_model.", Side::Text(None)),
    ("conditioner.", Side::Text(None)),
    ("text_encoders.", Side::Text(None)),
    ("first_stage_model.", Side::Other),
    ("vae.", Side::Other),
];

/// Prefixes that are there or not, whatever the model is.
const WRAPPERS: &[&str] = &["base_model.model.", "text_model.", "model."];

/// Longer chains of prefixes are none.
const MOST_PREFIXES: usize = 4;

/// What a name means in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    One(usize),
    Several,
    Nothing,
}

/// A tensor that a name may mean, and how many prefixes were left out for it: names that are less
/// cut are meant first.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    cut: usize,
    found: Found,
}

type Table = HashMap<(Side, String), Candidate>;

/// The weights of a model by all their names.
pub(super) struct Names<'a> {
    base: &'a Model,
    dotted: Table,
    flat: Table,
    sides: Vec<Side>,
}

impl<'a> Names<'a> {
    /// Walks the tensor table once; names with underscores only where they are asked for.
    pub(super) fn of(base: &'a Model, with_flat: bool) -> Names<'a> {
        let whole = match base.kind().role {
            Role::Unet | Role::DiffusionTransformer | Role::ControlNet => Side::Denoiser,
            Role::TextEncoder | Role::LanguageModel | Role::EmbeddingModel => Side::Text(None),
            _ => Side::Unknown,
        };
        let mut names = Names {
            base,
            dotted: Table::new(),
            flat: Table::new(),
            sides: Vec::new(),
        };
        let stems = || {
            let tensors = base.tensors().iter().enumerate();
            let layers = tensors.filter(|(_, tensor)| !tensor.name.ends_with(".bias"));
            // Some are parameters of a module that is not a layer, and have no ending.
            layers.map(|(at, tensor)| {
                let stem = tensor.name.strip_suffix(".weight");
                (at, stem.unwrap_or(&tensor.name))
            })
        };
        let unet = Unet::of(stems().flat_map(|(_, stem)| variants(stem)));
        for (at, stem) in stems() {
            let side = side(stem, whole);
            if !names.sides.contains(&side) {
                names.sides.push(side);
            }
            for (cut, name) in variants(stem).enumerate() {
                let others = unet.iter().flat_map(|unet| unet.others(name));
                // What has the name itself is meant before what is also called so.
                let others = others.map(|other| (cut + MOST_PREFIXES + 1, other));
                for (cut, name) in std::iter::once((cut, name.to_owned())).chain(others) {
                    if with_flat {
                        note(&mut names.flat, side, name.replace('.', "_"), cut, at);
                    }
                    note(&mut names.dotted, side, name, cut, at);
                }
            }
        }
        names
    }

    /// The weight of a module.
    pub(super) fn weight(&self, component: Component, naming: Naming, module: &str) -> Found {
        match naming {
            Naming::Exact => match self.base.tensor(module) {
                Some((at, _)) => Found::One(at),
                None => Found::Nothing,
            },
            Naming::Dotted => {
                let mut names =
                    variants(module).map(|name| self.look(&self.dotted, component, name));
                let found = names.find(|found| *found != Found::Nothing);
                found.unwrap_or(Found::Nothing)
            }
            Naming::Flat => {
                let cut = module.strip_prefix("text_model_");
                let mut names = [Some(module), cut].into_iter().flatten();
                let found = names.find_map(|name| {
                    let found = self.look(&self.flat, component, name);
                    (found != Found::Nothing).then_some(found)
                });
                found.unwrap_or(Found::Nothing)
            }
        }
    }

    /// The bias beside a module's weight.
    pub(super) fn bias(&self, component: Component, naming: Naming, module: &str) -> Found {
        let Found::One(weight) = self.weight(component, naming, module) else {
            return Found::Nothing;
        };
        let name = &self.base.tensors()[weight].name;
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        match self.base.tensor(&format!("{stem}.bias")) {
            Some((at, _)) => Found::One(at),
            None => Found::Nothing,
        }
    }

    /// Whether the model has anything that a component's patch could change.
    pub(super) fn has(&self, component: Component) -> bool {
        let mut sides = self.sides.iter();
        sides.any(|side| is_for(*side, component))
    }

    fn look(&self, table: &Table, component: Component, name: &str) -> Found {
        let mut found = Found::Nothing;
        for side in self.sides.iter().filter(|side| is_for(**side, component)) {
            let Some(candidate) = table.get(&(*side, name.to_owned())) else {
                continue;
            };
            // Among text encoders the one that is named as such is meant.
            if matches!(component, Component::TextEncoder(_)) && *side != Side::Text(None) {
                return candidate.found;
            }
            found = match found {
                Found::Nothing => candidate.found,
                _ => Found::Several,
            };
        }
        found
    }
}

fn is_for(side: Side, component: Component) -> bool {
    match (component, side) {
        (_, Side::Other) => component == Component::Any,
        (Component::Any, _) | (Component::Denoiser, Side::Denoiser | Side::Unknown) => true,
        (Component::TextEncoder(number), Side::Text(which)) => {
            which.is_none_or(|which| which == number)
        }
        _ => false,
    }
}

/// What a tensor is in, by its name, or else by what the whole model is.
fn side(name: &str, whole: Side) -> Side {
    let dotted = DOTTED.iter().find(|(prefix, _)| name.starts_with(prefix));
    match dotted {
        Some((_, Component::TextEncoder(number))) => return Side::Text(Some(*number)),
        // Language models have a `transformer.` too.
        Some((_, Component::Denoiser)) if !matches!(whole, Side::Text(_)) => return Side::Denoiser,
        _ => {}
    }
    let mut checkpoints = OF_CHECKPOINTS.iter();
    match checkpoints.find(|(prefix, _)| name.starts_with(prefix)) {
        Some((_, side)) => *side,
        None if whole == Side::Unknown && name.starts_with("text_model.") => Side::Text(None),
        None => whole,
    }
}

/// A name, and what is left of it without one known prefix after the other.
fn variants(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| cut(name)).take(1 + MOST_PREFIXES)
}

fn cut(name: &str) -> Option<&str> {
    let of_models = DOTTED.iter().map(|(prefix, _)| *prefix);
    let of_checkpoints = OF_CHECKPOINTS.iter().map(|(prefix, _)| *prefix);
    let mut prefixes = of_models
        .chain(of_checkpoints)
        .chain(WRAPPERS.iter().copied());
    prefixes.find_map(|prefix| name.strip_prefix(prefix))
}

fn note(table: &mut Table, side: Side, name: String, cut: usize, at: usize) {
    let new = Candidate {
        cut,
        found: Found::One(at),
    };
    table
        .entry((side, name))
        .and_modify(|known| match known.cut.cmp(&cut) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => known.found = Found::Several,
            std::cmp::Ordering::Greater => *known = new,
        })
        .or_insert(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_left_out_one_by_one() {
        let of = |name| variants(name).collect::<Vec<_>>();
        assert_eq!(
            of("model.diffusion_model.input_blocks.0.0"),
            ["model.diffusion_model.input_blocks.0.0", "input_blocks.0.0"]
        );
        assert_eq!(
            of("cond_stage_model.transformer.text_model.encoder.layers.0"),
            [
                "cond_stage_model.transformer.text_model.encoder.layers.0",
                "text_model.encoder.layers.0",
                "encoder.layers.0"
            ]
        );
        assert_eq!(of("transformer_blocks.0"), ["transformer_blocks.0"]);
        assert_eq!(of(&"model.".repeat(100)).len(), 1 + MOST_PREFIXES);
    }

    #[test]
    fn a_language_model_has_no_denoiser_though_its_names_begin_alike() {
        assert_eq!(
            side("transformer.h.0.attn.c_attn", Side::Text(None)),
            Side::Text(None)
        );
        assert_eq!(
            side("transformer.transformer_blocks.0", Side::Unknown),
            Side::Denoiser
        );
        assert_eq!(
            side("first_stage_model.encoder.conv_in", Side::Unknown),
            Side::Other
        );
        assert!(!is_for(Side::Text(Some(2)), Component::TextEncoder(1)));
        assert!(!is_for(Side::Text(None), Component::Denoiser));
    }
}
