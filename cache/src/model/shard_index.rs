//! The index of a sharded model, `*.safetensors.index.json` or `*.bin.index.json`, as a pure function over its bytes.
//!
//! It is written by Hugging Face's `save_pretrained` (transformers, diffusers): an object whose
//! `weight_map` gives the file name of the shard that holds each tensor. Other keys, such as
//! `metadata`, are skipped.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use thiserror::Error;

use super::escape::escape;
use super::header_json::{Skipped, no_string, reason};
use super::names::{NameIndex, Names, Twice};

/// The longest index that is read, in bytes. An index holds less per tensor than a header does, so
/// the limit for headers leaves room here too.
pub const MAX_INDEX_BYTES: u64 = 100_000_000;

/// The suffixes of an index's file name.
pub(super) const INDEX_SUFFIXES: [&str; 2] = [".safetensors.index.json", ".bin.index.json"];

/// The extensions that shards have.
pub(super) const SHARD_SUFFIXES: [&str; 2] = [".safetensors", ".bin"];

/// Whether a file has the name of an index.
pub(super) fn is_named_index(file_name: &str) -> bool {
    INDEX_SUFFIXES
        .iter()
        .any(|suffix| file_name.ends_with(suffix))
}

/// Which shard holds which tensor.
#[derive(Clone)]
pub struct ShardIndex {
    /// The file names of the shards, sorted, each a plain name in the index's own folder.
    pub shards: Vec<Box<str>>,
    placed: Placed,
    names: NameIndex,
}

impl ShardIndex {
    /// Each tensor's name and shard, an index into `shards`, in the order of the index; each name
    /// once.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        (0..self.placed.count()).map(|at| (self.placed.name(at), self.placed.shard(at)))
    }

    /// The shard that a tensor is in, an index into `shards`.
    pub fn shard(&self, tensor: &str) -> Option<u32> {
        self.position(tensor)
            .map(|position| self.placed.shard(position))
    }

    /// Where in [`tensors`](Self::tensors) a name is.
    pub(super) fn position(&self, tensor: &str) -> Option<usize> {
        self.names.position(tensor, &self.placed)
    }

    /// The shard of the tensor at a position of [`tensors`](Self::tensors).
    pub(super) fn shard_at(&self, position: usize) -> u32 {
        self.placed.shard(position)
    }

    /// The index of the names it has.
    pub(super) fn into_names(self) -> NameIndex {
        self.names
    }
}

impl fmt::Debug for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardIndex")
            .field("shards", &self.shards)
            .field("tensors", &self.placed.count())
            .finish()
    }
}

/// Names of tensors and the shard of each: one text, as there may be a hundred thousand.
#[derive(Clone, Default)]
struct Placed {
    text: String,
    /// Where in `text` each name ends, and its shard. An index of 100 MB has no room for 2³² of
    /// either.
    entries: Vec<(u32, u32)>,
}

impl Placed {
    fn push(&mut self, name: &str, shard: u32) {
        self.text.push_str(name);
        self.entries.push((self.text.len() as u32, shard));
    }

    fn shard(&self, position: usize) -> u32 {
        self.entries[position].1
    }
}

impl Names for Placed {
    fn count(&self) -> usize {
        self.entries.len()
    }

    fn name(&self, position: usize) -> &str {
        let before = position.checked_sub(1);
        let begin = before.map_or(0, |before| self.entries[before].0);
        &self.text[begin as usize..self.entries[position].0 as usize]
    }
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

    /// A shard is no safetensors file and no PyTorch checkpoint.
    #[error(
        "places tensor `{}` in `{}`, which is not a .safetensors or .bin file; convert the model to safetensors",
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
/// assert_eq!(index.shard("w"), Some(0));
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
    let WeightMap { placed, order } = map;
    let names = NameIndex::new(&placed).map_err(|Twice(first, second)| {
        let shard = |at| order[placed.shard(at) as usize].clone();
        IndexFault::DuplicateName {
            tensor: placed.name(first).into(),
            first: shard(first),
            second: shard(second),
        }
    })?;
    for (number, shard) in order.iter().enumerate() {
        let tensor = || {
            let mut all = 0..placed.count();
            let first = all.find(|at| placed.shard(*at) as usize == number);
            first.map_or_else(Box::default, |at| placed.name(at).into())
        };
        if !is_plain(shard) {
            return Err(IndexFault::ShardPath {
                tensor: tensor(),
                shard: shard.clone(),
            });
        }
        if !SHARD_SUFFIXES.iter().any(|suffix| shard.ends_with(suffix)) {
            return Err(IndexFault::ShardFormat {
                tensor: tensor(),
                shard: shard.clone(),
            });
        }
    }
    if placed.count() == 0 {
        return Err(IndexFault::NoTensors);
    }
    let (shards, placed) = sorted(order, placed);
    Ok(ShardIndex {
        shards,
        placed,
        names,
    })
}

/// Puts the shards in the order of their names, which is how they are numbered.
fn sorted(order: Vec<Box<str>>, mut placed: Placed) -> (Vec<Box<str>>, Placed) {
    let mut shards: Vec<(Box<str>, usize)> = order.into_iter().zip(0..).collect();
    shards.sort_unstable();
    let mut place = vec![0; shards.len()];
    for (new, (_, old)) in shards.iter().enumerate() {
        place[*old] = new as u32;
    }
    for (_, shard) in &mut placed.entries {
        *shard = place[*shard as usize];
    }
    let shards = shards.into_iter().map(|(name, _)| name).collect();
    (shards, placed)
}

/// Whether `name` is one name in a folder: not a path, not `..`, without NUL.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let one = matches!(components.next(), Some(Component::Normal(first)) if first == name);
    one && components.next().is_none() && !name.contains('\0')
}

struct Document(WeightMap);

/// Tensors, of which names may occur twice, and the shards in the order in which they are first
/// named.
struct WeightMap {
    placed: Placed,
    order: Vec<Box<str>>,
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
                let mut numbers: HashMap<Cow<'de, str>, u32> = HashMap::new();
                let mut placed = Placed::default();
                let mut order: Vec<Box<str>> = Vec::new();
                // Tensors of a shard mostly stand together.
                let mut latest = 0;
                while let Some((Piece(tensor), Piece(shard))) = map.next_entry()? {
                    if order
                        .get(latest as usize)
                        .is_none_or(|name| **name != *shard)
                    {
                        latest = *numbers.entry(shard).or_insert_with_key(|shard| {
                            order.push((&**shard).into());
                            order.len() as u32 - 1
                        });
                    }
                    placed.push(&tensor, latest);
                }
                Ok(WeightMap { placed, order })
            }
        }
        json.deserialize_map(Names)
    }
}

/// A string, of which no copy is made unless it has escapes.
struct Piece<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Piece<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Piece<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Piece<'de>, E> {
                Ok(Piece(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Piece<'de>, E> {
                Ok(Piece(Cow::Owned(text.to_owned())))
            }
        }
        json.deserialize_str(Any)
    }
}
