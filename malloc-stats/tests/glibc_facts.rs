//! What glibc's malloc does, as far as the meaning of a snapshot hangs on it. When a new libc
//! breaks one of these, the reading of its numbers has to change.

#![cfg(target_env = "gnu")]
#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

mod own_process;

use std::ffi::{c_int, c_void};

use malloc_stats::{Allocator, Mallinfo, Reader, glibc};
use own_process::in_own_process;

/// Tests run on threads of their own; with one arena, those share the main one.
const MAIN_ARENA: &[(&str, &str)] = &[("MALLOC_ARENA_MAX", "1")];

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const M_TRIM_THRESHOLD: c_int = -1;
const M_MMAP_THRESHOLD: c_int = -3;

/// Blocks of malloc, touched, and freed when asked.
struct Blocks(Vec<*mut c_void>);

impl Blocks {
    fn allocate(count: usize, bytes: usize) -> Self {
        // The list itself is large enough to be mmapped only if it must be.
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(block(bytes));
        }
        Self(blocks)
    }

    fn free(&mut self) {
        for block in self.0.drain(..) {
            release(block);
        }
    }
}

fn block(bytes: usize) -> *mut c_void {
    // SAFETY: malloc may be asked for any size; the block is written within its size.
    unsafe {
        let block = libc::malloc(bytes);
        assert!(!block.is_null());
        libc::memset(block, 1, bytes)
    }
}

fn release(block: *mut c_void) {
    // SAFETY: every block comes from `block`, and is given up here.
    unsafe { libc::free(block) }
}

fn set(knob: c_int, value: usize) {
    // SAFETY: mallopt takes any pair of numbers; 1 means it took them.
    let taken = unsafe { libc::mallopt(knob, c_int::try_from(value).expect("a small value")) };
    assert_eq!(taken, 1);
}

fn trim() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe { libc::malloc_trim(0) };
}

fn read() -> Mallinfo {
    glibc::mallinfo().expect("these tests are built for glibc 2.33 or later")
}

/// Resident anonymous memory in MiB.
fn resident() -> f64 {
    let reader = Reader::new(Allocator::default()).expect("/proc is mounted");
    let anon = reader
        .bracket()
        .process
        .anon
        .bytes()
        .expect("Linux 4.5 or later");
    anon as f64 / MIB as f64
}

#[test]
fn trim_is_virtual_in_fordblks() {
    in_own_process("trim_is_virtual_in_fordblks", MAIN_ARENA, || {
        set(M_MMAP_THRESHOLD, 32 * MIB);
        let mut freed = Blocks::allocate(320, 64 * KIB);
        // Of the same size, so that no hole below is left for it.
        let pin = block(64 * KIB);
        freed.free();
        let (free_before, resident_before) = (read().fordblks, resident());
        trim();
        let (free_after, resident_after) = (read().fordblks, resident());
        assert!(free_before > 19 << 20, "{free_before}");
        assert!(
            free_after > 19 << 20,
            "fordblks {free_before} -> {free_after}"
        );
        assert!(
            resident_after < resident_before - 18.0,
            "{resident_before} -> {resident_after} MiB"
        );
        release(pin);
    });
}

/// `keepcost` and `fordblks` before and after 8 MiB were used and freed, right under the top.
fn after_freeing_a_top() -> (Mallinfo, Mallinfo) {
    set(M_TRIM_THRESHOLD, 512 * MIB);
    let before = read();
    Blocks::allocate(128, 64 * KIB).free();
    let after = read();
    assert!(
        after.fordblks > before.fordblks + (7 << 20),
        "{before:?} {after:?}"
    );
    (before, after)
}

#[test]
fn keepcost_is_the_main_top_only() {
    in_own_process("keepcost_is_the_main_top_only", &[], || {
        // Not the first thread, so not in the main arena.
        let thread = std::thread::spawn(after_freeing_a_top);
        let (before, after) = thread.join().expect("joins");
        assert!(
            after.keepcost < before.keepcost + (1 << 20),
            "{before:?} {after:?}"
        );
    });
}

