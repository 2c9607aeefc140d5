//! Well-formed nonsense: whatever a stream says, the screen goes on, in bounded memory.

use std::time::Duration;

use plimsoll_events::{Event, Kind};
use plimsoll_tui::live::screen::{Config, Script, Still};
use plimsoll_tui::live::state::{Decisions, Models};
use proptest::prelude::*;

use super::events::{Told, event, evict, load, opened, sample};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}",
        Just("\u{1b}[2J\u{202e}模型".to_owned()),
        "\\PC{0,40}",
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0_u64..10_000_000, Just(u64::MAX), Just(0)]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(opened()),
        (number(), number()).prop_map(|(rss, live)| sample(rss, live)),
        (name(), number(), number()).prop_map(|(name, bytes, rss)| load(&name, bytes, rss)),
        (name(), number(), 0..u64::MAX / 2, 0..u64::MAX / 2)
            .prop_map(|(name, back, freed, rss)| evict(&name, freed, back, rss)),
        name().prop_map(|text| Kind::Note { text }),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = (number(), number(), kind()).prop_map(|(seq, at, kind)| event(seq, at, kind));
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_stream_is_drawn_at_any_size(
        events in events(), columns in 0_u16..260, rows in 0_u16..80,
        keys in proptest::collection::vec(
            prop_oneof![
                Just("tab"), Just("e"), Just("enter"), Just("down"), Just("+"), Just("o"),
                Just("?"), Just("d"), Just("m"), Just("space"), Just("left"), Just("5"),
                Just("6"), Just("2"), Just("4"), Just("x"), Just("y"), Just("b"), Just("end"),
            ],
            0..12,
        ),
    ) {
        let told = Told { batches: vec![events] };
        let script: Script = keys.join(" ").parse().unwrap();
        let patience = Duration::from_secs(10);
        let mut still =
            Still::take(Box::new(told), &Config::default(), patience, |_| false).unwrap();
        let text = still.text((columns, rows), &script).unwrap();
        let escapes = text.contains('\u{1b}');
        prop_assert!(!escapes);
        prop_assert_eq!(text.lines().count(), usize::from(rows));
        serde_json::to_string(&still.summary()).unwrap();
    }
}

#[test]
fn a_hundred_thousand_models_and_decisions_stay_within_bounds() {
    let events = (0..100_000).map(|at| event(at, at, load(&format!("m{at}"), 1, 1)));
    let told = Told {
        batches: vec![events.collect()],
    };
    let patience = Duration::from_secs(600);
    let still = Still::take(Box::new(told), &Config::default(), patience, |_| false).unwrap();
    let state = still.state();
    assert!(state.models.iter().len() <= Models::MOST);
    assert_eq!(
        state.models.iter().len() as u64 + state.models.beyond,
        100_000
    );
    assert_eq!(state.decisions.iter().len(), Decisions::MOST);
    assert_eq!(state.decisions.count, 100_000);
}
