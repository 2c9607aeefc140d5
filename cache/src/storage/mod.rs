//! Where weights are kept in RAM.
//!
//! | strategy | what it is | for |
//! |---|---|---|
//! | [`Storage::Heap`] | the global allocator, one allocation per tensor | what everybody does; the thing to diagnose |
//! | [`Storage::Anonymous`] | one exactly sized region per model, recycled pages | no fragmentation by construction, gone at unload |
//! | [`Storage::Pinned`] | the same, of page-locked memory | transfers that the device makes by itself |
//! | [`Storage::Mapped`] | the files themselves, mapped privately | loads that read nothing, page cache shared between processes |

mod anonymous;
mod extents;
mod guard;
mod heap;
mod mapped;
mod pinned;
mod place;
mod quantised;
mod read;
mod recycler;
mod view;
mod weights;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::Model;

pub(crate) use anonymous::Region;
pub use mapped::{Advice, Mapping, PageCache};
pub(crate) use pinned::LockedPages;
pub(crate) use read::{
    Sources, Target, WIDEST, open_files, open_sources, read_targets, still_the_same,
};
pub(crate) use recycler::Recycler;
pub use view::WeightBytes;
pub(crate) use weights::{Copies, HostWeights, Means};

/// How weights in RAM are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// The selected global allocator, one allocation per tensor. Tensors are copies: nothing tells
    /// when a heap block that was handed out is freed, and bytes are counted while they exist.
    Heap,
    /// One anonymous mapping per model, exactly sized, tensors aligned to 64 bytes, made of pages
    /// that evictions left behind. Tensors are views of it, without a copy.
    #[default]
    Anonymous,
    /// The same of page-locked memory, which devices read by themselves, exactly as much as a model
    /// has; kept in `anonymous` storage where it cannot be locked. See
    /// [`Builder::pinned_at_most`](crate::Builder::pinned_at_most).
    Pinned,
    /// The model's files, mapped privately: a load reads nothing, and tensors are views of the page
    /// cache, copied on write. How, and where not, says [`Mapping`].
    Mapped,
}

impl Storage {
    /// What a model counts against the budget: its tensors' bytes; under `anonymous` and `pinned`
    /// alignment and the rest of the last page too; under `mapped` all pages of its files that it can come to
    /// have, whether they are resident or not, and no less than under `anonymous`, where it may
    /// have to go.
    #[must_use]
    pub fn charge(self, model: &Model) -> u64 {
        match self {
            Storage::Heap => model.bytes(),
            Storage::Anonymous | Storage::Pinned => anonymous::Plan::new(model).bytes(),
            Storage::Mapped if model.base().is_some() => anonymous::Plan::new(model).bytes(),
            Storage::Mapped => {
                let anonymous = anonymous::Plan::new(model).bytes();
                mapped::charge(model).max(anonymous)
            }
        }
    }
}

/// What of a model's bytes storage [`Mapped`](Storage::Mapped) uses where they lie: all but tensors
/// whose elements are not aligned in the file, or that lie in the bytes of another and are not tied
/// to it.
#[must_use]
pub fn in_place_bytes(model: &Model) -> u64 {
    match model.base() {
        None => mapped::in_place(model),
        Some(_) => 0,
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Storage::Heap => "heap",
            Storage::Anonymous => "anonymous",
            Storage::Pinned => "pinned",
            Storage::Mapped => "mapped",
        })
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(name: &str) -> Result<Storage, String> {
        match name {
            "heap" => Ok(Storage::Heap),
            "anonymous" => Ok(Storage::Anonymous),
            "pinned" => Ok(Storage::Pinned),
            "mapped" => Ok(Storage::Mapped),
            _ => Err(format!(
                "no storage `{}`: heap, anonymous, pinned or mapped",
                name.escape_debug()
            )),
        }
    }
}
