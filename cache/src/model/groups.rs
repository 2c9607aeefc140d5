//! A model's tensors in few groups, by how their names begin: the layers of most models.

use std::collections::HashMap;

use plimsoll_events::{GroupSeen, ModelSeen};

use super::Model;
use super::dtype::Dtype;
use super::tensor::TensorInfo;

/// The most groups of a model.
const MOST_GROUPS: usize = 64;

/// Deeper than this no names are looked at. Real ones have up to a dozen parts.
const DEEPEST: usize = 32;

/// The longest name of a group, bytes.
const LONGEST_NAME: usize = 128;

impl Model {
    /// The model as streams name it, with its tensors in at most 64 groups: by the first parts of
    /// their dotted names, of as many parts as keep the groups that few. Walks the tensor table.
    #[must_use]
    pub fn seen(&self) -> ModelSeen {
        ModelSeen {
            groups: groups(self.tensors()),
            ..self.seen_whole()
        }
    }

    /// The same without the groups, which costs nothing.
    #[must_use]
    pub fn seen_whole(&self) -> ModelSeen {
        ModelSeen {
            name: self.name().to_owned(),
            bytes: self.bytes(),
            tensors: self.tensors().len() as u64,
            groups: Vec::new(),
        }
    }
}

/// Groups in the order of their first tensors.
fn groups(tensors: &[TensorInfo]) -> Vec<GroupSeen> {
    let depth = depth(tensors);
    let mut positions: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(&str, Vec<&TensorInfo>)> = Vec::new();
    for tensor in tensors {
        let name = beginning(&tensor.name, depth);
        let at = *positions.entry(name).or_insert(groups.len());
        if at == groups.len() {
            groups.push((name, Vec::new()));
        }
        groups[at].1.push(tensor);
    }
    let seen = groups.into_iter().map(|(name, tensors)| GroupSeen {
        name: cut(name).to_owned(),
        dtypes: dtypes(&tensors),
        tensors: tensors.len() as u64,
        // Sparse files can claim more than 64 bits hold.
        bytes: tensors
            .iter()
            .fold(0, |sum, tensor| sum.saturating_add(tensor.bytes)),
    });
    seen.collect()
}

/// The most parts of names that make few enough groups; 0 where even the first ones are too many.
fn depth(tensors: &[TensorInfo]) -> usize {
    let mut few = 0;
    for depth in 1..=DEEPEST {
        let mut beginnings: Vec<&str> = Vec::with_capacity(MOST_GROUPS);
        let mut whole = true;
        for tensor in tensors {
            let name = beginning(&tensor.name, depth);
            whole &= name.len() == tensor.name.len();
            // Tensors of a layer mostly lie together.
            if beginnings.last() != Some(&name) && !beginnings.contains(&name) {
                if beginnings.len() == MOST_GROUPS {
                    return few;
                }
                beginnings.push(name);
            }
        }
        few = depth;
        if whole {
            break;
        }
    }
    few
}

/// The first so many parts of a dotted name.
fn beginning(name: &str, parts: usize) -> &str {
    let Some(last) = parts.checked_sub(1) else {
        return "";
    };
    let mut dots = name.match_indices('.');
    dots.nth(last).map_or(name, |(at, _)| &name[..at])
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(LONGEST_NAME)]
}

