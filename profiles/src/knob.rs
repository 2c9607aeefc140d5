//! The knobs that allocators have: one table, from which parsing, help, environment and
//! verification follow.

use malloc_stats::size::Size;

use crate::malloc::Malloc;

/// What values a knob takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Bytes: `"1 MiB"`, `"128KiB"` or a bare number.
    Bytes,
    /// A number; `-1` where the allocator gives it a meaning.
    Number,
    /// `true` or `false`.
    Flag,
}

/// How a knob reaches the allocator of a process that is not started yet, or of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// glibc: a `mallopt` parameter for this process, and a tunable at start-up.
    Mallopt(i32),
    /// glibc: a tunable only; this process has to be executed again.
    Tunable,
    /// jemalloc: an `opt.*` setting, read once at start-up.
    Option,
    /// mimalloc, tcmalloc: a variable of its own, read once at start-up.
    Environment,
}

/// A setting of an allocator.
#[derive(Debug, PartialEq, Eq)]
pub struct Knob {
    /// The name in a profile; `glibc.malloc.NAME`, jemalloc's `opt.NAME` or mimalloc's option.
    pub name: &'static str,
    /// Whose knob it is.
    pub allocator: Malloc,
    /// What values it takes.
    pub takes: Takes,
    /// How it gets there.
    pub route: Route,
    /// Its environment variables: glibc's older one, where there is one; of mimalloc the names that
    /// its versions have for it, which all have to be set.
    pub variables: &'static [&'static str],
    /// What it does, in a line.
    pub about: &'static str,
}

const fn glibc(
    name: &'static str,
    takes: Takes,
    route: Route,
    variables: &'static [&'static str],
    about: &'static str,
) -> Knob {
    Knob {
        name,
        allocator: Malloc::Glibc,
        takes,
        route,
        variables,
        about,
    }
}

const fn jemalloc(name: &'static str, takes: Takes, about: &'static str) -> Knob {
    Knob {
        name,
        allocator: Malloc::Jemalloc,
        takes,
        route: Route::Option,
        variables: &[],
        about,
    }
}

const fn environment(
    allocator: Malloc,
    name: &'static str,
    takes: Takes,
    variables: &'static [&'static str],
    about: &'static str,
) -> Knob {
    Knob {
        name,
        allocator,
        takes,
        route: Route::Environment,
        variables,
        about,
    }
}

