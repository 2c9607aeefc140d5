//! Where a walk and the truth of a target differ.

use std::fmt::Debug;

use malloc_stats::heap::{Address, Arena, Heap, SizeClass};
use malloc_stats::{Mallinfo, Metric};

use crate::malloc_info;
use crate::truth::{Block, MAIN_ARENA, MMAPPED, State, Truth};

/// Everything that differs, with both sides.
#[derive(Debug, Default)]
pub struct Differences(Vec<String>);

impl Differences {
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    fn compare<T: PartialEq + Debug>(&mut self, what: &str, told: T, walked: T) {
        if told != walked {
            self.0.push(format!(
                "{what}: the process says {told:?}, the walk {walked:?}"
            ));
        }
    }

    fn at_least(&mut self, what: &str, told: u64, walked: u64) {
        if walked < told {
            self.0.push(format!(
                "{what}: the process knows of {told}, the walk of {walked} only"
            ));
        }
    }

    /// All fields of `mallinfo2`.
    pub fn of_mallinfo(&mut self, told: &Mallinfo, walked: &Mallinfo) {
        let fields = |m: &Mallinfo| {
            [
                ("arena", m.arena),
                ("ordblks", m.ordblks),
                ("smblks", m.smblks),
                ("hblks", m.hblks),
                ("hblkhd", m.hblkhd),
                ("usmblks", m.usmblks),
                ("fsmblks", m.fsmblks),
                ("uordblks", m.uordblks),
                ("fordblks", m.fordblks),
                ("keepcost", m.keepcost),
            ]
        };
        for ((name, told), (_, walked)) in fields(told).into_iter().zip(fields(walked)) {
            self.compare(name, told, walked);
        }
    }

    /// What every heap at rest has to show.
    pub fn of_whole(&mut self, minor: u32, heap: &Heap) {
        let info = &heap.totals.mallinfo;
        self.compare("stretches never whole", 0, heap.torn.unresolved);
        self.compare("faults", "[]".to_owned(), format!("{:?}", heap.torn.faults));
        self.compare(
            "mmapped chunks found",
            info.hblks,
            heap.mmapped.found_chunks,
        );
        // From 2.43 on, 16 bytes too many are left in the count whenever realloc moves such a chunk.
        let drift = info.hblkhd.wrapping_sub(heap.mmapped.found_bytes);
        if drift != 0 && (minor < 43 || drift >= 4096 || !drift.is_multiple_of(16)) {
            let found = heap.mmapped.found_bytes;
            self.compare("bytes of those", info.hblkhd, found);
        }
        let vocabulary = [
            ("in_use", info.uordblks + info.hblkhd, heap.totals.in_use),
            ("held", info.arena + info.hblkhd, heap.totals.held),
            ("free_virtual", info.fordblks, heap.totals.free_virtual),
        ];
        for (name, bytes, metric) in vocabulary {
            self.compare(name, Some(bytes), metric.bytes());
        }
        let free = [&heap.totals.cached_resident, &heap.totals.returned_virtual];
        let free = free.iter().filter_map(|metric| metric.bytes()).sum();
        self.compare("free, resident or not", info.fordblks, free);
    }
}

/// Everything in which `heap` differs from what its process says.
pub fn differences(truth: &Truth, heap: &Heap) -> Differences {
    let mut found = Differences::default();
    found.of_mallinfo(&truth.mallinfo, &heap.totals.mallinfo);
    found.of_whole(truth.minor(), heap);
    arenas(&mut found, truth, heap);
    caches(&mut found, truth, heap);
    pins(&mut found, truth, heap);
    blocks(&mut found, truth, heap);
    settings(&mut found, truth, heap);
    found
}

fn arenas(found: &mut Differences, truth: &Truth, heap: &Heap) {
    let told = malloc_info::arenas(&truth.malloc_info);
    found.compare("arenas", told.len(), heap.arenas.len());
    for (told, walked) in told.iter().zip(&heap.arenas) {
        let of = |what: &str| format!("arena {}: {what}", walked.index);
        found.compare(&of("system_mem"), told.current, walked.system_mem);
        found.compare(&of("max_system_mem"), told.max, walked.max_system_mem);
        // Before, malloc_info left out the top.
        if truth.minor() >= 28 {
            found.compare(&of("free"), Metric::Exact(told.free()), walked.free);
        }
    }
}

fn arena(heap: &Heap, address: Address) -> Option<&Arena> {
    heap.arenas.iter().find(|arena| match address {
        MAIN_ARENA => arena.is_main(),
        _ => arena.address == address,
    })
}

