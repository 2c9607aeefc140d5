//! Leases of models of which a part is there.

#![allow(clippy::unwrap_used)]

mod agrees;
mod changing;
mod computing;
mod faults;
#[path = "../patch/files.rs"]
#[allow(dead_code)]
mod files;
mod leases;
mod misuse;
mod models;
mod patched;
#[path = "../support/mod.rs"]
mod support;
#[path = "../torch_files/mod.rs"]
mod torch_files;
mod traced;
mod watch;
mod yielding;

/// What makes tensors views of weights, without a copy.
#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;
