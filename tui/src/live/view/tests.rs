//! Any state at all, in any rectangle: nothing panics, nothing is drawn outside.

use proptest::prelude::*;

use super::allocator::Allocator;
use super::decisions::DecisionList;
use super::headroom::Headroom;
use super::heap_map::HeapMap;
use super::made_up::{ASCII, Dice, Frame, cache, captioned, heap, server, state};
use super::models::ModelTable;
use super::timeline::Timeline;
use super::{Scene, View, Wish, fitting};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Theme;

const ACTIONS: [Action; 18] = [
    Action::Up,
    Action::Down,
    Action::Left,
    Action::Right,
    Action::PageUp,
    Action::PageDown,
    Action::First,
    Action::Last,
    Action::ZoomIn,
    Action::ZoomIn,
    Action::ZoomIn,
    Action::ZoomOut,
    Action::Open,
    Action::Back,
    Action::Sort,
    Action::Reverse,
    Action::Arena,
    Action::Quit,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn whatever_is_known_stays_within_its_rectangle(
        numbers in prop::collection::vec(
            prop_oneof![any::<u64>(), 0..100_u64, Just(0), Just(u64::MAX)], 40..120),
        texts in prop::collection::vec("(\\PC|[\\x00-\\x1f\u{202e}模é]){0,60}", 1..4),
        size in prop_oneof![(0..12_u16, 0..12_u16), (0..300_u16, 0..100_u16)],
        switches in any::<[bool; 5]>(),
        actions in prop::collection::vec((0..ACTIONS.len(), any::<u16>()), 0..12),
    ) {
        let mut dice = Dice { numbers: &numbers, texts: &texts, next: 0 };
        let states = [dice.state(), dice.state()];
        let before = dice.state();
        let filter = if switches[4] { texts[0].to_lowercase() } else { String::new() };
        let frame = Frame {
            size,
            unicode: switches[0],
            focused: switches[1],
            expanded: switches[2],
            since: switches[3].then_some(&before),
            filter: &filter,
            later_us: 0,
        };
        let views: [&mut dyn View; 2] = [&mut Allocator::default(), &mut HeapMap::default()];
        for view in views {
            let mut wishes = Vec::new();
            for (at, (action, click)) in actions.iter().enumerate() {
                // What is known changes under the reader's hands.
                let state = &states[at / 4 % 2];
                let (_, hits) = captioned(view, state, frame);
                wishes.push(view.act(ACTIONS[*action], state));
                if let Some(hit) = hits.get(usize::from(*click) % hits.len().max(1)) {
                    wishes.push(view.click(&hit.does, state));
                }
            }
            captioned(view, &states[0], frame);
            for wish in wishes {
                if let Wish::Chunks { from, to, .. } = wish {
                    prop_assert!(from <= to && to - from <= 1 << 20);
                }
            }
        }
    }
}

#[test]
fn every_size_is_drawn_and_in_ascii_where_there_is_no_more() {
    let known = state(1, heap());
    let sizes = [(0, 0), (1, 1), (50, 6), (60, 8), (118, 10), (200, 40)];
    for (size, unicode) in sizes
        .into_iter()
        .flat_map(|size| [(size, false), (size, true)])
    {
        let views: [&mut dyn View; 2] = [&mut Allocator::default(), &mut HeapMap::default()];
        for view in views {
            for (expanded, diff) in [(false, false), (true, false), (true, true)] {
                let frame = Frame {
                    size,
                    unicode,
                    expanded,
                    since: diff.then_some(&known),
                    ..ASCII
                };
                let (page, _) = captioned(view, &known, frame);
                assert!(unicode || page.is_ascii(), "{page}");
                assert_eq!(page.lines().count(), 1 + usize::from(size.1));
            }
        }
    }
}

fn brief(view: &dyn View, state: &State) -> String {
    view.brief(&Scene {
        state,
        since: None,
        theme: Theme::plain(),
        now_us: state.at_us,
        focused: false,
        expanded: false,
        filter: "",
        hits: &mut Vec::new(),
    })
}

#[test]
fn a_panel_that_is_closed_says_what_matters_most() {
    let (server, cache, heap) = (server(), cache(), state(1, heap()));
    let all = [
        brief(&Headroom::default(), &server),
        brief(&Timeline::default(), &server),
        brief(&Allocator::default(), &heap),
        brief(&HeapMap::default(), &heap),
        brief(&ModelTable::default(), &cache),
        brief(&DecisionList::default(), &cache),
    ];
    insta::assert_snapshot!(all.join("\n"), @"
    552.0M left of 23.00G, high /kubepods/pod7, ~5 min, OOM kills 1
    10 min, rss 17.68G, use 10.55G, live 4.00G (most 7.42G)
    in use 7.13G, free resident 2.11G, waste 23 %, trim returns ~1.86G
    32B pins 2.00G of arena 1
    3 of 4 resident, ram 9.00G of 24.00G, gpu0 15.00G of 16.00G
    2m ago: EVICT bge-m3  RETURNED 100.0M of 1.10G; for llava-13b: asked 6.00G, free 2.00G; score 0.40, lowest of 3 eligible
    ");
}

#[test]
fn a_caption_loses_whole_parts() {
    let caption = "glibc 2.36, 3 arenas + mmapped, walk 3 s ago, 191.0 ms";
    assert_eq!(fitting(caption, 99), caption);
    assert_eq!(
        fitting(caption, 48),
        "glibc 2.36, 3 arenas + mmapped, walk 3 s ago"
    );
    assert_eq!(fitting(caption, 33), "glibc 2.36, 3 arenas + mmapped");
    assert_eq!(fitting("two words and more", 12), "two words..");
    assert_eq!(fitting("\x1b[2J", 3), "\\u{");
    assert_eq!(fitting("", 0), "");
}
