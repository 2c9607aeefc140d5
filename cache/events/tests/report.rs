//! What a report counts, and where.

#![allow(clippy::unwrap_used)]

use malloc_stats::{Metric, Snapshot};
use plimsoll_events::{
    BudgetChange, DeviceSeen, Event, Evict, EvictReason, Kind, Load, Opened, Origin, Reclaim,
    Refuse, RefuseReason, Report, Settled, Streamed,
};

/// The report of a stream whose events have these numbers, from `first` on.
fn folded(first: u64, kinds: impl IntoIterator<Item = Kind>) -> Report {
    let mut report = Report::new();
    for (seq, kind) in (first..).zip(kinds) {
        report.fold(&Event {
            v: 2,
            seq,
            at_us: 0,
            kind,
        });
    }
    report
}

fn opened() -> Kind {
    Kind::Opened(Box::new(Opened {
        program: "a test".into(),
        budget_bytes: Some(1000),
        devices: vec![DeviceSeen {
            tier: "simulated".into(),
            budget_bytes: 500,
            simulated: true,
        }],
        ..Opened::default()
    }))
}

fn load(model: &str, tier: &str, from: Origin, took_us: u64) -> Kind {
    Kind::Load(Box::new(Load {
        model: model.into(),
        part_of: None,
        is_patch: false,
        tier: tier.into(),
        from,
        bytes: 100,
        charged_bytes: 128,
        took_us,
        recycled_bytes: 64,
        gave_back: Metric::Exact(1),
        snapshots_us: 0,
        before: Snapshot::default(),
        after: Snapshot::default(),
        error: None,
        degraded: None,
    }))
}

fn evict(model: &str, tier: &str, reason: EvictReason) -> Kind {
    Kind::Evict(Box::new(Evict {
        model: model.into(),
        part_of: None,
        tier: tier.into(),
        reason,
        bytes: 100,
        freed_bytes: 128,
        recycled_bytes: 0,
        held_bytes: 0,
        returned: Metric::Exact(128),
        took_us: 4,
        snapshots_us: 0,
        considered: Vec::new(),
        considered_besides: 0,
        page_cache: None,
        device: None,
        before: Snapshot::default(),
        after: Snapshot::default(),
    }))
}

fn budget(tier: &str, budget_bytes: u64) -> Kind {
    Kind::Budget(Box::new(BudgetChange {
        tier: tier.into(),
        was_bytes: None,
        budget_bytes,
        counted_bytes: 0,
        working_bytes: 0,
        unused: Metric::Exact(budget_bytes),
        reclaimable: Metric::Unavailable,
        reserve_bytes: 0,
        bound: format!("a limit of {budget_bytes}"),
        cause: "poll".into(),
    }))
}

#[test]
fn memory_of_a_device_is_not_counted_as_ram() {
    let report = folded(
        0,
        [
            opened(),
            load("m", "ram", Origin::File, 10),
            load("m", "simulated", Origin::Ram, 20),
            evict("m", "simulated", EvictReason::Cleared),
            load("m", "simulated", Origin::Ram, 30),
            evict("m", "simulated", EvictReason::Cleared),
            evict("m", "ram", EvictReason::Idle { keep_alive_ms: 5 }),
        ],
    );
    assert_eq!(report.freed_bytes, 128);
    assert_eq!(report.returned_bytes, 128 + 1);
    assert_eq!(report.recycled_bytes, 64);
    assert_eq!((report.loads, report.bytes_loaded), (3, 300));
    assert_eq!(report.evictions_by_reason["cleared"], 2);
    assert_eq!(report.evictions_by_reason["idle"], 1);
    let [ram, device] = &report.tiers[..] else {
        panic!("{:?}", report.tiers);
    };
    assert_eq!((&*ram.tier, ram.simulated), ("ram", false));
    assert_eq!((&*device.tier, device.simulated), ("simulated", true));
    assert_eq!((ram.loads, ram.evictions), (1, 1));
    assert_eq!((device.loads, device.evictions), (2, 2));
    assert_eq!(device.resident_peak_bytes, Some(128));
    assert_eq!(device.budget_bytes, Some(500));
    let [file, from_ram] = &report.transfers[..] else {
        panic!("{:?}", report.transfers);
    };
    assert_eq!((file.from, file.count), (Origin::File, 1));
    assert_eq!((from_ram.from, from_ram.count), (Origin::Ram, 2));
    // 200 bytes in 50 us.
    assert!((from_ram.gb_per_second.unwrap() - 0.004).abs() < 1e-9);
    assert_eq!(report.unloads.len(), 2);
    assert_eq!(report.unloads[0].count, 2);
}

#[test]
fn whoever_joins_late_has_missed_nothing_but_does_not_know_the_peak() {
    let heard = [
        load("m", "ram", Origin::File, 1),
        evict("m", "ram", EvictReason::Dropped),
    ];
    let report = folded(4711, heard.clone());
    assert_eq!(report.missing_events, 0);
    assert_eq!(report.tiers[0].resident_peak_bytes, None);
    let report = folded(0, heard);
    assert_eq!(report.tiers[0].resident_peak_bytes, Some(128));
}

