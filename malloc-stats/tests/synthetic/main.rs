//! The walker over made-up heaps: what it finds is what was laid out, for every glibc; and heaps
//! made to mislead it cost it little and crash nothing.

#![allow(clippy::unwrap_used)]

mod agreement;
mod bounds;
mod chunks;
mod coverage;
mod dice;
mod entry;
mod excess;
mod forge;
mod graded;
mod heads;
mod hostile;
mod image;
mod layout;
mod links;
mod mutation;
mod object;
mod plan;
mod soak;
mod space;
mod truth;
mod weight;
