//! Frames of the models, and what keys do to them.

use insta::assert_snapshot;
use malloc_stats::Metric;
use malloc_stats::inspect::{Class, ClassKind, FilePages, Inspection};
use proptest::prelude::*;
use std::sync::Arc;

use super::ModelTable;
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::state::Dated;
use crate::live::view::made_up::{
    Frame, GIB, areas, cache, drawn, hostile, shown, stays_inside, unicode,
};
use crate::live::view::{Click, View, Wish};

fn process() -> State {
    let mib = |count: u64| Metric::Exact(count << 20);
    let class = |kind, rss, anonymous| Class {
        kind,
        mappings: 12,
        size: 4 * GIB,
        rss: mib(rss),
        anonymous: mib(anonymous),
        swap: Metric::Exact(0),
        hugetlb: Metric::Unavailable,
    };
    let mut inspection = Inspection {
        files: vec![
            FilePages {
                path: "/models/very/long/way/to/llava-13b/model.safetensors".to_owned(),
                size: Metric::Exact(8 * GIB),
                cached: Metric::Exact(6 * GIB),
                rss: mib(512),
                mapped: true,
                ..FilePages::default()
            },
            FilePages {
                path: "/models/bge.gguf".to_owned(),
                size: mib(700),
                open: true,
                deleted: true,
                ..FilePages::default()
            },
        ],
        classes: vec![
            class(ClassKind::Malloc, 900, 900),
            class(ClassKind::ModelFiles, 1500, 0),
        ],
        unattributed: Metric::Estimated(31 << 20),
        ..Inspection::default()
    };
    inspection.process.memory.rss = mib(2400);
    let mut state = State::default();
    state.look = Some(Dated {
        at_us: 0,
        value: Arc::new(inspection),
    });
    state
}

