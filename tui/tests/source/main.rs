//! Where events come from, with real processes and real sockets.

#![allow(clippy::unwrap_used)]

mod answers;
mod chooser;
mod kept;
mod process;
mod program;
mod socket;

use std::time::{Duration, Instant};

use plimsoll_events::{Event, Kind};
use plimsoll_tui::live::Source;
use plimsoll_tui::live::source::Heard;
use plimsoll_tui::live::state::Ended;

/// Long enough for a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// The shortest time between two readings.
const OFTEN: Duration = Duration::from_millis(100);

/// Listens until something comes true of all that was heard.
#[track_caller]
fn until(source: &mut dyn Source, what: &str, true_of: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let begun = Instant::now();
    let mut events = Vec::new();
    while !true_of(&events) {
        assert!(
            begun.elapsed() < LONG,
            "never: {what}: {:?}",
            kinds(&events)
        );
        match source.hear(OFTEN, &mut events).unwrap() {
            Heard::Ended(ended) => panic!("{what}: {ended:?}"),
            _ => assert_numbered(&events),
        }
    }
    events
}

/// Listens to the end.
#[track_caller]
fn ended(source: &mut dyn Source, events: &mut Vec<Event>) -> Ended {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LONG, "it never ends");
        if let Heard::Ended(ended) = source.hear(OFTEN, events).unwrap() {
            assert_numbered(events);
            return ended;
        }
    }
}

#[track_caller]
fn assert_numbered(events: &[Event]) {
    for pair in events.windows(2) {
        assert!(pair[0].seq <= pair[1].seq);
    }
}

fn kinds(events: &[Event]) -> Vec<String> {
    let kind = |event: &Event| match &event.kind {
        Kind::Note { text } => text.clone(),
        kind => format!("{kind:?}").chars().take(12).collect(),
    };
    events.iter().map(kind).collect()
}

fn pulses(events: &[Event]) -> usize {
    let pulses = events
        .iter()
        .filter(|event| matches!(event.kind, Kind::Pulse(_)));
    pulses.count()
}

fn looks(events: &[Event]) -> usize {
    let looks = events
        .iter()
        .filter(|event| matches!(event.kind, Kind::Look(_)));
    looks.count()
}

fn says(events: &[Event], words: &str) -> bool {
    events
        .iter()
        .any(|event| matches!(&event.kind, Kind::Note { text } if text.contains(words)))
}
