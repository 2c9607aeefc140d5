//! Random operations on a real cache, against a reference that says what has to hold after each.
//!
//! `PLIMSOLL_OPERATIONS` is how many operations there are in all, `PLIMSOLL_SEED` where the first
//! chunk's seed begins. Every chunk's seed is in the panic's message.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod events;
mod model;
#[path = "../patch/files.rs"]
#[allow(dead_code)]
mod patch_files;
mod patches;
mod random;
mod waiting;
mod world;
#[path = "../gguf/written.rs"]
#[allow(dead_code)]
mod written;

use random::Random;
use support::Folder;
use world::World;

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// Operations in one chunk: one cache from its first lease to its end.
const CHUNK: u64 = 2_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_is_done_the_books_are_right() {
    let operations = number("PLIMSOLL_OPERATIONS", 40_000);
    let first = number("PLIMSOLL_SEED", 1);
    let folder = Folder::new();
    let mut done = world::Done::default();
    for chunk in 0..operations.div_ceil(CHUNK) {
        let seed = first + chunk;
        let mut world = World::new(&folder, seed);
        let mut random = Random::new(seed);
        for operation in 0..CHUNK {
            world.at = format!("seed {seed}, operation {operation}");
            world.act(&mut random);
            world.check();
        }
        done += world.end();
    }
    eprintln!("{done:?}");
    assert!(done.granted > operations / 20, "{done:?}");
    assert!(done.refused > operations / 100, "{done:?}");
    assert!(done.patched > operations / 50, "{done:?}");
    assert!(done.failed > 0 && done.served_waiting > 0, "{done:?}");
}
