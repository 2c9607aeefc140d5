use proptest::prelude::*;

use super::*;
use crate::live::state::Reading;
use crate::live::view::made_up::fold;
use crate::live::view::made_up::{
    ASCII, Frame, MIB, SECOND, UNICODE, assert_draws_anything, assert_looks, drawn, events, server,
    text,
};

const FOCUSED: Frame = Frame {
    focused: true,
    expanded: true,
    ..ASCII
};

fn rss(mib: u64) -> Reading {
    Reading {
        rss: Some(mib * MIB),
        ..Reading::default()
    }
}

#[test]
fn curves_look_so() {
    assert_looks("timeline", &server(), || Box::<Timeline>::default());
}

#[test]
fn the_caption_says_what_is_shown() {
    let (state, mut view) = (server(), Timeline::default());
    let caption = |view: &Timeline, unicode| {
        view.caption(&Scene {
            state: &state,
            since: None,
            theme: Theme {
                unicode,
                ..Theme::plain()
            },
            now_us: state.at_us,
            focused: false,
            expanded: false,
            filter: "",
            hits: &mut Vec::new(),
        })
    };
    text(&mut view, &state, (118, 8), UNICODE);
    assert_eq!(caption(&view, true), "10 min  | load  x evict  ! refuse");
    assert_eq!(
        caption(&view, false),
        "10 min  r=rss u=use l=live #=both  | load  x evict  ! refuse"
    );
    view.act(Action::ZoomIn, &state);
    text(&mut view, &state, (118, 8), UNICODE);
    view.act(Action::Left, &state);
    assert!(caption(&view, true).starts_with("5 min up to -37s"));
    view.act(Action::Last, &state);
    assert!(caption(&view, true).starts_with("5 min  |"));
}

#[test]
fn a_peak_of_one_reading_is_seen_in_a_day() {
    let mut state = State::default();
    for second in 0..86_400 {
        let mib = if second == 43_210 { 900 } else { 100 };
        state.series.push(second * SECOND, &rss(mib));
    }
    state.at_us = 86_399 * SECOND;
    let mut view = Timeline::default();
    for look in [ASCII, UNICODE] {
        let text = text(&mut view, &state, (57, 8), look);
        let top: Vec<_> = text.lines().take(2).collect();
        let is_drawn = |c: char| c == 'r' || ('\u{2801}'..='\u{28ff}').contains(&c);
        assert_eq!(
            top.concat().chars().filter(|c| is_drawn(*c)).count(),
            2,
            "{text}"
        );
    }
}

#[test]
fn one_reading_or_none_is_no_trouble() {
    let mut state = State::default();
    let none = text(&mut Timeline::default(), &state, (60, 6), ASCII);
    assert_eq!(none.trim(), "no readings yet");
    state.series.push(7, &rss(5));
    state.at_us = 7;
    let one = text(&mut Timeline::default(), &state, (60, 6), ASCII);
    assert!(one.contains("r") && one.contains("5.0M"), "{one}");
    state.series.push(
        7,
        &Reading {
            rss: Some(u64::MAX),
            in_use: Some(0),
            ..Reading::default()
        },
    );
    let most = text(&mut Timeline::default(), &state, (60, 6), UNICODE);
    assert!(most.contains("16.00E"), "{most}");
}

#[test]
fn a_limit_that_is_near_is_a_line() {
    let state = server();
    let mut view = Timeline::default();
    assert!(!text(&mut view, &state, (80, 12), UNICODE).contains("high"));
    // Charged memory is near the limit.
    view.act(Action::Sort, &state);
    let charged = text(&mut view, &state, (80, 12), UNICODE);
    assert!(charged.contains("high  23.00G") && charged.contains("cgrp  22.46G"));
    assert!(charged.contains("╌╌╌╌"), "{charged}");
}

#[test]
fn marks_in_one_column_are_counted_and_the_gravest_shows() {
    let mut state = server();
    let marks = |state: &State| -> String {
        let range = 0..600 * SECOND;
        let marks = marks::marks(state, &range, 6);
        let letter = |mark: Option<marks::Mark>| mark.map_or('.', |mark| mark.letter());
        marks.into_iter().map(letter).collect()
    };
    assert_eq!(marks(&state), ".|2|.!");
    for _ in 0..3 {
        fold(&mut state, 599 * SECOND, events::load("a", 1, Some("no")));
    }
    // Time does not go back: these count at the end, beyond the stretch.
    assert_eq!(marks(&state), ".|2|.!");
    let all = marks::marks(&state, &(0..601 * SECOND), 1);
    let only = all[0].unwrap();
    assert_eq!((only.sign, only.letter()), (Sign::Refuse, '8'));
}

