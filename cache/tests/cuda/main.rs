//! A CUDA device over a simulated driver: what no GPU is needed to see.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "cuda")]
mod candle;
mod driver;
mod errors;
mod faults;
#[cfg(feature = "cuda")]
#[path = "../conformance/files.rs"]
#[allow(dead_code)]
mod files;
mod leases;
mod pinned;
mod random;
#[path = "../support/mod.rs"]
mod support;

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;
