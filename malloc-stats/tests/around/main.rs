//! Everything around the heap of another process: whether it can be looked at, what its memory is,
//! its files, its limits and how fast it grows. The processes are real ones.

#![allow(clippy::unwrap_used)]

mod classes;
mod files;
mod gpus;
mod growth;
mod memory;
mod processes;
mod refusals;
mod smaps;
mod targets;
