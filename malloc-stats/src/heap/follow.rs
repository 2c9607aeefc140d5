//! Following the chunks of a stretch of memory while the process goes on.
//!
//! A page is read at one instant, the next one some microseconds later: between them a chunk may
//! have been joined with its neighbour, and where the next header was there is content now. So what
//! was read lately is not counted at once. When a header makes no sense, the last few chunks are
//! taken back and read again, and more of them if that does not help.

use std::collections::VecDeque;

use super::cached::{Fast, may_be_cache};
use super::chunks::{Recording, Wanted};
use super::coverage::Extent;
use super::layout::Layout;
use super::memory::Memory;
use super::segment::{
    Broken, FENCE, FLAGS, IS_MMAPPED, Kind, NON_MAIN_ARENA, PREV_INUSE, SMALLEST, Segment, Why,
    begins_chunks,
};
use super::state::HeapInfo;
use super::tally::{Disagreement, Sort, Tally};

/// How many chunks are taken back at each try.
const TAKEN_BACK: [usize; 5] = [2, 16, 128, 1024, 1024];
/// How often chunks of one stretch are taken back, at most.
const MOST_TRIES: u64 = 1 << 12;
/// Chunks that are not counted yet.
const PENDING: usize = 1024;
/// Chunks of the size of a thread cache that are looked at again, at most.
const MOST_CACHES: usize = 1 << 16;
/// Disagreements that are kept, at most.
const MOST_DISAGREED: usize = 1 << 10;

/// What a walk has to know of the arena.
pub(super) struct Surroundings<'a> {
    pub(super) layout: &'a Layout,
    pub(super) fast: &'a Fast,
    /// The address of its `malloc_state`.
    pub(super) arena: u64,
    pub(super) top: u64,
    /// In what steps the main top is given back: a page or a huge page.
    pub(super) trim_step: u64,
    /// Where the brk is, if it is known.
    pub(super) brk: Option<u64>,
    /// Blocks of a size in a thread's cache, at most.
    pub(super) most_cached: u64,
    pub(super) granule: u64,
    /// The tops of other main arenas, of a process with several C libraries: they move one brk.
    pub(super) foreign_tops: &'a [u64],
    /// Whether the process is stopped, so that reading again is of no use.
    pub(super) stopped: bool,
    /// What chunks of this arena are wanted one by one, if any are.
    pub(super) wanted: Option<&'a Wanted>,
}

/// What a walk of one stretch gave.
pub(super) struct Walked {
    pub(super) tally: Tally,
    /// Where it broke, first.
    pub(super) broken: Option<Broken>,
    /// Whether it broke at the same bytes each time.
    pub(super) stable: bool,
    /// How often some chunks were read again.
    pub(super) reread: u64,
}

/// Walks a stretch. With `mend`, a break is passed over where chunks can be found again behind it.
pub(super) fn walk(
    memory: &mut Memory<'_>,
    segment: &Segment,
    around: &Surroundings<'_>,
    mend: bool,
) -> Walked {
    let mut walk = Walk {
        memory,
        segment: segment.clone(),
        top: around.top,
        tally: Tally::new(
            Extent::new(segment.range.start, around.granule),
            around.wanted.map(Recording::new),
        ),
        pending: VecDeque::with_capacity(PENDING),
        fast: 0,
        around,
    };
    walk.rewind_fast(segment.range.start);
    let mut tries = Tries::default();
    let mut broken = None;
    let mut stable = true;
    let mut at = segment.range.start;
    loop {
        let fault = match walk.chunks(at) {
            Ok(Ended::Whole) => break,
            Ok(Ended::Fence(end)) => match walk.resume(end) {
                Some(next) => {
                    at = next;
                    continue;
                }
                None if !walk.expects_top(end) => break,
                None => Broken {
                    address: end,
                    why: Why::NoTop,
                },
            },
            Err(fault) => fault,
        };
        if let Some(count) = tries.next(fault, around.stopped) {
            at = walk.take_back(count).unwrap_or(at);
            continue;
        }
        broken = broken.or(Some(fault));
        stable &= tries.same;
        // What lies before it is settled: taken back for a fault further on, it would lead here
        // again.
        walk.count_all();
        // What stays broken at the same bytes will not get better by walking it all again.
        let behind = if mend || tries.same {
            walk.resume(fault.address + 16)
        } else {
            None
        };
        let lost_to = behind.unwrap_or(walk.segment.range.end);
        walk.tally.lost += lost_to.saturating_sub(fault.address);
        match behind {
            Some(next) => at = next,
            None => break,
        }
    }
    walk.finish(broken, stable, tries.total)
}

