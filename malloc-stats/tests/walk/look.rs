//! How the tests look at a process from outside.

use malloc_stats::heap::{self, Heap, HeapError, Options};
use malloc_stats::inspect::{self, ProcessMemory, Target};
use malloc_stats::metric::Metric;

/// Every glibc heap of a process, the C libraries named by their files. Told from the structures
/// alone it must be the same.
pub fn heaps(pid: u32) -> Result<Vec<Heap>, HeapError> {
    let target = Target::open(pid).unwrap();
    let memory = ProcessMemory::open(&target).unwrap();
    let mappings = target.mappings().unwrap();
    let detection = inspect::detect(&target, &mappings, &|_| Metric::Unavailable);
    let options = Options {
        libcs: detection.named(),
        ..Options::default()
    };
    let named = heap::walk(&memory, &options)?;
    let guessed = heap::walk(&memory, &Options::default())?;
    let numbers = |heaps: &[Heap]| heaps.iter().map(|h| h.totals.mallinfo).collect::<Vec<_>>();
    assert_eq!(numbers(&named), numbers(&guessed), "{:?}", guessed[0].notes);
    Ok(named)
}

/// Resident anonymous memory of a process, by its page tables.
pub fn anonymous(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}
