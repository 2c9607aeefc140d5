//! The live screen.
//!
//! What it shows is folded from one stream of events, whoever sends them, and drawn from nothing
//! else. Three things are apart:
//!
//! | module | what |
//! |---|---|
//! | [`state`] | the fold: what is known at a moment |

pub mod state;

pub use state::State;
