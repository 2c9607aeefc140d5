//! Models of which a part is there, and the rest streams in as it is asked for.
//!
//! A model is cut, in the order in which it is used, into parts of which each is a model of its own
//! to the books. A lease pins the first of them, which must be there, and *prefers* the next ones
//! that there is room for: they are evicted after everything that nobody cares for, the last part
//! first, without asking. Whatever is not there when the lease is asked for it comes through a pool
//! of memory that the lease keeps, fetched ahead along the order by a thread of its own.
//!
//! | file | what |
//! |---|---|
//! | `division` | into which parts, and which units stream |
//! | `grow` | how many parts come, and come back |
//! | `streaming` | what is given out |
//! | `fetching` | what is fetched, when, by whom |
//! | `pool` | which units are in the pool, and which goes for which |
//! | `ending` | the end of it |
//! | `source` | a part, read from the copy of the whole in RAM |

mod division;
mod ending;
mod fetching;
mod grow;
mod pool;
mod source;
mod streaming;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use division::{Division, KnownDivisions};
pub(crate) use ending::Ended;
pub(crate) use source::InRam;
pub(crate) use streaming::{Kept, Streaming};

/// How much of a model a lease makes do with:
/// `Partial::at_least(["embed.weight"]).up_to(2 << 30)`.
///
/// What is named must be there. Of the rest, as much comes as there is room for, in the order in
/// which it is used; everything else stays in RAM, or in the file, and streams through a pool that
/// counts with it. Where another lease needs the room, what is not named gives way from the end of
/// the order; [`Lease::grow`](crate::Lease::grow) brings it back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Partial {
    pub(super) required: Vec<String>,
    pub(super) order: Arc<[String]>,
    pub(super) most: Option<u64>,
    pub(super) pool: Option<u64>,
    pub(super) is_firm: bool,
}

impl Partial {
    /// These tensors must be there. A name that ends in `*` stands for all that begin so. Where none
    /// are named, those used first must be.
    #[must_use]
    pub fn at_least<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Partial {
        Partial {
            required: names.into_iter().map(Into::into).collect(),
            ..Partial::default()
        }
    }

    /// At most so many bytes of the device in all, the pool included. Without it, as much as the
    /// budget has.
    #[must_use]
    pub fn up_to(mut self, bytes: u64) -> Partial {
        self.most = Some(bytes);
        self
    }

    /// The order in which tensors are used, over and over: what comes first is rather there, and what
    /// comes next is fetched ahead. Tensors that are not named come after those that are; without
    /// any, the order is that of the file. To ask in another order gives the same tensors, later.
    #[must_use]
    pub fn in_order<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Partial {
        self.order = names.into_iter().map(Into::into).collect();
        self
    }

    /// The memory through which tensors stream, bytes: for the one in use and those that come next.
    /// Without it, what any two that follow one another take; where that is too much, what there is,
    /// and at least what the largest takes.
    #[must_use]
    pub fn pool(mut self, bytes: u64) -> Partial {
        self.pool = Some(bytes);
        self
    }

    /// Keeps what has come until the lease ends, whoever needs the room.
    #[must_use]
    pub fn firm(mut self) -> Partial {
        self.is_firm = true;
        self
    }
}

/// What of a model is where, and what streaming it has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Residency {
    /// Bytes of the model, tied tensors once.
    pub bytes: u64,
    /// Bytes of them that are on the device at this moment, without those in the pool.
    pub resident_bytes: u64,
    /// What the resident ones count against the budget.
    pub charged_bytes: u64,
    /// The pool, bytes; 0 where nothing streams.
    pub pool_bytes: u64,
    /// Bytes that have come through the pool.
    pub streamed_bytes: u64,
    /// Times that something came through it.
    pub transfers: u64,
    /// How long whoever asked had to wait for it: what fetching ahead has not hidden.
    pub waited: Duration,
    /// Times that something was asked for which was not next.
    pub out_of_order: u64,
}

impl Residency {
    /// Of a model that is leased as a whole.
    pub(crate) fn whole(bytes: u64, resident_bytes: u64, charged_bytes: u64) -> Residency {
        Residency {
            bytes,
            resident_bytes,
            charged_bytes,
            ..Residency::default()
        }
    }
}
