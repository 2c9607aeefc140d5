//! Whose anonymous memory is that malloc does not own: found by looking into it.
//!
//! Sizes and neighbours tell little. The kernel joins neighbouring anonymous mappings, so arenas of
//! CPython, a library's zeroed data and what was mapped by hand lie in one mapping. So the header
//! of each object is asked where its data ends, and memory is searched for the headers that CPython
//! writes at the beginning of each pool.

use std::ops::Range;

use super::classes::{ClassKind, OwnedRange};
use super::smaps::SmapsEntry;
use crate::heap::{AddressSpace, PageState, Run};
use crate::mappings::{Backing, Mapping, without};

/// A version of CPython, as its files are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Python {
    /// 3 in `3.11`.
    pub major: u32,
    /// 11 in `3.11`.
    pub minor: u32,
}

impl Python {
    /// The CPython in a process: by the name of its library, or of its program.
    #[must_use]
    pub fn find<'a>(mappings: impl IntoIterator<Item = &'a Mapping>) -> Option<Self> {
        mappings.into_iter().find_map(|mapping| {
            let path = mapping.path().filter(|_| mapping.executable)?;
            let name = path.file_name()?.to_str()?;
            let version = name
                .strip_prefix("libpython")
                .or_else(|| name.strip_prefix("python"))?;
            let mut numbers = version.splitn(3, '.').map(leading_number);
            Some(Self {
                major: numbers.next()??,
                minor: numbers.next()??,
            })
        })
    }

    /// The size of its arenas, in bytes: `ARENA_SIZE` in Objects/obmalloc.c, which 3.10 raised.
    #[must_use]
    pub fn arena(self) -> u64 {
        if self
            >= (Self {
                major: 3,
                minor: 10,
            })
        {
            1 << 20
        } else {
            256 << 10
        }
    }

    /// The size of its pools, to which they are aligned: `POOL_SIZE`.
    fn pool(self) -> u64 {
        if self
            >= (Self {
                major: 3,
                minor: 10,
            })
        {
            16 << 10
        } else {
            4 << 10
        }
    }
}

/// `11` of `11t`.
fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// The zeroed data of objects, and the arenas of CPython where it runs, outside of `malloc`'s
/// stretches. Only pages that are resident are looked at.
#[must_use]
pub fn find_claims(
    space: &dyn AddressSpace,
    entries: &[SmapsEntry],
    malloc: &[OwnedRange],
    python: Option<Python>,
) -> Vec<OwnedRange> {
    let mut taken: Vec<Range<u64>> = malloc.iter().map(|owned| owned.range.clone()).collect();
    let zeroed = zeroed_data(space, entries);
    let mut claims: Vec<OwnedRange> = zeroed
        .iter()
        .filter_map(|range| claim(space, range.clone(), ClassKind::Objects))
        .collect();
    taken.extend(zeroed);
    taken.sort_by_key(|range| range.start);
    let Some(python) = python else {
        return claims;
    };
    for entry in entries.iter().filter(|entry| may_hold_arenas(entry)) {
        for range in without(&entry.mapping.range, &taken) {
            let pools = pools(space, range, python).into_iter();
            claims.extend(pools.filter_map(|pools| claim(space, pools, ClassKind::PythonArenas)));
        }
    }
    claims
}

/// `None` where the kernel does not tell what is resident.
fn claim(space: &dyn AddressSpace, range: Range<u64>, kind: ClassKind) -> Option<OwnedRange> {
    let mut runs = Vec::new();
    space.residency(range.clone(), &mut runs).ok()?;
    let bytes = |state| {
        let of_state = runs.iter().filter(|run| run.state == state);
        of_state.map(|run| run.range.end - run.range.start).sum()
    };
    Some(OwnedRange {
        range,
        kind,
        resident: bytes(PageState::Resident),
        swapped: bytes(PageState::Swapped),
    })
}

fn may_hold_arenas(entry: &SmapsEntry) -> bool {
    matches!(entry.mapping.backing, Backing::Anonymous(_))
        && entry.mapping.is_private_anonymous()
        && entry.rss > 0
}

/// The zeroed data (`.bss`) of objects beyond what their files hold: the kernel shows it as
/// anonymous memory behind them, joined with what happens to lie there.
fn zeroed_data(space: &dyn AddressSpace, entries: &[SmapsEntry]) -> Vec<Range<u64>> {
    let page = space.page_size();
    let mut zeroed = Vec::new();
    for entry in entries {
        let mapping = &entry.mapping;
        let is_head = mapping.readable && mapping.offset == 0 && mapping.path().is_some();
        if !is_head || entry.rss == 0 || !is_resident(space, mapping.range.start, page) {
            continue;
        }
        for segment in zeroed_of_object(space, mapping, page).unwrap_or_default() {
            // Only what lies right behind the object's own data, whatever its header says.
            let at = entries.partition_point(|other| other.mapping.range.end <= segment.start);
            let behind = entries.get(at).filter(|other| other.is_private_anonymous());
            if let Some(behind) = behind.filter(|other| other.mapping.range.start <= segment.start)
            {
                zeroed.push(segment.start..segment.end.min(behind.mapping.range.end));
            }
        }
    }
    zeroed
}