#[test]
fn keepcost_grows_with_the_main_top() {
    in_own_process("keepcost_grows_with_the_main_top", MAIN_ARENA, || {
        let (before, after) = after_freeing_a_top();
        assert!(
            after.keepcost > before.keepcost + (7 << 20),
            "{before:?} {after:?}"
        );
    });
}

/// How many blocks of nearly 16 MiB are mmapped after one of 16 MiB was, and was freed.
fn mmapped_again() -> u64 {
    let before = read().hblks;
    let first = block(16 * MIB);
    assert_eq!(read().hblks, before + 1, "the first is mmapped");
    release(first);
    assert_eq!(read().hblks, before);
    let second = block(15 * MIB);
    let mmapped = read().hblks - before;
    release(second);
    mmapped
}

#[test]
fn freeing_a_big_mmapped_chunk_raises_the_mmap_threshold() {
    in_own_process(
        "freeing_a_big_mmapped_chunk_raises_the_mmap_threshold",
        MAIN_ARENA,
        || {
            assert_eq!(mmapped_again(), 0);
        },
    );
}

#[test]
fn setting_one_threshold_stops_the_dynamics() {
    in_own_process(
        "setting_one_threshold_stops_the_dynamics",
        MAIN_ARENA,
        || {
            set(M_TRIM_THRESHOLD, MIB);
            assert_eq!(mmapped_again(), 1);
        },
    );
}

#[test]
fn tops_of_secondary_arenas_are_not_trimmed() {
    in_own_process("tops_of_secondary_arenas_are_not_trimmed", &[], || {
        set(M_TRIM_THRESHOLD, 512 * MIB);
        let before = resident();
        std::thread::spawn(|| Blocks::allocate(512, 64 * KIB).free())
            .join()
            .expect("joins");
        let freed = resident();
        assert!(freed > before + 30.0, "{before} -> {freed} MiB");
        trim();
        let trimmed = resident();
        assert!(trimmed > before + 30.0, "{freed} -> {trimmed} MiB");
    });
}

#[test]
fn tcache_blocks_count_as_in_use() {
    in_own_process("tcache_blocks_count_as_in_use", MAIN_ARENA, || {
        let blocks = [(); 7].map(|()| block(504));
        let before = read();
        blocks.into_iter().for_each(release);
        assert_eq!(read().uordblks, before.uordblks);
        assert_eq!(read().fordblks, before.fordblks);
    });
}

#[test]
fn usmblks_is_always_zero() {
    in_own_process("usmblks_is_always_zero", MAIN_ARENA, || {
        let mut blocks = Blocks::allocate(64, 64 * KIB);
        let big = block(4 * MIB);
        assert_eq!(read().usmblks, 0);
        release(big);
        blocks.free();
        assert_eq!(read().usmblks, 0);
    });
}

#[test]
fn a_pin_under_the_top_stops_automatic_shrinking_but_not_trim() {
    in_own_process(
        "a_pin_under_the_top_stops_automatic_shrinking_but_not_trim",
        MAIN_ARENA,
        || {
            set(M_MMAP_THRESHOLD, 32 * MIB);
            let empty = resident();
            Blocks::allocate(320, 64 * KIB).free();
            let without_pin = resident();
            assert!(
                without_pin < empty + 2.0,
                "shrinks by itself: {empty} -> {without_pin} MiB"
            );

            let mut blocks = Blocks::allocate(320, 64 * KIB);
            // Of the same size, so that no hole below is left for it.
            let pin = block(64 * KIB);
            blocks.free();
            let pinned = resident();
            assert!(pinned > empty + 18.0, "stays: {empty} -> {pinned} MiB");
            trim();
            let trimmed = resident();
            assert!(
                trimmed < empty + 2.0,
                "trim reaches below: {pinned} -> {trimmed} MiB"
            );
            release(pin);
        },
    );
}