#[test]
fn every_size_shows_what_there_is_room_for() {
    let state = cache();
    let of = |width, height| shown(&mut ModelTable::default(), &state, width, height);
    assert_snapshot!(of(60, 6), @r"
      MODEL       STATE       RAMv  DEVICE LEASES  LAST    SCORE
    > llava-13b   warm       7.00G       -      -    4m     3.00
      clip        warm       1.50G       -      -    4m     0.25
      qwen2-7b    leased         -  15.00G     12   now        -
      bge-m3      gone           -       -      -     -        -
      total ram              9.00G          of 24.00G 38 %..
    ");
    assert_snapshot!(of(80, 10), @r"
      MODEL             STATE    ram    gpu0      RAMv  DEVICE LEASES  LAST    SCORE
    > llava-13b         warm     #####  .....    7.00G       -      -    4m     3.00
      clip              warm     #####< .....    1.50G       -      -    4m     0.25
      qwen2-7b          leased   .....  #####        -  15.00G     12   now        -
      bge-m3            gone     .....  .....        -       -      -     -        -
      total ram                  #=...           9.00G          of 24.00G 38 %..
      total gpu0                        ####.           15.00G  of 16.00G 94 %..
      (unattributed)                            ~2.00G          anonymous 14.00G..
      (allocator, free)                         ~3.00G          free, and resident
      (held)                                    512.0M      0B  evicted..
    ");
    assert_snapshot!(of(118, 12), @r"
      MODEL        STATE    ram    gpu0      RAMv  DEVICE LEASES  LAST    SCORE   RELOAD LAST LOAD/UNLOAD   FREED RETURNED
    > llava-13b    warm     #####  .....    7.00G       -      -    4m     3.00   1.90 s -                      -        -
      clip         warm     #####< .....    1.50G       -      -    4m     0.25   1.90 s -                      -        -
      qwen2-7b     leased   .....  #####        -  15.00G     12   now        -   1.90 s -                      -        -
      bge-m3       gone     .....  .....        -       -      -     -        - 600.0 ms unload ram 2m      1.10G   100.0M
      total ram             #=...           9.00G          of 24.00G 38 %, pinned 1.00G, 2 resident, 2 leases wait
      total gpu0                   ####.           15.00G  of 16.00G 94 %, simulated, pinned 15.00G, 1 resident
      (unattributed)                       ~2.00G          anonymous 14.00G - weights 9.00G - allocator, free ~3.00G
      (allocator, free)                    ~3.00G          free, and resident
      (held)                               512.0M      0B  evicted, and somebody still holds it
      (other processes)                            55.00G  GPU 0 NVIDIA H200: 70.00G of 80.00G used, by this process..
    ");
    assert_snapshot!(of(200, 30), @r"
      MODEL                                 STATE     ram           gpu0             RAMv   DEVICE  LEASES   LAST     SCORE    RELOAD  LAST LOAD/UNLOAD            FREED  RETURNED
    > llava-13b                             warm      ###########   ...........     7.00G        -       -     4m      3.00    1.90 s  -                               -         -
      clip                                  warm      ###########<  ...........     1.50G        -       -     4m      0.25    1.90 s  -                               -         -
      qwen2-7b                              leased    ...........   ####=====##         -   15.00G      12    now         -    1.90 s  -                               -         -
      bge-m3                                gone      ...........   ...........         -        -       -      -         -  600.0 ms  unload ram 2m               1.10G    100.0M
      total ram                                       #===.......                   9.00G           of 24.00G 38 %, pinned 1.00G, 2 resident, 2 leases wait
      total gpu0                                                    ##########.             15.00G  of 16.00G 94 %, simulated, pinned 15.00G, 1 resident
      (unattributed)                                                               ~2.00G           anonymous 14.00G - weights 9.00G - allocator, free ~3.00G
      (allocator, free)                                                            ~3.00G           free, and resident
      (held)                                                                       512.0M       0B  evicted, and somebody still holds it
      (other processes)                                                                     55.00G  GPU 0 NVIDIA H200: 70.00G of 80.00G used, by this process 15.00G
    ");
    assert_eq!(of(0, 0), "");
    assert_eq!(of(1, 1), "");
}

#[test]
fn unicode_has_finer_marks() {
    assert_snapshot!(unicode(&mut ModelTable::default(), &cache(), 118, 12), @r"
      MODEL        STATE    ram    gpu0      RAM▼  DEVICE LEASES  LAST    SCORE   RELOAD LAST LOAD/UNLOAD   FREED RETURNED
    ▶ llava-13b    warm     █████  ·····    7.00G       -      -    4m     3.00   1.90 s -                      -        -
      clip         warm     █████◂ ·····    1.50G       -      -    4m     0.25   1.90 s -                      -        -
      qwen2-7b     leased   ·····  █████        -  15.00G     12   now        -   1.90 s -                      -        -
      bge-m3       gone     ·····  ·····        -       -      -     -        - 600.0 ms unload ram 2m      1.10G   100.0M
      total ram             █▓···           9.00G          of 24.00G 38 %, pinned 1.00G, 2 resident, 2 leases wait
      total gpu0                   ████·           15.00G  of 16.00G 94 %, simulated, pinned 15.00G, 1 resident
      (unattributed)                       ~2.00G          anonymous 14.00G - weights 9.00G - allocator, free ~3.00G
      (allocator, free)                    ~3.00G          free, and resident
      (held)                               512.0M      0B  evicted, and somebody still holds it
      (other processes)                            55.00G  GPU 0 NVIDIA H200: 70.00G of 80.00G used, by this process..
    ");
}

#[test]
fn what_changed_since_the_mark_is_a_column() {
    let mut state = cache();
    let since = state.clone();
    let row = state.models.rows.get_mut("llava-13b").unwrap();
    row.places.clear();
    row.evictions += 2;
    row.loads += 1;
    let shot = Frame {
        since: Some(&since),
        ..Frame::of(100, 6)
    };
    assert_snapshot!(drawn(&mut ModelTable::default(), &state, shot).0, @r"
      MODEL            STATE    ram    gpu0      RAMv  DEVICE LEASES  LAST    SCORE SINCE MARK
    > clip             warm     #####< .....    1.50G       -      -    4m     0.25 =
      qwen2-7b         leased   .....  #####        -  15.00G     12   now        - =
      bge-m3           gone     .....  .....        -       -      -     -        - =
      llava-13b        gone     .....  .....        -       -      -    4m        - -7.00G   1 in 2 out
      total ram                 #=...           9.00G          of 24.00G 38 %, pinned 1.00G, 2..
    ");
}

#[test]
fn a_process_that_is_no_cache_shows_its_files_and_its_memory() {
    let mut view = ModelTable::default();
    assert_snapshot!(shown(&mut view, &process(), 100, 10), @r"
      MODEL FILE                             SIZEv    CACHED  page cache           IN RSS  STATE
    > /models/ve..-13b/model.safetensors     8.00G     6.00G  ########..   75 %    512.0M  mapped
      /models/bge.gguf                      700.0M       n/a                          n/a  open deleted
      MEMORY                  RESIDENT                               ANON   SWAPPED  ADDRESSES  MAPPINGS
      model files                1.46G  ==============.........        0B        0B      4.00G        12
      malloc                    900.0M  #########..............    900.0M        0B      4.00G        12
      (unattributed)                                               ~31.0M
    ");
    assert_snapshot!(shown(&mut view, &process(), 60, 6), @r"
      MODEL FILE              SIZEv    CACHED  page cache
    > /mode...safetensors     8.00G     6.00G  ########..   75 %
      /models/bge.gguf       700.0M       n/a
      MEMORY              RESIDENT                ANON ADDRESSES
      model files            1.46G ======....       0B     4.00G
      malloc                900.0M ####......   900.0M     4.00G
    ");
    assert_snapshot!(shown(&mut view, &State::default(), 60, 6), @"  its memory was not looked into yet");
    assert_eq!(view.act(Action::Open, &process()), Wish::Ignored);
}

#[test]
fn the_selection_sticks_to_its_model_whatever_the_order() {
    let mut state = cache();
    let mut view = ModelTable::default();
    shown(&mut view, &state, 118, 12);
    assert_eq!(view.selected(), Some("llava-13b"));
    assert_eq!(view.act(Action::Down, &state), Wish::Redraw);
    assert_eq!(view.selected(), Some("clip"));
    for _ in 0..7 {
        assert_eq!(view.act(Action::Sort, &state), Wish::Redraw);
        view.act(Action::Reverse, &state);
        shown(&mut view, &state, 118, 12);
        assert_eq!(view.selected(), Some("clip"));
    }
    assert_eq!(
        view.act(Action::Open, &state),
        Wish::Model("clip".to_owned())
    );
    // Gone: what stands in its place is selected, and the keys go on from there.
    state.models.rows.remove("clip");
    shown(&mut view, &state, 118, 12);
    let instead = view.selected().unwrap().to_owned();
    assert_ne!(instead, "clip");
    // Back again, nobody having moved.
    let state = cache();
    shown(&mut view, &state, 118, 12);
    assert_eq!(view.selected(), Some("clip"));
}

#[test]
fn a_filter_hides_rows_and_keys_move_among_the_others() {
    let state = cache();
    let mut view = ModelTable::default();
    let shot = Frame {
        filter: "l",
        ..Frame::of(80, 6)
    };
    assert_snapshot!(drawn(&mut view, &state, shot).0, @r"
      MODEL             STATE    ram    gpu0      RAMv  DEVICE LEASES  LAST    SCORE
    > llava-13b         warm     #####  .....    7.00G       -      -    4m     3.00
      clip              warm     #####< .....    1.50G       -      -    4m     0.25
      total ram                  #=...           9.00G          of 24.00G 38 %..
      total gpu0                        ####.           15.00G  of 16.00G 94 %..
      (unattributed)                            ~2.00G          anonymous 14.00G..
    ");
    view.act(Action::Last, &state);
    assert_eq!(view.selected(), Some("clip"));
    let shot = Frame {
        filter: "leased",
        ..shot
    };
    drawn(&mut view, &state, shot);
    assert_eq!(view.selected(), Some("qwen2-7b"));
    let none = Frame {
        filter: "nothing",
        ..shot
    };
    assert!(
        drawn(&mut view, &state, none)
            .0
            .contains("no model matches")
    );
    assert_eq!(view.selected(), None);
    assert_eq!(view.act(Action::Open, &state), Wish::Ignored);
    assert_eq!(view.act(Action::Down, &state), Wish::Redraw);
}

#[test]
fn heads_sort_and_rows_open_when_clicked() {
    let state = cache();
    let mut view = ModelTable::default();
    let (text, hits) = drawn(&mut view, &state, Frame::of(118, 12));
    let of = |does: &dyn Fn(&Click) -> bool| {
        let hit = hits.iter().find(|hit| does(&hit.does)).unwrap();
        (hit.area, hit.does.clone())
    };
    let (_, by_name) = of(&|does| *does == Click::SortBy(0));
    assert!(text.starts_with("  MODEL"));
    assert_eq!(view.click(&by_name, &state), Wish::Redraw);
    let names = |view: &mut ModelTable| {
        let text = shown(view, &state, 118, 12);
        let lines = text.lines().skip(1).take(4);
        let names = lines.filter_map(|line| line.trim_start_matches('>').split_whitespace().next());
        names.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&mut view), "bge-m3 clip llava-13b qwen2-7b");
    view.click(&by_name, &state);
    assert_eq!(names(&mut view), "qwen2-7b llava-13b clip bge-m3");
    let third = Click::Select(2);
    assert_eq!(view.click(&third, &state), Wish::Redraw);
    assert_eq!(view.selected(), Some("clip"));
    assert_eq!(view.click(&third, &state), Wish::Model("clip".to_owned()));
    assert_eq!(view.click(&Click::Select(99), &state), Wish::Ignored);
    assert_eq!(view.click(&Click::SortBy(99), &state), Wish::Ignored);
}

#[test]
fn scores_that_are_no_numbers_go_first_and_unknown_ones_come_last() {
    let mut state = cache();
    let mut odd = state.models.get("clip").unwrap().clone();
    odd.name = "odd".to_owned();
    odd.places[0].score = Some(f64::NAN);
    state.models.rows.insert(odd.name.clone(), odd);
    let mut view = ModelTable::default();
    for _ in 0..3 {
        view.act(Action::Sort, &state);
    }
    let text = shown(&mut view, &state, 118, 14);
    let names: Vec<&str> = text
        .lines()
        .skip(1)
        .take(5)
        .filter_map(|line| line.trim_start_matches('>').split_whitespace().next())
        .collect();
    assert_eq!(names, ["odd", "clip", "llava-13b", "bge-m3", "qwen2-7b"]);
    assert!(text.lines().nth(1).unwrap().contains("nan"), "{text}");
}

#[test]
fn more_models_than_lines_scroll_with_the_selection() {
    let mut state = cache();
    let template = state.models.get("clip").unwrap().clone();
    for at in 0..4096 {
        let mut row = template.clone();
        row.name = format!("model-{at:04}");
        row.places[0].charged_bytes = at + 1;
        state.models.rows.insert(row.name.clone(), row);
    }
    let mut view = ModelTable::default();
    shown(&mut view, &state, 80, 12);
    view.act(Action::Last, &state);
    let text = shown(&mut view, &state, 80, 12);
    assert_eq!(view.selected(), Some("bge-m3"));
    assert!(
        text.contains(">  bge-m3") || text.contains("> bge-m3"),
        "{text}"
    );
    view.act(Action::PageUp, &state);
    view.act(Action::First, &state);
    let text = shown(&mut view, &state, 80, 12);
    assert!(text.lines().nth(1).unwrap().contains("llava-13b"), "{text}");
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
        let mut view = ModelTable::default();
        stays_inside(&mut view, &state, area, unicode);
        for action in [Action::Sort, Action::Down, Action::PageDown, Action::Last, Action::Up] {
            view.act(action, &state);
            stays_inside(&mut view, &state, area, unicode);
        }
        stays_inside(&mut view, &process(), area, unicode);
        stays_inside(&mut view, &State::default(), (area.1, area.1), unicode);
    }
}