#[test]
fn the_cursor_tells_the_numbers_and_the_decision_nearest_to_it() {
    let (state, mut view) = (server(), Timeline::default());
    let (idle, hits) = drawn(
        &mut view,
        &state,
        Frame {
            size: (100, 12),
            ..FOCUSED
        },
    );
    assert!(idle.ends_with("a click: the numbers at a moment"), "{idle}");
    assert_eq!(view.act(Action::Open, &state), Wish::Ignored);
    // Between 6 and 7 minutes ago, near the evictions.
    let column = hits.len() / 3;
    assert_eq!(hits[column].does, Click::Select(column));
    view.click(&Click::Select(column), &state);
    let text = text(&mut view, &state, (100, 12), FOCUSED);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("-6m"), "{last}");
    assert!(last.contains("use 8.7") && last.contains("x evict llava-13b 7.42G from ram"));
    let Wish::Decision(seq) = view.click(&Click::Select(column), &state) else {
        panic!("a second click opens it");
    };
    let opened = state.decisions.iter().find(|it| it.seq == seq).unwrap();
    assert_eq!(opened.what.kind(), "evict");
    view.seeks = true;
    let Wish::SeekTo(at) = view.act(Action::Open, &state) else {
        panic!("a recording seeks");
    };
    assert!((195 * SECOND..206 * SECOND).contains(&at), "{at}");
    assert_eq!(view.act(Action::Back, &state), Wish::Redraw);
    assert_eq!(view.act(Action::Back, &state), Wish::Ignored);
}

#[test]
fn the_cursor_takes_the_window_with_it() {
    let (state, mut view) = (server(), Timeline::default());
    for _ in 0..2 {
        view.act(Action::ZoomIn, &state);
    }
    text(&mut view, &state, (80, 12), FOCUSED);
    for _ in 0..200 {
        view.act(Action::Left, &state);
        text(&mut view, &state, (80, 12), FOCUSED);
        assert!(view.drawn.range.contains(&view.cursor.unwrap()));
    }
    assert!(view.window.stands_at().is_some());
    for _ in 0..400 {
        view.act(Action::Right, &state);
        text(&mut view, &state, (80, 12), FOCUSED);
    }
    assert_eq!(view.window.stands_at(), None);
    view.act(Action::First, &state);
    text(&mut view, &state, (80, 12), FOCUSED);
    assert_eq!(view.drawn.range.start, 0);
}

#[test]
fn the_mark_is_a_line_down_the_chart() {
    let (now, mut since) = (server(), server());
    since.at_us = 300 * SECOND;
    let mut view = Timeline::default();
    let (text, _) = drawn(
        &mut view,
        &now,
        Frame {
            size: (80, 14),
            since: Some(&since),
            ..ASCII
        },
    );
    let columns: Vec<_> = text.lines().filter_map(|line| line.find(':')).collect();
    assert!(columns.len() >= 4, "{text}");
    assert!(columns.iter().all(|column| *column == columns[0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn anything_is_drawn(
        size in (0_u16..300, 0_u16..100), numbers in any::<(u64, u64, u64)>(), name in ".{0,40}",
        keys in proptest::collection::vec(0_usize..10, 0..20), column in any::<usize>(),
    ) {
        let mut view = Timeline::default();
        assert_draws_anything(&mut view, size, numbers, &name);
        let state = crate::live::view::made_up::nonsense(numbers.0, numbers.1, &name);
        let actions = [
            Action::Left, Action::Right, Action::ZoomIn, Action::ZoomOut, Action::First,
            Action::Last, Action::Sort, Action::Reverse, Action::Open, Action::Back,
        ];
        view.click(&Click::Select(column), &state);
        for key in keys {
            view.act(actions[key], &state);
        }
        assert_draws_anything(&mut view, size, numbers, &name);
    }
}
