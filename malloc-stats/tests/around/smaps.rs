//! `smaps` is read whatever its lines say.

use std::fmt::Write;

use malloc_stats::Metric;
use malloc_stats::inspect::{SmapsEntry, SmapsParser, Target, parse_rollup, read_smaps};
use malloc_stats::mappings::Backing;
use proptest::prelude::*;

use crate::processes::Shell;

const KIB: u64 = 1 << 10;

pub fn fixture() -> Vec<SmapsEntry> {
    read_smaps(&include_bytes!("../fixtures/smaps")[..]).unwrap()
}

#[test]
fn each_mapping_has_its_own_numbers() {
    let entries = fixture();
    assert_eq!(entries.len(), 16);
    let data = &entries[1];
    assert_eq!((data.rss, data.pss), (8 * KIB, 8 * KIB));
    assert_eq!((data.anonymous, data.swap), (4 * KIB, 4 * KIB));
    assert_eq!(entries[2].mapping.backing, Backing::Brk);
    assert_eq!(entries[2].lazy_free, 1024 * KIB);
    assert!(
        entries
            .iter()
            .any(|e| e.of_device && e.mapping.path().is_some())
    );
    let huge: u64 = entries.iter().map(|entry| entry.hugetlb).sum();
    assert_eq!(huge, 4096 * KIB);
    assert_eq!(entries.iter().filter(|entry| entry.is_stack).count(), 1);
}

#[test]
fn numbers_of_a_malformed_mapping_go_to_nobody() {
    let text = b"1000-2000 rw-p 0 00:00 0\nRss: 4 kB\nzzz\nRss: 8 kB\n3000-4000 rw-p 0 00:00 0\n\
        Rss: lots\nSwap: 99999999999999999999 kB\nAnonymous\n:\n";
    let entries = read_smaps(&text[..]).unwrap();
    let rss: Vec<u64> = entries.iter().map(|entry| entry.rss).collect();
    assert_eq!(rss, [4 * KIB, 0]);
    assert_eq!(entries[1].swap, 0);
}

#[test]
fn a_path_that_is_no_text_does_not_end_the_reading() {
    let text =
        b"1000-2000 r--p 0 fe:00 7 /m\xff.bin\nRss: 4 kB\n3000-4000 rw-p 0 00:00 0\nRss: 8 kB";
    let entries = read_smaps(&text[..]).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].rss, 8 * KIB);
}

#[test]
fn the_mappings_of_a_process_at_rest_add_up_to_its_rollup() {
    let shell = Shell::new("read x");
    let target = Target::open(shell.0.id()).unwrap();
    // It waits once it has nothing more to do.
    while !target.text("stat").unwrap().contains(") S ") {
        std::thread::yield_now();
    }
    let (rollup, entries) = (target.rollup().unwrap(), target.smaps().unwrap());
    let sum = |of: fn(&SmapsEntry) -> u64| Metric::Exact(entries.iter().map(of).sum());
    assert_eq!(rollup.rss, sum(|entry| entry.rss));
    assert_eq!(rollup.anonymous, sum(|entry| entry.anonymous));
    assert_eq!(rollup.swap, sum(|entry| entry.swap));
    assert!(rollup.pss.bytes() > Some(0) && rollup.pss.bytes() <= rollup.rss.bytes());
    let mapped: Vec<_> = entries.into_iter().map(|entry| entry.mapping).collect();
    assert_eq!(mapped, target.mappings().unwrap());
}

#[test]
fn a_rollup_without_a_number_is_unavailable() {
    let rollup = parse_rollup(b"1-2 ---p 0 0:0 0 [rollup]\nRss: 4 kB\nPss: some kB\n");
    assert_eq!(rollup.rss, Metric::Exact(4 * KIB));
    assert_eq!(rollup.pss, Metric::Unavailable);
    assert_eq!(rollup.swap, Metric::Unavailable);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read_smaps(&bytes[..]);
        let _ = parse_rollup(&bytes);
    }

    #[test]
    fn numbers_come_back_as_they_were_written(
        mappings in proptest::collection::vec((1_u64..1 << 40, 0_u64..1 << 40, 0_u64..1 << 40), 0..20)
    ) {
        let mut text = String::new();
        for (pages, rss, swap) in &mappings {
            let (start, end) = (pages << 12, (pages + 1) << 12);
            writeln!(text, "{start:x}-{end:x} rw-p 00000000 00:00 0 ").unwrap();
            writeln!(text, "Rss: {rss:>20} kB\nNew_Field: 1 kB\nSwap: {swap} kB").unwrap();
        }
        let mut parser = SmapsParser::default();
        let mut entries: Vec<SmapsEntry> =
            text.lines().filter_map(|line| parser.line(line.as_bytes())).collect();
        entries.extend(parser.finish());
        let read: Vec<_> = entries
            .iter()
            .map(|e| (e.mapping.range.start >> 12, e.rss / KIB, e.swap / KIB))
            .collect();
        prop_assert_eq!(read, mappings);
    }
}
