//! Patches: what names mean, what fits what, and merging against a reference in double precision.

#![allow(clippy::unwrap_used)]

mod components;
mod cuts;
mod embeddings;
mod files;
mod formats;
mod hostile;
mod merge;
mod misfits;
mod random;
mod reference;
#[path = "../gguf/written.rs"]
#[allow(dead_code)]
mod written;
