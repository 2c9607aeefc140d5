//! What the targets say is consistent in itself: tests of the tests.

use crate::glibcs::Glibc;
use crate::malloc_info;
use crate::target::Target;
use crate::truth::{MMAPPED, Truth};

fn on_every_glibc(arguments: &str, check: impl Fn(&Truth)) {
    for glibc in Glibc::all() {
        let Some(mut command) = glibc.heap() else {
            return;
        };
        command.args(arguments.split(' '));
        let (mut target, truth) = Target::start::<Truth>(command, &[]).unwrap();
        assert!(truth.stable, "{glibc}: {:?}", truth.mallinfo);
        let again = Truth {
            sequence: truth.sequence,
            ..target.ask("again")
        };
        assert_eq!(again, truth, "{glibc}: telling it changed it");
        check(&truth);
    }
}

#[test]
fn sums_of_malloc_info_are_those_of_mallinfo() {
    for arguments in [
        "1",
        "8",
        "4 sbrk=3",
        "4 fence",
        "2 heaps=150",
        "4 given_up=6",
    ] {
        on_every_glibc(arguments, |truth| {
            let arenas = malloc_info::arenas(&truth.malloc_info);
            let sum = |of: fn(&malloc_info::ArenaInfo) -> u64| arenas.iter().map(of).sum::<u64>();
            let info = &truth.mallinfo;
            assert_eq!(sum(|arena| arena.current), info.arena, "{arguments}");
            assert_eq!(sum(|arena| arena.fast.size), info.fsmblks, "{arguments}");
            assert_eq!(sum(|arena| arena.fast.count), info.smblks, "{arguments}");
            // Before, malloc_info left out the tops.
            if truth.minor() >= 28 {
                assert_eq!(
                    sum(malloc_info::ArenaInfo::free),
                    info.fordblks,
                    "{arguments}"
                );
                assert_eq!(sum(|arena| arena.rest.count), info.ordblks, "{arguments}");
            }
        });
    }
}

/// So nothing is in those arenas that the target does not tell of, and nothing it says is in use is
/// free.
#[test]
fn the_other_threads_hold_the_known_blocks_and_their_caches() {
    for arguments in ["4", "8", "4 fork", "4 raise=20", "4 mxfast=160"] {
        on_every_glibc(arguments, |truth| {
            assert!(truth.recorded_all && truth.cached_all);
            if truth.minor() < 28 {
                return;
            }
            let arenas = malloc_info::arenas(&truth.malloc_info);
            // What malloc keeps at the start of an arena's first heap, and a thread's cache.
            let own: u64 = match truth.minor() {
                28..=29 => 2240 + 0x250,
                30..=34 => 2240 + 0x290,
                35..=41 => 2256 + 0x290,
                42 => 2256 + 0x300,
                _ => 2160 + 0x300,
            };
            let mut told: Vec<u64> = arenas[1..].iter().map(|arena| arena.in_use()).collect();
            let mut known: Vec<u64> = truth
                .other_arenas()
                .into_iter()
                .map(|arena| {
                    let blocks = truth.in_use().filter(|block| block.arena == arena);
                    own + blocks.map(|block| block.chunk).sum::<u64>()
                })
                .collect();
            told.sort_unstable();
            known.sort_unstable();
            assert_eq!(told, known, "{arguments} on {}", truth.version);
        });
    }
}

#[test]
fn every_arena_has_its_pin_and_every_mapping_its_block() {
    for arguments in ["1", "4", "8", "2 heaps=150", "2 deleted=150"] {
        on_every_glibc(arguments, |truth| {
            let arenas = malloc_info::arenas(&truth.malloc_info).len();
            assert_eq!(truth.pins.len(), arenas, "{arguments} on {}", truth.version);
            let own_mappings = truth.blocks.iter().filter(|block| block.arena == MMAPPED);
            assert_eq!(own_mappings.count() as u64, truth.mallinfo.hblks);
        });
    }
}
