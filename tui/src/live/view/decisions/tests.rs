//! Frames of the decisions, and what keys do to them.

use insta::assert_snapshot;
use plimsoll_events::Opened;
use proptest::prelude::*;
use std::sync::Arc;

use super::DecisionList;
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::state::What;
use crate::live::view::made_up::{
    Frame, areas, around, cache, decide, drawn, evict, hostile, load, shown, stays_inside, unicode,
};
use crate::live::view::{Click, View, Wish};

#[test]
fn every_size_shows_what_there_is_room_for() {
    let state = cache();
    let of = |width, height| shown(&mut DecisionList::default(), &state, width, height);
    assert_snapshot!(of(60, 6), @r"
      TIME     WHAT    MODEL     WHY, AND WHAT CAME OF IT
    > 8:00.0   EVICT   bge-m3    RETURNED 100.0M of 1.10G..    #
      7:00.0   REFUSE  mixtral   needs 15.00G of budget..      #
      6:40.0   FAILED  clip      gpu0: out of memory, after..  #
      6:00.0   TRIM              1 min later -4.0K..           |
      5:00.0   TRIM              gained 768.0M of 1.00G..      |
    ");
    assert_snapshot!(of(80, 10), @r"
      TIME      WHAT     MODEL          TIER  WHY, AND WHAT CAME OF IT
    > 8:00.0    EVICT    bge-m3         ram   RETURNED 100.0M of 1.10G..
      7:00.0    REFUSE   mixtral        gpu0  needs 15.00G of budget 24.00G..
      6:40.0    FAILED   clip           gpu0  gpu0: out of memory, after 1.90 s..
      6:00.0    TRIM                          1 min later -4.0K of the 768.0M..
      5:00.0    TRIM                          gained 768.0M of 1.00G missing..
      1:01.0    LOAD     llava-13b      ram   7.00G from file in 1.90 s..
      1:00.0    BUDGET                  ram   24.00G -> 20.00G (-4.00G), bound..
      59.000    NOTE     budget follows memory.high
    ");
    assert_snapshot!(of(118, 12), @r"
      TIME      WHAT     MODEL                TIER  WHY, AND WHAT CAME OF IT
    > 8:00.0    EVICT    bge-m3               ram   RETURNED 100.0M of 1.10G; for llava-13b: asked 6.00G, free 2.00G..
      7:00.0    REFUSE   mixtral              gpu0  needs 15.00G of budget 24.00G, pinned 15.00G: leases pin what could..
      6:40.0    FAILED   clip                 gpu0  gpu0: out of memory, after 1.90 s; 7.00G asked
      6:00.0    TRIM                                1 min later -4.0K of the 768.0M gained is left
      5:00.0    TRIM                                gained 768.0M of 1.00G missing, in 41.0 ms
      1:01.0    LOAD     llava-13b            ram   7.00G from file in 1.90 s, 3.96 GB/s; recycled 1.00G; RSS +7.00G
      1:00.0    BUDGET                        ram   24.00G -> 20.00G (-4.00G), bound by memory.high of /kubepods/pod7..
      59.000    NOTE     budget follows memory.high
    ");
    assert_snapshot!(of(200, 30), @r"
      TIME      WHAT     MODEL                         TIER  WHY, AND WHAT CAME OF IT
    > 8:00.0    EVICT    bge-m3                        ram   RETURNED 100.0M of 1.10G; for llava-13b: asked 6.00G, free 2.00G; score 0.40, lowest of 3 eligible
      7:00.0    REFUSE   mixtral                       gpu0  needs 15.00G of budget 24.00G, pinned 15.00G: leases pin what could make room
      6:40.0    FAILED   clip                          gpu0  gpu0: out of memory, after 1.90 s; 7.00G asked
      6:00.0    TRIM                                         1 min later -4.0K of the 768.0M gained is left
      5:00.0    TRIM                                         gained 768.0M of 1.00G missing, in 41.0 ms
      1:01.0    LOAD     llava-13b                     ram   7.00G from file in 1.90 s, 3.96 GB/s; recycled 1.00G; RSS +7.00G
      1:00.0    BUDGET                                 ram   24.00G -> 20.00G (-4.00G), bound by memory.high of /kubepods/pod7, seen by pressure
      59.000    NOTE     budget follows memory.high
    ");
    assert_eq!(of(0, 0), "");
    assert_eq!(of(1, 1), "");
    assert_snapshot!(shown(&mut DecisionList::default(), &State::default(), 60, 3), @r"
    TIME     WHAT    MODEL    WHY, AND WHAT CAME OF IT
    nothing was decided yet
    ");
}

#[test]
fn the_clock_of_the_day_is_shown_where_it_is_known() {
    let mut state = cache();
    state.opened = Some(Arc::new(Opened {
        unix_ms: 1_700_000_000_000,
        ..Opened::default()
    }));
    assert_snapshot!(unicode(&mut DecisionList::default(), &state, 118, 5), @r"
      UTC       WHAT     MODEL                TIER  WHY, AND WHAT CAME OF IT
    ▶ 22:21:20  EVICT    bge-m3               ram   RETURNED 100.0M of 1.10G; for llava-13b: asked 6.00G, free 2.00G..   █
      22:20:20  REFUSE   mixtral              gpu0  needs 15.00G of budget 24.00G, pinned 15.00G: leases pin what could..█
      22:20:00  FAILED   clip                 gpu0  gpu0: out of memory, after 1.90 s; 7.00G asked                       │
      22:19:20  TRIM                                1 min later -4.0K of the 768.0M gained is left                       │
    ");
}

#[test]
fn a_line_shows_where_the_mark_lies() {
    let state = cache();
    let mut since = State::default();
    since.at_us = 400_000_000;
    let mut view = DecisionList::default();
    let of = |view: &mut DecisionList, since: &State| {
        let shot = Frame {
            since: Some(since),
            ..Frame::of(80, 10)
        };
        drawn(view, &state, shot).0
    };
    assert_snapshot!(of(&mut view, &since), @r"
      TIME      WHAT     MODEL          TIER  WHY, AND WHAT CAME OF IT
    > 8:00.0    EVICT    bge-m3         ram   RETURNED 100.0M of 1.10G..
      7:00.0    REFUSE   mixtral        gpu0  needs 15.00G of budget 24.00G..
    -- mark, 3m ago: newer above, older below --------------------------------------
      6:40.0    FAILED   clip           gpu0  gpu0: out of memory, after 1.90 s..
      6:00.0    TRIM                          1 min later -4.0K of the 768.0M..
      5:00.0    TRIM                          gained 768.0M of 1.00G missing..
      1:01.0    LOAD     llava-13b      ram   7.00G from file in 1.90 s..
      1:00.0    BUDGET                  ram   24.00G -> 20.00G (-4.00G), bound..
      59.000    NOTE     budget follows memory.high
    ");
    // It cannot be selected: keys pass over it.
    view.act(Action::Down, &state);
    view.act(Action::Down, &state);
    assert_eq!(view.selected(), Some(17));
    view.act(Action::Up, &state);
    assert_eq!(view.selected(), Some(18));
    since.at_us = u64::MAX;
    let text = of(&mut view, &since);
    assert!(text.lines().nth(1).unwrap().contains("mark"), "{text}");
    since.at_us = 0;
    let text = of(&mut view, &since);
    assert!(text.lines().last().unwrap().contains("mark"), "{text}");
}

#[test]
fn the_selection_sticks_to_its_decision_while_others_arrive() {
    let mut state = cache();
    let mut view = DecisionList::default();
    shown(&mut view, &state, 118, 5);
    assert_eq!(view.selected(), Some(20));
    view.act(Action::Down, &state);
    assert_eq!(view.selected(), Some(18));
    for seq in 30..60 {
        let gone = What::Evict(Box::new(evict("clip")), around(9), around(8));
        decide(&mut state, seq, 400 + seq, gone);
    }
    let text = shown(&mut view, &state, 118, 5);
    assert_eq!(view.selected(), Some(18));
    assert!(
        text.lines()
            .any(|line| line.starts_with("> ") && line.contains("REFUSE")),
        "{text}"
    );
    assert_eq!(view.act(Action::Open, &state), Wish::Decision(18));
    // At the very first the newest is followed.
    view.act(Action::First, &state);
    shown(&mut view, &state, 118, 5);
    assert_eq!(view.selected(), Some(59));
    decide(
        &mut state,
        70,
        900,
        What::Evict(Box::new(evict("clip")), around(9), around(8)),
    );
    shown(&mut view, &state, 118, 5);
    assert_eq!(view.selected(), Some(70));
}

#[test]
fn kinds_follow_one_another_and_filters_look_at_names_and_reasons() {
    let state = cache();
    let mut view = DecisionList::default();
    let kinds = |view: &mut DecisionList, filter: &str| {
        let shot = Frame {
            filter,
            ..Frame::of(118, 20)
        };
        let text = drawn(view, &state, shot).0;
        let words = text.lines().skip(1);
        let words = words.filter_map(|line| line.trim_start_matches('>').split_whitespace().nth(1));
        words.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let all = "EVICT REFUSE FAILED TRIM TRIM LOAD BUDGET NOTE";
    assert_eq!(kinds(&mut view, ""), all);
    assert_eq!(kinds(&mut view, "llava"), "EVICT LOAD");
    assert_eq!(kinds(&mut view, "memory.high"), "BUDGET NOTE");
    assert_eq!(kinds(&mut view, "out of memory"), "FAILED");
    assert_eq!(kinds(&mut view, "refuse"), "REFUSE");
    let mut seen = Vec::new();
    for _ in 0..6 {
        assert_eq!(view.act(Action::Sort, &state), Wish::Redraw);
        let of_kind = kinds(&mut view, "");
        seen.push((view.kind, of_kind));
    }
    let seen: Vec<String> = seen
        .into_iter()
        .map(|(kind, words)| format!("{}: {words}", kind.unwrap_or("all")))
        .collect();
    assert_eq!(
        seen,
        [
            "load: FAILED LOAD",
            "evict: EVICT",
            "refuse: REFUSE",
            "budget: BUDGET",
            "reclaim: TRIM TRIM",
            &format!("all: {all}"),
        ]
    );
}

#[test]
fn what_is_recycled_or_held_is_not_missed() {
    let said = |change: &dyn Fn(&mut plimsoll_events::Evict)| {
        let mut one = evict("clip");
        change(&mut one);
        let mut state = State::default();
        decide(
            &mut state,
            1,
            1,
            What::Evict(Box::new(one), around(9), around(8)),
        );
        shown(&mut DecisionList::default(), &state, 160, 3)
    };
    assert!(said(&|_| {}).contains("RETURNED 100.0M of 1.10G"));
    let recycled = said(&|one| one.recycled_bytes = 1 << 30);
    assert!(
        recycled.contains("returned 100.0M of 1.10G, recycled 1.00G; for"),
        "{recycled}"
    );
    let held = said(&|one| one.held_bytes = 1 << 30);
    assert!(
        held.contains("returned 100.0M of 1.10G, 1.00G still held"),
        "{held}"
    );
    let unknown = said(&|one| one.returned = malloc_stats::Metric::Unavailable);
    assert!(unknown.contains("returned n/a of 1.10G"), "{unknown}");
    let second = said(&|one| one.considered[0].score = Some(99.0));
    assert!(second.contains("score 99.0, of 3 eligible"), "{second}");
}

#[test]
fn notes_of_one_moment_are_told_apart() {
    let mut state = cache();
    for text in ["one", "two", "three"] {
        state.notes.push_back(crate::live::state::Dated {
            at_us: 500_000_000,
            value: text.to_owned(),
        });
    }
    let mut view = DecisionList::default();
    shown(&mut view, &state, 80, 10);
    for _ in 0..3 {
        assert_eq!(view.selected(), None);
        view.act(Action::Down, &state);
    }
    assert_eq!(view.selected(), Some(20));
    assert_eq!(view.act(Action::Left, &state), Wish::Ignored);
}

#[test]
fn a_click_selects_and_another_opens() {
    let state = cache();
    let mut view = DecisionList::default();
    shown(&mut view, &state, 80, 10);
    assert_eq!(view.click(&Click::Select(0), &state), Wish::Redraw);
    assert_eq!(view.click(&Click::Select(0), &state), Wish::Decision(20));
    assert_eq!(view.click(&Click::Select(7), &state), Wish::Redraw);
    // A note has no page.
    assert_eq!(view.click(&Click::Select(7), &state), Wish::Ignored);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_numbers_in_any_rectangle_stay_inside(
        area in areas(),
        number in prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)],
        score in any::<f64>(),
        many in 0_usize..60,
        unicode: bool,
    ) {
        let state = hostile(number, score, many);
        let mut view = DecisionList::default();
        stays_inside(&mut view, &state, area, unicode);
        for action in [Action::Down, Action::PageDown, Action::Last, Action::Sort, Action::Up] {
            view.act(action, &state);
            stays_inside(&mut view, &state, area, unicode);
        }
    }
}

#[test]
fn a_load_without_a_time_has_no_rate() {
    let mut one = load("clip", "ram");
    one.took_us = 0;
    let mut state = State::default();
    decide(
        &mut state,
        1,
        1,
        What::Load(Box::new(one), around(9), around(9)),
    );
    let text = shown(&mut DecisionList::default(), &state, 120, 3);
    assert!(text.contains("from file in 0 us; recycled"), "{text}");
}
