//! The structures of glibc's malloc by version, for 64-bit targets.
//!
//! From malloc/malloc.c and malloc/arena.c of each release, and checked byte by byte against
//! processes that run under them. `malloc_state` and `malloc_par` are written out in order of
//! their fields, so a table of offsets is all it takes to read them.

/// Where things lie in one range of versions. Offsets and sizes in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The first and last version that has it.
    pub(super) versions: ((u32, u32), (u32, u32)),
    pub(super) state: State,
    pub(super) parameters: Parameters,
    /// Size of `heap_info`, which begins each heap of an arena other than the main one.
    pub(super) heap_info: u64,
    /// Whether heaps are four huge pages long where `hp_pagesize` is set.
    pub(super) huge_heaps: bool,
    pub(super) tcache: Tcache,
    /// Whether links of thread caches and fastbins are mangled: `next ^ (address >> 12)`.
    pub(super) safe_linking: bool,
    /// Bytes behind an mmapped chunk that its size does not count.
    pub(super) mmapped_trailer: u64,
}

/// `malloc_state`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Ten fastbins, where there are any.
    pub(super) fastbins: Option<u64>,
    pub(super) top: u64,
    /// 127 pairs of pointers.
    pub(super) bins: u64,
}

/// Pairs of pointers in the bin table, one for each bin; bin 0 does not exist.
pub(super) const BINS: u64 = 127;
/// Fastbins of an arena.
pub(super) const FASTBINS: usize = 10;

impl State {
    /// The ring of arenas. Between it and the bins lies the bit map of bins, 16 bytes.
    pub(super) const fn next(&self) -> u64 {
        self.bins + 16 * BINS + 16
    }

    pub(super) const fn attached_threads(&self) -> u64 {
        self.next() + 16
    }

    pub(super) const fn system_mem(&self) -> u64 {
        self.next() + 24
    }

    pub(super) const fn max_system_mem(&self) -> u64 {
        self.next() + 32
    }

    /// The whole.
    pub(super) const fn size(&self) -> u64 {
        self.next() + 40
    }
}

/// `malloc_par`, whose one instance is `mp_`. The thresholds come first in every version; what
/// follows is counted from `sbrk_base`, the field by which it is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) sbrk_base: u64,
    /// `thp_pagesize`, with `hp_pagesize` behind it; from 2.35 on.
    pub(super) huge_pages: Option<u64>,
    /// `n_mmaps`, with `n_mmaps_max`, `max_n_mmaps` and `no_dyn_threshold` behind it, 32 bits each.
    pub(super) n_mmaps: u64,
}

impl Parameters {
    pub(super) const TRIM_THRESHOLD: u64 = 0;
    pub(super) const TOP_PAD: u64 = 8;
    pub(super) const MMAP_THRESHOLD: u64 = 16;
    pub(super) const ARENA_MAX: u64 = 32;

    pub(super) const fn mmapped_mem(&self) -> u64 {
        self.sbrk_base - 16
    }

    pub(super) const fn tcache_bins(&self) -> u64 {
        self.sbrk_base + 8
    }

    pub(super) const fn tcache_max(&self) -> u64 {
        self.sbrk_base + 16
    }

    pub(super) const fn tcache_count(&self) -> u64 {
        self.sbrk_base + 24
    }

    /// The whole, with `tcache_unsorted_limit` at the end.
    pub(super) const fn size(&self) -> u64 {
        self.sbrk_base + 40
    }
}

/// `tcache_perthread_struct`, which lies in a chunk of the heap.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tcache {
    /// Size of the smallest chunk it fits in.
    pub(super) chunk: u64,
    /// Bytes of each counter; the counters come first.
    pub(super) counter: u64,
    /// Counters, and lists behind them.
    pub(super) bins: u64,
    /// Whether the counters count down the free places instead of the blocks.
    pub(super) counts_down: bool,
}

impl Tcache {
    /// Lists of one size each; those behind hold larger blocks of mixed sizes.
    pub(super) const SMALL_BINS: u64 = 64;

    /// The first list.
    pub(super) const fn entries(&self) -> u64 {
        self.counter * self.bins
    }

    /// Whether a chunk of this size may hold one: malloc hands out a larger one rather than leave
    /// a rest too small for a chunk, and glibc 2.43 asks for 16 bytes more in some threads.
    pub(super) const fn fits_in(&self, size: u64) -> bool {
        size >= self.chunk && size <= self.chunk + 32
    }

