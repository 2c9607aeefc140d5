//! A process and its descendants, followed from outside. The processes are real ones.

#![allow(clippy::unwrap_used)]
#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

mod ends;
mod memory;
mod met;
#[path = "../own_process/mod.rs"]
mod own_process;
#[path = "../around/processes.rs"]
mod processes;
mod tree;
