//! The walk as a whole: find, survey, count, and look again at what was torn.

use std::ops::Range;

use super::cached::{self, Caches, Fast, thread_cache};
use super::chunks::{Seen, Wanted};
use super::coverage::granule_for;
use super::discover::{self, Candidate, within};
use super::follow::{self, Surroundings, Walked};
use super::layout::{self, Layout};
use super::memory::Memory;
use super::report::{Address, Evidence, Fault, Heap};
use super::segment::{Broken, Segment, Why};
use super::space::AddressSpace;
use super::state::{Counters, State};
use super::survey::Survey;
use super::tally::Disagreement;
use super::{HeapError, Options, assemble};

/// How often the walk of one heap waits for it to come to rest, at most: one that never does, or is
/// made up, must not hold the walk up stretch by stretch.
const MOST_WAITS: u32 = 256;
/// Faults that are kept of one heap, at most.
const MOST_FAULTS: usize = 64;
/// A thread's cache keeps at most so many blocks of a size, whatever the settings.
const MOST_CACHED: u64 = 0xffff;

/// Every glibc heap in the space, the one that holds most first.
pub(super) fn heaps(space: &dyn AddressSpace, options: &Options) -> Result<Vec<Heap>, HeapError> {
    let (mut heaps, refused) = each(space, options, None, assemble::heap)?;
    heaps.sort_by_key(|heap: &Heap| std::cmp::Reverse(heap.totals.held.bytes()));
    if let Some(first) = heaps.first_mut() {
        let also = |error: &HeapError| format!("another heap is not reported: {error}");
        first.notes.extend(refused.iter().map(also));
    }
    Ok(heaps)
}

