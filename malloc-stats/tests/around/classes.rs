//! Memory is sorted by what it is, and no byte of it twice.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use malloc_stats::inspect::{
    Class, ClassKind, Owned, OwnedRange, Python, Target, classify, find_claims,
};
use malloc_stats::{Grade, Metric};
use proptest::prelude::*;

use crate::memory::Memory;
use crate::processes::Shell;
use crate::smaps::fixture;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn class(classes: &[Class], kind: ClassKind) -> &Class {
    classes.iter().find(|class| class.kind == kind).unwrap()
}

fn heap(range: std::ops::Range<u64>, resident: u64) -> OwnedRange {
    OwnedRange {
        range,
        kind: ClassKind::Malloc,
        resident,
        swapped: 0,
    }
}

#[test]
fn every_sort_of_mapping_has_its_class() {
    let owned = Owned {
        ranges: vec![heap(0x55d0_c100_0000..0x55d0_c140_0000, 4 * MIB)],
        ..Owned::default()
    };
    let (classes, unattributed) = classify(&fixture(), &owned);
    let rss = |kind| class(&classes, kind).rss;
    assert_eq!(rss(ClassKind::Malloc), Metric::Exact(4 * MIB));
    assert_eq!(rss(ClassKind::Objects), Metric::Exact(16 * KIB));
    assert_eq!(
        class(&classes, ClassKind::Objects).anonymous,
        Metric::Exact(4 * KIB)
    );
    assert_eq!(rss(ClassKind::ModelFiles), Metric::Exact(512 * MIB));
    assert_eq!(rss(ClassKind::Files), Metric::Exact(64 * KIB));
    assert_eq!(rss(ClassKind::Shared), Metric::Exact(2304 * KIB));
    assert_eq!(rss(ClassKind::Kernel), Metric::Exact(8 * KIB));
    assert_eq!(rss(ClassKind::PythonArenas), Metric::Estimated(MIB));
    // The first thread's for certain, and one above a guard by its looks.
    assert_eq!(rss(ClassKind::Stacks), Metric::Estimated(148 * KIB));
    assert_eq!(rss(ClassKind::Devices), Metric::Unavailable);
    assert_eq!(class(&classes, ClassKind::Devices).size, MIB);
    let anonymous = class(&classes, ClassKind::Anonymous);
    assert_eq!(anonymous.swap, Metric::Exact(512 * KIB));
    assert_eq!(anonymous.hugetlb, Metric::Exact(4 * MIB));
    assert_eq!(unattributed, Metric::Exact(2 * MIB));
    assert_eq!(class(&classes, ClassKind::Reserved).mappings, 2);
}

#[test]
fn a_mapping_that_malloc_has_a_part_of_is_shared_out_as_an_estimate() {
    let owned = Owned {
        ranges: vec![heap(0x7f00_0010_0000..0x7f00_0020_0000, 512 * KIB)],
        ..Owned::default()
    };
    let (classes, unattributed) = classify(&fixture(), &owned);
    let malloc = class(&classes, ClassKind::Malloc);
    assert_eq!(
        (malloc.size, malloc.rss),
        (MIB, Metric::Estimated(512 * KIB))
    );
    // With the heap, which nobody claimed.
    assert_eq!(unattributed, Metric::Estimated((4096 + 1536) * KIB));
}

#[test]
fn a_stack_is_known_by_who_stands_on_it() {
    let owned = Owned {
        stack_pointers: vec![0x7f00_0000_1234],
        ..Owned::default()
    };
    let (classes, unattributed) = classify(&fixture(), &owned);
    assert_eq!(class(&classes, ClassKind::Stacks).mappings, 3);
    assert_eq!(unattributed, Metric::Exact(4 * MIB));
}

#[test]
fn nothing_read_is_not_nothing_there() {
    let (classes, unattributed) = classify(&[], &Owned::default());
    assert!(classes.is_empty());
    assert_eq!(unattributed, Metric::Unavailable);
}

