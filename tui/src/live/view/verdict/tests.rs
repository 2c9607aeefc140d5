use std::sync::Arc;

use malloc_stats::Metric;
use malloc_stats::inspect::Inspection;
use plimsoll_events::Kind;
use proptest::prelude::*;

use super::*;
use crate::live::state::{Dated, Ended};
use crate::live::view::made_up::{
    ASCII, Frame, SECOND, UNICODE, assert_draws_anything, assert_looks, drawn, fold, memory,
    server, text,
};

const IN_FULL: Frame = Frame {
    focused: true,
    expanded: true,
    ..ASCII
};

fn line(state: &State, width: u16) -> String {
    text(&mut VerdictLine::default(), state, (width, 1), ASCII)
}

/// A process with much room, and a heap that was read or not.
fn at_ease(is_seen: bool) -> State {
    let mut state = State::default();
    for second in 0..15 {
        let mut sample = memory(4_000);
        if let Some(limits) = &mut sample.limits {
            limits.cgroups[0].oom_kills = Metric::Exact(0);
        }
        if !is_seen {
            sample.allocator = None;
        }
        fold(&mut state, second * SECOND, Kind::Pulse(Box::new(sample)));
    }
    state.findings.clear();
    state
}

#[test]
fn findings_look_so() {
    assert_looks("verdict", &server(), || Box::<VerdictLine>::default());
    let text = text(&mut VerdictLine::default(), &server(), (100, 20), IN_FULL);
    insta::assert_snapshot!("verdict-in-full", text);
}

#[test]
fn a_line_has_the_gravest_and_counts_what_has_no_room() {
    let state = server();
    assert!(line(&state, 60).starts_with("BAD   1 process was killed"));
    assert!(line(&state, 60).ends_with(" +3"), "{}", line(&state, 60));
    assert!(line(&state, 118).contains(" | WARN memory.high of"));
    assert_eq!(line(&state, 3), "BAD");
}

#[test]
fn where_nothing_is_amiss_it_says_what_is_left() {
    assert_eq!(
        line(&at_ease(true), 80),
        "GOOD  12.45G left below high /kubepods/pod7, nothing grows"
    );
    let unseen = line(&at_ease(false), 100);
    assert!(unseen.starts_with("note  12.45G left"), "{unseen}");
    assert!(unseen.ends_with("; the heap was not looked into"));
    let later = Frame {
        later_us: 12 * SECOND,
        ..ASCII
    };
    let stale = text(&mut VerdictLine::default(), &at_ease(true), (90, 1), later);
    assert!(stale.ends_with("(12 s ago)"), "{stale}");
    assert_eq!(line(&State::default(), 80), "n/a   nothing is known yet");
    let mut blind = State::default();
    blind.look = Some(Dated {
        at_us: 0,
        value: Arc::new(Inspection::default()),
    });
    assert!(line(&blind, 80).contains("no limit is known"));
}

#[test]
fn how_it_ended_comes_first() {
    let mut state = at_ease(true);
    state.ended = Some(Ended {
        why: "killed by SIGKILL\x1b[2J".to_owned(),
        in_order: false,
    });
    let text = text(&mut VerdictLine::default(), &state, (80, 2), ASCII);
    assert!(text.starts_with("ended: killed by SIGKILL\\u{1b}[2J\nGOOD "));
}

#[test]
fn since_the_mark_findings_come_and_go() {
    let (calm, bad) = (at_ease(true), server());
    let mut view = VerdictLine::default();
    let (text, _) = drawn(
        &mut view,
        &bad,
        Frame {
            size: (80, 5),
            since: Some(&calm),
            ..ASCII
        },
    );
    assert!(text.starts_with("+ BAD "), "{text}");
    assert!(text.lines().all(|line| line.starts_with('+')), "{text}");
    let (text, _) = drawn(
        &mut view,
        &calm,
        Frame {
            size: (80, 6),
            since: Some(&bad),
            ..ASCII
        },
    );
    assert!(text.starts_with("  GOOD "), "{text}");
    assert!(text.lines().skip(1).all(|line| line.starts_with('-')));
    let (text, _) = drawn(
        &mut view,
        &bad,
        Frame {
            size: (80, 5),
            since: Some(&bad),
            ..ASCII
        },
    );
    assert!(text.lines().all(|line| line.starts_with("  ")), "{text}");
}

#[test]
fn in_full_there_is_the_remedy_and_what_is_selected_stays_in_view() {
    let state = server();
    let mut view = VerdictLine::default();
    assert_eq!(view.act(Action::Down, &state), Wish::Ignored);
    let (text, hits) = drawn(
        &mut view,
        &state,
        Frame {
            size: (80, 5),
            ..IN_FULL
        },
    );
    assert!(text.contains("oom-killed") && text.contains("->"), "{text}");
    assert_eq!(hits[0].does, Click::Select(0));
    assert_eq!(view.act(Action::Last, &state), Wish::Redraw);
    let (text, hits) = drawn(
        &mut view,
        &state,
        Frame {
            size: (80, 5),
            ..IN_FULL
        },
    );
    assert!(text.contains("note    cache-charged"), "{text}");
    assert_eq!(hits.last().map(|hit| &hit.does), Some(&Click::Select(3)));
    view.click(&Click::Select(0), &state);
    let (text, _) = drawn(
        &mut view,
        &state,
        Frame {
            size: (80, 5),
            ..IN_FULL
        },
    );
    assert!(text.starts_with("BAD "), "{text}");
}

#[test]
fn hostile_findings_are_cut_and_bounded() {
    let mut state = server();
    let one = state.findings[0].clone();
    state.findings = vec![one; 100_000];
    state.findings[1].finding = "ä\u{202e}".repeat(1_000_000);
    let text = text(&mut VerdictLine::default(), &state, (80, 3), UNICODE);
    assert!(text.ends_with(" +61"), "{text}");
    assert!(!text.contains('\u{202e}'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn anything_is_drawn(
        size in (0_u16..300, 0_u16..100), numbers in any::<(u64, u64, u64)>(), name in ".{0,40}",
    ) {
        assert_draws_anything(&mut VerdictLine::default(), size, numbers, &name);
    }
}
