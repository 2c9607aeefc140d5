//! The live screen.
//!
//! What it shows is folded from one stream of events, whoever sends them, and drawn from nothing
//! else. Three things are apart:
//!
//! | module | what |
//! |---|---|
//! | [`source`] | where events come from: a cache's socket, a process, a recording |
//! | [`state`] | the fold: what is known at a moment |

pub mod source;
pub mod state;

pub use source::Source;
pub use state::State;
