//! A process in which everything is known: a Python server that loads and frees models.

use malloc_stats::heap::{
    Address, Arena, Chunks, Evidence, Heap, Hint, InForce, LayoutUsed, Mmapped, Pin, SizeClass,
    Torn, Totals, Trim,
};
use malloc_stats::inspect::{
    Class, ClassKind, Detected, FilePages, Growth, Inspection, Severity, Slope, Status, TimeTo,
    Verdict,
};
use malloc_stats::limits::{Bound, Cgroup, CgroupVersion, Limit, PressureOf, Stall};
use malloc_stats::{Host, Limits, Mallinfo, Metric, Pressure, Process, Vram};

pub const GIB: u64 = 1 << 30;
pub const MIB: u64 = 1 << 20;

pub fn exact(mib: u64) -> Metric {
    Metric::Exact(mib * MIB)
}

pub fn arena(index: usize, in_use: u64, rss: u64) -> Arena {
    Arena {
        index,
        system_mem: (rss + 1024) * MIB,
        in_use: exact(in_use),
        free: exact(rss + 1024 - in_use),
        rss: exact(rss),
        free_resident: exact(rss.saturating_sub(in_use)),
        releasable: Metric::Estimated(rss.saturating_sub(in_use) * MIB / 2),
        segments: 1,
        ..Arena::default()
    }
}

pub fn pin(arena: usize, hint: Option<Hint>) -> Pin {
    Pin {
        arena,
        address: Address(0x7f2a_cff1_0000),
        size: 32,
        run_chunks: 1,
        run_bytes: 32,
        unlocks: 2 * GIB,
        unlocks_resident: exact(1024),
        below_free: 3 * GIB,
        below_free_resident: Metric::Upper(2252 * MIB),
        hint,
        ..Pin::default()
    }
}

pub fn heap() -> Heap {
    Heap {
        owned: Vec::new(),
        layout: LayoutUsed {
            versions: "2.35–2.41".into(),
            object: "/usr/lib/x86_64-linux-gnu/libc.so.6".into(),
            evidence: Evidence::Named,
            main_arena: Address(0x7f2b_0000_0c80),
        },
        totals: Totals {
            mallinfo: Mallinfo {
                arena: 4 * GIB,
                ordblks: 1234,
                smblks: 5,
                hblks: 2,
                hblkhd: 64 * MIB,
                fordblks: 3 * GIB,
                uordblks: GIB,
                fsmblks: 512,
                keepcost: 132 << 10,
                ..Mallinfo::default()
            },
            in_use: exact(1088),
            held: exact(4160),
            free_virtual: exact(3072),
            cached_resident: exact(2048),
            returned_virtual: exact(1024),
            heap_rss: exact(3136),
            swapped: Metric::Exact(0),
        },
        settings: Some(InForce {
            mmap_threshold: 31 * MIB,
            trim_threshold: 62 * MIB,
            top_pad: 128 << 10,
            dynamic: true,
            mmap_max: 65_536,
            tcache_count: 7,
            tcache_max: 1032,
            ..InForce::default()
        }),
        arenas: vec![arena(0, 900, 1000), arena(1, 100, 2048), arena(2, 24, 24)],
        mmapped: Mmapped {
            chunks: 2,
            bytes: 64 * MIB,
            found_chunks: 2,
            found_bytes: 64 * MIB,
            resident: exact(64),
        },
        trim: Trim {
            free_resident: exact(2048),
            releasable: Metric::Estimated(1986 * MIB),
            secondary_tops: exact(50),
            tcache: exact(12),
        },
        pins: vec![pin(1, Some(Hint::Python("dict".into())))],
        histogram: vec![
            SizeClass {
                from: 32,
                in_use: Chunks {
                    count: 1000,
                    bytes: 40_000,
                },
                free: Chunks::default(),
            },
            SizeClass {
                from: MIB,
                in_use: Chunks {
                    count: 512,
                    bytes: GIB,
                },
                free: Chunks {
                    count: 1024,
                    bytes: 3 * GIB,
                },
            },
        ],
        torn: Torn {
            segments: 5,
            ..Torn::default()
        },
        notes: Vec::new(),
    }
}

