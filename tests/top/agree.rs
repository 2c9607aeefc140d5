//! What is shown live is what its recording shows, number by number.

use plimsoll_events::Replay;
use plimsoll_tui::live::source::About;
use plimsoll_tui::live::state::State;
use plimsoll_tui::live::summary::Summary;
use rustix::process::Signal;
use serde_json::Value;

use crate::terminal::Terminal;
use crate::world::{Foreign, Steps, World};

/// What is written of what is shown, the so-manieth time.
fn saved(world: &World, top: &mut Terminal, pid: &str, number: u32) -> Value {
    let name = format!("plimsoll-top-{pid}-{number}.json");
    top.send("w");
    top.wait_text(&name);
    serde_json::from_slice(&std::fs::read(world.path(&name)).unwrap()).unwrap()
}

/// The fold of a recording up to the event of a number.
fn folded(world: &World, seq: u64) -> Value {
    let mut replay = Replay::open(&world.path("own.jsonl")).unwrap();
    let mut state = State::default();
    while let Some(event) = replay.next_event().unwrap() {
        if event.seq > seq {
            break;
        }
        state.fold(&event);
    }
    state.conclude();
    serde_json::to_value(Summary::of(&state, &About::default())).unwrap()
}

/// Parts of two values that are not the same.
fn differing(path: &str, one: &Value, other: &Value, into: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(some), Value::Object(others)) => {
            let keys: std::collections::BTreeSet<_> = some.keys().chain(others.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                differing(&path, &one[key.as_str()], &other[key.as_str()], into);
            }
        }
        (Value::Array(some), Value::Array(others)) if some.len() == others.len() => {
            for (at, (one, other)) in some.iter().zip(others).enumerate() {
                differing(&format!("{path}[{at}]"), one, other, into);
            }
        }
        _ if one == other => {}
        _ => into.push(format!("{path}: {one} against {other}")),
    }
}

#[test]
fn a_live_run_shows_what_its_recording_shows_at_the_same_event() {
    let world = World::new();
    let mut served = world.served(Steps::Later, &["--record", "own.jsonl"]);
    let pid = served.pid().to_string();
    let mut top = world.top(&[served.at()], (80, 24));
    // From its first step on: what is summed is summed from there.
    let first = top.wait_text("5 MODELS  0 of 4 resident");
    assert!(
        first.contains("6 DECISIONS  nothing was decided yet"),
        "{first}"
    );
    top.send("6");
    top.wait_for("twenty decisions", |screen| {
        let counted = screen.split_once("newest first, ");
        let number = counted.and_then(|(_, after)| after.split(' ').next()?.parse::<u32>().ok());
        number.is_some_and(|number| number >= 20)
    });
    let mut pictures = Vec::new();
    for number in 1..=8 {
        top.send(" ");
        top.wait_text("FROZEN");
        pictures.push(saved(&world, &mut top, &pid, number));
        top.send(" ");
        top.wait_text("LIVE");
    }
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
    served.signal(Signal::INT);
    served.wait();

    // What looks from outside is beside the stream: looks and pulses, and so how fast it grows and
    // what follows from it, how many lines there were, and how the process was at such a look.
    let mut of_the_stream = 0;
    for live in &pictures {
        let recorded = folded(&world, live["seq"].as_u64().unwrap());
        let mut parts = vec![
            "/seq",
            "/opened",
            "/tiers",
            "/waiting",
            "/models",
            "/decisions",
            "/notes",
            "/sums/loads",
            "/sums/failed_loads",
            "/sums/evictions",
            "/sums/refusals",
            "/sums/hits",
            "/sums/freed_bytes",
            "/sums/returned_bytes",
            "/sums/missing",
            "/vitals/memory",
            "/vitals/settings",
            "/vitals/allocator",
        ];
        if live["vitals"]["at_us"] == recorded["vitals"]["at_us"] {
            of_the_stream += 1;
            parts.extend(["/at_us", "/vitals/process", "/vitals/cgroup_current"]);
        }
        let mut differ = Vec::new();
        for part in parts {
            let nothing = Value::Null;
            let one = live.pointer(part).unwrap_or(&nothing);
            let other = recorded.pointer(part).unwrap_or(&nothing);
            differing(part, one, other, &mut differ);
        }
        assert!(differ.is_empty(), "at event {}: {differ:#?}", live["seq"]);
        assert!(live["sums"]["evictions"].as_u64() > Some(5));
        assert!(live["tiers"][0]["used_bytes"].as_u64() > Some(0));
    }
    // Looks are seconds apart, and events tenths of one.
    assert!(of_the_stream > 0);
}

#[test]
fn what_is_recorded_of_a_process_is_shown_again_with_the_same_numbers() {
    let world = World::new();
    let mut process = Foreign::begin();
    let pid = process.pid();
    let arguments = [&pid, "--record", "seen.jsonl", "--interval", "100ms"];
    let mut top = world.top(&arguments, (80, 24));
    top.send("3");
    top.wait_text("walk ");
    top.send("1");
    top.wait_text("RSS");
    // A second of readings, by the process's own count.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    process.end();
    top.wait_text("ENDED");
    let live = saved(&world, &mut top, &pid, 1);
    top.send("q");
    assert_eq!(top.wait().code(), Some(0), "{}", top.text());

    let mut again = world.json(&["top", "seen.jsonl", "--once", "--json"]);
    let mut live = live;
    // What it is, and how it came to its end, is told by what is watched, and not recorded.
    for name in ["kind", "name", "ended", "pid"] {
        assert!(live[name] != Value::Null, "{name}");
        live.as_object_mut().unwrap().remove(name);
        again.as_object_mut().unwrap().remove(name);
    }
    // A recording has a note of that instead, and an event that closes it.
    for seen in [&mut live, &mut again] {
        seen.as_object_mut().unwrap().remove("notes");
        seen["sums"].as_object_mut().unwrap().remove("events");
    }
    let mut differ = Vec::new();
    differing("", &live, &again, &mut differ);
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(live["at_us"].as_u64() > Some(1_000_000), "{live:#}");
}