#[test]
fn shared_memory_and_stacks_of_this_process_are_found() {
    const STACK: usize = 512 << 10;
    let (ready, wait) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ready = ready.clone();
            let (end, ended) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                let deep = std::hint::black_box([1_u8; STACK]);
                ready.send(()).unwrap();
                let _ = ended.recv();
                std::hint::black_box(&deep);
            });
            (end, thread)
        })
        .collect();
    for _ in &threads {
        wait.recv().unwrap();
    }
    // SAFETY: makes a file, and a mapping of it where the kernel finds room, touched within.
    let shared = unsafe {
        let file = libc::memfd_create(c"around".as_ptr(), 0);
        assert_eq!(libc::ftruncate(file, 8 << 20), 0);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(
            std::ptr::null_mut(),
            8 << 20,
            access,
            libc::MAP_SHARED,
            file,
            0,
        );
        libc::memset(map, 1, 4 << 20);
        libc::close(file);
        map
    };
    let target = Target::open(std::process::id()).unwrap();
    let owned = Owned {
        stack_pointers: target.stack_pointers(),
        ..Owned::default()
    };
    assert!(owned.stack_pointers.len() >= 4);
    let (classes, _) = classify(&target.smaps().unwrap(), &owned);
    let stacks = class(&classes, ClassKind::Stacks);
    assert!(
        stacks.anonymous.bytes().unwrap() >= 4 * STACK as u64,
        "{stacks:?}"
    );
    assert_eq!(stacks.rss.grade(), Grade::Estimated);
    let memfd = class(&classes, ClassKind::Shared);
    assert!(memfd.rss.bytes().unwrap() >= 4 * MIB, "{memfd:?}");
    // SAFETY: this mapping was made above, and nobody uses it any more.
    unsafe { libc::munmap(shared, 8 << 20) };
    for (end, thread) in threads {
        drop(end);
        thread.join().unwrap();
    }
}

#[test]
fn arenas_of_cpython_are_found_as_many_as_it_counts() {
    let script = "import sys, os, mmap, subprocess\n\
        kept = [bytes([i % 251]) * (i % 300 + 1) for i in range(400000)]\n\
        other = mmap.mmap(-1, 24 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
        for i in range(0, 24 << 20, 4096): other[i] = 7\n\
        sys._debugmallocstats()\n\
        print('end', file=sys.stderr, flush=True)\n\
        sys.stdin.read()";
    let spawned = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: no python3 here");
        return;
    };
    let said = BufReader::new(child.stderr.take().unwrap());
    let child = Shell(child);
    let mut pools = None;
    for line in said
        .lines()
        .map(Result::unwrap)
        .take_while(|line| line != "end")
    {
        if let Some((_, counts)) = line.split_once(" arenas * ") {
            let bytes = counts.split_once('=').unwrap().1.trim();
            pools = Some(bytes.replace(',', "").parse::<u64>().unwrap());
        }
    }
    let Some(counted) = pools else {
        println!("skipped: this python3 counts no arenas");
        return;
    };
    let target = Target::open(child.0.id()).unwrap();
    if target.readable().is_err() {
        println!("skipped: the memory of a child may not be read here");
        return;
    }
    let entries = target.smaps().unwrap();
    let python = Python::find(entries.iter().map(|entry| &entry.mapping)).unwrap();
    let memory = Memory::of(&target);
    let ranges = find_claims(&memory, &entries, &[], Some(python));
    let zeroed = ranges
        .iter()
        .filter(|range| range.kind == ClassKind::Objects);
    assert!(zeroed.clone().count() > 0);
    assert!(zeroed.map(|claim| claim.resident).sum::<u64>() < 4 * MIB);
    let owned = Owned {
        ranges,
        ..Owned::default()
    };
    let (classes, unattributed) = classify(&entries, &owned);
    let arenas = class(&classes, ClassKind::PythonArenas);
    let found = arenas.rss.bytes().unwrap();
    println!("{python:?} counts {counted} bytes in arenas, {found} were found resident");
    assert!(found <= counted, "{found} of {counted}");
    // The last arena may be used in part.
    assert!(
        found + 4 * python.arena() >= counted,
        "{found} of {counted}"
    );
    assert!(unattributed.bytes().unwrap() >= 24 * MIB, "{unattributed}");
    let all: u64 = classes.iter().filter_map(|class| class.rss.bytes()).sum();
    assert_eq!(all, entries.iter().map(|entry| entry.rss).sum::<u64>());
}

proptest! {
    #[test]
    fn whatever_is_claimed_no_byte_is_lost_or_counted_twice(
        claims in proptest::collection::vec((0_u64..0x1_0000, 1_u64..0x4000, any::<u64>()), 0..20)
    ) {
        let entries = fixture();
        let base = 0x7f00_0000_0000 - 16 * MIB;
        let ranges = claims
            .into_iter()
            .map(|(at, pages, resident)| {
                let start = base + at * 4096;
                heap(start..start + pages * 4096, resident)
            })
            .collect();
        let (classes, _) = classify(&entries, &Owned { ranges, ..Owned::default() });
        let sum = |of: fn(&Class) -> Metric| -> u64 {
            classes.iter().filter_map(|class| of(class).bytes()).sum()
        };
        prop_assert_eq!(sum(|c| c.rss), entries.iter().map(|e| e.rss).sum::<u64>());
        prop_assert_eq!(sum(|c| c.anonymous), entries.iter().map(|e| e.anonymous).sum::<u64>());
        prop_assert_eq!(sum(|c| c.swap), entries.iter().map(|e| e.swap).sum::<u64>());
        let size: u64 = classes.iter().map(|class| class.size).sum();
        prop_assert_eq!(size, entries.iter().map(|e| e.mapping.len()).sum::<u64>());
    }
}
