//! A cache with a simulated GPU, and single decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use malloc_stats::{AllocatorReading, Metric, Process, Vram};
use plimsoll_events::{
    BudgetChange, Candidate, DeviceFigures, Evict, EvictReason, GroupSeen, Load, Memory, Origin,
    PlacePicture, Reclaim, Refuse, RefuseReason, Settled, Skipped, TierPicture,
};

use crate::live::State;
use crate::live::state::{Around, Dated, Decision, Row, What};

pub(in crate::live::view) const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60_000_000;

pub(in crate::live::view) fn place(
    tier: &str,
    gib: f64,
    leases: u64,
    score: Option<f64>,
) -> PlacePicture {
    PlacePicture {
        tier: tier.to_owned(),
        phase: "resident".to_owned(),
        charged_bytes: (gib * GIB as f64) as u64,
        leases,
        idle_ms: (leases == 0).then_some(240_000),
        score,
        reload_us: Some(1_900_000),
        part_bytes: None,
        page_cache: None,
    }
}

pub(in crate::live::view) fn model(name: &str, gib: f64, places: Vec<PlacePicture>) -> Row {
    Row {
        name: name.to_owned(),
        bytes: (gib * GIB as f64) as u64,
        tensors: 291,
        places,
        placed_us: 9 * MINUTE,
        loads: 3,
        hits: 240,
        used_us: Some(6 * MINUTE),
        ..Row::default()
    }
}

pub(in crate::live::view) fn group(name: &str, dtypes: &str, tensors: u64, mib: u64) -> GroupSeen {
    GroupSeen {
        name: name.to_owned(),
        dtypes: dtypes.to_owned(),
        tensors,
        bytes: mib << 20,
    }
}

pub(in crate::live::view) fn around(rss_gib: u64) -> Around {
    Around {
        rss: Metric::Exact(rss_gib * GIB),
        anon: Metric::Exact((rss_gib - 2) * GIB),
        file: Metric::Exact(2 * GIB),
        cgroup: Metric::Exact((rss_gib + 1) * GIB),
        in_use: Metric::Exact(4 * GIB),
        heap_rss: Metric::Upper(5 * GIB),
        cached_resident: Metric::Estimated(GIB),
    }
}

pub(in crate::live::view) fn candidate(
    name: &str,
    score: Option<f64>,
    skipped: Option<Skipped>,
) -> Candidate {
    Candidate {
        model: name.to_owned(),
        bytes: GIB,
        score,
        skipped,
        reload_bytes: None,
    }
}

pub(in crate::live::view) fn evict(model: &str) -> Evict {
    Evict {
        model: model.to_owned(),
        part_of: None,
        tier: "ram".to_owned(),
        reason: EvictReason::Room {
            wanted_for: vec!["llava-13b".to_owned()],
            asked_bytes: 6 * GIB,
            free_bytes: 2 * GIB,
        },
        bytes: GIB,
        freed_bytes: GIB + (100 << 20),
        recycled_bytes: 0,
        held_bytes: 0,
        returned: Metric::Exact(100 << 20),
        took_us: 41_000,
        snapshots_us: 900,
        considered: vec![
            candidate(model, Some(0.4), None),
            candidate("llava-13b", None, Some(Skipped::Wanted)),
            candidate("phi-3", Some(9.5), Some(Skipped::NotNeeded)),
            candidate("clip", Some(3.0), Some(Skipped::NotNeeded)),
            candidate("qwen2-7b", None, Some(Skipped::Leased { leases: 12 })),
        ],
        considered_besides: 0,
        page_cache: None,
        device: None,
        before: Default::default(),
        after: Default::default(),
    }
}

pub(in crate::live::view) fn load(model: &str, tier: &str) -> Load {
    Load {
        model: model.to_owned(),
        part_of: None,
        is_patch: false,
        tier: tier.to_owned(),
        from: Origin::File,
        bytes: 7 * GIB,
        charged_bytes: 7 * GIB + 4096,
        took_us: 1_900_000,
        recycled_bytes: GIB,
        gave_back: Metric::Exact(0),
        snapshots_us: 800,
        before: Default::default(),
        after: Default::default(),
        error: None,
        degraded: None,
    }
}

pub(in crate::live::view) fn refuse() -> Refuse {
    Refuse {
        models: vec!["mixtral".to_owned()],
        tier: "gpu0".to_owned(),
        reason: RefuseReason::Leased,
        asked_bytes: 15 * GIB,
        budget_bytes: 24 * GIB,
        pinned_bytes: 15 * GIB,
    }
}

pub(in crate::live::view) fn budget() -> BudgetChange {
    BudgetChange {
        tier: "ram".to_owned(),
        was_bytes: Some(24 * GIB),
        budget_bytes: 20 * GIB,
        counted_bytes: 8 * GIB,
        working_bytes: GIB,
        unused: Metric::Exact(10 * GIB),
        reclaimable: Metric::Upper(3 * GIB),
        reserve_bytes: 2 * GIB,
        bound: "memory.high of /kubepods/pod7".to_owned(),
        cause: "pressure".to_owned(),
    }
}

pub(in crate::live::view) fn reclaim(settled: Option<i64>) -> Reclaim {
    Reclaim {
        action: "trim".to_owned(),
        missing_bytes: GIB,
        took_us: 41_000,
        gain: Metric::Exact(GIB * 3 / 4),
        settled: settled.map(|net_bytes| Settled {
            after_s: 60,
            net_bytes,
        }),
    }
}

