use malloc_stats::limits::Limit;
use malloc_stats::{Metric, Vram};
use plimsoll_events::Kind;
use proptest::prelude::*;

use super::*;
use crate::live::view::made_up::{
    ASCII, Frame, MIB, SECOND, UNICODE, assert_draws_anything, assert_looks, cache_with_driver,
    drawn, fold, memory, picture, server, text,
};

fn all(state: &State) -> String {
    text(&mut Headroom::default(), state, (118, 30), ASCII)
}

#[test]
fn limits_look_so() {
    assert_looks("headroom", &server(), || Box::<Headroom>::default());
}

#[test]
fn six_rows_of_fifty_columns_answer_what_kills() {
    let text = text(&mut Headroom::default(), &server(), (50, 6), ASCII);
    insta::assert_snapshot!(text, @"
    high ../pod7 [########=+~] 552.0M left, ~5 min
    #anon 15.82G ~file 5.86G =shm 500.0M +kern 300.0M
    left 552.0M + reclaimable ~4.69G  host ~61.00G
    PSI some 4.2 full 0.6 %  OOM kills 1  RSS 17.68G
    gpu0 71.19G/80.00G own 15.10G
    next: llava-13b needs ~7.42G, short ~6.16G
    ");
}

#[test]
fn a_gpu_that_is_lost_stays_with_a_word() {
    let mut state = cache_with_driver();
    let line = |state: &State, width| {
        let text = text(&mut Headroom::default(), state, (width, 30), ASCII);
        let line = text.lines().find(|line| line.starts_with("gpu0"));
        line.unwrap().to_owned()
    };
    let words = "own 17.50G  others 52.50G  largest block 6.00G";
    assert!(line(&state, 118).contains(words), "{}", line(&state, 118));
    let gpu = &mut state.vitals.vram.value[0];
    gpu.mig = true;
    assert!(line(&state, 118).contains("all of it (MIG)"));
    state.vitals.vram.value[0] = Vram {
        name: "NVIDIA H200".to_owned(),
        absent: Some("GPU is\x1b[2J lost".to_owned()),
        ..Vram::default()
    };
    let lost = line(&state, 118);
    assert!(lost.contains("n/a      n/a      n/a  GPU is"), "{lost}");
    assert!(!lost.contains('\x1b'), "{lost:?}");
    let brief = text(&mut Headroom::default(), &state, (60, 6), ASCII);
    assert!(brief.contains("gpu0 n/a GPU is"), "{brief}");
}

#[test]
fn what_is_met_first_comes_first() {
    let mut state = server();
    let order = |state: &State| -> Vec<String> {
        let rows = all(state);
        let rows = rows.lines().skip(1).take(3);
        rows.map(|row| row.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(order(&state), ["high", "max", "host"]);
    // A host that leaves less than any limit.
    let mut sample = memory(14_200);
    if let Some(limits) = &mut sample.limits {
        limits.cgroups[0].high = Limit::Unlimited;
        limits.host_available = Metric::Exact(MIB);
    }
    sample.host = None;
    fold(&mut state, 700 * SECOND, Kind::Pulse(Box::new(sample)));
    assert_eq!(order(&state)[0], "host");
    let text = all(&state);
    assert!(!text.contains("high "), "{text}");
}

#[test]
fn old_numbers_show_their_age() {
    let state = server();
    let (fresh, stale) = (
        2 * SECOND,
        Frame {
            later_us: 12 * SECOND,
            ..ASCII
        },
    );
    let fresh = Frame {
        later_us: fresh,
        ..ASCII
    };
    let ages = |look| {
        let text = text(&mut Headroom::default(), &state, (118, 30), look);
        text.matches("12 s ago").count()
    };
    assert_eq!(ages(fresh), 0);
    // Limits, the process, pressure, the host, GPUs.
    assert_eq!(ages(stale), 5);
}

#[test]
fn since_the_mark_numbers_show_what_became_of_them() {
    let before = server();
    let mut now = before.clone();
    fold(
        &mut now,
        601 * SECOND,
        Kind::Pulse(Box::new(memory(17_000))),
    );
    let mut view = Headroom::default();
    let (text, _) = drawn(
        &mut view,
        &now,
        Frame {
            size: (118, 30),
            since: Some(&before),
            ..ASCII
        },
    );
    for part in [
        "#anon 16.60G(+800.0M)",
        "~file 5.86G(=)",
        "RSS 18.46G(+800.0M)",
        "+800.0M",
        "headroom 0B(-552.0M)",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!all(&now).contains("(="));
}

#[test]
fn what_is_absent_is_not_zero() {
    let nothing = all(&State::default());
    assert!(nothing.contains("limits n/a"), "{nothing}");
    assert!(nothing.contains("RSS n/a") && nothing.contains("PSI n/a"));
    assert!(nothing.contains("OOM kills n/a"));
    assert!(!nothing.contains('0'), "{nothing}");
    let mut state = State::default();
    let mut sample = memory(1);
    sample.vram.clear();
    sample.vram_absent = Some("no driver\n".to_owned());
    if let Some(limits) = &mut sample.limits {
        limits.cgroups[0].max = Limit::Unknown;
    }
    fold(&mut state, 0, Kind::Pulse(Box::new(sample)));
    let text = all(&state);
    assert!(text.contains("VRAM n/a: no driver\\n"), "{text}");
    let max = text.lines().find(|line| line.starts_with("max "));
    assert!(
        max.is_some_and(|line| line.ends_with("n/a      n/a")),
        "{text}"
    );
}

#[test]
fn the_next_load_fits_or_says_what_it_is_short_of() {
    let mut state = server();
    let next = |state: &State| {
        let text = all(state);
        let line = text.lines().find(|line| line.starts_with("next: "));
        line.unwrap_or_default().to_owned()
    };
    assert!(next(&state).ends_with("short ~6.16G (budget)"));
    state.tiers[0].pinned_bytes = 0;
    assert!(next(&state).ends_with("fits once ~6.26G is evicted"));
    // The budget has room, the cgroup has not.
    state.tiers[0].budget_bytes = 100 << 30;
    assert!(next(&state).contains("fits once ~"), "{}", next(&state));
    state.tiers[0].used_bytes = 0;
    assert!(next(&state).ends_with("(high /kubepods/pod7)"));
    fold(&mut state, 601 * SECOND, Kind::Pulse(Box::new(memory(100))));
    assert!(
        next(&state).contains("fits, 13.53G to spare"),
        "{}",
        next(&state)
    );
    let mut known = State::default();
    fold(&mut known, 0, picture());
    assert_eq!(next(&known), "next: every model that is known is in a tier");
}

#[test]
fn what_does_not_fit_scrolls() {
    let (state, mut view) = (server(), Headroom::default());
    let draw = |view: &mut Headroom| text(view, &state, (80, 6), ASCII);
    assert!(draw(&mut view).starts_with("high "));
    view.act(Action::Last, &state);
    let end = draw(&mut view);
    assert!(end.contains("tier sim0") && end.contains("next: "), "{end}");
    assert!(end.contains("simulated"), "{end}");
    assert!(end.ends_with("8/13"), "{end}");
    view.act(Action::First, &state);
    assert!(draw(&mut view).starts_with("high "));
    assert_eq!(view.act(Action::Evict, &state), Wish::Ignored);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn anything_is_drawn(
        size in (0_u16..300, 0_u16..100), numbers in any::<(u64, u64, u64)>(), name in ".{0,40}",
        down in 0_usize..20,
    ) {
        let mut view = Headroom::default();
        assert_draws_anything(&mut view, size, numbers, &name);
        for _ in 0..down {
            view.act(Action::Down, &State::default());
        }
        assert_draws_anything(&mut view, size, numbers, &name);
    }
}

#[test]
fn little_room_is_no_trouble() {
    for size in [(0, 0), (1, 1), (2, 9), (9, 2)] {
        for look in [ASCII, UNICODE] {
            text(&mut Headroom::default(), &server(), size, look);
        }
    }
}
