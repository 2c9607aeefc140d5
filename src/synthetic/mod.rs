//! Synthetic models: real safetensors files with the tensor names and shapes of real
//! architectures, and weights that mean nothing.
//!
//! Measurements of a cache need models, and models are large downloads with licences. What a cache
//! sees of a model is its table of tensors: how many, how large, in which order. So that is kept,
//! and the values are drawn from a generator, the same on every machine.
//!
//! [`plan()`] says what a [`Set`] consists of, at a scale; [`make`] writes it; [`clean`] removes what
//! was written.
//!
//! | file | what it has |
//! |---|---|
//! | `plan.rs` | the sets, and the table of tensors of each model |
//! | `family.rs` | architectures, brought to a size |
//! | `diffusion.rs`, `language.rs` | the shapes of each architecture |
//! | `six.rs` | the fragmentation trace |
//! | `table.rs` | names under prefixes |
//! | `fill.rs` | values |
//! | `write.rs` | whole files or none |
//! | `folder.rs` | where they lie, and removing them |

mod diffusion;
mod error;
mod family;
mod fill;
mod folder;
mod language;
mod plan;
mod six;
mod table;
mod write;

#[cfg(test)]
mod tests;

pub use folder::{cache_dir, clean};
pub use plan::{Plan, Set, plan};
pub use write::make;
