//! Reading `malloc_state`, `malloc_par` and `heap_info`.

use std::hash::{DefaultHasher, Hasher};

use super::layout::{FASTBINS, Layout, Parameters};
use super::memory::{Memory, Unread};
use super::report::InForce;

/// `HEAP_MAX_SIZE`, which heaps of secondary arenas are aligned to: twice
/// `DEFAULT_MMAP_THRESHOLD_MAX`.
const HEAP_MAX: u64 = 64 << 20;

/// The bit of `malloc_state.flags` that says that the main arena has pieces off the brk.
const NONCONTIGUOUS: u64 = 2;

/// One `malloc_state`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) address: u64,
    pub(super) locked: bool,
    pub(super) noncontiguous: bool,
    pub(super) fastbins: [u64; FASTBINS],
    pub(super) top: u64,
    pub(super) next: u64,
    pub(super) attached_threads: u64,
    pub(super) system_mem: u64,
    pub(super) max_system_mem: u64,
    /// Of all its bytes, to tell whether something happened.
    digest: u64,
}

impl State {
    pub(super) fn read(
        memory: &mut Memory<'_>,
        layout: &Layout,
        address: u64,
    ) -> Result<Self, Unread> {
        let size = usize::try_from(layout.state.size()).unwrap_or(0);
        let raw = memory.stray_bytes(address, size)?;
        if raw.len() < size {
            return Err(Unread::Absent);
        }
        let field = |offset: u64| word(&raw, offset);
        let mut fastbins = [0; FASTBINS];
        if let Some(offset) = layout.state.fastbins {
            for (index, bin) in (0..).zip(&mut fastbins) {
                *bin = field(offset + 8 * index);
            }
        }
        let first = field(0);
        Ok(Self {
            address,
            // The lock is a 32-bit futex, the flags the 32 bits behind it.
            locked: first & 0xffff_ffff != 0,
            noncontiguous: (first >> 32) & NONCONTIGUOUS != 0,
            fastbins,
            top: field(layout.state.top),
            next: field(layout.state.next()),
            attached_threads: field(layout.state.attached_threads()),
            system_mem: field(layout.state.system_mem()),
            max_system_mem: field(layout.state.max_system_mem()),
            digest: {
                let mut hasher = DefaultHasher::new();
                hasher.write(&raw);
                hasher.finish()
            },
        })
    }

    /// Whether nothing happened between this look and another.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// `mp_`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counters {
    pub(super) address: u64,
    pub(super) settings: InForce,
    pub(super) mmapped_chunks: u64,
    pub(super) mmapped_bytes: u64,
    pub(super) sbrk_base: u64,
    /// The length of a heap of a secondary arena, and what it is aligned to.
    pub(super) heap_max: u64,
}

impl Counters {
    /// Reads `mp_` at this address, if its fields make sense together.
    pub(super) fn read(memory: &mut Memory<'_>, layout: &Layout, address: u64) -> Option<Self> {
        let fields = &layout.parameters;
        let size = usize::try_from(fields.size()).ok()?;
        let raw = memory.stray_bytes(address, size).ok()?;
        if raw.len() < size {
            return None;
        }
        let field = |offset: u64| word(&raw, offset);
        let short = |offset: u64| field(offset & !7) >> (8 * (offset & 7)) & 0xffff_ffff;
        let (thp_pagesize, hp_pagesize) = fields
            .huge_pages
            .map_or((0, 0), |offset| (field(offset), field(offset + 8)));
        let (mmapped, most_mmapped) =
            (field(fields.mmapped_mem()), field(fields.mmapped_mem() + 8));
        let (mmaps, mmap_max, most_mmaps, fixed) = (
            short(fields.n_mmaps),
            short(fields.n_mmaps + 4),
            short(fields.n_mmaps + 8),
            short(fields.n_mmaps + 12),
        );
        let counters = Self {
            address,
            settings: InForce {
                mmap_threshold: field(Parameters::MMAP_THRESHOLD),
                trim_threshold: field(Parameters::TRIM_THRESHOLD),
                top_pad: field(Parameters::TOP_PAD),
                dynamic: fixed == 0,
                mmap_max,
                arena_max: field(Parameters::ARENA_MAX),
                tcache_count: field(fields.tcache_count()),
                tcache_max: field(fields.tcache_max()),
                thp_pagesize,
                hp_pagesize,
            },
            mmapped_chunks: mmaps,
            mmapped_bytes: mmapped,
            sbrk_base: field(fields.sbrk_base),
            heap_max: match hp_pagesize {
                huge if layout.huge_heaps && huge != 0 => huge.checked_mul(4)?,
                _ => HEAP_MAX,
            },
        };
        // What is read at the wrong offset is smaller than a page, or no power of two.
        let page = memory.page();
        let power = |size: u64| size == 0 || (size.is_power_of_two() && size >= page);
        let sound = mmapped <= most_mmapped
            // From 2.43 on each `realloc` that moves an mmapped chunk leaves 16 bytes too much.
            && mmapped.is_multiple_of(16)
            && mmaps <= most_mmaps
            && fixed <= 1
            && field(fields.tcache_bins()) <= layout.tcache.bins
            && counters.settings.tcache_count <= 0xffff
            && counters.settings.arena_max < 1 << 32
            && power(thp_pagesize)
            && power(hp_pagesize)
            && hp_pagesize <= 1 << 40;
        sound.then_some(counters)
    }
}

/// `heap_info`, without its arena's `malloc_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeapInfo {
    pub(super) arena: u64,
    pub(super) previous: u64,
    pub(super) size: u64,
}

impl HeapInfo {
    pub(super) fn read(memory: &mut Memory<'_>, base: u64) -> Result<Self, Unread> {
        Ok(Self {
            arena: memory.stray_word(base)?,
            previous: memory.stray_word(base + 8)?,
            size: memory.stray_word(base + 16)?,
        })
    }
}

fn word(bytes: &[u8], offset: u64) -> u64 {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| bytes.get(offset..)?.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