/// How often was tried to get past a place.
#[derive(Default)]
struct Tries {
    last: Option<Broken>,
    /// The place furthest on. Faults that take turns before it are not places of their own.
    furthest: Option<u64>,
    done: usize,
    same: bool,
    total: u64,
}

impl Tries {
    /// How many chunks to take back now; `None` where it was tried often enough.
    fn next(&mut self, fault: Broken, stopped: bool) -> Option<usize> {
        let before = self.last.replace(fault);
        // Further on is another place.
        if self
            .furthest
            .is_none_or(|furthest| fault.address > furthest)
        {
            self.furthest = Some(fault.address);
            self.done = 0;
            self.same = true;
        } else {
            self.same &= before == Some(fault);
        }
        let tired = stopped || self.total >= MOST_TRIES;
        let count = TAKEN_BACK.get(self.done).filter(|_| !tired)?;
        self.done += 1;
        self.total += 1;
        Some(*count)
    }
}

/// Whether the headers still lead to a chunk whose two sizes disagree as they did.
pub(super) fn still_disagrees(memory: &mut Memory<'_>, found: &Disagreement) -> bool {
    let mut chunk = found.from;
    for _ in 0..2 * PENDING {
        let Ok((_, head)) = memory.header(chunk) else {
            return false;
        };
        let size = head & !FLAGS;
        let Some(next) = chunk.checked_add(size).filter(|next| *next > chunk) else {
            return false;
        };
        if chunk == found.chunk {
            return size == found.front
                && memory
                    .header(next)
                    .is_ok_and(|(behind, head)| behind == found.behind && head & PREV_INUSE == 0);
        }
        if next > found.chunk {
            return false;
        }
        chunk = next;
    }
    false
}

enum Ended {
    /// At the top, or at the end of a heap.
    Whole,
    /// At two fences, behind which there may be more.
    Fence(u64),
}

/// What has been read, and may have to be read again.
enum Pending {
    Chunk {
        start: u64,
        end: u64,
        sort: Sort,
        disagrees: Option<Disagreement>,
        may_be_cache: bool,
    },
    Fence {
        start: u64,
        end: u64,
    },
}

impl Pending {
    const fn start(&self) -> u64 {
        match self {
            Self::Chunk { start, .. } | Self::Fence { start, .. } => *start,
        }
    }
}

struct Walk<'m, 'a, 's> {
    memory: &'m mut Memory<'a>,
    /// Its end moves when memory is added.
    segment: Segment,
    around: &'s Surroundings<'s>,
    top: u64,
    tally: Tally,
    pending: VecDeque<Pending>,
    /// The next chunk in the fastbins.
    fast: usize,
}

