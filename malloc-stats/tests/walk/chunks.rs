//! Chunks one by one: in real processes they are the blocks that the program has, and come to the
//! sums of the walk.

use std::ops::Range;

use malloc_stats::Metric;
use malloc_stats::heap::{Arena, Chunk, ChunkState, ChunksSeen, Heap, HeapError};
use malloc_stats::inspect::{self, ChunksError, InspectError};

use crate::glibcs::{self, Glibc};
use crate::look;
use crate::target::Target;
use crate::truth::{Block, MAIN_ARENA, MMAPPED, State, Truth};

/// Between what `malloc` returned and where its chunk begins.
const HEADER: u64 = 16;

fn seen(pid: u32, arena: usize, range: Range<u64>) -> ChunksSeen {
    let target = inspect::Target::open(pid).unwrap();
    inspect::chunks(&target, arena, range, usize::MAX).unwrap()
}

fn whole(pid: u32, arena: &Arena) -> ChunksSeen {
    let seen = seen(pid, arena.index, arena.coverage.span().unwrap());
    assert_eq!((seen.beyond, &seen.notes), (0, &Vec::new()));
    seen
}

/// With the process, what it says of itself and what the walk finds, on every glibc.
fn on_every_glibc(arguments: &str, check: impl Fn(&mut Target, &Truth, &Heap)) {
    for glibc in Glibc::all() {
        let Some(mut command) = glibc.heap() else {
            continue;
        };
        command.args(arguments.split(' '));
        let (mut target, truth) = Target::start::<Truth>(command, &[]).unwrap();
        let heaps = look::heaps(truth.pid).unwrap();
        check(&mut target, &truth, &heaps[0]);
    }
}

/// The same, and looking changed nothing.
fn at_rest(arguments: &str, check: impl Fn(&Truth, &Heap)) {
    on_every_glibc(arguments, |target, truth, heap| {
        check(truth, heap);
        let again: Truth = target.ask("again");
        assert_eq!(again.mallinfo, truth.mallinfo, "{arguments}");
    });
}

/// How many, and their bytes.
fn of(chunks: &[Chunk], states: &[ChunkState]) -> (u64, u64) {
    let chunks = chunks.iter().filter(|chunk| states.contains(&chunk.state));
    chunks.fold((0, 0), |(count, bytes), chunk| {
        (count + 1, bytes + chunk.size)
    })
}

fn arena_of<'h>(heap: &'h Heap, block: &Block) -> &'h Arena {
    let mut arenas = heap.arenas.iter();
    let own = arenas.find(|arena| match block.arena {
        MAIN_ARENA => arena.is_main(),
        address => arena.address == address,
    });
    own.unwrap_or_else(|| panic!("no arena of {block:?}"))
}

const SHAPES: [&str; 8] = [
    "1",
    "4",
    "4 reshape",
    "4 sbrk=3",
    "4 fence",
    "2 heaps=150",
    "4 given_up=6",
    "4 mxfast=160",
];

#[test]
fn they_come_to_the_sums_of_the_walk() {
    use ChunkState::{Cached, Free, InUse, Top};
    for arguments in SHAPES {
        at_rest(arguments, |truth, heap| {
            let mut heads = Vec::new();
            for arena in &heap.arenas {
                let seen = whole(truth.pid, arena);
                let chunks = &seen.chunks;
                let name = format!("arena {} of {arguments}, {}", arena.index, truth.version);
                let (in_use, used) = of(chunks, &[InUse, Cached]);
                assert_eq!(in_use, arena.chunks_in_use, "{name}");
                assert_eq!(of(chunks, &[Free]).0, arena.chunks_free, "{name}");
                let (_, free) = of(chunks, &[Free, Top]);
                assert_eq!(Metric::Exact(free), arena.free, "{name}");
                assert_eq!(of(chunks, &[Top]), (1, arena.top), "{name}");
                let (_, cached) = of(chunks, &[Cached]);
                assert_eq!(Some(cached), arena.cached.bytes(), "{name}");
                let free = chunks.iter().filter(|c| matches!(c.state, Free | Top));
                let resident = free.map(|chunk| chunk.resident).sum();
                assert_eq!(Metric::Exact(resident), arena.free_resident, "{name}");
                // What others took between its pieces malloc may count as its own.
                let broken_up = arguments.contains("sbrk") || arguments.contains("fence");
                if !(arena.is_main() && broken_up) {
                    let head = arena.in_use.bytes().unwrap() - used;
                    heads.push((arena.is_main(), arena.segments, head));
                }
            }
            // Beside chunks in use there are the heads of heaps only.
            for (is_main, segments, head) in heads {
                let most = if is_main { 0 } else { 4096 * segments as u64 };
                assert!(head <= most, "{head} of {most} in {arguments}");
            }
        });
    }
}

