//! Any heap at all.

use std::sync::Arc;

use malloc_stats::heap::{
    Address, Alike, Arena, Chunk, ChunkState, ChunksSeen, Coverage, Heap, Hint, InForce, Mmapped,
    Pin, Shares, SizeClass, Stretch, Totals, Trim,
};
use malloc_stats::{AllocatorReading, JemallocStats, Metric};

use super::heap::state;
use crate::live::State;
use crate::live::state::Dated;

/// Numbers, one after the other, again and again.
pub(in crate::live::view) struct Dice<'a> {
    pub(in crate::live::view) numbers: &'a [u64],
    pub(in crate::live::view) texts: &'a [String],
    pub(in crate::live::view) next: usize,
}

impl Dice<'_> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.numbers[self.next % self.numbers.len()]
    }

    fn below(&mut self, most: u64) -> u64 {
        self.number() % most
    }

    fn metric(&mut self) -> Metric {
        let bytes = self.number();
        match self.below(4) {
            0 => Metric::Unavailable,
            1 => Metric::Upper(bytes),
            2 => Metric::Estimated(bytes),
            _ => Metric::Exact(bytes),
        }
    }

    fn text(&mut self) -> String {
        let at = self.below(self.texts.len() as u64);
        self.texts[at as usize].clone()
    }

    fn coverage(&mut self) -> Coverage {
        let granule = 1 << self.below(40);
        let stretches = (0..self.below(3)).map(|_| Stretch {
            start: self.number() / granule * granule,
            runs: (0..self.below(4))
                .map(|_| {
                    let in_use = self.below(granule + 1);
                    let free_resident = self.below(granule - in_use + 1);
                    Alike {
                        count: self.below(3000),
                        shares: Shares {
                            in_use,
                            free_resident,
                            free_released: granule - in_use - free_resident,
                        },
                    }
                })
                .collect(),
        });
        let mut stretches: Vec<Stretch> = stretches.collect();
        stretches.sort_by_key(|stretch| stretch.start);
        // Stretches that are no coverage are none: what is drawn is always one.
        Coverage::from_stretches(granule, &stretches, 10_000).unwrap_or_default()
    }

    fn arena(&mut self) -> Arena {
        Arena {
            index: self.below(5) as usize,
            system_mem: self.number(),
            attached_threads: self.number(),
            in_use: self.metric(),
            free: self.metric(),
            rss: self.metric(),
            free_resident: self.metric(),
            releasable: self.metric(),
            locked: self.below(2) == 0,
            coverage: self.coverage(),
            ..Arena::default()
        }
    }

    fn pin(&mut self, arenas: &[Arena]) -> Pin {
        let hint = match self.below(4) {
            0 => None,
            1 => Some(Hint::Zeros),
            2 => Some(Hint::Python(self.text())),
            _ => Some(Hint::Text(self.text())),
        };
        let inside = arenas.iter().filter_map(|arena| arena.coverage.span());
        let inside = inside.map(|span| span.end - 1).next();
        Pin {
            arena: self.below(5) as usize,
            address: Address(inside.unwrap_or_else(|| self.number())),
            size: self.number(),
            below_free: self.number(),
            below_free_resident: self.metric(),
            hint,
            ..Pin::default()
        }
    }

    fn heap(&mut self) -> Heap {
        let arenas: Vec<Arena> = (0..self.below(6)).map(|_| self.arena()).collect();
        let mut heap = Heap {
            totals: Totals {
                in_use: self.metric(),
                cached_resident: self.metric(),
                returned_virtual: self.metric(),
                heap_rss: self.metric(),
                ..Totals::default()
            },
            settings: (self.below(2) == 0).then(|| InForce {
                mmap_threshold: self.number(),
                trim_threshold: self.number(),
                arena_max: self.number(),
                dynamic: self.below(2) == 0,
                tcache_count: self.number(),
                hp_pagesize: self.number(),
                ..InForce::default()
            }),
            pins: (0..self.below(3)).map(|_| self.pin(&arenas)).collect(),
            arenas,
            mmapped: Mmapped {
                chunks: self.number(),
                bytes: self.number(),
                resident: self.metric(),
                ..Mmapped::default()
            },
            trim: Trim {
                free_resident: self.metric(),
                releasable: self.metric(),
                secondary_tops: self.metric(),
                tcache: self.metric(),
            },
            notes: vec![self.text()],
            ..Heap::default()
        };
        for _ in 0..self.below(5) {
            let mut class = SizeClass {
                from: self.number(),
                ..SizeClass::default()
            };
            class.in_use.bytes = self.number();
            class.free.bytes = self.number();
            class.free.count = self.number();
            heap.histogram.push(class);
        }
        heap.torn.unresolved = self.below(2);
        heap.torn.unresolved_bytes = self.number();
        heap
    }

    fn chunks(&mut self) -> ChunksSeen {
        let states = [
            ChunkState::InUse,
            ChunkState::Cached,
            ChunkState::Free,
            ChunkState::Top,
        ];
        let chunks = (0..self.below(50)).map(|at| Chunk {
            address: self.number(),
            size: self.number(),
            state: states[at as usize % 4],
            resident: self.number(),
        });
        ChunksSeen {
            chunks: chunks.collect(),
            beyond: self.number(),
            notes: vec![self.text()],
            arena: self.below(5) as usize,
            range: 0..u64::MAX,
        }
    }

    pub(in crate::live::view) fn state(&mut self) -> State {
        let heap = self.heap();
        let mut state = state(self.number(), heap);
        let look = state.look.as_mut().unwrap();
        let inspection = Arc::make_mut(&mut look.value);
        inspection.allocator.name = self.text();
        inspection.cost_us = self.number();
        if self.below(5) == 0 {
            inspection.heap = None;
            inspection.heap_absent = Some(self.text());
        }
        if self.below(5) == 0 {
            state.look = None;
        }
        if self.below(3) == 0 {
            let value = AllocatorReading {
                name: self.text(),
                in_use: self.metric(),
                heap_rss: self.metric(),
                cached_resident: self.metric(),
                jemalloc: (self.below(2) == 0).then(|| JemallocStats {
                    allocated: self.number(),
                    resident: self.number(),
                    retained: self.number(),
                    ..JemallocStats::default()
                }),
                notes: vec![self.text()],
                ..AllocatorReading::default()
            };
            let at_us = self.number();
            state.vitals.allocator = Some(Dated { at_us, value });
        }
        state.at_us = self.number();
        state.chunks = match self.below(3) {
            0 => None,
            1 => Some(Err(self.text())),
            _ => Some(Ok(Arc::new(self.chunks()))),
        };
        state
    }
}
