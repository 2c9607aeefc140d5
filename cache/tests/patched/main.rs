//! Leases of models with patches.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod besides;
mod cycles;
mod definitions;
#[path = "../patch/files.rs"]
#[allow(dead_code)]
mod files;
mod forward;
mod leases;
mod pieces;
mod quantised;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod trainers;
mod world;
#[path = "../gguf/written.rs"]
#[allow(dead_code)]
mod written;

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;
