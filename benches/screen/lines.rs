//! What a line of the stream costs, by kind.

use std::hint::black_box;
use std::time::Duration;

use plimsoll_events::{Event, Kind};
use plimsoll_tui::live::State;

use crate::data::{Made, line, name};
use crate::{Results, thread_time};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(40);

pub fn lines(results: &mut Results) {
    let mut made = Made::begin();
    let mut state = State::default();
    let opened = made.opened();
    state.fold(&made.event(opened));
    // A cache that has been there for a while.
    for _ in 0..1200 {
        for event in made.second() {
            state.fold(&event);
        }
    }
    let note = Kind::Note {
        text: "memory is short: 212 MiB are asked back".to_owned(),
    };
    let kinds = [
        ("tally of 1 model", made.tally(1)),
        ("tally of 20 models", made.tally(20)),
        ("note", note),
        ("refuse", made.refuse(name(7))),
        ("sample", made.sample()),
        ("load", made.load(3)),
        ("evict, 16 considered", made.evict(3)),
        ("picture of 50 models", made.picture()),
    ];
    for (what, kind) in kinds {
        let event = made.event(kind);
        let text = line(&event);
        let parse = time(|| {
            black_box(serde_json::from_slice::<Box<Event>>(&text).unwrap());
        });
        let mut state = state.clone();
        let fold = time(|| state.fold(black_box(&event)));
        let both = parse + fold;
        results.row(
            &format!("line, {what}, {} B", text.len()),
            format!("{:.1} us", both * 1e6),
            format!("{:.0}k/s", 1e-3 / both),
            "",
        );
    }
    let conclude = time(|| state.conclude());
    results.row(
        "conclusions",
        format!("{:.1} us", conclude * 1e6),
        String::new(),
        "",
    );
    let clone = time(|| drop(black_box(state.clone())));
    results.row(
        "a copy of the state (freeze, mark, a place in a recording)",
        format!("{:.1} us", clone * 1e6),
        String::new(),
        "",
    );
}

/// Seconds that something takes: the median of rounds of many.
fn time(mut what: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = thread_time();
            let mut count = 0_u32;
            while thread_time() - begun < ROUND {
                for _ in 0..16 {
                    what();
                }
                count += 16;
            }
            (thread_time() - begun).as_secs_f64() / f64::from(count)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
