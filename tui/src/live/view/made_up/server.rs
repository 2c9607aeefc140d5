//! A server, folded from events.

use malloc_stats::limits::{
    Cgroup, CgroupVersion, Host, Limit, Limits, Pressure, PressureOf, Stall,
};
use malloc_stats::{AllocatorReading, Metric, Process, Snapshot, Vram};
use plimsoll_events::{
    Event, Evict, EvictReason, Kind, Load, Memory, ModelPicture, Picture, PlacePicture, Point,
    Refuse, RefuseReason, Sample, TierPicture, VERSION,
};

use super::frame::{Frame, UNICODE, drawn};
use super::{MIB, SECOND};
use crate::live::State;
use crate::live::view::View;

/// Draws a panel of states that no machine has at sizes that no terminal has.
pub(in crate::live::view) fn assert_draws_anything(
    view: &mut dyn View,
    size: (u16, u16),
    (bytes, at_us, later_us): (u64, u64, u64),
    name: &str,
) {
    let state = nonsense(bytes, at_us, name);
    let before = nonsense(bytes / 2, at_us / 2, "");
    for since in [None, Some(&before)] {
        for unicode in [true, false] {
            for expanded in [true, false] {
                let frame = Frame {
                    size,
                    unicode,
                    focused: true,
                    expanded,
                    since,
                    filter: "",
                    later_us,
                };
                drawn(view, &state, frame);
            }
        }
    }
    drawn(view, &State::default(), Frame { size, ..UNICODE });
}

pub(in crate::live::view) fn fold(state: &mut State, at_us: u64, kind: Kind) {
    let seq = if state.sums.events == 0 {
        0
    } else {
        state.seq + 1
    };
    state.fold(&Event {
        v: VERSION,
        seq,
        at_us,
        kind,
    });
}

fn mib(count: u64) -> Metric {
    Metric::Exact(count * MIB)
}

/// Memory of a server in a pod with so many MiB of anonymous memory.
pub(in crate::live::view) fn memory(anon: u64) -> Snapshot {
    let current = anon + 6_800;
    let pod = Cgroup {
        path: "/kubepods/pod7".to_owned(),
        max: Limit::Bytes(24 << 30),
        high: Limit::Bytes(23 << 30),
        memsw_max: Limit::Unlimited,
        current: mib(current),
        anon: mib(anon),
        file: mib(6_000),
        shmem: mib(500),
        reclaimable: Metric::Estimated(4_800 * MIB),
        oom_kills: Metric::Exact(1),
        ..Cgroup::default()
    };
    Snapshot {
        process: Process {
            rss: mib(anon + 1_900),
            anon: mib(anon),
            file: mib(1_400),
            shmem: mib(500),
            swap: mib(0),
            ..Process::default()
        },
        cgroup_current: mib(current),
        allocator: Some(AllocatorReading {
            in_use: mib(anon * 2 / 3),
            heap_rss: mib(anon),
            cached_resident: mib(anon / 4),
            ..AllocatorReading::default()
        }),
        limits: Some(Limits {
            cgroup_version: Some(CgroupVersion::V2),
            cgroups: vec![pod],
            host_available: Metric::Estimated(61 << 30),
            host_free: mib(20_000),
            host_total: mib(128_000),
            ..Limits::default()
        }),
        host: Some(Host {
            total: mib(128_000),
            available: Metric::Estimated(61 << 30),
            free: mib(20_000),
            swap_total: mib(4_096),
            swap_free: mib(4_000),
            ..Host::default()
        }),
        pressure: Some(Pressure {
            of: PressureOf::Cgroup,
            some: Stall {
                avg10: 4.2,
                total_us: 1,
            },
            full: Stall {
                avg10: 0.6,
                total_us: 1,
            },
        }),
        vram: vec![Vram {
            index: 0,
            name: "NVIDIA H200".to_owned(),
            total: mib(81_920),
            used: mib(72_900),
            free: mib(9_020),
            process: mib(15_462),
            ..Vram::default()
        }],
        ..Snapshot::default()
    }
}

/// Events of a model.
pub(in crate::live::view) mod events {
    use super::*;

    pub(in crate::live::view) fn load(model: &str, bytes: u64, error: Option<&str>) -> Kind {
        Kind::Load(Box::new(Load {
            model: model.to_owned(),
            part_of: None,
            is_patch: false,
            tier: "ram".to_owned(),
            from: plimsoll_events::Origin::File,
            bytes,
            charged_bytes: bytes,
            took_us: 1_900_000,
            recycled_bytes: 0,
            gave_back: Metric::Exact(0),
            snapshots_us: 0,
            before: Snapshot::default(),
            after: Snapshot::default(),
            error: error.map(ToOwned::to_owned),
            degraded: None,
        }))
    }

    pub(in crate::live::view) fn evict(model: &str, bytes: u64) -> Kind {
        Kind::Evict(Box::new(Evict {
            model: model.to_owned(),
            part_of: None,
            tier: "ram".to_owned(),
            reason: EvictReason::Dropped,
            bytes,
            freed_bytes: bytes,
            recycled_bytes: 0,
            held_bytes: 0,
            returned: Metric::Exact(bytes),
            took_us: 1_000,
            snapshots_us: 0,
            considered: Vec::new(),
            considered_besides: 0,
            page_cache: None,
            device: None,
            before: Snapshot::default(),
            after: Snapshot::default(),
        }))
    }