#[test]
fn they_are_the_blocks_that_the_program_has() {
    for arguments in SHAPES {
        at_rest(arguments, |truth, heap| {
            let of_arenas: Vec<ChunksSeen> = heap
                .arenas
                .iter()
                .map(|arena| whole(truth.pid, arena))
                .collect();
            for block in truth.blocks.iter().filter(|b| b.arena != MMAPPED) {
                let chunks = &of_arenas[arena_of(heap, block).index].chunks;
                let at = block.address.0 - HEADER;
                let behind = chunks.partition_point(|chunk| chunk.address <= at);
                let chunk = behind.checked_sub(1).map(|index| chunks[index]);
                let chunk = chunk.unwrap_or_else(|| panic!("{block:?} lies before all chunks"));
                let expected = match block.state {
                    State::Live => ChunkState::InUse,
                    State::Cached => ChunkState::Cached,
                    // It may be part of another by now, of one that the C library took for itself
                    // among them, but it is no block in use.
                    State::Freed if truth.recorded_all => {
                        let mut live = truth.in_use().map(|block| block.address.0 - HEADER);
                        let taken = live.any(|live| live == chunk.address);
                        let itself = (chunk.address, chunk.size) == (at, block.usable + 8);
                        let used = chunk.state == ChunkState::InUse;
                        assert!(!(used && itself) || taken, "{block:?} is in {chunk:?}");
                        continue;
                    }
                    State::Freed => continue,
                };
                assert_eq!((chunk.address, chunk.size), (at, block.usable + 8));
                let known = truth.cached_all || block.state == State::Live;
                assert!(!known || chunk.state == expected, "{chunk:?} {block:?}");
            }
            // And no other chunk is in use, but for the caches themselves.
            for address in truth.other_arenas() {
                let own = || truth.in_use().filter(|block| block.arena == address);
                let arena = arena_of(heap, own().next().unwrap());
                let (in_use, _) = of(
                    &of_arenas[arena.index].chunks,
                    &[ChunkState::InUse, ChunkState::Cached],
                );
                let known = own().count() as u64 + truth.caches_in(address);
                assert!(in_use == known || !truth.recorded_all && in_use > known);
            }
        });
    }
}

#[test]
fn a_range_has_those_that_lie_in_it_wholly_or_in_part() {
    for arguments in ["1", "4", "2 heaps=150"] {
        at_rest(arguments, |truth, heap| {
            let target = inspect::Target::open(truth.pid).unwrap();
            for arena in &heap.arenas {
                let all = whole(truth.pid, arena).chunks;
                let (first, last) = (all.len() / 3, all.len() / 2);
                let range = all[first].address + 8..all[last].address + 8;
                let seen = seen(truth.pid, arena.index, range.clone());
                assert_eq!(seen.chunks, all[first..=last], "{range:x?}");
                let few = inspect::chunks(&target, arena.index, range, 3).unwrap();
                assert_eq!(few.chunks, all[first..first + 3]);
                assert_eq!(few.beyond, (last - first - 2) as u64);
            }
        });
    }
}

/// Where the break was stopped, the main arena goes on elsewhere: between its pieces is nothing of
/// it, and a range over the gap has what lies on both sides.
#[test]
fn a_gap_between_pieces_has_none() {
    at_rest("4 fence", |truth, heap| {
        let main = &heap.arenas[0];
        let granule = main.coverage.granule();
        let ends: Vec<Range<u64>> = main
            .coverage
            .stretches()
            .iter()
            .map(|stretch| {
                let granules: u64 = stretch.runs.iter().map(|run| run.count).sum();
                stretch.start..stretch.start + granules * granule
            })
            .collect();
        let gaps = ends.windows(2).map(|pair| pair[0].end..pair[1].start);
        let gap = gaps.max_by_key(|gap| gap.end - gap.start).unwrap();
        assert!(gap.start < gap.end, "{ends:x?}");
        let inside = seen(truth.pid, 0, gap.clone());
        assert_eq!(inside.chunks, []);
        assert!(inside.notes[0].contains("no memory between"));
        let across = seen(truth.pid, 0, gap.start - granule..gap.end + granule);
        let below = |chunk: &Chunk| chunk.address < gap.start;
        assert!(across.chunks.iter().any(below));
        assert!(!across.chunks.iter().all(below));
    });
}

/// The program frees one block more: its chunk, in use before, is a thread's then.
#[test]
fn a_block_that_a_cache_takes_is_seen_there() {
    on_every_glibc("1", |target, truth, _| {
        let kept = |block: &&Block| block.kind == "apart" && block.state == State::Live;
        let blocks: Vec<&Block> = truth.blocks.iter().filter(kept).collect();
        let size = blocks[0].chunk;
        let state_of = |block: &Block| {
            let at = block.address.0 - HEADER;
            let seen = seen(truth.pid, 0, at..at + 1);
            assert_eq!(seen.chunks.len(), 1);
            assert_eq!((seen.chunks[0].address, seen.chunks[0].size), (at, size));
            seen.chunks[0].state
        };
        let first_few = &blocks[..3];
        for block in first_few {
            assert_eq!(state_of(block), ChunkState::InUse);
        }
        let _: Truth = target.ask("free apart");
        for block in first_few {
            assert_eq!(state_of(block), ChunkState::Cached, "{}", truth.version);
        }
    });
}

#[test]
fn an_arena_or_process_that_is_not_there_is_said_to_be_gone() {
    let Some(mut command) = Glibc::INSTALLED.heap() else {
        return;
    };
    command.arg("1");
    let (target, truth) = Target::start::<Truth>(command, &[]).unwrap();
    let process = inspect::Target::open(truth.pid).unwrap();
    let ask = || inspect::chunks(&process, 7, 0..u64::MAX, 10);
    let error = ask().unwrap_err();
    assert!(
        matches!(
            error,
            ChunksError::Heap(HeapError::NoSuchArena { arena: 7, .. })
        ),
        "{error}"
    );
    drop(target);
    let error = ask().unwrap_err();
    assert!(
        matches!(error, ChunksError::Inspect(InspectError::Changed { .. })),
        "{error}"
    );
}

#[test]
fn a_process_without_glibc_has_none_and_the_reason_is_given() {
    let Some(mut command) = glibcs::bare() else {
        return;
    };
    let mut child = command.spawn().unwrap();
    let process = inspect::Target::open(child.id()).unwrap();
    let seen = inspect::chunks(&process, 0, 0..u64::MAX, 10);
    child.kill().unwrap();
    child.wait().unwrap();
    let error = seen.unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, ChunksError::NotWalkable { .. }), "{told}");
    assert!(!told.is_empty());
}
