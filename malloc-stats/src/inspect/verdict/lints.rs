//! Every lint: its name, and in a line each what docs/diagnose.md says at length.

use super::{Finding, Verdict, growth, heap, limits, pages, settings, walked};
use crate::inspect::Inspection;

/// A question put to every inspection.
#[derive(Debug)]
pub struct Lint {
    /// Its name, such as `free-but-resident`.
    pub name: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// How to see for oneself that it is so.
    pub check: &'static str,
    /// What helps.
    pub remedy: &'static str,
    find: fn(&Inspection) -> Option<Finding>,
}

impl Lint {
    /// What this lint says of an inspection; `None` where nothing is amiss, or where what it goes
    /// by is not known.
    #[must_use]
    pub fn judge(&self, inspection: &Inspection) -> Option<Verdict> {
        (self.find)(inspection).map(|found| Verdict {
            lint: self.name.to_owned(),
            severity: found.severity,
            bytes: found.bytes,
            finding: found.finding,
            remedy: found.remedy,
        })
    }
}

/// All lints there are.
pub const LINTS: &[Lint] = &[
    Lint {
        name: "near-limit",
        cause: "little is left below the limit that leaves least, even without page cache",
        check: "the limit less the use of each cgroup above the process",
        remedy: "give memory back, raise the limit, load less",
        find: limits::near_limit,
    },
    Lint {
        name: "limit-in-sight",
        cause: "growth between two looks meets a limit before long",
        check: "two readings of the cgroup's use, a minute apart",
        remedy: "find what grows; act before the kernel does",
        find: growth::limit_in_sight,
    },
    Lint {
        name: "oom-killed",
        cause: "the kernel has killed in the process's cgroup, or above it",
        check: "oom_kill in memory.events or memory.oom_control; the kernel's log",
        remedy: "raise the limit of that cgroup, or run less in it",
        find: limits::oom_killed,
    },
    Lint {
        name: "heap-corrupt",
        cause: "something wrote over the headers of malloc's chunks",
        check: "the same fault at the same address, look after look",
        remedy: "valgrind, AddressSanitizer, glibc.malloc.check=3",
        find: walked::heap_corrupt,
    },
    Lint {
        name: "free-but-resident",
        cause: "malloc keeps freed memory, and its pages, for later",
        check: "RSS before and after malloc_trim(0)",
        remedy: "malloc_trim(0) after large frees; a pinned mmap threshold",
        find: heap::free_but_resident,
    },
    Lint {
        name: "risen-threshold",
        cause: "freeing a large mmapped block raised the mmap threshold, up to 32 MiB",
        check: "a second block of that size appears in [heap] and not as a mapping",
        remedy: "MALLOC_MMAP_THRESHOLD_=131072, or 1 MiB",
        find: settings::risen_threshold,
    },
    Lint {
        name: "thresholds-set-high",
        cause: "somebody set the thresholds so that freed memory stays",
        check: "MALLOC_*_ and GLIBC_TUNABLES in /proc/PID/environ; calls of mallopt",
        remedy: "take the setting out",
        find: settings::thresholds_set_high,
    },
    Lint {
        name: "pinned-top",
        cause: "a block in use lies above free memory, right under an arena's top",
        check: "read the block at its address in a debugger",
        remedy: "malloc_trim(0); keep large blocks out of arenas",
        find: heap::pinned_top,
    },
    Lint {
        name: "secondary-tops",
        cause: "threads freed memory at the ends of their arenas, below the trim threshold",
        check: "malloc_trim(0) leaves RSS as it is",
        remedy: "MALLOC_TRIM_THRESHOLD_=131072",
        find: heap::secondary_tops,
    },
    Lint {
        name: "scattered",
        cause: "blocks in use lie on nearly every page",
        check: "malloc_trim(0) leaves RSS as it is",
        remedy: "separate long-lived from short-lived objects; another allocator",
        find: heap::scattered,
    },
    Lint {
        name: "many-arenas",
        cause: "each thread's arena keeps what that thread freed",
        check: "malloc_info(0), or the arenas of the report",
        remedy: "fewer arenas, if thresholds do not help",
        find: heap::many_arenas,
    },
    Lint {
        name: "tcache-hoard",
        cause: "threads' caches hold many freed blocks, mostly by a raised tcache_count",
        check: "GLIBC_TUNABLES in /proc/PID/environ",
        remedy: "lower glibc.malloc.tcache_count",
        find: heap::tcache_hoard,
    },
    Lint {
        name: "growing-live",
        cause: "blocks are allocated and not freed",
        check: "in_use of two looks",
        remedy: "find who allocates, with a profiler",
        find: growth::growing_live,
    },
    Lint {
        name: "growing-free",
        cause: "blocks are freed and their pages stay",
        check: "in_use and free resident memory of two looks",
        remedy: "as for free-but-resident",
        find: growth::growing_free,
    },
    Lint {
        name: "growing-elsewhere",
        cause: "anonymous memory grows outside malloc",
        check: "the classes of two looks",
        remedy: "find its maker; malloc's settings change nothing",
        find: growth::growing_elsewhere,
    },
    Lint {
        name: "swapped",
        cause: "memory was short, now or earlier",
        check: "VmSwap in /proc/PID/status",
        remedy: "make room; forbid swap where latency counts",
        find: pages::swapped,
    },
    Lint {
        name: "memory-stall",
        cause: "tasks wait for pages that were dropped or swapped out",
        check: "memory.pressure, /proc/pressure/memory",
        remedy: "more memory, or less beside it",
        find: limits::memory_stall,
    },
    Lint {
        name: "address-limit",
        cause: "RLIMIT_AS is nearly used up by address space",
        check: "Max address space in /proc/PID/limits, VmSize in status",
        remedy: "ulimit -v unlimited; bound memory by a cgroup",
        find: limits::address_limit,
    },
    Lint {
        name: "vram-full",
        cause: "a GPU that the process uses is nearly full",
        check: "nvidia-smi",
        remedy: "free caches, a smaller model, another GPU",
        find: limits::vram_full,
    },
    Lint {
        name: "cache-charged",
        cause: "page cache is charged to the cgroup that read it",
        check: "inactive_file and active_file in memory.stat",
        remedy: "none is needed",
        find: limits::cache_charged,
    },
    Lint {
        name: "files-not-leak",
        cause: "pages of mapped files count in RSS",
        check: "RssFile in /proc/PID/status",
        remedy: "none is needed: watch anonymous memory",
        find: pages::files_not_leak,
    },
    Lint {
        name: "copied-weights",
        cause: "a file was read into memory, and the page cache kept it too",
        check: "fincore FILE, and RssAnon",
        remedy: "map it, or drop its pages after reading",
        find: pages::copied_weights,
    },
    Lint {
        name: "cold-file",
        cause: "a mapped file was never read, or its pages were dropped",
        check: "fincore FILE",
        remedy: "read it ahead, where there is room",
        find: pages::cold_file,
    },
    Lint {
        name: "unattributed",
        cause: "a runtime or library maps anonymous memory by itself",
        check: "the largest anonymous mappings in /proc/PID/smaps",
        remedy: "find its maker",
        find: pages::unattributed,
    },
    Lint {
        name: "not-walkable",
        cause: "malloc is not glibc's, or may not be read",
        check: "the allocator and reason of the report",
        remedy: "ask that allocator from inside the process",
        find: walked::not_walkable,
    },
    Lint {
        name: "walk-torn",
        cause: "the process changed its heap faster than it could be read",
        check: "look again",
        remedy: "--pause",
        find: walked::walk_torn,
    },
];
