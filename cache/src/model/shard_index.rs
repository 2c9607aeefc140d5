//! The index of a sharded model, `*.safetensors.index.json`, as a pure function over its bytes.
//!
//! It is written by Hugging Face's `save_pretrained` (transformers, diffusers): an object whose
//! `weight_map` gives the file name of the shard that holds each tensor. Other keys, such as
//! `metadata`, are skipped.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use thiserror::Error;

use super::escape::escape;
use super::header_json::{Skipped, no_string, reason};

/// The longest index that is read, in bytes. An index holds less per tensor than a header does, so
/// the limit for headers leaves room here too.
pub const MAX_INDEX_BYTES: u64 = 100_000_000;

/// The suffix of an index's file name.
pub(super) const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// Which shard holds which tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    /// The file names of the shards, sorted, each a plain name in the index's own folder.
    pub shards: Vec<Box<str>>,
    /// Each tensor's name and shard, an index into `shards`; each name once.
    pub tensors: HashMap<Box<str>, u32>,
}

/// What is wrong with the index of a sharded model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndexFault {
    /// The file has no bytes.
    #[error("is empty, 0 bytes; download it again")]
    Empty,

    /// The file is larger than [`MAX_INDEX_BYTES`].
    #[error(
        "has {bytes} bytes, above the limit of {MAX_INDEX_BYTES} for an index; it is no index of a model"
    )]
    TooLarge {
        /// Bytes of the file.
        bytes: u64,
    },

    /// The file is not JSON of the right form.
    #[error("is no index of a sharded model, in {bytes} bytes: {reason}; download it again")]
    Json {
        /// Bytes of the file.
        bytes: u64,
        /// What the JSON reader said, with line and column.
        reason: Box<str>,
    },

    /// The index names no tensor.
    #[error("has a weight_map of 0 tensors; download it again")]
    NoTensors,

    /// A tensor is named twice.
    #[error(
        "names tensor `{}` twice, in shards `{}` and `{}`, so it is not known which is meant; download it again",
        escape(tensor),
        escape(first),
        escape(second)
    )]
    DuplicateName {
        /// The tensor.
        tensor: Box<str>,
        /// The shard named first.
        first: Box<str>,
        /// The shard named second; it may be the same.
        second: Box<str>,
    },

    /// The name of a shard leads out of the index's folder.
    #[error(
        "places tensor `{}` in `{}`, which is not a plain file name; an index may only name files beside it, so do not trust this one",
        escape(tensor),
        escape(shard)
    )]
    ShardPath {
        /// A tensor placed there.
        tensor: Box<str>,
        /// What the index gives as the shard's file name.
        shard: Box<str>,
    },

    /// A shard is no safetensors file.
    #[error(
        "places tensor `{}` in `{}`, which is not a .safetensors file; convert the model to safetensors",
        escape(tensor),
        escape(shard)
    )]
    ShardFormat {
        /// A tensor placed there.
        tensor: Box<str>,
        /// The shard's file name.
        shard: Box<str>,
    },
}

