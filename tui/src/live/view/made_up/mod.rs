//! States made up for tests, and panels of them as text.
//!
//! | file | what |
//! |---|---|
//! | `frame` | a panel drawn as text; what is drawn beyond it fails |
//! | `server` | a server folded from events: it grows, loads, evicts, refuses; and nonsense |
//! | `heap` | a process with a heap |
//! | `cache` | a cache with a simulated GPU, and single decisions |
//! | `hostile` | a cache with numbers and names of the worst kind |
//! | `dice` | any heap at all |

mod cache;
mod dice;
mod frame;
mod heap;
mod hostile;
mod server;

pub(super) use cache::{
    GIB, around, budget, cache, cache_with_driver, candidate, decide, evict, group, load, model,
    place, reclaim, refuse,
};
pub(super) use dice::Dice;
pub(super) use frame::{
    ASCII, Frame, UNICODE, areas, assert_looks, captioned, drawn, shown, stays_inside, text,
    unicode,
};
pub(super) use heap::{arena, coverage, heap, state};
pub(super) use hostile::hostile;
/// Events, rather than what became of them.
pub(super) use server::events;
pub(super) use server::{assert_draws_anything, fold, memory, nonsense, picture, server};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const SECOND: u64 = 1_000_000;
