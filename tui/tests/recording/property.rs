//! Whatever is done, what is shown is the fold up to there.

use std::time::Duration;

use plimsoll_events::Event;
use plimsoll_tui::live::source::Control;
use plimsoll_tui::live::source::recording::Options;
use proptest::prelude::*;

use crate::take::{KINDS, Watcher, decision, event, fold, note, recording, same};

/// Somebody at the keys.
#[derive(Debug, Clone)]
enum Act {
    Control(Control),
    Watch(u64),
}

fn jump() -> impl Strategy<Value = Control> {
    let kind = prop_oneof![
        Just(None),
        (0..KINDS.len()).prop_map(|at| Some(KINDS[at].to_owned()))
    ];
    (any::<bool>(), kind).prop_map(|(on, kind)| Control::Jump { on, kind })
}

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        (-3_000_000_i64..3_000_000).prop_map(Control::Seek),
        any::<i64>().prop_map(Control::Seek),
        (0_u64..8_000_000).prop_map(Control::SeekTo),
        any::<u64>().prop_map(Control::SeekTo),
        any::<bool>().prop_map(Control::Pause),
        any::<f64>().prop_map(Control::Speed),
        (0.1..10.0).prop_map(Control::Speed),
        jump(),
        jump(),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => control().prop_map(Act::Control),
        1 => (0_u64..2_000_000).prop_map(Act::Watch),
    ]
}

/// Up to two hundred events: some close, some far apart, some back in time, some long, so that
/// there are places in between to go back to.
fn stream() -> impl Strategy<Value = Vec<Event>> {
    let step = prop_oneof![
        3 => 0_i64..100_000,
        1 => Just(0_i64),
        1 => -1_000_000_i64..0,
    ];
    let kind = prop_oneof![
        3 => (0..KINDS.len()).prop_map(Ok),
        3 => (0_usize..30_000).prop_map(Err),
    ];
    prop::collection::vec((step, kind), 1..200).prop_map(|steps| {
        let mut at_us = 1_000_000_u64;
        let to_event = |(seq, (step, kind)): (usize, (i64, Result<usize, usize>))| {
            at_us = at_us.saturating_add_signed(step);
            let kind = match kind {
                Ok(kind) => decision(KINDS[kind], seq as u64),
                Err(long) => note("n".repeat(long)),
            };
            event(seq as u64, at_us, kind)
        };
        steps.into_iter().enumerate().map(to_event).collect()
    })
}

/// The events with times that never go back, and where one ought to be among them.
struct Model<'a> {
    events: &'a [Event],
    at_us: Vec<u64>,
    seen: usize,
}

impl Model<'_> {
    fn until(&self, at_us: u64) -> usize {
        self.at_us
            .partition_point(|at| *at <= at_us.max(self.at_us[0]))
    }

    fn jump(&mut self, on: bool, kind: Option<&str>) {
        let is = |at: &usize| {
            let mut state = plimsoll_tui::live::State::default();
            state.fold(&self.events[*at]);
            let decision = state.decisions.iter().next();
            decision.is_some_and(|d| kind.is_none_or(|kind| d.what.kind() == kind))
        };
        let found = if on {
            (self.seen..self.events.len()).find(is)
        } else {
            (0..self.seen - 1).rev().find(is)
        };
        self.seen = found.map_or(self.seen, |at| at + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_controls_shows_what_a_fold_to_there_gives(
        events in stream(),
        acts in prop::collection::vec(act(), 1..25),
    ) {
        let (_folder, path) = recording(&events);
        let mut watcher = Watcher::new(&path, Options::default());
        watcher.arrive();
        let mut latest = 0;
        let at_us: Vec<u64> = events.iter().map(|event| {
            latest = event.at_us.max(latest);
            latest
        }).collect();
        let mut model = Model { events: &events, at_us, seen: 0 };
        model.seen = model.until(0);
        let mut still = false;
        for act in acts {
            let before = watcher.playing().at_us;
            match act {
                Act::Control(control) => {
                    watcher.tell(control.clone());
                    match control {
                        Control::Seek(by) => model.seen = model.until(before.saturating_add_signed(by)),
                        Control::SeekTo(at) => model.seen = model.until(at),
                        Control::Jump { on, kind } => {
                            let was = model.seen;
                            model.jump(on, kind.as_deref());
                            watcher.arrive();
                            same(&watcher.state, &fold(&events[..model.seen]));
                            still |= model.seen != was;
                            continue;
                        }
                        Control::Pause(paused) => { still = paused; continue; }
                        _ => continue,
                    }
                    watcher.arrive();
                }
                Act::Watch(us) => {
                    watcher.watch(Duration::from_micros(us));
                    if !still {
                        model.seen = model.until(watcher.playing().at_us).max(model.seen);
                    }
                }
            }
            same(&watcher.state, &fold(&events[..model.seen]));
        }
    }

    #[test]
    fn controls_that_are_not_waited_for_lead_to_the_last(
        events in stream(),
        controls in prop::collection::vec((control(), 0_usize..3), 1..25),
        to in 0_u64..8_000_000,
    ) {
        let (_folder, path) = recording(&events);
        let mut watcher = Watcher::new(&path, Options::default());
        for (control, calls) in controls {
            watcher.tell(control);
            for _ in 0..calls {
                watcher.hear(Duration::from_millis(20));
            }
        }
        watcher.tell(Control::Pause(true));
        watcher.tell(Control::SeekTo(to));
        while !watcher.jumped {
            watcher.hear(Duration::ZERO);
        }
        let mut latest = 0;
        let seen = events.iter().take_while(|event| {
            latest = event.at_us.max(latest);
            latest <= to.max(events[0].at_us)
        }).count();
        same(&watcher.state, &fold(&events[..seen]));
    }
}
