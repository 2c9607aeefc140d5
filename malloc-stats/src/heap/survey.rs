//! Which stretches of memory each arena has.

use std::collections::HashSet;
use std::ops::Range;

use super::discover::{Candidate, merged, within};
use super::memory::Memory;
use super::mmapped::{self, Found, Main, Search};
use super::report::{Address, Fault};
use super::segment::{Kind, Segment};
use super::state::{HeapInfo, State};
use crate::mappings::{Backing, Mapping};

/// Heaps of all arenas, at most: 4 TiB of them.
const MOST_HEAPS: usize = 1 << 16;

/// How far the brk may have gone on meanwhile, in bytes.
const MOST_GROWTH: u64 = 16 << 30;

/// One malloc, laid out.
pub(super) struct Survey {
    /// The arenas' states, the main one first, as they were before the walk.
    pub(super) states: Vec<State>,
    pub(super) segments: Vec<Segment>,
    pub(super) mmapped: Found,
    /// Whole memory that is malloc's, heads of heaps included; in order of address.
    pub(super) owned: Vec<Range<u64>>,
    pub(super) faults: Vec<Fault>,
    /// Where the brk is.
    pub(super) brk: Option<u64>,
}

impl Survey {
    pub(super) fn new(memory: &mut Memory<'_>, candidate: &Candidate) -> Self {
        let mappings = memory.space().mappings();
        let regions = merged(mappings.iter().filter(|m| m.is_private_anonymous()));
        let mut survey = Self {
            states: Vec::new(),
            segments: Vec::new(),
            mmapped: Found::default(),
            owned: Vec::new(),
            faults: Vec::new(),
            brk: mappings
                .iter()
                .rfind(|mapping| mapping.backing == Backing::Brk)
                .map(|mapping| mapping.range.end),
        };
        survey.read_states(memory, candidate);
        survey.heaps(memory, candidate);
        let main = survey.states.first().cloned().unwrap_or_default();
        let below_brk = survey.brk_segment(candidate, &main, mappings, &regions);
        // What lies below the brk is no piece off it, whosever it is.
        let brk = mappings.iter().filter(|m| m.backing == Backing::Brk);
        let mut taken = survey.owned.clone();
        taken.extend(merged(brk));
        taken.sort_by_key(|range| range.start);
        let counters = candidate.counters.as_ref();
        let off_brk = main.noncontiguous || !within(&taken, main.top);
        survey.mmapped = mmapped::find(
            memory,
            &Search {
                regions: &regions,
                taken: &taken,
                expected: counters.map(|c| (c.mmapped_chunks, c.mmapped_bytes)),
                main: (off_brk && main.system_mem > 0).then(|| Main {
                    top: main.top,
                    bytes: main.system_mem.saturating_sub(below_brk),
                }),
                trailer: candidate.layout.mmapped_trailer,
            },
        );
        for piece in survey.mmapped.pieces.clone() {
            survey.owned.push(piece.clone());
            survey.segments.push(Segment {
                arena: 0,
                base: piece.start,
                longest: piece.end - piece.start,
                range: piece,
                kind: Kind::Main,
            });
        }
        survey.owned.extend(survey.mmapped.chunks.iter().cloned());
        survey.owned.sort_by_key(|range| range.start);
        survey
    }

    fn read_states(&mut self, memory: &mut Memory<'_>, candidate: &Candidate) {
        for (index, address) in candidate.ring.iter().enumerate() {
            match State::read(memory, candidate.layout, *address) {
                Ok(state) => self.states.push(state),
                Err(_) => {
                    // Its place in the list is its index.
                    self.states.push(State::default());
                    self.fault(index, *address, "its malloc_state cannot be read");
                }
            }
        }
    }

    fn fault(&mut self, arena: usize, address: u64, reason: &str) {
        self.faults.push(Fault {
            arena,
            address: Address(address),
            reason: reason.to_owned(),
            stable: false,
        });
    }

    /// The heaps of every arena but the main one: from the heap of its top, each names the one
    /// before it.
    fn heaps(&mut self, memory: &mut Memory<'_>, candidate: &Candidate) {
        let layout = candidate.layout;
        // Without `mp_` the length of heaps is that of a glibc without huge pages.
        let length = candidate.counters.as_ref().map_or(64 << 20, |c| c.heap_max);
        let base_of = |address: u64| address / length * length;
        let mut seen = HashSet::new();
        for index in 1..self.states.len() {
            let (arena, top) = (self.states[index].address, self.states[index].top);
            let first = base_of(arena);
            let mut base = base_of(top);
            loop {
                let info = match HeapInfo::read(memory, base) {
                    Ok(info) if info.arena == arena => info,
                    _ => {
                        self.fault(index, base, "no heap of this arena begins here");
                        break;
                    }
                };
                // Aligned, no heap begins inside of another.
                let sound = base.is_multiple_of(length)
                    && info.size <= length
                    && info.size.is_multiple_of(16);
                if !sound || seen.len() >= MOST_HEAPS || !seen.insert(base) {
                    self.fault(index, base, "its heaps do not lead back to the first");
                    break;
                }
                let head = if base == first {
                    layout.heap_info + layout.state.size()
                } else {
                    layout.heap_info
                };
                let start = base + head.next_multiple_of(16);
                self.owned.push(base..base + info.size);
                self.segments.push(Segment {
                    arena: index,
                    range: start..(base + info.size).max(start),
                    kind: Kind::Heap,
                    base,
                    longest: length,
                });
                if base == first {
                    break;
                }
                base = info.previous;
            }
        }
    }

    /// The main arena's stretch below the brk, which begins at `sbrk_base`; its length.
    fn brk_segment(
        &mut self,
        candidate: &Candidate,
        main: &State,
        mappings: &[Mapping],
        regions: &[Range<u64>],
    ) -> u64 {
        let Some(brk) = self.brk.filter(|_| main.system_mem > 0) else {
            return 0;
        };
        let region = regions
            .iter()
            .find(|region| region.start < brk && brk <= region.end);
        let heap = mappings.iter().find(|m| m.backing == Backing::Brk);
        let start = match &candidate.counters {
            Some(counters) => Some(counters.sbrk_base),
            None => heap.map(|heap| heap.range.start),
        };
        let start = start.filter(|start| region.is_some_and(|region| region.contains(start)));
        if let Some(start) = start {
            self.owned.push(start..brk);
            self.segments.push(Segment {
                arena: 0,
                range: start.next_multiple_of(16)..brk,
                kind: Kind::Main,
                base: start,
                longest: (brk - start).saturating_mul(4).max(MOST_GROWTH),
            });
        }
        start.map_or(0, |start| brk - start)
    }
}
