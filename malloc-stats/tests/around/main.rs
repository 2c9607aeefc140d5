//! Everything around the heap of another process: whether it can be looked at, what its memory is,
//! its files, its limits and how fast it grows. The processes are real ones.

#![allow(clippy::unwrap_used)]

#[path = "../pressure/cgroup.rs"]
#[expect(dead_code, reason = "the tests of pressure use the rest of it")]
mod cgroup;
mod classes;
mod exit;
mod files;
mod gpus;
mod growth;
mod memory;
mod processes;
mod pulse;
mod refusals;
mod smaps;
mod targets;