/// A decision, told at a second.
pub(in crate::live::view) fn decide(state: &mut State, seq: u64, second: u64, what: What) {
    let at_us = second * 1_000_000;
    let decision = Decision { seq, at_us, what };
    state.decisions.kept.push_back(Arc::new(decision));
    state.decisions.count += 1;
}

/// The same with a GPU that is there: 80 GiB, of which others have 50.
pub(in crate::live::view) fn cache_with_driver() -> State {
    let mut state = cache();
    let gib = |count: u64| Metric::Exact(count * GIB);
    let mib = |count: u64| Metric::Exact(count << 20);
    let Some(tier) = state.tiers.last_mut() else {
        return state;
    };
    tier.simulated = false;
    tier.device = Some(Box::new(DeviceFigures {
        name: "NVIDIA H200".to_owned(),
        pci_bus: "0000:65:00.0".to_owned(),
        total: gib(79),
        free: gib(9),
        pool_used: gib(14),
        pool_reserved: gib(16),
        outside: gib(1),
        staging: mib(64),
        largest_block: gib(6),
    }));
    state.vitals.vram.value = vec![Vram {
        index: 0,
        name: "NVIDIA H200".to_owned(),
        pci_bus: "0000:65:00.0".to_owned(),
        total: gib(80),
        used: gib(70),
        free: gib(9),
        reserved: gib(1),
        process: Metric::Exact((17 << 30) + (512 << 20)),
        ..Vram::default()
    }];
    state
}

/// A cache with a simulated GPU, ten minutes old.
pub(in crate::live::view) fn cache() -> State {
    let mut state = State::default();
    state.at_us = 10 * MINUTE;
    state.tiers = vec![
        TierPicture {
            tier: "ram".to_owned(),
            budget_bytes: 24 * GIB,
            used_bytes: 9 * GIB,
            pinned_bytes: GIB,
            held_bytes: GIB / 2,
            resident_models: 2,
            ..TierPicture::default()
        },
        TierPicture {
            tier: "gpu0".to_owned(),
            simulated: true,
            budget_bytes: 16 * GIB,
            used_bytes: 15 * GIB,
            pinned_bytes: 15 * GIB,
            resident_models: 1,
            ..TierPicture::default()
        },
    ];
    state.waiting = Some(Dated {
        at_us: 9 * MINUTE,
        value: 2,
    });
    let mut qwen = model("qwen2-7b", 15.0, vec![place("gpu0", 15.0, 12, None)]);
    qwen.groups = Arc::from([
        group("model.layers.0", "BF16", 9, 6 << 10),
        group("model.layers.1", "BF16", 9, 6 << 10),
        group("", "BF16 F32", 3, 3 << 10),
    ]);
    let llava = model("llava-13b", 7.0, vec![place("ram", 7.0, 0, Some(3.0))]);
    let clip = model("clip", 1.5, vec![place("ram", 1.5, 0, Some(0.25))]);
    let mut bge = model("bge-m3", 1.0, Vec::new());
    bge.reload_us = BTreeMap::from([("ram".to_owned(), 600_000)]);
    bge.evictions = 1;
    bge.used_us = None;
    state.sums.loads = 4;
    for row in [qwen, llava, clip, bge] {
        state.models.rows.insert(row.name.clone(), row);
    }
    let note = "budget follows memory.high".to_owned();
    state.notes.push_back(Dated {
        at_us: 59_000_000,
        value: note,
    });
    let (low, high) = (around(12), around(19));
    let mut failed = load("clip", "gpu0");
    failed.error = Some("gpu0: out of memory".to_owned());
    let all = [
        (10, 60, What::Budget(Box::new(budget()))),
        (
            11,
            61,
            What::Load(Box::new(load("llava-13b", "ram")), low, high),
        ),
        (14, 300, What::Reclaim(Box::new(reclaim(None)))),
        (15, 360, What::Reclaim(Box::new(reclaim(Some(-4096))))),
        (17, 400, What::Load(Box::new(failed), low, low)),
        (18, 420, What::Refuse(Box::new(refuse()))),
        (20, 480, What::Evict(Box::new(evict("bge-m3")), high, low)),
    ];
    for (seq, second, what) in all {
        decide(&mut state, seq, second, what);
    }
    if let Some(row) = state.models.rows.get_mut("bge-m3") {
        row.moved = Some(crate::live::state::Moved {
            at_us: 480_000_000,
            came: false,
            tier: "ram".to_owned(),
            took_us: 41_000,
            bytes: GIB + (100 << 20),
            returned: Metric::Exact(100 << 20),
            due_bytes: GIB + (100 << 20),
            error: None,
        });
    }
    state.vitals.at_us = Some(10 * MINUTE);
    state.vitals.process = Process {
        rss: Metric::Exact(16 * GIB),
        anon: Metric::Exact(14 * GIB),
        ..Process::default()
    };
    state.vitals.memory = Some(Dated {
        at_us: 10 * MINUTE,
        value: Memory {
            live_bytes: 9 * GIB,
            held_bytes: GIB / 2,
            churn_bytes: 0,
        },
    });
    state.vitals.allocator = Some(Dated {
        at_us: 10 * MINUTE,
        value: AllocatorReading {
            cached_resident: Metric::Estimated(3 * GIB),
            ..AllocatorReading::default()
        },
    });
    state.vitals.vram.value = vec![Vram {
        index: 0,
        name: "NVIDIA H200".to_owned(),
        total: Metric::Exact(80 * GIB),
        used: Metric::Exact(70 * GIB),
        process: Metric::Exact(15 * GIB),
        ..Vram::default()
    }];
    state
}
