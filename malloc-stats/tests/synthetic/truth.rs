//! What a walk must find, from what was laid out and by the rules of glibc's sources:
//! `int_mallinfo`, `mtrim` with the `malloc_consolidate` before it, and `systrim`.

use std::collections::BTreeMap;
use std::ops::Range;

use malloc_stats::Mallinfo;
use malloc_stats::heap::{Chunks, PageState, SizeClass};

use crate::image::{ArenaImage, Chunk, Image, Segment};
use crate::plan::Fate;
use crate::space::{Forged, PAGE};

/// `sizeof(struct malloc_chunk)`: what a trim leaves of a free chunk.
const CHUNK: u64 = 48;
const MINSIZE: u64 = 32;

#[derive(Debug, Default)]
pub struct Truth {
    pub mallinfo: Mallinfo,
    pub tcache: u64,
    pub arenas: Vec<ArenaTruth>,
    pub free_resident: u64,
    pub releasable: u64,
    /// Resident, without the main arena's.
    pub secondary_tops: u64,
    pub mmapped_resident: u64,
    pub histogram: Vec<SizeClass>,
}

#[derive(Debug, Default)]
pub struct ArenaTruth {
    pub address: u64,
    pub free: u64,
    pub top: u64,
    pub cached: u64,
    pub chunks_in_use: u64,
    pub chunks_free: u64,
    pub rss: u64,
    pub free_resident: u64,
    pub releasable: u64,
    pub segments: usize,
    /// `None` where the last segment has no block in use.
    pub pin: Option<PinTruth>,
}

#[derive(Debug, Default)]
pub struct PinTruth {
    pub address: u64,
    pub size: u64,
    pub cached: bool,
    pub run_chunks: u64,
    pub run_bytes: u64,
    pub unlocks: u64,
    pub unlocks_resident: u64,
    pub below_free: u64,
    pub below_free_resident: u64,
}

impl Truth {
    pub fn of(image: &Image) -> Self {
        let mut truth = Self::default();
        let mut histogram = BTreeMap::new();
        for (index, arena) in image.arenas.iter().enumerate() {
            let found = ArenaTruth::of(image, arena, index == 0);
            let info = &mut truth.mallinfo;
            info.arena += arena.system_mem;
            info.fordblks += found.free;
            info.uordblks += arena.system_mem - found.free;
            info.ordblks += 1;
            for chunk in arena.segments.iter().flat_map(|segment| &segment.chunks) {
                match chunk.fate {
                    Fate::Free => info.ordblks += 1,
                    Fate::Fast => {
                        info.smblks += 1;
                        info.fsmblks += chunk.size;
                    }
                    _ => {}
                }
                count(&mut histogram, chunk.size, chunk.is_free());
            }
            if index == 0 {
                info.keepcost = found.top;
            } else {
                truth.secondary_tops += resident(&image.space, arena.top());
            }
            truth.tcache += found.cached;
            truth.free_resident += found.free_resident;
            truth.releasable += found.releasable;
            truth.arenas.push(found);
        }
        for mmapped in &image.mmapped {
            let size = mmapped.range.end - mmapped.range.start;
            truth.mallinfo.hblks += 1;
            truth.mallinfo.hblkhd += size;
            truth.mmapped_resident += resident(&image.space, mmapped.range.clone());
            count(&mut histogram, size, false);
        }
        truth.histogram = histogram.into_values().collect();
        truth
    }
}

impl ArenaTruth {
    fn of(image: &Image, arena: &ArenaImage, main: bool) -> Self {
        let space = &image.space;
        let chunks = || arena.segments.iter().flat_map(|segment| &segment.chunks);
        let free: Vec<Range<u64>> = chunks()
            .filter(|chunk| chunk.is_free())
            .map(Chunk::range)
            .chain([arena.top()])
            .collect();
        Self {
            address: arena.state,
            free: free.iter().map(|range| range.end - range.start).sum(),
            top: arena.top().end - arena.top().start,
            cached: chunks()
                .filter(|c| c.fate == Fate::Cached)
                .map(|c| c.size)
                .sum(),
            chunks_in_use: chunks().filter(|chunk| !chunk.is_free()).count() as u64,
            chunks_free: free.len() as u64 - 1,
            rss: arena
                .segments
                .iter()
                .map(|s| resident(space, s.range.clone()))
                .sum(),
            free_resident: free
                .iter()
                .map(|range| resident(space, range.clone()))
                .sum(),
            releasable: arena
                .segments
                .iter()
                .map(|segment| releasable(image, segment, main))
                .sum(),
            segments: arena.segments.len(),
            pin: PinTruth::of(space, arena),
        }
    }
}

