//! Keys on a live cache: what acts asks first, and does what was answered.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Keyboard;
use crate::world::{Steps, World};

pub fn keys() -> BTreeSet<String> {
    let world = World::new();
    let served = world.served(Steps::Calm, &[]);
    let pid = served.pid().to_string();
    let mut top = Keyboard::at(world.top(&[&pid], (100, 26)));
    top.wait_for("four models", |screen| {
        screen.contains("4 of 4 resident") && screen.contains("▶ alpha            leased")
    });
    top.wait_text("LIVE");
    top.shows("r", "walking the heap");

    // No is no, and so is any other key.
    for key in ["n", "esc", "q"] {
        top.shows("t", "TRIM");
        top.hides(key, "TRIM");
    }
    top.shows("t", "It was not done before");
    top.hides("y", "TRIM");
    top.shows("6", "┌6 DECISIONS");
    top.wait_text("  TRIM ");
    top.shows("5", "┌5 MODELS");
    top.shows("t", "Last time (");
    top.hides("n", "Last time (");

    top.shows("down", "▶ bravo");
    top.shows("x", "Evict bravo from every tier");
    top.hides("n", "Evict bravo");
    top.shows("x", "Evict bravo from every tier");
    top.hides("y", "Evict bravo");
    top.wait_text("3 of 4 resident");
    top.shows("home", "▶ alpha");
    top.shows("down", "▶ charlie");
    top.shows("X", "Drop charlie: it goes now");
    top.hides("n", "Drop charlie");
    top.shows("X", "Drop charlie: it goes now");
    top.hides("Y", "Drop charlie");
    top.wait_text("2 of 4 resident");
    // What is leased stays, and the answer says so.
    top.shows("home", "▶ alpha");
    top.shows("x", "1.5 MiB there, 1 leases");
    top.hides("y", "1 leases");

    top.shows("b", "ram: budget 16.0 MiB");
    top.send("much\r");
    top.wait_text("or auto");
    top.hides("esc", "budget 16.0 MiB");
    top.shows("b", "ram: budget 16.0 MiB");
    top.send("nothing\x7f\x7f\x7f\x7f\x7f\x7f\x7f4MiB\r");
    top.wait_text("of 4.0M");

    let saved = saved(&world, &mut top, &pid);
    let decided = |kind: &str| {
        let all = saved["decisions"].as_array().unwrap();
        let of_kind = all.iter().filter(|one| one["kind"] == kind);
        of_kind.count()
    };
    assert_eq!(decided("reclaim"), 1);
    assert_eq!(decided("evict"), 2);
    let notes = saved["notes"].to_string();
    for said in ["bravo", "charlie", "alpha"] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
    top.leave("q")
}

fn saved(world: &World, top: &mut Keyboard, pid: &str) -> Value {
    let name = format!("plimsoll-top-{pid}-1.json");
    top.shows("w", &name);
    serde_json::from_slice(&std::fs::read(world.path(&name)).unwrap()).unwrap()
}

#[test]
fn a_frozen_screen_stands_still_while_events_go_on_and_then_goes_on_too() {
    let world = World::new();
    let served = world.served(Steps::Busy, &[]);
    let mut top = Keyboard::at(world.top(&[served.at()], (80, 24)));
    top.wait_text("LIVE");
    top.shows("6", "┌6 DECISIONS");
    top.wait_text("LOAD ");
    let frozen = top.shows("space", "FROZEN");
    // Somebody else sees the same cache go on meanwhile.
    let seq = || {
        let seen = world.json(&["top", served.at(), "--once", "--json"]);
        seen["seq"].as_u64().unwrap()
    };
    let first = seq();
    while seq() < first + 10 {}
    assert_eq!(top.text(), frozen);
    // It can be looked around in, as it was.
    top.shows("5", "┌5 MODELS");
    top.press("6", |screen| screen == frozen);
    top.press("space", |screen| {
        screen.contains("LIVE") && screen.lines().nth(8) != frozen.lines().nth(8)
    });
    top.leave("q");
}

#[test]
fn what_is_read_only_is_not_asked() {
    let world = World::new();
    let served = world.served(Steps::Calm, &[]);
    let mut top = Keyboard::at(world.top(&["--readonly", served.at()], (200, 60)));
    top.wait_text("▶ alpha");
    top.wait_text("w write");
    assert!(!top.text().contains("t trim"), "{}", top.text());
    for key in ["t", "x", "X", "b"] {
        top.shows(key, "read only, as --readonly");
        top.shows("[", "only a recording can be sought in");
    }
    top.leave("q");
}