/// What `make` makes of the walk of each heap, of one at least, and why others are left out.
pub(super) fn each<T>(
    space: &dyn AddressSpace,
    options: &Options,
    wanted: Option<&Wanted>,
    mut make: impl FnMut(&mut Memory<'_>, Walk) -> T,
) -> Result<(Vec<T>, Vec<HeapError>), HeapError> {
    let mut memory = Memory::new(space, options.window);
    let found = discover::find(&mut memory, &options.libcs);
    if found.is_empty() {
        return Err(nothing_found(space, options));
    }
    if options.unless_locked {
        for candidate in found.iter().filter_map(|candidates| candidates.first()) {
            idle(&mut memory, candidate)?;
        }
    }
    let tops: Vec<(u64, u64)> = found
        .iter()
        .filter_map(|candidates| {
            let main = candidates.first()?;
            let state = State::read(&mut memory, main.layout, main.main_arena()).ok()?;
            Some((state.address, state.top))
        })
        .collect();
    let mut made = Vec::new();
    let mut refused = Vec::new();
    for candidates in &found {
        let own = candidates.first().map_or(0, Candidate::main_arena);
        let foreign: Vec<u64> = tops
            .iter()
            .filter(|(arena, _)| *arena != own)
            .map(|(_, top)| *top)
            .collect();
        match best(&mut memory, candidates, &foreign, options, wanted) {
            Ok(walk) => made.push(make(&mut memory, walk)),
            Err(error) => refused.push(error),
        }
    }
    if made.is_empty() {
        return Err(refused.into_iter().next().unwrap_or(HeapError::NoArena));
    }
    Ok((made, refused))
}

/// Whether nobody holds the lock of an arena.
fn idle(memory: &mut Memory<'_>, candidate: &Candidate) -> Result<(), HeapError> {
    let mut arenas = candidate.ring.iter();
    let locked = arenas.position(|arena| {
        State::read(memory, candidate.layout, *arena).is_ok_and(|state| state.locked)
    });
    locked.map_or(Ok(()), |arena| Err(HeapError::MidOperation { arena }))
}

/// Without any arena: a C library that is too new may be the reason.
fn nothing_found(space: &dyn AddressSpace, options: &Options) -> HeapError {
    let newer = options
        .libcs
        .iter()
        .find(|libc| libc.version > Layout::newest());
    let object = newer.and_then(|libc| {
        let same = |m: &&crate::mappings::Mapping| (m.device, m.inode) == (libc.device, libc.inode);
        let mapping = space.mappings().iter().find(same)?;
        Some((mapping.path()?.to_string_lossy().into_owned(), libc.version))
    });
    match object {
        Some((object, (major, minor))) => HeapError::UnknownLayout {
            object,
            known: layout::known(),
            reason: format!("it is glibc {major}.{minor}, and no bin table was found in it"),
        },
        None => HeapError::NoArena,
    }
}

/// The walk by the layout that fits. A version that names itself leaves no choice; else the layout
/// is taken by which every list and every stretch of memory comes out even.
fn best(
    memory: &mut Memory<'_>,
    candidates: &[Candidate],
    foreign_tops: &[u64],
    options: &Options,
    wanted: Option<&Wanted>,
) -> Result<Walk, HeapError> {
    let walks = candidates
        .iter()
        .map(|candidate| Walk::new(memory, candidate, foreign_tops, options, wanted));
    // The first of equals: the newest.
    let walk = walks.min_by_key(Walk::misfits).ok_or(HeapError::NoArena)?;
    let guessed = walk.candidate.evidence == Evidence::Structure;
    if let Some((reason, moving)) = walk.unsound().filter(|_| guessed) {
        let object = walk.candidate.object.clone();
        return Err(if moving {
            HeapError::InMotion { object, reason }
        } else {
            HeapError::UnknownLayout {
                object,
                known: layout::known(),
                reason,
            }
        });
    }
    Ok(walk)
}

/// Where the stretches of memory are; again, where that comes out uneven, as it may for a moment.
fn look_around(memory: &mut Memory<'_>, candidate: &Candidate, options: &Options) -> Survey {
    let mut survey = Survey::new(memory, candidate);
    // Nothing moves in a process that is stopped.
    for _ in 0..options.retries {
        if survey.faults.is_empty() {
            break;
        }
        std::thread::sleep(options.retry_pause);
        memory.forget();
        let mut again = Survey::new(memory, candidate);
        again.doubt(&survey);
        let sure = again.faults.iter().all(|fault| fault.stable);
        survey = again;
        if sure {
            break;
        }
    }
    survey
}

/// One stretch of memory, after the last try.
pub(super) struct Done {
    pub(super) segment: Segment,
    pub(super) walked: Walked,
    pub(super) tries: u32,
}

/// A whole heap, counted.
pub(super) struct Walk {
    pub(super) candidate: Candidate,
    foreign_tops: Vec<u64>,
    /// How often it may still wait.
    waits: u32,
    pub(super) survey: Survey,
    pub(super) done: Vec<Done>,
    pub(super) caches: Caches,
    /// Of each arena: whether its lists of fast chunks were whole, and all of them met.
    pub(super) fast_agrees: Vec<bool>,
    /// Of each arena: whether its state was the same before and after.
    pub(super) quiet: Vec<bool>,
    /// `mp_` as it was after the walk.
    pub(super) counters: Option<Counters>,
    /// Whether it was the same before.
    pub(super) counters_quiet: bool,
    pub(super) faults: Vec<Fault>,
    /// Of each arena whose heaps could not all be found, the bytes of those.
    pub(super) lost: Vec<u64>,
    /// Chunks whose two sizes disagreed for a moment.
    pub(super) disagreed: u64,
    /// How often some chunks were read again.
    pub(super) reread: u64,
    /// The chunks that were asked for.
    pub(super) seen: Seen,
}

/// Where stretches of memory lie, and may lie after they have grown; in order of address.
fn reach(segments: &[Segment]) -> Vec<Range<u64>> {
    let longest = |s: &Segment| s.base..s.base.saturating_add(s.longest);
    let mut reach: Vec<Range<u64>> = segments.iter().map(longest).collect();
    reach.sort_by_key(|range| range.start);
    for next in (1..reach.len()).rev() {
        reach[next - 1].end = reach[next - 1].end.min(reach[next].start);
    }
    reach
}

impl Walk {
    fn new(
        memory: &mut Memory<'_>,
        candidate: &Candidate,
        foreign_tops: &[u64],
        options: &Options,
        wanted: Option<&Wanted>,
    ) -> Self {
        memory.forget();
        let mut survey = look_around(memory, candidate, options);
        let lost = survey.lost();
        let bytes = survey.segments.iter().map(|s| s.range.end - s.range.start);
        let granule = granule_for(bytes.fold(0, u64::saturating_add), memory.page());
        let mut walk = Self {
            candidate: candidate.clone(),
            foreign_tops: foreign_tops.to_vec(),
            waits: MOST_WAITS,
            done: Vec::with_capacity(survey.segments.len()),
            caches: Caches::default(),
            fast_agrees: Vec::with_capacity(survey.states.len()),
            quiet: Vec::with_capacity(survey.states.len()),
            counters: candidate.counters.clone(),
            counters_quiet: false,
            faults: std::mem::take(&mut survey.faults),
            lost,
            disagreed: 0,
            reread: 0,
            seen: Seen::default(),
            survey,
        };
        for arena in 0..walk.survey.states.len() {
            let wanted = wanted.filter(|wanted| wanted.arena == arena);
            walk.arena(memory, arena, granule, options, wanted);
        }
        walk.read_caches(memory);
        walk.look_again(memory);
        walk.faults.truncate(MOST_FAULTS);
        walk
    }

    fn arena(
        &mut self,
        memory: &mut Memory<'_>,
        arena: usize,
        granule: u64,
        options: &Options,
        wanted: Option<&Wanted>,
    ) {
        let layout = self.candidate.layout;
        let mut state = self.survey.states[arena].clone();
        let segments = self.survey.segments.iter();
        let segments: Vec<Segment> = segments.filter(|s| s.arena == arena).cloned().collect();
        let own = reach(&segments);
        let mut fast = Fast::read(memory, layout, &state, &own);
        let mut met = 0;
        for segment in segments {
            let mut tries = 0;
            let mut before = None;
            let mut walked = loop {
                let around = Surroundings {
                    wanted,
                    ..self.surroundings(memory, &fast, &state, granule, options)
                };
                let last = tries == options.retries || self.waits == 0;
                let mut walked = follow::walk(memory, &segment, &around, last);
                tries += 1;
                // The same bytes at once prove nothing: whoever changes them may be waiting for a
                // processor, perhaps this one.
                walked.stable &= options.retries == 0 || before == walked.broken;
                if last || walked.broken.is_none() || walked.stable {
                    break walked;
                }
                before = walked.broken;
                self.wait(options);
                memory.forget();
                // A read that fails now fails in the walk as well.
                if let Ok(now) = State::read(memory, layout, state.address) {
                    state = now;
                    fast = Fast::read(memory, layout, &state, &own);
                }
            };
            if let Some(Broken { address, why }) = walked.broken {
                self.fault(arena, address, why, walked.stable && !state.locked);
            }
            if let (Some(wanted), Some(recording)) = (wanted, walked.tally.recording.take()) {
                self.seen.add(recording, wanted.most);
            }
            self.reread += walked.reread;
            met += walked.tally.fast.count;
            self.confirm(
                memory,
                arena,
                &walked.tally.disagreed,
                state.locked,
                options,
            );
            self.done.push(Done {
                segment,
                walked,
                tries,
            });
        }
        self.fast_agrees
            .push(!fast.torn && met == fast.chunks.len() as u64);
    }

    fn wait(&mut self, options: &Options) {
        self.waits = self.waits.saturating_sub(1);
        std::thread::sleep(options.retry_pause);
    }

    fn surroundings<'s>(
        &'s self,
        memory: &Memory<'_>,
        fast: &'s Fast,
        state: &State,
        granule: u64,
        options: &Options,
    ) -> Surroundings<'s> {
        let settings = self.counters.as_ref().map(|counters| &counters.settings);
        let huge = settings.map_or(0, |settings| settings.thp_pagesize);
        Surroundings {
            layout: self.candidate.layout,
            fast,
            arena: state.address,
            top: state.top,
            trim_step: if huge > 0 { huge } else { memory.page() },
            brk: self.survey.brk,
            most_cached: settings.map_or(MOST_CACHED, |settings| settings.tcache_count),
            granule,
            foreign_tops: &self.foreign_tops,
            stopped: options.stopped,
            wanted: None,
        }
    }

    fn fault(&mut self, arena: usize, address: u64, why: Why, stable: bool) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault {
                arena,
                address: Address(address),
                reason: why.words(),
                // What was not read says nothing of what is there.
                stable: stable && !matches!(why, Why::Unread(_)),
            });
        }
    }

    /// Looks again at chunks whose two records of their size disagreed. While a chunk is split or
    /// joined they do for an instant; where they still do, unchanged, the heap is corrupt.
    fn confirm(
        &mut self,
        memory: &mut Memory<'_>,
        arena: usize,
        disagreed: &[Disagreement],
        locked: bool,
        options: &Options,
    ) {
        let mut left = disagreed.to_vec();
        if self.waits == 0 {
            // What was not looked at again proves nothing.
            left.clear();
        }
        for _ in 0..options.retries.max(1) {
            if left.is_empty() {
                break;
            }
            self.wait(options);
            memory.forget_contents();
            left.retain(|found| follow::still_disagrees(memory, found));
        }
        self.disagreed += (disagreed.len() - left.len()) as u64;
        for found in left {
            let why = Why::Disagree(found.front, found.behind);
            self.fault(arena, found.chunk, why, !locked);
        }
    }

    fn read_caches(&mut self, memory: &mut Memory<'_>) {
        let segments = self.survey.segments.iter();
        let mut ranges: Vec<_> = segments.map(|segment| segment.range.clone()).collect();
        ranges.sort_by_key(|range| range.start);
        let is_heap = |address: u64| within(&ranges, address);
        let settings = self.counters.as_ref().map(|counters| &counters.settings);
        let most = settings.map_or(MOST_CACHED, |settings| settings.tcache_count);
        let layout = self.candidate.layout;
        let (mut caches, mut room) = (Vec::new(), cached::MOST_CACHED);
        for chunk in self.done.iter().flat_map(|done| &done.walked.tally.caches) {
            if let Some(cache) = thread_cache(memory, layout, most, *chunk, &is_heap, room) {
                room -= cache.chunks.len();
                caches.push(cache);
            }
        }
        self.caches = Caches::new(caches);
    }

    /// Whether anything happened meanwhile.
    fn look_again(&mut self, memory: &mut Memory<'_>) {
        memory.forget_contents();
        for state in &self.survey.states {
            let now = State::read(memory, self.candidate.layout, state.address);
            self.quiet.push(now.is_ok_and(|now| now.same(state)));
        }
        if let Some(before) = self.counters.take() {
            let now = Counters::read(memory, self.candidate.layout, before.address);
            self.counters_quiet = now.as_ref() == Some(&before);
            self.counters = Some(now.unwrap_or(before));
        }
    }

    /// How badly a layout fits, where it is not known.
    fn misfits(&self) -> usize {
        let torn_caches = usize::from(self.caches.torn);
        let uneven = self.fast_agrees.iter().filter(|agrees| !**agrees).count();
        let odd = self.done.iter().filter(|done| done.walked.broken.is_some());
        let stray = usize::from(self.counters.is_none());
        // Without any thread cache a layout with the wrong one cannot be told from the right one.
        let uncached = usize::from(self.caches.is_empty());
        16 * (self.faults.len() + odd.count() + uneven + torn_caches + stray) + uncached
    }

    /// What does not come out even, and whether that may be because it moves.
    fn unsound(&self) -> Option<(String, bool)> {
        let stable = self.faults.iter().find(|fault| fault.stable);
        if let Some(fault) = stable.or(self.faults.first()) {
            let Fault {
                arena,
                address,
                reason,
                ..
            } = fault;
            let reason = format!("in arena {arena}, at {address}: {reason}");
            return Some((reason, !fault.stable));
        }
        if self.counters.is_none() {
            return Some(("its parameters (mp_) were not found".to_owned(), false));
        }
        // In motion they need not.
        let mut fast = self.fast_agrees.iter().zip(&self.quiet);
        let uneven = fast.position(|(agrees, quiet)| !agrees && *quiet);
        uneven.map(|arena| {
            let reason = format!("the fastbins of arena {arena} do not come out even");
            (reason, false)
        })
    }
}