fn limits() -> Limits {
    let cgroup = |path: &str, high, max, oom_kills| Cgroup {
        path: path.into(),
        high,
        max,
        memsw_max: Limit::Unlimited,
        current: exact(21 * 1024),
        swap_max: Limit::Bytes(0),
        swap_current: Metric::Exact(0),
        reclaimable: Metric::Estimated(4 * GIB),
        oom_kills: Metric::Exact(oom_kills),
        ..Cgroup::default()
    };
    let (high, max) = (Limit::Bytes(22 * GIB), Limit::Bytes(24 * GIB));
    Limits {
        cgroup_version: Some(CgroupVersion::V2),
        cgroups: vec![
            cgroup("/kubepods/pod7", high, max, 1),
            cgroup("/kubepods", Limit::Unlimited, Limit::Unlimited, 0),
        ],
        host_available: exact(61 * 1024),
        host_free: exact(30 * 1024),
        host_total: exact(256 * 1024),
        ..Limits::default()
    }
}

fn class(kind: ClassKind, rss: u64) -> Class {
    Class {
        hugetlb: Metric::Unavailable,
        kind,
        mappings: 3,
        size: 2 * rss * MIB,
        rss: exact(rss),
        anonymous: exact(rss),
        swap: Metric::Exact(0),
    }
}

pub fn file(path: &str) -> FilePages {
    FilePages {
        path: path.into(),
        size: exact(4096),
        mapped: true,
        open: true,
        cached: exact(3072),
        rss: exact(1024),
        ..FilePages::default()
    }
}

pub fn process() -> Inspection {
    Inspection {
        schema: 1,
        cost_us: 43_210,
        paused_us: Some(12_300),
        pid: 4121,
        allocator: Detected {
            name: "glibc".into(),
            version: Some("2.36".into()),
            placement: "library".into(),
            object: Some("/usr/lib/x86_64-linux-gnu/libc.so.6".into()),
            walkable: true,
            ..Detected::default()
        },
        process: Status {
            command: "python3".into(),
            arguments: vec!["python3".into(), "serve.py".into(), "--port=80".into()],
            uid: 1000,
            threads: 12,
            age_s: 11_520.0,
            oom_score: Some(667),
            oom_score_adj: Some(100),
            memory: Process {
                rss: exact(8192),
                anon: exact(6144),
                file: exact(2048),
                shmem: Metric::Exact(0),
                hwm: Metric::Estimated(9 * GIB),
                swap: Metric::Exact(0),
                ..Process::default()
            },
        },
        limits: limits(),
        host: Some(Host {
            swap_total: Metric::Exact(0),
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
        heap: Some(heap()),
        classes: vec![class(ClassKind::Stacks, 3), class(ClassKind::Malloc, 3136)],
        unattributed: Metric::Estimated(512 * MIB),
        files: vec![file("/models/llava-13b.safetensors")],
        vram: vec![Vram {
            index: 0,
            name: "NVIDIA H200".into(),
            total: exact(140 * 1024),
            used: exact(70 * 1024),
            free: exact(70 * 1024),
            process: exact(14 * 1024),
            ..Vram::default()
        }],
        growth: Some(Growth {
            seconds: 30.0,
            slopes: vec![Slope {
                of: "rss".into(),
                before: exact(8000),
                after: exact(8192),
                bytes_per_second: 6.4 * MIB as f64,
            }],
            time_to: vec![TimeTo {
                bound: Bound::CgroupHigh("/kubepods/pod7".into()),
                headroom: exact(1024),
                seconds: 160.0,
            }],
        }),
        verdicts: vec![Verdict {
            lint: "free-but-resident".into(),
            severity: Severity::Warn,
            bytes: exact(2048),
            finding: "2.00 GiB is free but resident, 97 % of it would go back by malloc_trim"
                .into(),
            remedy: "run with profile glibc-mmap-128k".into(),
        }],
        ..Inspection::default()
    }
}
