//! Where the structures of each glibc's malloc have their fields (x86_64), from its sources.

/// One layout; offsets and sizes in bytes.
#[derive(Debug)]
pub struct Layout {
    /// The versions that have it.
    pub versions: &'static [(u32, u32)],
    /// The ten fastbins of a `malloc_state`, where there are any.
    pub fastbins: Option<u64>,
    /// Whether a flag at 8 tells that fastbins hold something.
    pub have_fastchunks: bool,
    pub top: u64,
    pub bins: u64,
    /// `sizeof(malloc_state)`.
    pub state: u64,
    /// `sizeof(heap_info)`.
    pub heap_info: u64,
    pub tcache: Tcache,
    /// Whether the links of fastbins and tcaches are mangled by where they lie.
    pub safe_linking: bool,
    pub parameters: Parameters,
    /// What an mmapped chunk leaves out of its size at its end.
    pub trailer: u64,
}

/// `tcache_perthread_struct`.
#[derive(Debug)]
pub struct Tcache {
    /// Bytes of each count.
    pub width: u64,
    pub slots: u64,
    /// Whether the counts say how much room is left.
    pub counts_down: bool,
    /// How many blocks a bin takes unless it was told otherwise.
    pub count: u64,
    /// The chunk it lies in.
    pub chunk: u64,
}

/// `malloc_par`; what is before `thp_mode` is the same everywhere.
#[derive(Debug)]
pub struct Parameters {
    pub thp_pagesize: Option<u64>,
    pub hp_pagesize: Option<u64>,
    /// Whether heaps are four huge pages long where `hp_pagesize` says of what size.
    pub heaps_of_huge_pages: bool,
    pub n_mmaps: u64,
    pub sbrk_base: u64,
}

const EARLY: Parameters = Parameters {
    thp_pagesize: None,
    hp_pagesize: None,
    heaps_of_huge_pages: false,
    n_mmaps: 40,
    sbrk_base: 72,
};
const HUGE: Parameters = Parameters {
    thp_pagesize: Some(40),
    hp_pagesize: Some(48),
    heaps_of_huge_pages: true,
    n_mmaps: 60,
    sbrk_base: 96,
};
const WITH_MODE: Parameters = Parameters {
    thp_pagesize: Some(48),
    hp_pagesize: Some(56),
    heaps_of_huge_pages: false,
    n_mmaps: 68,
    sbrk_base: 104,
};

const NARROW: Tcache = Tcache {
    width: 1,
    slots: 64,
    counts_down: false,
    count: 7,
    chunk: 0x250,
};
const WIDE: Tcache = Tcache {
    width: 2,
    chunk: 0x290,
    ..NARROW
};
const DOWN: Tcache = Tcache {
    width: 2,
    slots: 76,
    counts_down: true,
    count: 7,
    chunk: 0x300,
};

const CLASSIC: Layout = Layout {
    versions: &[(2, 27), (2, 28), (2, 29)],
    fastbins: Some(16),
    have_fastchunks: true,
    top: 96,
    bins: 112,
    state: 2200,
    heap_info: 32,
    tcache: NARROW,
    safe_linking: false,
    parameters: EARLY,
    trailer: 0,
};

/// Every layout there is, from the oldest.
pub static LAYOUTS: [Layout; 7] = [
    Layout {
        versions: &[(2, 26)],
        fastbins: Some(8),
        have_fastchunks: false,
        top: 88,
        bins: 104,
        state: 2192,
        ..CLASSIC
    },
    CLASSIC,
    Layout {
        versions: &[(2, 30), (2, 31)],
        tcache: WIDE,
        ..CLASSIC
    },
    Layout {
        versions: &[(2, 32), (2, 33), (2, 34)],
        tcache: WIDE,
        safe_linking: true,
        ..CLASSIC
    },
    Layout {
        versions: &[
            (2, 35),
            (2, 36),
            (2, 37),
            (2, 38),
            (2, 39),
            (2, 40),
            (2, 41),
        ],
        tcache: WIDE,
        safe_linking: true,
        heap_info: 48,
        parameters: HUGE,
        ..CLASSIC
    },
    Layout {
        versions: &[(2, 42)],
        tcache: DOWN,
        safe_linking: true,
        heap_info: 48,
        parameters: Parameters {
            heaps_of_huge_pages: false,
            ..HUGE
        },
        ..CLASSIC
    },
    Layout {
        versions: &[(2, 43)],
        fastbins: None,
        have_fastchunks: false,
        top: 8,
        bins: 24,
        state: 2112,
        tcache: Tcache { count: 16, ..DOWN },
        safe_linking: true,
        heap_info: 48,
        parameters: WITH_MODE,
        trailer: 16,
    },
];

pub const NBINS: u64 = 128;
/// The largest chunk that a fastbin takes unless it was told otherwise.
pub const MAX_FAST: u64 = 128;
/// The largest chunk of a tcache's bins of one size each.
pub const MAX_CACHED: u64 = 1040;
pub const HEAP_MAX: u64 = 64 << 20;

impl Layout {
    pub const fn binmap(&self) -> u64 {
        self.bins + (NBINS - 1) * 16
    }

    pub const fn next(&self) -> u64 {
        self.binmap() + 16
    }

    /// Where bin `index` seems to be a chunk, from the start of the `malloc_state`.
    pub const fn bin(&self, index: u64) -> u64 {
        self.bins + (index - 1) * 16 - 16
    }

    /// The first chunk of the first heap of an arena, from the start of the heap.
    pub const fn first_chunk(&self) -> u64 {
        (self.heap_info + self.state).next_multiple_of(16)
    }

    /// What a link reads that lies at `place` and leads to `target`.
    pub const fn link(&self, place: u64, target: u64) -> u64 {
        if self.safe_linking {
            (place >> 12) ^ target
        } else {
            target
        }
    }
}

impl Tcache {
    /// The bin for chunks of `size`; with `large`, beyond those of one size each.
    pub fn bin(&self, size: u64, large: bool) -> Option<u64> {
        if size <= MAX_CACHED {
            return Some((size - 32) / 16);
        }
        let bin = 64 + u64::from(MAX_CACHED.leading_zeros() - size.leading_zeros());
        (large && bin < self.slots).then_some(bin)
    }
}

/// The bin of free chunks of `size`.
pub const fn bin_index(size: u64) -> u64 {
    if size < 1024 {
        size >> 4
    } else if size >> 6 <= 48 {
        48 + (size >> 6)
    } else if size >> 9 <= 20 {
        91 + (size >> 9)
    } else if size >> 12 <= 10 {
        110 + (size >> 12)
    } else if size >> 15 <= 4 {
        119 + (size >> 15)
    } else if size >> 18 <= 2 {
        124 + (size >> 18)
    } else {
        126
    }
}
