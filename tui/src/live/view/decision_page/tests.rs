//! Frames of the page of a decision, and what keys do to it.

use insta::assert_snapshot;
use malloc_stats::Metric;
use plimsoll_events::{DeviceFreed, PageCacheLeft};
use proptest::prelude::*;

use super::DecisionPage;
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::state::What;
use crate::live::view::made_up::{
    GIB, areas, around, cache, candidate, decide, evict, hostile, shown, stays_inside, unicode,
};
use crate::live::view::{View, Wish};

#[test]
fn every_size_shows_what_there_is_room_for() {
    let state = cache();
    let of = |width, height| shown(&mut DecisionPage::of(20), &state, width, height);
    assert_snapshot!(of(60, 6), @r"
    what       EVICT  bge-m3  in ram                           #
    when       8:00.0 since the beginning, 2m ago              |
    why        for llava-13b: asked 6.00G, free 2.00G          |
    freed      1.10G counted, of 1.00G of weights              |
    returned   RETURNED 100.0M of 1.10G: 8.9 % of what was due,|
               1.00G did not come back                         |
    ");
    assert_snapshot!(of(80, 10), @r"
    what       EVICT  bge-m3  in ram                                               #
    when       8:00.0 since the beginning, 2m ago                                  #
    why        for llava-13b: asked 6.00G, free 2.00G                              #
    freed      1.10G counted, of 1.00G of weights                                  |
    returned   RETURNED 100.0M of 1.10G: 8.9 % of what was due, 1.00G did not come |
               back                                                                |
    recycled   0B waits to become the next model's                                 |
    held       0B still held by somebody, and counted until it is let go           |
    took       41.0 ms                                                             |
    looking    900 us for the two snapshots                                        |
    ");
    assert_snapshot!(of(118, 12), @r"
    what       EVICT  bge-m3  in ram                                  MEMORY                                             #
    when       8:00.0 since the beginning, 2m ago                                           BEFORE     AFTER     CHANGE  #
    why        for llava-13b: asked 6.00G, free 2.00G                  RSS                  19.00G    12.00G     -7.00G  #
    freed      1.10G counted, of 1.00G of weights                      anonymous            17.00G    10.00G     -7.00G  #
    returned   RETURNED 100.0M of 1.10G: 8.9 % of what was due,        mapped files          2.00G     2.00G          =  #
               1.00G did not come back                                 cgroup               20.00G    13.00G     -7.00G  #
    recycled   0B waits to become the next model's                     malloc in use         4.00G     4.00G          =  #
    held       0B still held by somebody, and counted until it is      malloc resident     <=5.00G   <=5.00G          =  |
               let go                                                  malloc free, res.    ~1.00G    ~1.00G          =  |
    took       41.0 ms                                                                                                   |
    looking    900 us for the two snapshots                                                                              |
                                                                                                                         |
    ");
    assert_snapshot!(of(200, 30), @r"
    what       EVICT  bge-m3  in ram                                                            MEMORY
    when       8:00.0 since the beginning, 2m ago                                                                      BEFORE      AFTER      CHANGE
    why        for llava-13b: asked 6.00G, free 2.00G                                            RSS                   19.00G     12.00G      -7.00G
    freed      1.10G counted, of 1.00G of weights                                                anonymous             17.00G     10.00G      -7.00G
    returned   RETURNED 100.0M of 1.10G: 8.9 % of what was due, 1.00G did not come back          mapped files           2.00G      2.00G           =
    recycled   0B waits to become the next model's                                               cgroup                20.00G     13.00G      -7.00G
    held       0B still held by somebody, and counted until it is let go                         malloc in use          4.00G      4.00G           =
    took       41.0 ms                                                                           malloc resident      <=5.00G    <=5.00G           =
    looking    900 us for the two snapshots                                                      malloc free, res.     ~1.00G     ~1.00G           =

    CANDIDATES  5 listed, 3 eligible, 1 went
         #  MODEL                                         SCORE     BYTES                            WHY
         1  bge-m3                                         0.40     1.00G  ########################  went: this decision
         2  clip                                           3.00     1.00G  ########################  stayed: enough room without it
         3  phi-3                                          9.50     1.00G  ########################  stayed: enough room without it
         4  llava-13b                                         -     1.00G  ########################  skipped: the same lease wants it
         5  qwen2-7b                                          -     1.00G  ########################  skipped: leased 12 times
    ");
    assert_eq!(of(0, 0), "");
    assert!(of(1, 1).chars().count() <= 1);
}

#[test]
fn an_eviction_from_a_device_says_what_its_driver_saw() {
    let mut state = cache();
    let gib = |count: u64| Metric::Exact(count * GIB);
    let mut gone = evict("bge-m3");
    gone.device = Some(DeviceFreed {
        free_before: gib(60),
        free_after: gib(75),
        pool_before: gib(16),
        pool_after: Metric::Unavailable,
    });
    let (before, after) = (around(19), around(12));
    decide(
        &mut state,
        40,
        500,
        What::Evict(Box::new(gone), before, after),
    );
    let of = |width| {
        let text = shown(&mut DecisionPage::of(40), &state, width, 40);
        let lines = text.lines().skip_while(|line| !line.starts_with("device"));
        let lines = lines.take_while(|line| !line.starts_with("took"));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(of(80), @"device     free 60.00G -> 75.00G +15.00G, held of the pool 16.00G -> n/a");
    assert_snapshot!(of(40), @r"
    device     free 60.00G -> 75.00G
               +15.00G, held of the pool
               16.00G -> n/a
    ");
}

#[test]
fn an_eviction_has_all_its_candidates_in_order() {
    assert_snapshot!(unicode(&mut DecisionPage::of(20), &cache(), 80, 40), @r"
    what       EVICT  bge-m3  in ram
    when       8:00.0 since the beginning, 2m ago
    why        for llava-13b: asked 6.00G, free 2.00G
    freed      1.10G counted, of 1.00G of weights
    returned   RETURNED 100.0M of 1.10G: 8.9 % of what was due, 1.00G did not come
               back
    recycled   0B waits to become the next model's
    held       0B still held by somebody, and counted until it is let go
    took       41.0 ms
    looking    900 us for the two snapshots

    MEMORY
                           BEFORE      AFTER      CHANGE
     RSS                   19.00G     12.00G      -7.00G
     anonymous             17.00G     10.00G      -7.00G
     mapped files           2.00G      2.00G           =
     cgroup                20.00G     13.00G      -7.00G
     malloc in use          4.00G      4.00G           =
     malloc resident       ≤5.00G     ≤5.00G           =
     malloc free, res.     ~1.00G     ~1.00G           =

    CANDIDATES  5 listed, 3 eligible, 1 went
         # MODEL            SCORE    BYTES          WHY
         1 bge-m3            0.40    1.00G ████████ went: this decision
         2 clip              3.00    1.00G ████████ stayed: enough room without it
         3 phi-3             9.50    1.00G ████████ stayed: enough room without it
         4 llava-13b            -    1.00G ████████ skipped: the same lease wants it
         5 qwen2-7b             -    1.00G ████████ skipped: leased 12 times
    ");
}

#[test]
fn each_kind_tells_all_its_numbers() {
    let state = cache();
    let of = |seq| shown(&mut DecisionPage::of(seq), &state, 80, 40);
    assert_snapshot!(of(10), @r"
    what       BUDGET  in ram
    when       1:00.0 since the beginning, 9m ago
    seen by    pressure
    bound by   memory.high of /kubepods/pod7
    was        24.00G -> 20.00G  -4.00G

                   10.00G  unused       below the tightest bound
               +    8.00G  counted      what the cache has
               +  <=3.00G  reclaimable  page cache that the kernel could drop
               +    1.00G  working      declared working memory that is in use
               -    2.00G  reserve      left to everything else
               =   20.00G  budget
    ");
    assert_snapshot!(of(11), @r"
    what       LOAD  llava-13b  in ram
    when       1:01.0 since the beginning, 8m ago
    from       its files
    bytes      7.00G of weights, 7.00G counted
    took       1.90 s, 3.96 GB/s
    recycled   1.00G in pages that an eviction left behind, 14 %
    gave back  0B of recycled pages that it did not use
    looking    800 us for the two snapshots

    MEMORY
                           BEFORE      AFTER      CHANGE
     RSS                   12.00G     19.00G      +7.00G
     anonymous             10.00G     17.00G      +7.00G
     mapped files           2.00G      2.00G           =
     cgroup                13.00G     20.00G      +7.00G
     malloc in use          4.00G      4.00G           =
     malloc resident      <=5.00G    <=5.00G           =
     malloc free, res.     ~1.00G     ~1.00G           =
    ");
    assert_snapshot!(of(15), @r"
    what       TRIM
    when       6:00.0 since the beginning, 4m ago
    action     trim
    missing    1.00G freed by unloads had not come back
    gained     768.0M, 75 % of that
    took       41.0 ms
    settled    -4.0K of the gain is left after 1 min
    ");
    assert_snapshot!(of(17), @r"
    what       FAILED  clip  in gpu0 simulated
    when       6:40.0 since the beginning, 3m ago
    failed     gpu0: out of memory
    from       its files
    bytes      7.00G of weights, 7.00G counted while it was tried
    took       1.90 s
    recycled   1.00G in pages that an eviction left behind, 14 %
    gave back  0B of recycled pages that it did not use
    looking    800 us for the two snapshots

    MEMORY
                           BEFORE      AFTER      CHANGE
     RSS                   12.00G     12.00G           =
     anonymous             10.00G     10.00G           =
     mapped files           2.00G      2.00G           =
     cgroup                13.00G     13.00G           =
     malloc in use          4.00G      4.00G           =
     malloc resident      <=5.00G    <=5.00G           =
     malloc free, res.     ~1.00G     ~1.00G           =
    ");
    assert_snapshot!(of(18), @r"
    what       REFUSE  mixtral  in gpu0 simulated
    when       7:00.0 since the beginning, 3m ago
    why        leases pin what could make room
    for        mixtral
    asked      15.00G for all of them
    budget     24.00G
    pinned     15.00G, 62 % of the budget: leases, loads, and tensors that somebody
               holds
    must go    6.00G of what is pinned
    leased now qwen2-7b 15.00G leased by 12
    ");
}

#[test]
fn a_decision_that_is_no_longer_kept_says_so() {
    let state = State::default();
    let mut view = DecisionPage::of(7);
    assert_eq!(
        shown(&mut view, &state, 80, 5),
        " decision 7 is no longer kept"
    );
    assert_eq!(view.act(Action::Open, &state), Wish::Ignored);
}

#[test]
fn keys_go_to_older_and_newer_decisions_of_a_kind() {
    let state = cache();
    let mut view = DecisionPage::of(20);
    assert_eq!(view.act(Action::Right, &state), Wish::Ignored);
    assert_eq!(view.act(Action::Left, &state), Wish::Redraw);
    assert_eq!(view.seq, 18);
    assert_eq!(
        view.act(Action::Open, &state),
        Wish::Model("mixtral".to_owned())
    );
    view.kind = Some("load");
    view.act(Action::Left, &state);
    assert_eq!(view.seq, 17);
    view.act(Action::Left, &state);
    assert_eq!(view.seq, 11);
    assert_eq!(view.act(Action::Left, &state), Wish::Ignored);
    view.act(Action::Right, &state);
    assert_eq!(view.seq, 17);
    // From one that is gone its neighbours are still found.
    view.seq = 12;
    view.act(Action::Right, &state);
    assert_eq!(view.seq, 17);
}

#[test]
fn ten_thousand_candidates_scroll_to_the_last() {
    let mut one = evict("clip");
    let many = 0..10_000_u32;
    one.considered
        .extend(many.map(|at| candidate(&format!("m{at}"), Some(f64::from(at)), None)));
    let mut state = State::default();
    decide(
        &mut state,
        1,
        1,
        What::Evict(Box::new(one), around(9), around(8)),
    );
    let mut view = DecisionPage::of(1);
    shown(&mut view, &state, 80, 20);
    assert_eq!(view.act(Action::Last, &state), Wish::Redraw);
    let text = shown(&mut view, &state, 80, 20);
    assert!(text.contains("10005 qwen2-7b"), "{text}");
    assert!(text.contains("leased 12 times"), "{text}");
    view.act(Action::First, &state);
    assert!(shown(&mut view, &state, 80, 20).starts_with("what"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_numbers_in_any_rectangle_stay_inside(
        area in areas(),
        number in prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)],
        score in any::<f64>(),
        seq in 30_u64..90,
        unicode: bool,
    ) {
        let state = hostile(number, score, 60);
        let mut view = DecisionPage::of(seq);
        stays_inside(&mut view, &state, area, unicode);
        for action in [Action::Down, Action::Last, Action::Right, Action::PageUp] {
            view.act(action, &state);
            stays_inside(&mut view, &state, area, unicode);
        }
    }
}

#[test]
fn a_mapped_model_that_went_owes_nothing_and_says_what_coming_back_reads() {
    let mut state = cache();
    let mut gone = evict("bge-m3");
    gone.page_cache = Some(PageCacheLeft {
        mapped_bytes: 1 << 30,
        resident: Metric::Upper(700 << 20),
        left: Some(Metric::Exact(0)),
    });
    gone.considered[0].reload_bytes = Some(324 << 20);
    decide(
        &mut state,
        99,
        550,
        What::Evict(Box::new(gone), around(19), around(12)),
    );
    let text = shown(&mut DecisionPage::of(99), &state, 200, 30);
    assert!(text.contains("nothing was due"), "{text}");
    assert!(
        text.contains("mapped     1.00G, <=700.0M of it in RAM; 0B is left in the page cache"),
        "{text}"
    );
    let row = text.lines().find(|line| line.contains("went: this"));
    assert!(text.contains("TO READ"), "{text}");
    assert!(row.is_some_and(|row| row.contains("324.0M")), "{text}");
}
