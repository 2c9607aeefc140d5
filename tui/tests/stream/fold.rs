//! What is folded is what was told.

use malloc_stats::Metric;
use plimsoll_events::{
    Kind, Memory, ModelPicture, Picture, PlacePicture, Refuse, RefuseReason, TierPicture,
};
use plimsoll_tui::live::State;

use super::events::{MIB, event, evict, load, opened, sample, snapshot};

fn fold(kinds: impl IntoIterator<Item = Kind>) -> State {
    let mut state = State::default();
    for (seq, kind) in kinds.into_iter().enumerate() {
        let seq = seq as u64;
        state.fold(&event(seq, seq * 1_000_000, kind));
    }
    state.conclude();
    state
}

fn lints(state: &State) -> Vec<&str> {
    state.findings.iter().map(|one| one.lint.as_str()).collect()
}

#[test]
fn loads_and_evictions_move_models_and_tiers() {
    let state = fold([
        opened(),
        load("a", 100 * MIB, 300 * MIB),
        load("b", 50 * MIB, 350 * MIB),
        evict("a", 100 * MIB, 90 * MIB, 260 * MIB),
    ]);
    assert_eq!(state.tiers[0].used_bytes, 50 * MIB);
    assert_eq!(state.tiers[0].budget_bytes, 1000 * MIB);
    let (a, b) = (
        state.models.get("a").unwrap(),
        state.models.get("b").unwrap(),
    );
    assert_eq!((a.state(), b.state()), ("gone", "warm"));
    assert_eq!(a.score, Some(0.5));
    let moved = a.moved.as_ref().unwrap();
    assert_eq!(
        (moved.bytes, moved.returned),
        (100 * MIB, Metric::Exact(90 * MIB))
    );
    assert_eq!(state.decisions.iter().count(), 3);
    assert_eq!(state.sums.freed_bytes - state.sums.returned_bytes, 10 * MIB);
    assert_eq!(state.vitals.process.rss, Metric::Exact(260 * MIB));
    // Before and after each, and nothing between.
    let columns = state.series.columns(0..3_000_001, 1);
    assert_eq!(columns[0].most.rss, Some(360 * MIB));
    assert_eq!(columns[0].least.rss, Some(200 * MIB));
}

#[test]
fn a_picture_puts_right_what_was_missed() {
    let place = PlacePicture {
        tier: "ram".to_owned(),
        phase: "resident".to_owned(),
        charged_bytes: 7,
        leases: 3,
        score: Some(2.0),
        ..PlacePicture::default()
    };
    let picture = Picture {
        tiers: vec![TierPicture {
            tier: "ram".to_owned(),
            used_bytes: 7,
            ..TierPicture::default()
        }],
        models: vec![ModelPicture {
            model: "b".to_owned(),
            bytes: 7,
            places: vec![place],
            dropped: false,
        }],
        waiting: 2,
        ..Picture::default()
    };
    let state = fold([load("a", MIB, MIB), Kind::Picture(Box::new(picture))]);
    assert_eq!(state.models.get("a").unwrap().state(), "gone");
    let b = state.models.get("b").unwrap();
    assert_eq!((b.state(), b.leases(), b.score), ("leased", 3, Some(2.0)));
    assert_eq!(state.tiers[0].used_bytes, 7);
    assert!(lints(&state).contains(&"waiting"));
}

#[test]
fn what_a_driver_says_is_told_of_a_tier_that_has_one() {
    let tier = |name: &str| TierPicture {
        tier: name.to_owned(),
        ..TierPicture::default()
    };
    let picture = Picture {
        tiers: vec![tier("ram"), tier("cuda:0")],
        ..Picture::default()
    };
    let mut told = serde_json::to_value(Kind::Picture(Box::new(picture))).unwrap();
    // As it was recorded before there were any.
    assert!(!told.to_string().contains("device"), "{told}");
    let state = fold([serde_json::from_value(told.clone()).unwrap()]);
    assert_eq!(state.tiers.len(), 2);
    assert!(state.tiers.iter().all(|tier| tier.device.is_none()));
    told["tiers"][1]["device"] = serde_json::json!({
        "pci_bus": "0000:65:00.0",
        "free": { "bytes": 7, "grade": "exact" },
    });
    let state = fold([serde_json::from_value(told).unwrap()]);
    let device = state.tiers[1].device.as_ref().unwrap();
    assert_eq!(device.free, Metric::Exact(7));
    assert_eq!(device.largest_block, Metric::Unavailable);
    assert!(state.tiers[0].device.is_none());
}

