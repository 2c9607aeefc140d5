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
use crate::size::Size;

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
        if let (Some(next), Some((last, arena))) =
            (candidate.cut, candidate.ring.iter().enumerate().next_back())
        {
            let reason = format!("its next arena is said to be at {next:#x}, where there is none");
            // What is mapped and cannot be read may be in swap.
            let lasting = !is_mapped(mappings, next) || candidate.ring.contains(&next);
            survey.fault(last, *arena, reason, lasting);
        }
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
        survey.believe_counts(&regions);
        survey
    }

    /// An arena cannot have more from the system than the process has mapped: where it says so,
    /// what was found stands for it.
    fn believe_counts(&mut self, regions: &[Range<u64>]) {
        let mapped: u64 = regions.iter().map(|region| region.end - region.start).sum();
        for index in 0..self.states.len() {
            let said = self.states[index].system_mem;
            // It may have grown since its mappings were listed.
            if said > mapped.saturating_add(MOST_GROWTH) {
                let reason = format!(
                    "it counts {} from the system, more than is mapped",
                    Size(said)
                );
                self.fault(index, self.states[index].address, reason, true);
                self.states[index].system_mem = self.found(index);
            }
        }
    }

    /// The bytes of the stretches of an arena.
    fn found(&self, arena: usize) -> u64 {
        let own = self
            .segments
            .iter()
            .filter(|segment| segment.arena == arena);
        own.map(|segment| segment.range.end - segment.base).sum()
    }

    /// Of each arena whose heaps could not all be found, the bytes of those.
    pub(super) fn lost(&self) -> Vec<u64> {
        let broken = |arena: &usize| self.faults.iter().any(|fault| fault.arena == *arena);
        let lost = |arena: usize| {
            let counted = self.states[arena].system_mem;
            counted.saturating_sub(self.found(arena))
        };
        let arenas = (1..self.states.len()).filter(broken).map(lost);
        arenas.filter(|lost| *lost > 0).collect()
    }

    /// Takes back that a fault stays, where it was not there `before`, something moved since, or
    /// somebody is at it.
    pub(super) fn doubt(&mut self, before: &Self) {
        for fault in &mut self.faults {
            let now = self.states.get(fault.arena);
            let unmoved = now.zip(before.states.get(fault.arena));
            let unmoved = unmoved.is_some_and(|(now, then)| now.same(then) && !now.locked);
            let met = |then: &Fault| {
                (then.arena, then.address, &then.reason)
                    == (fault.arena, fault.address, &fault.reason)
            };
            fault.stable = fault.stable && unmoved && before.faults.iter().any(met);
        }
    }

    fn read_states(&mut self, memory: &mut Memory<'_>, candidate: &Candidate) {
        for (index, address) in candidate.ring.iter().enumerate() {
            match State::read(memory, candidate.layout, *address) {
                Ok(state) => self.states.push(state),
                Err(_) => {
                    // Its place in the list is its index.
                    self.states.push(State::default());
                    let reason = "its malloc_state cannot be read".to_owned();
                    self.fault(index, *address, reason, false);
                }
            }
        }
    }

    /// Notes a fault; `lasting` where it is none of what can be read at this moment.
    fn fault(&mut self, arena: usize, address: u64, reason: String, lasting: bool) {
        self.faults.push(Fault {
            arena,
            address: Address(address),
            reason,
            stable: lasting && !self.states.get(arena).is_some_and(|state| state.locked),
        });
    }

    /// The heaps of every arena but the main one: from the heap of its top, each names the one
    /// before it.
    fn heaps(&mut self, memory: &mut Memory<'_>, candidate: &Candidate) {
        let layout = candidate.layout;
        let mappings = memory.space().mappings();
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
                    // What is mapped and cannot be read may be in swap.
                    read => {
                        let reason = "no heap of this arena begins here".to_owned();
                        let lasting = read.is_ok() || !is_mapped(mappings, base);
                        self.fault(index, base, reason, lasting);
                        break;
                    }
                };
                // Aligned, no heap begins inside of another.
                let sound = base.is_multiple_of(length)
                    && info.size <= length
                    && info.size.is_multiple_of(16);
                if !sound || seen.len() >= MOST_HEAPS || !seen.insert(base) {
                    let reason = "its heaps do not lead back to the first".to_owned();
                    self.fault(index, base, reason, true);
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

/// Whether an address lies in some mapping; they are in order.
fn is_mapped(mappings: &[Mapping], address: u64) -> bool {
    let at = mappings.partition_point(|mapping| mapping.range.end <= address);
    mappings
        .get(at)
        .is_some_and(|mapping| mapping.range.contains(&address))
}