impl PinTruth {
    fn of(space: &Forged, arena: &ArenaImage) -> Option<Self> {
        let last = arena.segments.last()?;
        let pinning = last.chunks.iter().rposition(|chunk| !chunk.is_free())?;
        let pin = last.chunks[pinning];
        let below = &last.chunks[..=pinning];
        let run = below.iter().rev().take_while(|chunk| !chunk.is_free());
        let run: Vec<&Chunk> = run.collect();
        let under = below[..below.len() - run.len()].iter().rev();
        let under: Vec<&Chunk> = under.take_while(|chunk| chunk.is_free()).collect();
        let earlier = &arena.segments[..arena.segments.len() - 1];
        let free: Vec<&Chunk> = earlier
            .iter()
            .flat_map(|segment| &segment.chunks)
            .chain(below)
            .filter(|chunk| chunk.is_free())
            .collect();
        Some(Self {
            address: pin.at + 16,
            size: pin.size,
            cached: pin.fate == Fate::Cached,
            run_chunks: run.len() as u64,
            run_bytes: bytes(&run),
            unlocks: bytes(&under),
            unlocks_resident: resident_of(space, &under),
            below_free: bytes(&free),
            below_free_resident: resident_of(space, &free),
        })
    }
}

fn bytes(chunks: &[&Chunk]) -> u64 {
    chunks.iter().map(|chunk| chunk.size).sum()
}

fn resident_of(space: &Forged, chunks: &[&Chunk]) -> u64 {
    chunks
        .iter()
        .map(|chunk| resident(space, chunk.range()))
        .sum()
}

fn resident(space: &Forged, range: Range<u64>) -> u64 {
    space.bytes_in(range, PageState::Resident)
}

/// The resident bytes of a segment that `malloc_trim(0)` gives back.
fn releasable(image: &Image, segment: &Segment, main: bool) -> u64 {
    let mut released = 0;
    let mut top = segment.top.clone();
    for run in runs(segment) {
        match &mut top {
            // Consolidation joins it to the top, which is another matter.
            Some(top) if top.start == run.end => top.start = run.start,
            _ => {
                let start = (run.start + CHUNK).next_multiple_of(PAGE);
                let end = run.end & !(PAGE - 1);
                if start < end {
                    released += resident(&image.space, start..end);
                }
            }
        }
    }
    match top {
        Some(top) if main && top.end == image.brk => {
            let unit = image.parameters.thp_pagesize.max(PAGE);
            let area = (top.end - top.start).saturating_sub(MINSIZE + 1);
            let extra = area / unit * unit;
            released + resident(&image.space, top.end - extra..top.end)
        }
        _ => released,
    }
}

/// Free chunks side by side, as `malloc_consolidate` joins them.
fn runs(segment: &Segment) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for chunk in segment.chunks.iter().filter(|chunk| chunk.is_free()) {
        match runs.last_mut() {
            Some(last) if last.end == chunk.at => last.end = chunk.range().end,
            _ => runs.push(chunk.range()),
        }
    }
    runs
}

fn count(histogram: &mut BTreeMap<u64, SizeClass>, size: u64, free: bool) {
    let from = 1 << size.ilog2();
    let class = histogram.entry(from).or_insert(SizeClass {
        from,
        ..SizeClass::default()
    });
    let chunks: &mut Chunks = if free {
        &mut class.free
    } else {
        &mut class.in_use
    };
    chunks.count += 1;
    chunks.bytes += size;
}