    pub(in crate::live::view) fn refuse(model: &str) -> Kind {
        Kind::Refuse(Box::new(Refuse {
            models: vec![model.to_owned()],
            tier: "ram".to_owned(),
            reason: RefuseReason::Leased,
            asked_bytes: 7_600 * MIB,
            budget_bytes: 12_288 * MIB,
            pinned_bytes: 11_000 * MIB,
        }))
    }
}

fn tier(name: &str, [budget, used, pinned]: [u64; 3], simulated: bool) -> TierPicture {
    TierPicture {
        tier: name.to_owned(),
        simulated,
        budget_bytes: budget * MIB,
        used_bytes: used * MIB,
        pinned_bytes: pinned * MIB,
        ..TierPicture::default()
    }
}

/// Where the models are: one in RAM, one on a device that is none, one gone.
pub(in crate::live::view) fn picture() -> Kind {
    let model = |name: &str, bytes: u64, places: Vec<PlacePicture>| ModelPicture {
        model: name.to_owned(),
        bytes: bytes * MIB,
        places,
        dropped: false,
    };
    let place = |tier: &str| PlacePicture {
        tier: tier.to_owned(),
        phase: "resident".to_owned(),
        charged_bytes: 4_100 * MIB,
        leases: 1,
        ..PlacePicture::default()
    };
    Kind::Picture(Box::new(Picture {
        policy: "gdsf".to_owned(),
        tiers: vec![
            tier("ram", [12_288, 11_100, 11_000], false),
            tier("sim0", [4_096, 3_000, 1_000], true),
        ],
        models: vec![
            model("qwen2-7b", 4_100, vec![place("ram")]),
            model("bge-m3", 1_100, vec![place("sim0")]),
        ],
        waiting: 0,
    }))
}

/// A server for ten minutes: it grows by 2 MiB a second, loads, evicts and refuses.
pub(in crate::live::view) fn server() -> State {
    let mut state = State::default();
    for second in 0..=600_u64 {
        let at_us = second * SECOND;
        let anon = 13_000 + second * 2 + if second > 300 { 2_000 } else { 0 };
        let sample = Sample {
            point: Point::Tick,
            memory: Memory {
                live_bytes: (4_100 + second) * MIB,
                ..Memory::default()
            },
            snapshot: memory(anon),
        };
        fold(&mut state, at_us, Kind::Sample(Box::new(sample)));
        match second {
            100 => fold(
                &mut state,
                at_us,
                events::load("llava-13b", 7_600 * MIB, None),
            ),
            200 | 201 => fold(&mut state, at_us, events::evict("llava-13b", 7_600 * MIB)),
            300 => fold(
                &mut state,
                at_us,
                events::load("qwen2-7b", 4_100 * MIB, None),
            ),
            500 => fold(&mut state, at_us, events::refuse("llava-13b")),
            _ => {}
        }
    }
    fold(&mut state, 600 * SECOND, picture());
    state.conclude();
    state
}

/// Numbers that no machine has.
pub(in crate::live::view) fn nonsense(bytes: u64, at_us: u64, text: &str) -> State {
    let mut state = State::default();
    let mut sample = memory(0);
    let metric = Metric::Estimated(bytes);
    sample.process.rss = metric;
    sample.process.anon = metric;
    sample.vram = vec![Vram {
        index: u32::MAX,
        name: text.to_owned(),
        total: Metric::Exact(bytes / 2),
        used: metric,
        process: Metric::Upper(u64::MAX),
        free: Metric::Unavailable,
        absent: bytes.is_multiple_of(2).then(|| text.to_owned()),
        mig: bytes.is_multiple_of(3),
        ..Vram::default()
    }];
    let pressure = |avg10| Stall { avg10, total_us: 0 };
    sample.pressure = Some(Pressure {
        of: PressureOf::Host,
        some: pressure(f64::NAN),
        full: pressure(f64::INFINITY),
    });
    if let Some(limits) = &mut sample.limits {
        for cgroup in &mut limits.cgroups {
            cgroup.path = text.to_owned();
            cgroup.current = metric;
            cgroup.anon = metric;
            cgroup.file = metric;
            cgroup.oom_kills = metric;
            cgroup.max = Limit::Bytes(bytes / 3);
        }
        limits.host_available = metric;
    }
    fold(&mut state, 0, Kind::Pulse(Box::new(sample.clone())));
    fold(&mut state, at_us, picture());
    fold(&mut state, at_us, events::load(text, bytes, Some(text)));
    sample.process.rss = Metric::Exact(bytes / 3);
    fold(
        &mut state,
        at_us.saturating_add(5 * SECOND),
        Kind::Pulse(Box::new(sample)),
    );
    fold(&mut state, at_us / 2, events::evict(text, bytes));
    for tier in &mut state.tiers {
        tier.used_bytes = bytes;
        tier.pinned_bytes = u64::MAX;
    }
    state.conclude();
    state.ended = Some(crate::live::state::Ended {
        why: text.to_owned(),
        in_order: false,
    });
    state
}