fn caches(found: &mut Differences, truth: &Truth, heap: &Heap) {
    if !truth.cached_all {
        return;
    }
    let told: u64 = truth.cached().map(|block| block.chunk).sum();
    found.compare("in caches", Some(told), heap.trim.tcache.bytes());
    let mut known = truth.other_arenas();
    known.push(MAIN_ARENA);
    for address in known {
        let told = truth.cached().filter(|block| block.arena == address);
        let told: u64 = told.map(|block| block.chunk).sum();
        let walked = arena(heap, address).and_then(|arena| arena.cached.bytes());
        found.compare(
            &format!("in caches, of arena {address}"),
            Some(told),
            walked,
        );
    }
}

fn pins(found: &mut Differences, truth: &Truth, heap: &Heap) {
    for block in truth.pins.iter().map(|at| &truth.blocks[*at]) {
        let index = arena(heap, block.arena).map(|arena| arena.index);
        let pin = heap.pins.iter().find(|pin| Some(pin.arena) == index);
        found.compare(
            &format!("pin of arena {}", block.arena),
            Some((block.address, block.chunk, false)),
            pin.map(|pin| (pin.address, pin.size, pin.cached)),
        );
    }
}

/// From here on a chunk is the target's own: what libc holds for itself is smaller.
const OWN_FROM: u64 = 4096;
/// From here on chunks have their own mapping.
const MMAPPED_FROM: u64 = 128 << 10;
/// Smaller free chunks than these are used again by the target.
const STAYS_FREE_FROM: u64 = 16 << 10;

fn blocks(found: &mut Differences, truth: &Truth, heap: &Heap) {
    for address in truth.other_arenas() {
        let known = truth.in_use().filter(|block| block.arena == address);
        let told = known.count() as u64 + truth.caches_in(address);
        let walked = arena(heap, address).map_or(0, |arena| arena.chunks_in_use);
        let what = format!("chunks in use of arena {address}");
        if truth.recorded_all {
            found.compare(&what, told, walked);
        } else {
            found.at_least(&what, told, walked);
        }
    }
    freed_blocks(found, truth, heap);
    let mut from = OWN_FROM;
    while from < MMAPPED_FROM {
        let class = heap.histogram.iter().find(|class| class.from == from);
        let class = class.copied().unwrap_or_default();
        let here = |block: &&Block| block.chunk >= from && block.chunk < 2 * from;
        size_class(found, truth, from, &class, here);
        from *= 2;
    }
}

/// By their bytes: where blocks lay in older holes, neighbours have joined.
fn freed_blocks(found: &mut Differences, truth: &Truth, heap: &Heap) {
    let freed = truth.blocks.iter().filter(|block| {
        let size = block.chunk;
        block.state == State::Freed && block.arena != MMAPPED && size >= STAYS_FREE_FROM
    });
    let walked = heap
        .histogram
        .iter()
        .filter(|class| class.from >= STAYS_FREE_FROM);
    if truth.recorded_all {
        found.at_least(
            "bytes of large free chunks",
            freed.map(|block| block.chunk).sum(),
            walked.map(|class| class.free.bytes).sum(),
        );
    }
}

fn size_class(
    found: &mut Differences,
    truth: &Truth,
    from: u64,
    class: &SizeClass,
    here: impl Fn(&&Block) -> bool,
) {
    let of = |what: &str| format!("{what} from {from} B on");
    let live: Vec<_> = truth.in_use().filter(&here).collect();
    let (count, bytes) = (
        live.len() as u64,
        live.iter().map(|block| block.chunk).sum(),
    );
    if truth.recorded_all {
        found.compare(&of("chunks in use"), count, class.in_use.count);
        found.compare(&of("bytes in use"), bytes, class.in_use.bytes);
    } else {
        found.at_least(&of("chunks in use"), count, class.in_use.count);
        found.at_least(&of("bytes in use"), bytes, class.in_use.bytes);
    }
}

fn settings(found: &mut Differences, truth: &Truth, heap: &Heap) {
    let Some(walked) = &heap.settings else {
        found.compare("settings in force", "found", "none");
        return;
    };
    let told = &truth.settings;
    let thresholds = [
        ("mmap_threshold", told.mmap_threshold, walked.mmap_threshold),
        ("trim_threshold", told.trim_threshold, walked.trim_threshold),
        ("top_pad", told.top_pad, walked.top_pad),
    ];
    for (name, told, walked) in thresholds {
        if let Some(told) = told {
            found.compare(name, told, walked);
        }
    }
    if let Some(told) = told.dynamic {
        found.compare("dynamic", told, walked.dynamic);
    }
    found.compare("mmap_max", told.mmap_max, walked.mmap_max);
    found.compare("arena_max", told.arena_max, walked.arena_max);
    found.compare("tcache_count", told.tcache_count, walked.tcache_count);
}
