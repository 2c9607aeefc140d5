//! Every lint, put to real processes: one where it must speak, and a near miss where it must not.
//! What cannot be brought about on any machine (swap, stalls, GPUs, `memory.high`) is in `by_hand`.

#![cfg(all(target_env = "gnu", target_pointer_width = "64"))]
#![allow(clippy::unwrap_used)]

mod broken;
mod by_hand;
#[path = "../pressure/cgroup.rs"]
#[expect(dead_code, reason = "the tests of pressure use the rest of it")]
mod cgroup;
mod growth;
mod heap;
mod holder;
mod limits;
mod listed;
mod pages;
mod server;
mod walked;