impl Walk<'_, '_, '_> {
    /// Chunks in a row from `start` on.
    fn chunks(&mut self, start: u64) -> Result<Ended, Broken> {
        let mut chunk = start;
        let mut head = self.header(chunk)?.1;
        loop {
            let end = self.segment.range.end;
            let broken = |why| Broken {
                address: chunk,
                why,
            };
            let size = head & !FLAGS;
            if chunk == self.top {
                return self.top(chunk, size).map_err(broken);
            }
            if size == 0 && self.segment.kind == Kind::Heap && chunk + FENCE == end {
                self.push(Pending::Fence { start: chunk, end });
                return Ok(Ended::Whole);
            }
            if size != FENCE && (size < SMALLEST || !size.is_multiple_of(16)) {
                return Err(broken(Why::Size(head)));
            }
            let foreign = self.segment.kind == Kind::Main && head & NON_MAIN_ARENA != 0;
            if head & IS_MMAPPED != 0 || foreign {
                return Err(broken(Why::Flags(head)));
            }
            if size >= end.saturating_sub(chunk) {
                // Two fences end a piece of the main arena, the second of them perhaps memory.
                if size == FENCE && size == end.saturating_sub(chunk) {
                    self.push(Pending::Fence { start: chunk, end });
                    return Ok(Ended::Fence(end));
                }
                return Err(broken(Why::Beyond(head, end)));
            }
            let next = chunk.saturating_add(size);
            let (behind, next_head) = self.header(next)?;
            if size == FENCE {
                self.push(Pending::Fence {
                    start: chunk,
                    end: next,
                });
                if self.segment.kind == Kind::Main && next_head & !FLAGS == FENCE {
                    let end = next + FENCE;
                    self.push(Pending::Fence { start: next, end });
                    return Ok(Ended::Fence(end));
                }
            } else {
                self.sort(chunk, next, next_head & PREV_INUSE != 0, behind);
            }
            chunk = next;
            head = next_head;
        }
    }

    fn sort(&mut self, start: u64, end: u64, in_use: bool, behind: u64) {
        let sort = if !in_use {
            Sort::Free
        } else if self.is_fast(start) {
            Sort::Fast
        } else {
            Sort::InUse
        };
        let size = end - start;
        let tcache = &self.around.layout.tcache;
        let most = self.around.most_cached;
        let may_be_cache = sort == Sort::InUse
            && tcache.fits_in(size)
            && may_be_cache(self.memory, tcache, most, start);
        let disagrees = (sort == Sort::Free && behind != size).then(|| Disagreement {
            chunk: start,
            front: size,
            behind,
            from: self.pending.front().map_or(start, Pending::start),
        });
        self.push(Pending::Chunk {
            start,
            end,
            sort,
            disagrees,
            may_be_cache,
        });
    }

    /// Chunks go by in order of address, and so do those of the fastbins.
    fn is_fast(&mut self, chunk: u64) -> bool {
        let chunks = &self.around.fast.chunks;
        while chunks.get(self.fast).is_some_and(|fast| *fast < chunk) {
            self.fast += 1;
        }
        chunks.get(self.fast) == Some(&chunk)
    }

    fn rewind_fast(&mut self, to: u64) {
        let chunks = &self.around.fast.chunks;
        self.fast = chunks.partition_point(|chunk| *chunk < to);
    }

    fn push(&mut self, pending: Pending) {
        if self.pending.len() == PENDING {
            self.count_first();
        }
        self.pending.push_back(pending);
    }

    fn count_all(&mut self) {
        while !self.pending.is_empty() {
            self.count_first();
        }
    }

    fn count_first(&mut self) {
        match self.pending.pop_front() {
            None => {}
            Some(Pending::Fence { start, end }) => self.tally.fence(start..end),
            Some(Pending::Chunk {
                start,
                end,
                sort,
                disagrees,
                may_be_cache,
            }) => {
                let disagreed = &mut self.tally.disagreed;
                if disagreed.len() < MOST_DISAGREED {
                    disagreed.extend(disagrees);
                }
                if may_be_cache && self.tally.caches.len() < MOST_CACHES {
                    self.tally.caches.push(start);
                }
                self.tally.chunk(start..end, sort, self.memory);
            }
        }
    }

    /// Takes back the last chunks, and returns where to go on: `None` where there were none.
    /// Everything there is read again, and so is where the arena ends.
    fn take_back(&mut self, count: usize) -> Option<u64> {
        self.memory.forget();
        self.refresh();
        let kept = self.pending.len().saturating_sub(count);
        let first = self.pending.get(kept)?.start();
        self.pending.truncate(kept);
        self.rewind_fast(first);
        Some(first)
    }

    /// Memory may have been added meanwhile, and the top be elsewhere.
    fn refresh(&mut self) {
        let field = self.around.arena + self.around.layout.state.top;
        let Ok(top) = self.memory.stray_word(field) else {
            return;
        };
        self.top = top;
        let range = &mut self.segment.range;
        let end = match self.segment.kind {
            Kind::Heap => HeapInfo::read(self.memory, self.segment.base)
                .ok()
                .filter(|info| info.arena == self.around.arena)
                .and_then(|info| self.segment.base.checked_add(info.size))
                .filter(|end| end.saturating_sub(self.segment.base) <= self.segment.longest),
            // The brk goes up and down with the top.
            Kind::Main if self.around.brk == Some(range.end) && top >= range.start => self
                .memory
                .stray_word(top.saturating_add(8))
                .ok()
                .and_then(|head| top.checked_add(head & !FLAGS))
                .filter(|end| end.saturating_sub(range.start) <= self.segment.longest),
            Kind::Main => None,
        };
        if let Some(end) = end.filter(|end| *end > range.start) {
            range.end = end;
        }
    }

    fn top(&mut self, chunk: u64, size: u64) -> Result<Ended, Why> {
        let limit = self.segment.range.end;
        let end = chunk
            .checked_add(size)
            .filter(|end| *end <= limit && size >= 16);
        // A heap ends where its top does; the main arena may have somebody else's memory behind.
        let end = end
            .filter(|end| self.segment.kind == Kind::Main || *end == limit)
            .ok_or(Why::Top(size, limit))?;
        self.count_all();
        // It may have grown meanwhile; a piece off the brk lies above it and does not move it.
        let start = self.segment.range.start;
        let at_brk = self.around.brk.is_some_and(|brk| start < brk && end >= brk);
        let shrinks = self.segment.kind == Kind::Main && at_brk;
        let step = shrinks.then_some(self.around.trim_step);
        self.tally.top(chunk..end, step, self.memory);
        Ok(Ended::Whole)
    }

    fn expects_top(&self, from: u64) -> bool {
        self.tally.top.is_none() && (from..self.segment.range.end).contains(&self.top)
    }

    /// Where chunks go on behind memory of somebody else: headers that follow on each other.
    fn resume(&mut self, from: u64) -> Option<u64> {
        let end = self.segment.range.end;
        let mut at = from.next_multiple_of(16);
        while let Some(address) = self.memory.next_readable(at, end) {
            at = address.next_multiple_of(16);
            let Ok((_, head)) = self.memory.header(at) else {
                at = (at / self.memory.page() + 1) * self.memory.page();
                continue;
            };
            let is_first = head & (PREV_INUSE | IS_MMAPPED) == PREV_INUSE;
            let (kind, range) = (self.segment.kind, &self.segment.range);
            let begins = is_first && begins_chunks(self.memory, kind, at, head, range, self.top);
            match begins.then(|| self.foreign_end(at)) {
                Some(None) => return Some(at),
                Some(Some(end)) => at = end,
                None => at += 16,
            }
        }
        None
    }

    /// Where chunks end that lead to the top of another main arena, and so are not of this one.
    fn foreign_end(&mut self, start: u64) -> Option<u64> {
        let range = start..self.segment.range.end;
        let mut foreign = self.around.foreign_tops.iter();
        if !foreign.any(|top| range.contains(top)) {
            return None;
        }
        let mut chunk = start;
        while range.contains(&chunk) && chunk != self.top {
            let (_, head) = self.memory.header(chunk).ok()?;
            let size = head & !FLAGS;
            if self.around.foreign_tops.contains(&chunk) {
                return chunk.checked_add(size.max(16));
            }
            if size <= FENCE {
                return None;
            }
            chunk = chunk.checked_add(size)?;
        }
        None
    }

    fn header(&mut self, chunk: u64) -> Result<(u64, u64), Broken> {
        self.memory.header(chunk).map_err(|unread| Broken {
            address: chunk,
            why: Why::Unread(unread),
        })
    }

    fn finish(mut self, broken: Option<Broken>, stable: bool, reread: u64) -> Walked {
        self.count_all();
        self.tally.finish(self.memory);
        Walked {
            tally: self.tally,
            broken,
            stable,
            reread,
        }
    }
}