#[test]
fn what_a_bracket_leaves_out_stays_as_it_was_told_last() {
    let mut bracket = snapshot(2 * MIB, 0);
    bracket.allocator = None;
    bracket.limits = None;
    let state = fold([sample(MIB, 5), Kind::Pulse(Box::new(bracket))]);
    assert_eq!(state.vitals.process.rss, Metric::Exact(2 * MIB));
    let allocator = state.vitals.allocator.as_ref().unwrap();
    assert_eq!(
        (allocator.at_us, allocator.value.in_use),
        (0, Metric::Exact(5))
    );
    assert_eq!(
        state.vitals.memory.as_ref().unwrap().value,
        Memory {
            live_bytes: 5,
            ..Memory::default()
        }
    );
    assert!(state.vitals.limits.is_some());
}

#[test]
fn gaps_are_counted_and_lines_beside_the_stream_are_none() {
    let note = || Kind::Note {
        text: "beside".to_owned(),
    };
    let mut state = State::default();
    for (seq, kind) in [
        (41, opened()),
        (41, note()),
        (42, sample(1, 1)),
        (42, note()),
    ] {
        state.fold(&event(seq, 0, kind));
    }
    assert_eq!(state.sums.missing, 0);
    state.fold(&event(50, 0, sample(1, 1)));
    assert_eq!(state.sums.missing, 7);
    state.conclude();
    assert!(lints(&state).contains(&"events-dropped"));
}

#[test]
fn a_clock_that_jumps_back_stands_still() {
    let mut state = State::default();
    for at_us in [5_000_000, 1, 6_000_000] {
        state.fold(&event(0, at_us, sample(MIB, 1)));
    }
    assert_eq!(state.at_us, 6_000_000);
    assert_eq!(state.series.span(), Some(5_000_000..6_000_000));
}

#[test]
fn growth_towards_a_limit_is_told_with_the_time_that_is_left() {
    let grow = (0..30).map(|second| sample(2000 * MIB + second * 50 * MIB, 0));
    let state = fold(grow);
    let growth = state.growth().unwrap();
    let rss = growth
        .slopes
        .iter()
        .find(|slope| slope.of == "rss")
        .unwrap();
    assert!((rss.bytes_per_second / MIB as f64 - 50.0).abs() < 0.1);
    let seconds = growth.time_to[0].seconds;
    assert!(
        (seconds - (4096.0 - 3450.0) / 50.0).abs() < 0.1,
        "{seconds}"
    );
    assert!(
        lints(&state).contains(&"limit-in-sight"),
        "{:?}",
        lints(&state)
    );
}

#[test]
fn a_cache_in_trouble_is_said_to_be() {
    let mut kinds = vec![opened()];
    for _ in 0..4 {
        kinds.push(load("m", 100 * MIB, 300 * MIB));
        kinds.push(evict("m", 100 * MIB, 0, 300 * MIB));
    }
    let refuse = Refuse {
        models: vec!["big\u{1b}".to_owned()],
        tier: "ram".to_owned(),
        reason: RefuseReason::ExceedsBudget,
        asked_bytes: 1500 * MIB,
        budget_bytes: 1000 * MIB,
        pinned_bytes: 0,
    };
    kinds.push(Kind::Refuse(Box::new(refuse)));
    let state = fold(kinds);
    for lint in ["unreturned", "thrash", "refused"] {
        assert!(
            lints(&state).contains(&lint),
            "{lint} of {:?}",
            lints(&state)
        );
    }
    let refused = state
        .findings
        .iter()
        .find(|one| one.lint == "refused")
        .unwrap();
    assert_eq!(refused.bytes, Metric::Exact(500 * MIB));
    assert!(!refused.finding.contains('\u{1b}'));
    // And one that is well is not.
    let calm = fold([opened(), load("m", 100 * MIB, 300 * MIB)]);
    assert!(lints(&calm).is_empty(), "{:?}", lints(&calm));
}

