//! Frames of the page of a model, and what keys do to it.

use insta::assert_snapshot;
use malloc_stats::Metric;
use plimsoll_events::PageCache;
use proptest::prelude::*;

use super::ModelPage;
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::view::made_up::{
    Frame, areas, cache, drawn, hostile, shown, stays_inside, unicode,
};
use crate::live::view::{View, Wish};

#[test]
fn every_size_shows_what_there_is_room_for() {
    let state = cache();
    let of = |width, height| shown(&mut ModelPage::of("qwen2-7b"), &state, width, height);
    assert_snapshot!(of(60, 6), @r"
    model    qwen2-7b  leased                                  #
    weights  15.00G in 291 tensors, BF16 F32                   #
    counts   240 hits  3 loads  0 failed  0 evictions  0       |
             refusals                                          |
    used     now, leased                                       |
                                                               |
    ");
    assert_snapshot!(of(80, 10), @r"
    model    qwen2-7b  leased                                                      #
    weights  15.00G in 291 tensors, BF16 F32                                       #
    counts   240 hits  3 loads  0 failed  0 evictions  0 refusals                  #
    used     now, leased                                                           #
                                                                                   #
    TIERS                                                                          #
     TIER            PHASE       CHARGED  WOULD IT FIT NOW                         |
     ram             absent            -  yes: needs ~15.00G, free 15.00G          |
     gpu0 simulated  resident     15.00G  it is there                              |
                                                                                   |
    ");
    assert_snapshot!(of(118, 12), @r"
    model    qwen2-7b  leased                                                                                            #
    weights  15.00G in 291 tensors, BF16 F32                                                                             #
    counts   240 hits  3 loads  0 failed  0 evictions  0 refusals                                                        #
    used     now, leased                                                                                                 #
                                                                                                                         #
    TIERS                                                                                                                #
     TIER           PHASE      CHARGED LEASES  IDLE LOADED     SCORE   RELOAD WOULD IT FIT NOW                           #
     ram            absent           -      -     -      -         -        - yes: needs ~15.00G, free 15.00G            #
     gpu0 simulated resident    15.00G     12   now      -         -   1.90 s it is there                                #
                                                                                                                         |
    TENSORS  3 groups                                                                                                    |
     TENSORS                                           TYPE           COUNT     BYTES   SHARE              ram     gpu0  |
    ");
    assert_snapshot!(of(200, 30), @r"
    model    qwen2-7b  leased
    weights  15.00G in 291 tensors, BF16 F32
    counts   240 hits  3 loads  0 failed  0 evictions  0 refusals
    used     now, leased

    TIERS
     TIER            PHASE                         CHARGED  LEASES   IDLE  LOADED      SCORE    RELOAD  WOULD IT FIT NOW
     ram             absent     ................         -       -      -       -          -         -  yes: needs ~15.00G, free 15.00G
     gpu0 simulated  resident   ######=======###    15.00G      12    now       -          -    1.90 s  it is there

    TENSORS  3 groups
     TENSORS                                           TYPE           COUNT     BYTES   SHARE                            ram         gpu0
     model.layers.0                                    BF16               9     6.00G    40 %  ==========..............  ..........  ##########
     model.layers.1                                    BF16               9     6.00G    40 %  ==========..............  ..........  ##########
     (others)                                          BF16 F32           3     3.00G    20 %  =====...................  ..........  ##########
    ");
    assert_eq!(of(0, 0), "");
    assert!(of(1, 1).chars().count() <= 1);
}

#[test]
fn a_model_that_is_gone_shows_what_would_bring_it_back() {
    let state = cache();
    assert_snapshot!(unicode(&mut ModelPage::of("bge-m3"), &state, 118, 20), @r"
    model    bge-m3  gone
    weights  1.00G in 291 tensors
    counts   240 hits  3 loads  0 failed  1 eviction  0 refusals
    used     not that anybody told

    TIERS
     TIER            PHASE       CHARGED  LEASES   IDLE  LOADED      SCORE    RELOAD  WOULD IT FIT NOW
     ram             absent            -       -      -       -          -  600.0 ms  yes: needs ~1.00G, free 15.00G
     gpu0 simulated  absent            -       -      -       -          -         -  yes: needs ~1.00G, free 1.00G

    LAST LOADS AND UNLOADS
     TIME      WHAT     TIER        WHY, AND WHAT CAME OF IT
     8:00.0    EVICT    ram         RETURNED 100.0M of 1.10G; for llava-13b: asked 6.00G, free 2.00G; score 0.40, lowest..
    ");
}

#[test]
fn a_model_that_nobody_knows_says_so() {
    let text = shown(&mut ModelPage::of("a\x1b[2J"), &State::default(), 80, 3);
    assert_eq!(
        text,
        " a\\u{1b}[2J: nothing is known of this model any more"
    );
}

#[test]
fn what_changed_since_the_mark_is_told() {
    let state = cache();
    let since = State::default();
    let shot = Frame {
        since: Some(&since),
        ..Frame::of(80, 8)
    };
    let text = drawn(&mut ModelPage::of("clip"), &state, shot).0;
    assert!(
        text.contains("+1.50G since the mark, 3 loads, 0 evictions"),
        "{text}"
    );
}

#[test]
fn keys_scroll_and_go_to_neighbours() {
    let state = cache();
    let mut view = ModelPage::of("clip");
    let first = shown(&mut view, &state, 80, 6);
    assert_eq!(view.act(Action::Down, &state), Wish::Redraw);
    assert_ne!(shown(&mut view, &state, 80, 6), first);
    view.act(Action::First, &state);
    assert_eq!(shown(&mut view, &state, 80, 6), first);
    assert_eq!(view.act(Action::Right, &state), Wish::Redraw);
    assert_eq!(view.model, "llava-13b");
    assert_eq!(view.act(Action::Open, &state), Wish::Decision(11));
    view.act(Action::Left, &state);
    view.act(Action::Left, &state);
    assert_eq!(view.model, "bge-m3");
    assert_eq!(view.act(Action::Left, &state), Wish::Ignored);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_numbers_in_any_rectangle_stay_inside(
        area in areas(),
        number in prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)],
        score in any::<f64>(),
        which in 0_usize..60,
        unicode: bool,
    ) {
        let state = hostile(number, score, 60);
        let name = state.models.iter().nth(which).unwrap().name.clone();
        let mut view = ModelPage::of(name);
        stays_inside(&mut view, &state, area, unicode);
        for action in [Action::Down, Action::Last, Action::Right, Action::PageUp] {
            view.act(action, &state);
            stays_inside(&mut view, &state, area, unicode);
        }
    }
}

#[test]
fn what_is_mapped_says_what_of_it_is_in_ram() {
    let mut state = cache();
    let row = state.models.rows.get_mut("qwen2-7b").unwrap();
    row.places[0].page_cache = Some(PageCache {
        mapped_bytes: 15 << 30,
        resident: Metric::Upper(12 << 30),
        reload: Metric::Estimated(3 << 30),
    });
    let text = shown(&mut ModelPage::of("qwen2-7b"), &state, 100, 6);
    assert!(
        text.contains(
            "mapped   15.00G, <=12.00G of it in RAM and reclaimable; coming back reads ~3.00G"
        ),
        "{text}"
    );
}
