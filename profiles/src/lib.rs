//! Which allocator, tuned how?
//!
//! A [`Profile`] names an allocator, its knobs, what to do after an unload, and why. [`apply`] puts
//! this process under one; [`foreign_environment`] tells how to start another program under it;
//! [`in_force`] says which of its settings are known to hold.
//!
//! A program becomes tunable by installing [`Selected`], a global allocator that decides once,
//! before the first allocation, between glibc's malloc and jemalloc. Memory that came from neither
//! (a region of the [`window`]) can be adopted as a `Vec<T>` and is given back when that is dropped.
//!
//! | module | question |
//! |---|---|
//! | [`profile`] | what does a profile say? |
//! | [`knob`] | which settings are there, and how do they reach the allocator? |
//! | [`builtin`] | which profiles come with Plimsoll? |
//! | [`launch`] | how is one applied? |
//! | [`effective`] | did it take? |
//! | [`window`] | where do regions of weights lie? |

pub mod builtin;
pub mod effective;
mod error;
pub mod knob;
pub mod launch;
pub mod profile;
mod reclaim;
mod selected;

pub use effective::in_force;
pub use error::Error;
pub use launch::{apply, foreign_environment};
pub use profile::{Profile, Reclaim, allocator_name};
pub use selected::window;
pub use selected::{ALLOCATOR_VARIABLE, Selected, selected_is_installed, serving};
