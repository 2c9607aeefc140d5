//! The live screen.
//!
//! What it shows is folded from one stream of events, whoever sends them, and drawn from nothing
//! else. Three things are apart:
//!
//! | module | what |
//! |---|---|
//! | [`source`] | where events come from: a cache's socket, a process, a recording |
//! | [`state`] | the fold: what is known at a moment |
//! | [`view`] | one file per panel: draws a state |
//! | [`screen`] | the terminal: keys, layout, frames, config |
//! | [`summary`] | everything that is known, as JSON |

pub mod screen;
pub mod source;
pub mod state;
pub mod summary;
pub mod view;

pub use source::Source;
pub use state::State;
