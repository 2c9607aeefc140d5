//! Keys on a process that knows nothing of this: everything to look, nothing to do.

use std::collections::BTreeSet;

use super::Keyboard;
use crate::world::{Foreign, World};

pub fn keys() -> BTreeSet<String> {
    let world = World::new();
    let process = Foreign::begin();
    let pid = process.pid();
    let mut top = Keyboard::at(world.top(&[&pid], (80, 24)));
    top.wait_text(&format!(":{pid}"));
    top.wait_text("LIVE");
    top.shows("3", "┌3 ALLOCATOR");
    top.wait_text("walk ");
    top.shows("r", "walking the heap");
    top.shows("space", "FROZEN");
    top.hides("space", "FROZEN");
    for key in ["t", "x", "X", "b"] {
        top.shows(key, "nothing is injected");
        top.shows("[", "only a recording can be sought in");
    }
    for key in ["]", "{", "}", "<", ">", ",", ".", "n", "N"] {
        top.shows("d", "nothing is marked");
        top.shows(key, "only a recording can be sought in");
    }
    let name = format!("plimsoll-top-{pid}-1.json");
    top.shows("w", &format!("written to {name}"));
    let saved = std::fs::read(world.path(&name)).unwrap();
    let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap();
    assert_eq!(saved["kind"], "process");
    assert_eq!(saved["pid"].to_string(), pid);
    assert!(saved["vitals"]["process"]["rss"]["bytes"].as_u64() > Some(0));
    top.leave("ctrl-c")
}
