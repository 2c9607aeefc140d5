//! Which allocator, tuned how?
//!
//! A [`Profile`] names an allocator, its knobs, what to do after an unload, and why. [`apply`] puts
//! this process under one; [`in_force`] says which of its settings are known to hold.
//!
//! Another program is put under a profile by the environment it is started with
//! ([`foreign_environment`]). [`reach()`] says beforehand what keeps it from working, and [`took()`]
//! afterwards, from outside, whether it did: a preload that silently fails is the commonest mistake.
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
//! | [`malloc`] | which allocators are there? |
//! | [`launch`] | how is one applied? |
//! | [`effective`] | did it take here? |
//! | [`mod@reach`] | can it reach another program? |
//! | [`mod@took`] | did it take there? |
//! | [`window`] | where do regions of weights lie? |

pub mod builtin;
pub mod effective;
mod elf;
mod error;
pub mod knob;
pub mod launch;
pub mod malloc;
pub mod profile;
pub mod reach;
mod reclaim;
mod selected;
pub mod took;

pub use effective::in_force;
pub use error::Error;
pub use launch::{ForeignEnvironment, apply, exported_environment, foreign_environment};
pub use malloc::Malloc;
pub use profile::{Profile, Reclaim};
pub use reach::{NotFound, Obstacle, Reach, reach, resolve};
pub use selected::window;
pub use selected::{ALLOCATOR_VARIABLE, Selected, selected_is_installed, serving};
pub use took::{Took, took};