#[test]
fn a_load_that_a_picture_has_counted_is_not_counted_again() {
    let place = PlacePicture {
        tier: "ram".to_owned(),
        phase: "loading".to_owned(),
        charged_bytes: 100 * MIB,
        ..PlacePicture::default()
    };
    let picture = Picture {
        tiers: vec![TierPicture {
            tier: "ram".to_owned(),
            used_bytes: 100 * MIB,
            ..TierPicture::default()
        }],
        models: vec![ModelPicture {
            model: "a".to_owned(),
            places: vec![place],
            ..ModelPicture::default()
        }],
        ..Picture::default()
    };
    let gone = Picture {
        tiers: vec![TierPicture {
            tier: "ram".to_owned(),
            ..TierPicture::default()
        }],
        ..Picture::default()
    };
    let loaded = fold([
        Kind::Picture(Box::new(picture.clone())),
        load("a", 100 * MIB, 300 * MIB),
    ]);
    assert_eq!(loaded.tiers[0].used_bytes, 100 * MIB);
    assert_eq!(loaded.models.get("a").unwrap().state(), "warm");
    let evicted = fold([
        Kind::Picture(Box::new(picture)),
        load("a", 100 * MIB, 300 * MIB),
        load("b", 50 * MIB, 350 * MIB),
        Kind::Picture(Box::new(gone)),
        load("b", 50 * MIB, 350 * MIB),
        evict("a", 100 * MIB, 90 * MIB, 260 * MIB),
    ]);
    assert_eq!(evicted.tiers[0].used_bytes, 50 * MIB);
}

#[test]
fn a_cache_that_fills_its_budget_is_no_trend() {
    let mut kinds = vec![opened()];
    for at in 1..20 {
        kinds.push(load(
            &format!("m{at}"),
            50 * MIB,
            3000 * MIB + at * 50 * MIB,
        ));
    }
    let state = fold(kinds.clone());
    let growing = lints(&state);
    assert!(!growing.contains(&"limit-in-sight"), "{growing:?}");
    // Without a budget it goes on until the limit is met.
    kinds.remove(0);
    let state = fold(kinds);
    let growing = lints(&state);
    assert!(growing.contains(&"limit-in-sight"), "{growing:?}");
}

#[test]
fn what_the_allocator_said_a_while_ago_is_not_taken_for_what_it_says_now() {
    let mut repeated = snapshot(3 * MIB, 1);
    repeated.allocator_age_us = 1_500_000;
    let state = fold([
        sample(MIB, 1),
        sample(2 * MIB, 7),
        Kind::Pulse(Box::new(repeated)),
    ]);
    let allocator = state.vitals.allocator.as_ref().unwrap();
    assert_eq!(
        (allocator.at_us, allocator.value.in_use),
        (1_000_000, Metric::Exact(7))
    );
    let last = state.series.columns(2_000_000..2_000_001, 1);
    assert_eq!(
        (last[0].most.rss, last[0].most.in_use),
        (Some(3 * MIB), None)
    );
}

#[test]
fn parts_of_a_model_are_one_that_is_there_in_part() {
    let part = |number: u64, kind: Kind| match kind {
        Kind::Load(mut load) => {
            load.part_of = Some("whole".to_owned());
            load.model = format!("whole [part {number}]");
            Kind::Load(load)
        }
        Kind::Evict(mut evict) => {
            evict.part_of = Some("whole".to_owned());
            evict.model = format!("whole [part {number}]");
            Kind::Evict(evict)
        }
        other => other,
    };
    let state = fold([
        part(1, load("", MIB, MIB)),
        part(2, load("", MIB, MIB)),
        part(3, load("", MIB, MIB)),
        part(3, evict("", MIB, MIB, MIB)),
    ]);
    assert_eq!(state.models.iter().len(), 1);
    let row = state.models.get("whole").unwrap();
    assert_eq!((row.loads, row.evictions), (3, 1));
    let place = row.place("ram").unwrap();
    assert_eq!(place.charged_bytes, 2 * MIB);
    assert_eq!(place.part_bytes, Some(2 * MIB));
    let gone = fold([
        part(1, load("", MIB, MIB)),
        part(1, evict("", MIB, MIB, MIB)),
    ]);
    assert_eq!(gone.models.get("whole").unwrap().state(), "gone");
}
