//! Streams of bytes and of well-formed nonsense, shown: no panic, and the screen keeps working.
//! `fuzz/fuzz_targets/screen.rs` does the same for as long as one likes.

#![allow(clippy::unwrap_used)]

mod dice;
mod lines;
mod screen;
mod told;

use plimsoll_events::Event;
use plimsoll_tui::live::State;
use plimsoll_tui::live::state::{Models, What};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn well_formed_nonsense_is_shown(
        head in prop::collection::vec(any::<u8>().prop_filter("an end of line", |byte| *byte != b'\n'), 63),
        body in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let bytes = [&[0], &*head, b"\n", &body].concat();
        screen::once(&bytes);
    }

    #[test]
    fn damaged_lines_are_left_out_and_the_rest_is_shown(
        head in prop::collection::vec(any::<u8>().prop_filter("an end of line", |byte| *byte != b'\n'), 63),
        damage in prop::collection::vec((any::<u16>(), any::<u8>()), 0..40),
    ) {
        let mut body = include_bytes!("lines.jsonl").to_vec();
        for (at, byte) in damage {
            let at = usize::from(at) % body.len();
            body[at] = byte;
        }
        let bytes = [&[1], &*head, b"\n", &body].concat();
        screen::once(&bytes);
    }
}

#[test]
fn every_line_of_the_sessions_is_an_event() {
    let lines = include_bytes!("lines.jsonl");
    let events = lines::raw(lines);
    assert_eq!(
        events.len(),
        lines.iter().filter(|byte| **byte == b'\n').count()
    );
    let unknown = events
        .iter()
        .find(|event| event.kind == plimsoll_events::Kind::Unknown);
    assert_eq!(unknown, None);
}

/// The first line of a kind, of a real session.
fn real(kind: &str) -> serde_json::Value {
    let lines = include_str!("lines.jsonl").lines();
    let mut values = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    values.find(|value| value["event"] == kind).unwrap()
}

fn event(value: serde_json::Value) -> Event {
    serde_json::from_value(value).unwrap()
}

#[test]
fn more_models_than_are_kept_are_counted_in_each_picture() {
    let mut picture = real("picture");
    let model = picture["models"][0].clone();
    let models = (0..40_000).map(|number| {
        let mut model = model.clone();
        model["model"] = format!("model {number}").into();
        model
    });
    picture["models"] = models.collect();
    let picture = event(picture);
    let mut state = State::default();
    for round in 1..=20 {
        state.fold(&picture);
        assert_eq!(state.models.iter().len(), Models::MOST);
        assert_eq!(state.models.beyond, round * (40_000 - Models::MOST as u64));
    }
}

#[test]
fn an_eviction_is_kept_with_no_more_candidates_than_can_be_looked_at() {
    let mut evict = real("evict");
    let candidate = evict["considered"][0].clone();
    let besides = evict["considered_besides"].as_u64().unwrap_or(0);
    evict["considered"] = (0..100_000).map(|_| candidate.clone()).collect();
    evict["tier"] = "t".repeat(1 << 20).into();
    let mut state = State::default();
    state.fold(&event(evict));
    let What::Evict(kept, ..) = &state.decisions.iter().next().unwrap().what else {
        panic!("it is no eviction");
    };
    assert_eq!(
        kept.considered.len() as u64 + kept.considered_besides,
        100_000 + besides
    );
    assert!(kept.considered.capacity() < 1000);
    assert!(kept.tier.len() < 2000);
}
