//! How much of glibc's heaps is resident, from inside the process.
//!
//! `[heap]` and the heaps of secondary arenas are found in `/proc/self/maps`, and their pages
//! counted in `/proc/self/pagemap`, whose presence bits need no privilege. `smaps` would walk
//! every page of the process, gigabytes of mapped weights among them; this walks heaps only, at
//! about 10 ms per GiB of heap.
//!
//! The heap of a secondary arena begins at a multiple of its largest size with a `heap_info`
//! (malloc/arena.c): ar_ptr, prev, size, mprotect_size. It is read through `/proc/self/mem`, which
//! fails where a pointer would fault, when another thread unmaps the heap meanwhile; and only
//! where the page is present, since reading an absent one would map the zero page.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::heap::PageState;
use crate::mappings::{Backing, Mapping};
use crate::pagemap::Pagemap;
use crate::process::for_each_line;
use crate::size::Size;

/// `HEAP_MAX_SIZE` of glibc: twice `DEFAULT_MMAP_THRESHOLD_MAX`, 64 MiB where pointers have 64
/// bits, and heaps are aligned to it.
const HEAP_MAX: u64 = if cfg!(target_pointer_width = "64") {
    64 << 20
} else {
    1 << 20
};

/// Heaps and what is resident of them, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HeapResidency {
    pub(crate) address_space: u64,
    pub(crate) resident: u64,
}

/// Reads the residency of all heaps, which must be at least `arena` bytes of address space
/// together: with less, some heap was not recognised (a main arena that grew by mmap, the large
/// heaps of `glibc.malloc.hugetlb=2`), and a number would be too low.
pub(crate) fn read(arena: u64) -> Result<HeapResidency, String> {
    let unreadable = |what: &str, error| format!("residency of the heaps: {what}: {error}");
    let pagemap = File::open("/proc/self/pagemap").map(Pagemap::new);
    let pagemap = pagemap.map_err(|e| unreadable("/proc/self/pagemap", e))?;
    let memory = File::open("/proc/self/mem").map_err(|e| unreadable("/proc/self/mem", e))?;
    let mut heaps = HeapResidency::default();
    let mut failure = None;
    for_each_line(Path::new("/proc/self/maps"), |line| {
        let Some(mapping) = Mapping::parse(line).filter(Mapping::is_private_anonymous) else {
            return;
        };
        let mut count = |range: Range<u64>| match resident(&pagemap, &range) {
            Ok(bytes) => {
                heaps.address_space += range.end - range.start;
                heaps.resident += bytes;
            }
            Err(error) => failure = Some(error),
        };
        if mapping.backing == Backing::Brk {
            count(mapping.range);
            return;
        }
        // Heaps that have grown to the end merge with their neighbour into one mapping.
        let mut start = mapping.range.start.next_multiple_of(HEAP_MAX);
        while start < mapping.range.end {
            if let Some(size) = arena_heap(&memory, &pagemap, start) {
                count(start..mapping.range.end.min(start + size));
            }
            start += HEAP_MAX;
        }
    })
    .map_err(|e| unreadable("/proc/self/maps", e))?;
    if let Some(error) = failure {
        return Err(unreadable("/proc/self/pagemap", error));
    }
    if heaps.address_space < arena {
        return Err(format!(
            "residency of the heaps: recognised {} of {}",
            Size(heaps.address_space),
            Size(arena)
        ));
    }
    Ok(heaps)
}

/// The writable size of the arena heap that begins at `start`, if one does.
fn arena_heap(memory: &File, pagemap: &Pagemap, start: u64) -> Option<u64> {
    let first_page = start..start + pagemap.page();
    if resident(pagemap, &first_page).ok()? == 0 {
        return None;
    }
    let mut info = [0; 4 * size_of::<usize>()];
    memory.read_exact_at(&mut info, start).ok()?;
    let mut words = info.chunks_exact(size_of::<usize>()).map(|word| {
        let mut bytes = [0; size_of::<usize>()];
        bytes.copy_from_slice(word);
        usize::from_ne_bytes(bytes) as u64
    });
    let (arena, previous) = (words.next()?, words.next()?);
    let (size, mprotected) = (words.next()?, words.next()?);
    // The arena lies just behind the heap_info of its first heap; `prev` is another heap or null.
    let arena_offset = arena % HEAP_MAX;
    let sound = arena > HEAP_MAX
        && (16..512).contains(&arena_offset)
        && previous.is_multiple_of(HEAP_MAX)
        && size > 0
        && size <= mprotected
        && mprotected <= HEAP_MAX
        && mprotected.is_multiple_of(pagemap.page());
    sound.then_some(mprotected)
}

/// Bytes of a range of whole pages that are resident.
fn resident(pagemap: &Pagemap, range: &Range<u64>) -> std::io::Result<u64> {
    // Runs are few, and their list is bounded by taking the range in pieces.
    const PIECE: u64 = 64 << 20;
    let mut runs = Vec::new();
    let mut bytes = 0;
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min(start + PIECE);
        pagemap.states(&(start..end), &mut runs)?;
        let resident = runs
            .drain(..)
            .filter(|run| run.state == PageState::Resident);
        bytes += resident
            .map(|run| run.range.end - run.range.start)
            .sum::<u64>();
        start = end;
    }
    Ok(bytes)
}