    const fn of(chunk: u64, counter: u64, bins: u64, counts_down: bool) -> Self {
        Self {
            chunk,
            counter,
            bins,
            counts_down,
        }
    }
}

const BEFORE_2_27: State = State {
    fastbins: Some(8),
    top: 88,
    bins: 104,
};
const WITH_FASTBINS: State = State {
    fastbins: Some(16),
    top: 96,
    bins: 112,
};
const WITHOUT_FASTBINS: State = State {
    fastbins: None,
    top: 8,
    bins: 24,
};
const PLAIN: Parameters = Parameters {
    sbrk_base: 72,
    huge_pages: None,
    n_mmaps: 40,
};
const WITH_HUGE_PAGES: Parameters = Parameters {
    sbrk_base: 96,
    huge_pages: Some(40),
    n_mmaps: 60,
};
const WITH_THP_MODE: Parameters = Parameters {
    sbrk_base: 104,
    huge_pages: Some(48),
    n_mmaps: 68,
};

/// The newest first: what is unknown is likeliest new.
pub(super) static LAYOUTS: [Layout; 7] = [
    Layout {
        versions: ((2, 43), (2, 44)),
        state: WITHOUT_FASTBINS,
        parameters: WITH_THP_MODE,
        heap_info: 48,
        huge_heaps: false,
        tcache: Tcache::of(0x300, 2, 76, true),
        safe_linking: true,
        mmapped_trailer: 16,
    },
    Layout {
        versions: ((2, 42), (2, 42)),
        state: WITH_FASTBINS,
        parameters: WITH_HUGE_PAGES,
        heap_info: 48,
        huge_heaps: false,
        tcache: Tcache::of(0x300, 2, 76, true),
        safe_linking: true,
        mmapped_trailer: 0,
    },
    Layout {
        versions: ((2, 35), (2, 41)),
        state: WITH_FASTBINS,
        parameters: WITH_HUGE_PAGES,
        heap_info: 48,
        huge_heaps: true,
        tcache: Tcache::of(0x290, 2, 64, false),
        safe_linking: true,
        mmapped_trailer: 0,
    },
    Layout {
        versions: ((2, 32), (2, 34)),
        state: WITH_FASTBINS,
        parameters: PLAIN,
        heap_info: 32,
        huge_heaps: false,
        tcache: Tcache::of(0x290, 2, 64, false),
        safe_linking: true,
        mmapped_trailer: 0,
    },
    Layout {
        versions: ((2, 30), (2, 31)),
        state: WITH_FASTBINS,
        parameters: PLAIN,
        heap_info: 32,
        huge_heaps: false,
        tcache: Tcache::of(0x290, 2, 64, false),
        safe_linking: false,
        mmapped_trailer: 0,
    },
    Layout {
        versions: ((2, 27), (2, 29)),
        state: WITH_FASTBINS,
        parameters: PLAIN,
        heap_info: 32,
        huge_heaps: false,
        tcache: Tcache::of(0x250, 1, 64, false),
        safe_linking: false,
        mmapped_trailer: 0,
    },
    Layout {
        versions: ((2, 26), (2, 26)),
        state: BEFORE_2_27,
        parameters: PLAIN,
        heap_info: 32,
        huge_heaps: false,
        tcache: Tcache::of(0x250, 1, 64, false),
        safe_linking: false,
        mmapped_trailer: 0,
    },
];

impl Layout {
    /// The layout of this version of glibc.
    pub(super) fn of((major, minor): (u32, u32)) -> Option<&'static Self> {
        LAYOUTS
            .iter()
            .find(|layout| (layout.versions.0..=layout.versions.1).contains(&(major, minor)))
    }

    /// The newest that is known.
    pub(super) fn newest() -> (u32, u32) {
        LAYOUTS[0].versions.1
    }

    /// Its versions in words, such as `2.35–2.41`.
    pub(super) fn name(&self) -> String {
        let (first, last) = self.versions;
        if first == last {
            format!("{}.{}", first.0, first.1)
        } else {
            format!("{}.{}–{}.{}", first.0, first.1, last.0, last.1)
        }
    }
}

/// All versions that are known, in words.
pub(super) fn known() -> String {
    let (first, last) = (LAYOUTS[LAYOUTS.len() - 1].versions.0, Layout::newest());
    format!("{}.{}–{}.{}", first.0, first.1, last.0, last.1)
}