#[test]
fn a_budget_that_follows_is_told_with_how_far_it_went_and_its_bound() {
    let report = folded(
        0,
        [
            opened(),
            budget("ram", 900),
            budget("ram", 300),
            budget("ram", 600),
            budget("simulated", 50),
        ],
    );
    assert_eq!(report.budget_bytes, Some(600));
    assert_eq!(report.budget_low_bytes, Some(300));
    assert_eq!(report.budget_high_bytes, Some(900));
    assert_eq!(
        report.tiers[0].budget_bound.as_deref(),
        Some("a limit of 600")
    );
    assert_eq!(report.tiers[1].budget_bytes, Some(50));
    let fixed = folded(0, [opened()]);
    assert_eq!(
        (fixed.budget_bytes, fixed.budget_low_bytes),
        (Some(1000), None)
    );
}

#[test]
fn refusals_are_told_apart_by_models_tier_and_reason_and_bounded() {
    let refuse = |model: u64, reason, asked_bytes| {
        Kind::Refuse(Box::new(Refuse {
            models: vec![format!("m{model}")],
            tier: "simulated".into(),
            reason,
            asked_bytes,
            budget_bytes: 500,
            pinned_bytes: 7,
        }))
    };
    let report = folded(
        0,
        [
            refuse(0, RefuseReason::ExceedsBudget, 600),
            refuse(0, RefuseReason::Timeout, 400),
            refuse(0, RefuseReason::ExceedsBudget, 700),
        ],
    );
    let [first, second] = &report.refused[..] else {
        panic!("{:?}", report.refused);
    };
    assert_eq!((first.count, first.asked_bytes), (2, 700));
    assert_eq!((second.count, second.reason), (1, RefuseReason::Timeout));
    let many = folded(
        0,
        (0..500).map(|model| refuse(model, RefuseReason::Leased, 1)),
    );
    assert_eq!((many.refusals, many.refused.len()), (500, 100));
}

#[test]
fn what_a_reclaim_gained_is_in_no_other_number() {
    let reclaim = |settled| {
        Kind::Reclaim(Box::new(Reclaim {
            action: "trim".into(),
            missing_bytes: 500,
            took_us: 9,
            gain: Metric::Estimated(400),
            settled,
        }))
    };
    let report = folded(0, [opened(), reclaim(None), reclaim(None)]);
    assert_eq!(report.reclaims.count, 2);
    assert_eq!(report.reclaims.gained, Metric::Estimated(800));
    assert_eq!(report.reclaims.net_bytes, None, "nothing has settled");
    assert_eq!((report.returned_bytes, report.freed_bytes), (0, 0));
    let settled = |net_bytes| {
        reclaim(Some(Settled {
            after_s: 60,
            net_bytes,
        }))
    };
    let report = folded(0, [reclaim(None), settled(300), settled(-100)]);
    assert_eq!((report.reclaims.count, report.reclaims.settled), (1, 2));
    assert_eq!(report.reclaims.gained, Metric::Estimated(400));
    assert_eq!(report.reclaims.net_bytes, Some(200));
}

fn part(of: &str, number: u64, kind: Kind) -> Kind {
    let name = format!("{of} [part {number}]");
    match kind {
        Kind::Load(mut load) => {
            (load.model, load.part_of) = (name, Some(of.into()));
            Kind::Load(load)
        }
        Kind::Evict(mut evict) => {
            (evict.model, evict.part_of) = (name, Some(of.into()));
            Kind::Evict(evict)
        }
        other => other,
    }
}

fn streamed(resident_bytes: u64, streamed_bytes: u64, waited_us: u64) -> Kind {
    Kind::Streamed(Box::new(Streamed {
        model: "whole".into(),
        tier: "simulated".into(),
        bytes: 1000,
        resident_bytes,
        pool_bytes: 50,
        streamed_bytes,
        transfers: 2,
        waited_us,
        out_of_order: 1,
    }))
}

#[test]
fn parts_count_as_the_model_that_they_are_of_and_leases_of_them_add_up() {
    let came = |number| part("whole", number, load("", "simulated", Origin::Ram, 10));
    let report = folded(
        0,
        [
            opened(),
            came(1),
            came(2),
            part("whole", 2, evict("", "simulated", EvictReason::Dropped)),
            streamed(700, 600, 1_000_000),
            streamed(400, u64::MAX, 500_000),
        ],
    );
    let names: Vec<&str> = report.models.iter().map(|one| &*one.model.name).collect();
    assert_eq!(names, ["whole"]);
    assert_eq!((report.models[0].loads, report.models[0].evictions), (2, 1));
    assert_eq!(report.transfers.len(), 1);
    assert_eq!(report.transfers[0].count, 2);
    assert_eq!(report.transfers[0].gb_per_second, Some(0.01));
    assert_eq!(report.unloads.len(), 1);
    let stream = &report.streams[0];
    assert_eq!(
        (stream.leases, stream.transfers, stream.out_of_order),
        (2, 4, 2)
    );
    assert_eq!(
        (stream.resident_low_bytes, stream.resident_high_bytes),
        (400, 700)
    );
    assert_eq!(stream.streamed_bytes, u64::MAX);
    assert_eq!(stream.waited_seconds, 1.5);
}

#[test]
fn what_patches_bring_is_counted_apart() {
    let mut patch = load("base + style×0.8", "ram", Origin::File, 10);
    if let Kind::Load(load) = &mut patch {
        load.is_patch = true;
    }
    let report = folded(0, [opened(), load("base", "ram", Origin::File, 10), patch]);
    assert_eq!((report.patched_bytes, report.bytes_loaded), (100, 200));
}
