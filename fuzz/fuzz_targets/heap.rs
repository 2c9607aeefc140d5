//! Heaps of other processes: whatever lies there, the walker ends, in little memory, with numbers
//! that can be true. The bytes are a made-up heap and damage to it, or pages as they are; see
//! `malloc-stats/tests/synthetic`.

#![no_main]
#![allow(dead_code, reason = "the property tests use more of it")]

use libfuzzer_sys::fuzz_target;

#[path = "../../malloc-stats/tests/synthetic/bounds.rs"]
mod bounds;
#[path = "../../malloc-stats/tests/synthetic/dice.rs"]
mod dice;
#[path = "../../malloc-stats/tests/synthetic/entry.rs"]
mod entry;
#[path = "../../malloc-stats/tests/synthetic/forge.rs"]
mod forge;
#[path = "../../malloc-stats/tests/synthetic/heads.rs"]
mod heads;
#[path = "../../malloc-stats/tests/synthetic/image.rs"]
mod image;
#[path = "../../malloc-stats/tests/synthetic/layout.rs"]
mod layout;
#[path = "../../malloc-stats/tests/synthetic/links.rs"]
mod links;
#[path = "../../malloc-stats/tests/synthetic/mutation.rs"]
mod mutation;
#[path = "../../malloc-stats/tests/synthetic/object.rs"]
mod object;
#[path = "../../malloc-stats/tests/synthetic/plan.rs"]
mod plan;
#[path = "../../malloc-stats/tests/synthetic/space.rs"]
mod space;

fuzz_target!(|bytes: &[u8]| {
    entry::once(bytes);
});