fn is_resident(space: &dyn AddressSpace, address: u64, page: u64) -> bool {
    let mut runs: Vec<Run> = Vec::new();
    space
        .residency(address..address + page, &mut runs)
        .is_ok_and(|()| matches!(runs.as_slice(), [run] if run.state == PageState::Resident))
}

/// From the program headers (`elf(5)`, `Elf64_Phdr`) of the object mapped at `head`, as far as they
/// are in its first page.
fn zeroed_of_object(
    space: &dyn AddressSpace,
    head: &Mapping,
    page: u64,
) -> Option<Vec<Range<u64>>> {
    const LOAD: u64 = 1;
    let start = head.range.start;
    let mut bytes = vec![0; usize::try_from(page).ok()?];
    space.read(start, &mut bytes).ok()?;
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(word(&bytes, 32, 8)?).ok()?;
    let (size, count) = (word(&bytes, 54, 2)?, word(&bytes, 56, 2)?);
    let mut bias = None;
    let mut zeroed = Vec::new();
    for index in 0..usize::try_from(count).ok()? {
        let header = table.checked_add(index.checked_mul(usize::try_from(size).ok()?)?)?;
        let field = |at: usize| word(&bytes, header.checked_add(at)?, 8);
        if word(&bytes, header, 4)? != LOAD {
            continue;
        }
        let (offset, address) = (field(8)?, field(16)?);
        let (in_file, in_memory) = (field(32)?, field(40)?);
        if offset == 0 {
            bias = Some(start.wrapping_sub(address));
        }
        let bias = bias?;
        let end = |length| {
            let end = bias.wrapping_add(address).checked_add(length)?;
            end.checked_next_multiple_of(page)
        };
        let range = end(in_file)?..end(in_memory)?;
        if range.start < range.end {
            zeroed.push(range);
        }
    }
    Some(zeroed)
}

/// A little-endian number of `length` bytes.
fn word(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    let number = bytes
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte));
    Some(number)
}

/// `sizeof(struct pool_header)`, and so `POOL_OVERHEAD`.
const POOL_HEADER: usize = 48;

/// As many pools are taken together: those of an arena.
const TOGETHER: usize = 64;

/// Of those each so-manieth is tried before all are: an arena is filled from its beginning, and
/// most memory of a process that is none shall not be searched in full.
const TRIED: usize = 16;

/// The pools of CPython in a range, neighbours joined.
fn pools(space: &dyn AddressSpace, range: Range<u64>, python: Python) -> Vec<Range<u64>> {
    let size = python.pool();
    let mut runs = Vec::new();
    if space.residency(range, &mut runs).is_err() {
        return Vec::new();
    }
    let heads = runs
        .iter()
        .filter(|run| run.state == PageState::Resident)
        .flat_map(|run| {
            let pools = run.range.start.next_multiple_of(size)..run.range.end;
            pools.step_by(usize::try_from(size).unwrap_or(usize::MAX))
        });
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut together = Vec::with_capacity(TOGETHER);
    let mut heads = heads.peekable();
    while let Some(head) = heads.next() {
        together.push(head);
        if together.len() < TOGETHER && heads.peek().is_some() {
            continue;
        }
        let tried: Vec<u64> = together.iter().copied().step_by(TRIED).collect();
        if !sound_pools(space, &tried, size).is_empty() {
            for head in sound_pools(space, &together, size) {
                match found.last_mut() {
                    Some(last) if last.end == head => last.end += size,
                    _ => found.push(head..head + size),
                }
            }
        }
        together.clear();
    }
    found
}

/// Those of the addresses at which a pool begins.
fn sound_pools(space: &dyn AddressSpace, heads: &[u64], size: u64) -> Vec<u64> {
    let mut headers = vec![0; heads.len() * POOL_HEADER];
    if space.read_each(heads, POOL_HEADER, &mut headers).is_err() {
        return Vec::new();
    }
    heads
        .iter()
        .zip(headers.chunks_exact(POOL_HEADER))
        .filter(|(head, header)| is_pool(header, **head, size).is_some())
        .map(|(head, _)| *head)
        .collect()
}

/// Whether these bytes are the header of a pool that was used (`struct pool_header`,
/// Objects/obmalloc.c): blocks handed out, the first free block, two neighbours, the arena, the
/// class of its blocks, and where the next and the last of them begin.
fn is_pool(header: &[u8], head: u64, size: u64) -> Option<()> {
    let (count, free) = (word(header, 0, 4)?, word(header, 8, 8)?);
    let (class, next, last) = (
        word(header, 36, 4)?,
        word(header, 40, 4)?,
        word(header, 44, 4)?,
    );
    // Blocks are multiples of 16 bytes up to 512.
    let block = (class < 32).then_some((class + 1) * 16)?;
    let overhead = POOL_HEADER as u64;
    let sound = last == size - block
        && (overhead + block..=last + block).contains(&next)
        && count * block <= size - overhead
        && (free == 0 || (head + overhead..head + size).contains(&free));
    sound.then_some(())
}
