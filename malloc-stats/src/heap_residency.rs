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

use crate::process::for_each_line;
use crate::size::Size;

/// `HEAP_MAX_SIZE` of glibc: twice `DEFAULT_MMAP_THRESHOLD_MAX`, 64 MiB where pointers have 64
/// bits, and heaps are aligned to it.
const HEAP_MAX: u64 = if cfg!(target_pointer_width = "64") {
    64 << 20
} else {
    1 << 20
};

/// Bit 63 of a pagemap entry: the page is present in RAM.
const PRESENT: u64 = 1 << 63;

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
    let pagemap = Pagemap::open().map_err(|e| unreadable("/proc/self/pagemap", e))?;
    let memory = File::open("/proc/self/mem").map_err(|e| unreadable("/proc/self/mem", e))?;
    let mut heaps = HeapResidency::default();
    let mut failure = None;
    for_each_line(Path::new("/proc/self/maps"), |line| {
        let Some(mapping) = Mapping::of(line) else {
            return;
        };
        let mut count = |range: Range<u64>| match pagemap.present(&range) {
            Ok(bytes) => {
                heaps.address_space += range.end - range.start;
                heaps.resident += bytes;
            }
            Err(error) => failure = Some(error),
        };
        if mapping.is_brk {
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

/// A private, writable, anonymous mapping.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<u64>,
    is_brk: bool,
}

impl Mapping {
    /// From a line of `/proc/PID/maps`; `None` for mappings of any other sort.
    fn of(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let inode = fields.nth(2)?;
        let name = fields.next().unwrap_or("");
        let is_brk = name == "[heap]";
        let anonymous = inode == "0" && (is_brk || name.is_empty() || name.starts_with("[anon:"));
        if !permissions.starts_with("rw") || !permissions.ends_with('p') || !anonymous {
            return None;
        }
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        (range.start < range.end).then_some(Self { range, is_brk })
    }
}

/// The writable size of the arena heap that begins at `start`, if one does.
fn arena_heap(memory: &File, pagemap: &Pagemap, start: u64) -> Option<u64> {
    let first_page = start..start + pagemap.page;
    if pagemap.present(&first_page).ok()? == 0 {
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
        && mprotected.is_multiple_of(pagemap.page);
    sound.then_some(mprotected)
}

struct Pagemap {
    file: File,
    page: u64,
}

impl Pagemap {
    fn open() -> std::io::Result<Self> {
        Ok(Self {
            file: File::open("/proc/self/pagemap")?,
            page: rustix::param::page_size() as u64,
        })
    }

    /// Bytes of a range of whole pages that are present.
    fn present(&self, range: &Range<u64>) -> std::io::Result<u64> {
        // 2048 entries; one call walks 8 MiB of small pages.
        let mut buffer = [0; 16 << 10];
        let (mut entry, end) = (range.start / self.page, range.end / self.page);
        let mut pages = 0;
        while entry < end {
            let wanted = usize::try_from((end - entry) * 8)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let window = buffer.get_mut(..wanted).unwrap_or_default();
            let read = self.file.read_at(window, entry * 8)? / 8 * 8;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let entries = buffer.get(..read).unwrap_or_default().chunks_exact(8);
            for bytes in entries {
                let mut word = [0; 8];
                word.copy_from_slice(bytes);
                pages += u64::from(u64::from_ne_bytes(word) & PRESENT != 0);
            }
            entry += (read / 8) as u64;
        }
        Ok(pages * self.page)
    }
}

#[cfg(test)]
mod tests {
    use super::Mapping;

    #[test]
    fn heap_and_anonymous_mappings_are_kept_and_files_are_not() {
        let heap = Mapping::of("5579c9335000-5579c9356000 rw-p 00000000 00:00 0    [heap]");
        assert_eq!(
            heap,
            Some(Mapping {
                range: 0x5579_c933_5000..0x5579_c935_6000,
                is_brk: true
            })
        );
        assert!(Mapping::of("7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ").is_some());
        assert!(Mapping::of("7f0000000000-7f0000021000 rw-p 00000000 00:00 0 [stack]").is_none());
        assert!(Mapping::of("7f0000021000-7f0004000000 ---p 00000000 00:00 0 ").is_none());
        assert!(
            Mapping::of("7f0000000000-7f0000021000 rw-p 0000 fe:00 42 /lib/libc.so.6").is_none()
        );
        assert!(Mapping::of("7f0000000000-7f0000021000 rw-s 00000000 00:00 0").is_none());
        assert!(Mapping::of("nonsense").is_none());
    }
}