/// Reads an index.
///
/// ```
/// use plimsoll_cache::model::parse_index;
/// let index = parse_index(br#"{"weight_map":{"w":"m-00001-of-00001.safetensors"}}"#)?;
/// assert_eq!(index.tensors["w"], 0);
/// # Ok::<(), plimsoll_cache::model::IndexFault>(())
/// ```
///
/// # Errors
/// An [`IndexFault`]. Takes no more memory than a small multiple of `index`.
pub fn parse_index(index: &[u8]) -> Result<ShardIndex, IndexFault> {
    let bytes = index.len() as u64;
    if bytes == 0 {
        return Err(IndexFault::Empty);
    }
    if bytes > MAX_INDEX_BYTES {
        return Err(IndexFault::TooLarge { bytes });
    }
    // Whole, because serde_json does not look at the bytes of what it skips.
    let text = str::from_utf8(index).map_err(|fault| IndexFault::Json {
        bytes,
        reason: format!("not UTF-8 at byte {}", fault.valid_up_to()).into(),
    })?;
    let Document(map) = serde_json::from_str(text).map_err(|error| IndexFault::Json {
        bytes,
        reason: reason(&error),
    })?;
    let WeightMap {
        found,
        order,
        twice,
    } = map;
    if let Some((tensor, first, second)) = twice {
        return Err(IndexFault::DuplicateName {
            tensor,
            first: order[first as usize].clone(),
            second: order[second as usize].clone(),
        });
    }
    for (position, shard) in order.iter().enumerate() {
        let tensor = || {
            let mut in_it = found.iter().filter(|(_, at)| **at as usize == position);
            in_it
                .next()
                .map_or_else(Box::default, |(name, _)| name.clone())
        };
        if !is_plain(shard) {
            return Err(IndexFault::ShardPath {
                tensor: tensor(),
                shard: shard.clone(),
            });
        }
        if !shard.ends_with(".safetensors") {
            return Err(IndexFault::ShardFormat {
                tensor: tensor(),
                shard: shard.clone(),
            });
        }
    }
    if found.is_empty() {
        return Err(IndexFault::NoTensors);
    }
    Ok(sorted(order, found))
}

/// Puts the shards in the order of their names, which is how they are numbered.
fn sorted(order: Vec<Box<str>>, mut tensors: HashMap<Box<str>, u32>) -> ShardIndex {
    let mut shards: Vec<(Box<str>, usize)> = order.into_iter().zip(0..).collect();
    shards.sort_unstable();
    let mut place = vec![0; shards.len()];
    for (new, (_, old)) in shards.iter().enumerate() {
        place[*old] = new as u32;
    }
    for shard in tensors.values_mut() {
        *shard = place[*shard as usize];
    }
    ShardIndex {
        shards: shards.into_iter().map(|(name, _)| name).collect(),
        tensors,
    }
}

/// Whether `name` is one name in a folder: not a path, not `..`, without NUL.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let one = matches!(components.next(), Some(Component::Normal(first)) if first == name);
    one && components.next().is_none() && !name.contains('\0')
}

struct Document(WeightMap);

/// Shards in the order in which they are first named, by number; and the first name that occurs
/// twice, with both its shards.
struct WeightMap {
    found: HashMap<Box<str>, u32>,
    order: Vec<Box<str>>,
    twice: Option<(Box<str>, u32, u32)>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Document;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a weight_map")
            }
            no_string!();
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut weights = None;
                while let Some(key) = map.next_key::<Box<str>>()? {
                    if &*key != "weight_map" {
                        map.next_value::<Skipped>()?;
                    } else if weights.replace(map.next_value::<WeightMap>()?).is_some() {
                        return Err(A::Error::duplicate_field("weight_map"));
                    }
                }
                let weights = weights.ok_or_else(|| A::Error::missing_field("weight_map"))?;
                Ok(Document(weights))
            }
        }
        json.deserialize_map(Keys)
    }
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from tensor names to file names")
            }
            no_string!();
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut numbers: HashMap<Box<str>, u32> = HashMap::new();
                let mut weights = WeightMap {
                    found: HashMap::new(),
                    order: Vec::new(),
                    twice: None,
                };
                while let Some((tensor, shard)) = map.next_entry::<Box<str>, Box<str>>()? {
                    let number = match numbers.get(&shard) {
                        Some(&number) => number,
                        None => {
                            // An index of 100 MB has no room for 2³² names.
                            let number = weights.order.len() as u32;
                            weights.order.push(shard.clone());
                            numbers.insert(shard, number);
                            number
                        }
                    };
                    if let Some(&first) = weights.found.get(&tensor) {
                        weights.twice.get_or_insert((tensor, first, number));
                    } else {
                        weights.found.insert(tensor, number);
                    }
                }
                Ok(weights)
            }
        }
        json.deserialize_map(Names)
    }
}