/// The element types, those of most bytes first.
fn dtypes(tensors: &[&TensorInfo]) -> String {
    let mut shares: Vec<(Dtype, u64)> = Vec::new();
    for tensor in tensors {
        match shares.iter_mut().find(|(dtype, _)| *dtype == tensor.dtype) {
            Some((_, bytes)) => *bytes = bytes.saturating_add(tensor.bytes),
            None => shares.push((tensor.dtype, tensor.bytes)),
        }
    }
    shares.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let names: Vec<String> = shares.iter().map(|(dtype, _)| dtype.to_string()).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: Dtype, bytes: u64) -> TensorInfo {
        TensorInfo {
            name: name.into(),
            dtype,
            shape: Box::default(),
            file: 0,
            offset: 8,
            bytes,
            tied_to: None,
        }
    }

    fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<GroupSeen> {
        let tensors = names.into_iter().map(|name| tensor(name, Dtype::BF16, 2));
        groups(&tensors.collect::<Vec<_>>())
    }

    fn names(groups: &[GroupSeen]) -> Vec<&str> {
        groups.iter().map(|group| group.name.as_str()).collect()
    }

    #[test]
    fn the_layers_of_a_llama_are_groups_in_the_order_of_its_file() {
        let mut tensors = vec![tensor("model.embed_tokens.weight", Dtype::BF16, 1000)];
        for layer in 0..32 {
            for part in ["self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"] {
                let name = format!("model.layers.{layer}.{part}.weight");
                tensors.push(tensor(&name, Dtype::BF16, 100));
            }
            let norm = format!("model.layers.{layer}.input_layernorm.weight");
            tensors.push(tensor(&norm, Dtype::F32, 8));
        }
        tensors.push(tensor("model.norm.weight", Dtype::F32, 8));
        tensors.push(tensor("lm_head.weight", Dtype::BF16, 1000));
        let groups = groups(&tensors);
        assert_eq!(groups.len(), 35);
        assert_eq!(groups[0].name, "model.embed_tokens.weight");
        let layer = GroupSeen {
            name: "model.layers.0".to_owned(),
            dtypes: "BF16 F32".to_owned(),
            tensors: 4,
            bytes: 308,
        };
        assert_eq!(groups[1], layer);
        assert_eq!(groups[32].name, "model.layers.31");
        assert_eq!(groups[34].name, "lm_head.weight");
        let tensors_in_groups: u64 = groups.iter().map(|group| group.tensors).sum();
        assert_eq!(tensors_in_groups, tensors.len() as u64);
    }

    #[test]
    fn groups_that_would_be_too_many_are_coarser() {
        let layers: Vec<String> = (0..80)
            .map(|layer| format!("model.layers.{layer}.weight"))
            .chain(["lm_head.weight".to_owned()])
            .collect();
        let groups = named(layers.iter().map(String::as_str));
        assert_eq!(names(&groups), ["model.layers", "lm_head.weight"]);
        assert_eq!(groups[0].tensors, 80);
    }

    #[test]
    fn a_hundred_thousand_flat_names_are_one_group_that_has_none_in_common() {
        let flat: Vec<String> = (0..100_000).map(|number| format!("t{number}")).collect();
        let groups = named(flat.iter().map(String::as_str));
        assert_eq!(names(&groups), [""]);
        assert_eq!((groups[0].tensors, groups[0].bytes), (100_000, 200_000));
    }

    #[test]
    fn exactly_sixty_four_are_not_too_many_and_one_more_is() {
        let flat: Vec<String> = (0..65).map(|number| format!("t{number}")).collect();
        assert_eq!(named(flat[..64].iter().map(String::as_str)).len(), 64);
        assert_eq!(named(flat.iter().map(String::as_str)).len(), 1);
    }

    #[test]
    fn a_model_of_nothing_has_no_groups() {
        assert_eq!(groups(&[]), []);
    }

    #[test]
    fn tensors_of_a_group_need_not_lie_together() {
        let many: Vec<String> = (0..64).map(|number| format!("a.{number}")).collect();
        let all = many.iter().map(String::as_str);
        let groups = named(["b.x", "a.x"].into_iter().chain(all).chain(["b.y"]));
        assert_eq!(names(&groups), ["b", "a"]);
        assert_eq!(groups[0].tensors, 2);
    }

    #[test]
    fn any_text_may_be_a_name_and_long_ones_are_cut_between_characters() {
        let long = "語".repeat(100);
        let odd = ["", ".", "..", "\u{1b}[2J.x", "ü.\u{0}.ß", &long];
        let groups = named(odd);
        assert_eq!(names(&groups)[..3], ["", ".", ".."]);
        assert_eq!(groups[3].name, "\u{1b}[2J.x");
        assert_eq!(groups[5].name, "語".repeat(42));
        // A name of nothing but parts takes no longer than others.
        let dots = ".".repeat(1 << 20);
        assert_eq!(named([dots.as_str(), "a"]).len(), 2);
    }

    #[test]
    fn bytes_that_are_too_many_to_add_saturate() {
        let tensors = ["a.x", "a.y"].map(|name| tensor(name, Dtype::U8, u64::MAX));
        assert_eq!(groups(&tensors)[0].bytes, u64::MAX);
    }
}