/// All knobs a profile may set. Sources: glibc's manual ("Memory Allocation Tunables", `mallopt(3)`),
/// jemalloc 5.3's manual, mimalloc's `src/options.c` (2.0 to 3.1) and gperftools 2.10's
/// `docs/tcmalloc.html`.
pub static KNOBS: &[Knob] = &[
    glibc(
        "mmap_threshold",
        Takes::Bytes,
        Route::Mallopt(libc::M_MMAP_THRESHOLD),
        &["MALLOC_MMAP_THRESHOLD_"],
        "blocks of this size and more get a mapping of their own; setting it stops the dynamic threshold",
    ),
    glibc(
        "trim_threshold",
        Takes::Bytes,
        Route::Mallopt(libc::M_TRIM_THRESHOLD),
        &["MALLOC_TRIM_THRESHOLD_"],
        "free bytes at the top of the main arena before it shrinks by itself; freezes mmap_threshold too",
    ),
    glibc(
        "top_pad",
        Takes::Bytes,
        Route::Mallopt(libc::M_TOP_PAD),
        &["MALLOC_TOP_PAD_"],
        "bytes asked of the system beyond what is needed; freezes mmap_threshold too",
    ),
    glibc(
        "mmap_max",
        Takes::Number,
        Route::Mallopt(libc::M_MMAP_MAX),
        &["MALLOC_MMAP_MAX_"],
        "how many blocks may have a mapping of their own; freezes mmap_threshold too",
    ),
    glibc(
        "arena_max",
        Takes::Number,
        Route::Tunable,
        &["MALLOC_ARENA_MAX"],
        "how many arenas at most; ignored when set late, so it takes a fresh start",
    ),
    glibc(
        "tcache_count",
        Takes::Number,
        Route::Tunable,
        &[],
        "blocks of one size a thread keeps for itself",
    ),
    glibc(
        "tcache_max",
        Takes::Bytes,
        Route::Tunable,
        &[],
        "largest block a thread keeps for itself",
    ),
    glibc(
        "mxfast",
        Takes::Bytes,
        Route::Tunable,
        &[],
        "largest block of the fastbins, which are not joined when freed",
    ),
    glibc(
        "hugetlb",
        Takes::Number,
        Route::Tunable,
        &[],
        "1: madvise huge pages for malloc; 2: explicit huge pages",
    ),
    jemalloc(
        "dirty_decay_ms",
        Takes::Number,
        "milliseconds after which unused dirty pages go back; 0 at once, -1 never",
    ),
    jemalloc(
        "muzzy_decay_ms",
        Takes::Number,
        "milliseconds after which lazily freed pages go back; 0 at once, -1 never",
    ),
    jemalloc(
        "background_thread",
        Takes::Flag,
        "decay in a thread of its own, even while the program allocates nothing",
    ),
    jemalloc("narenas", Takes::Number, "how many arenas"),
    jemalloc(
        "retain",
        Takes::Flag,
        "keep unused address space rather than unmap it",
    ),
    jemalloc(
        "oversize_threshold",
        Takes::Bytes,
        "blocks of this size and more use an arena of their own, purged at once",
    ),
    jemalloc(
        "tcache",
        Takes::Flag,
        "whether threads keep blocks for themselves",
    ),
    jemalloc(
        "tcache_max",
        Takes::Bytes,
        "largest block a thread keeps for itself",
    ),
    environment(
        Malloc::Mimalloc,
        "purge_delay",
        Takes::Number,
        // 2.0 has `decommit_delay`, which like its successor also goes by the first name of all.
        &["MIMALLOC_PURGE_DELAY", "MIMALLOC_RESET_DELAY"],
        "milliseconds after which unused pages go back; 0 at once, -1 never",
    ),
    environment(
        Malloc::Mimalloc,
        "purge_decommits",
        Takes::Flag,
        &["MIMALLOC_PURGE_DECOMMITS", "MIMALLOC_RESET_DECOMMITS"],
        "give pages back at once (MADV_DONTNEED) rather than when memory is short (MADV_FREE)",
    ),
    environment(
        Malloc::Mimalloc,
        "arena_eager_commit",
        Takes::Number,
        &[
            "MIMALLOC_ARENA_EAGER_COMMIT",
            "MIMALLOC_EAGER_REGION_COMMIT",
        ],
        "commit whole arenas at once; 0 never, 1 always, 2 where the system overcommits",
    ),
    environment(
        Malloc::Mimalloc,
        "allow_large_os_pages",
        Takes::Number,
        &["MIMALLOC_ALLOW_LARGE_OS_PAGES", "MIMALLOC_LARGE_OS_PAGES"],
        "1: use pages of 2 MiB where there are some; those do not go back in parts",
    ),
    environment(
        Malloc::Tcmalloc,
        "release_rate",
        Takes::Number,
        &["TCMALLOC_RELEASE_RATE"],
        "how eagerly free pages go back while the program frees: 0 never, 1 as it comes, 10 fast",
    ),
    environment(
        Malloc::Tcmalloc,
        "aggressive_decommit",
        Takes::Flag,
        &["TCMALLOC_AGGRESSIVE_DECOMMIT"],
        "whole free spans go back at once",
    ),
    environment(
        Malloc::Tcmalloc,
        "max_total_thread_cache_bytes",
        Takes::Bytes,
        &["TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES"],
        "what all threads together keep for themselves",
    ),
];

/// The knob of that name that an allocator has.
#[must_use]
pub fn find(allocator: Malloc, name: &str) -> Option<&'static Knob> {
    KNOBS
        .iter()
        .find(|knob| knob.allocator == allocator && knob.name == name)
}

impl Knob {
    /// Reads a value as this knob takes it, in the form that the allocator reads.
    ///
    /// # Errors
    /// Says in words what the knob takes.
    pub fn parse(&self, value: &toml::Value) -> Result<String, String> {
        let parsed = self.read(value)?;
        let fits = |text: &str| text.parse::<libc::c_int>().is_ok();
        if matches!(self.route, Route::Mallopt(_)) && !fits(&parsed) {
            return Err(format!("takes at most {}, not {parsed}", libc::c_int::MAX));
        }
        Ok(parsed)
    }

    fn read(&self, value: &toml::Value) -> Result<String, String> {
        let wrong = || format!("takes {}, not {value}", self.takes());
        match (self.takes, value) {
            (Takes::Bytes, toml::Value::String(text)) => text
                .parse::<Size>()
                .map(|size| size.0.to_string())
                .map_err(|error| error.to_string()),
            (Takes::Bytes, toml::Value::Integer(number)) if *number >= 0 => Ok(number.to_string()),
            (Takes::Number, toml::Value::Integer(number)) if *number >= self.least() => {
                Ok(number.to_string())
            }
            (Takes::Flag, toml::Value::Boolean(flag)) => Ok(flag.to_string()),
            _ => Err(wrong()),
        }
    }

    fn least(&self) -> i64 {
        if self.name.ends_with("decay_ms") || self.name == "purge_delay" {
            -1
        } else {
            0
        }
    }

    fn takes(&self) -> &'static str {
        match self.takes {
            Takes::Bytes => "a size such as \"1 MiB\"",
            Takes::Number if self.least() < 0 => "a number, or -1 for never",
            Takes::Number => "a number",
            Takes::Flag => "true or false",
        }
    }
}
