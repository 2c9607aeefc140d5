//! Which allocator a file has, and which version of it.

use super::elf::Facts;
use super::names::{Names, two_numbers};
use super::objects::Object;
use super::strings::Strings;

/// Allocators that can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Glibc,
    Musl,
    Jemalloc,
    Mimalloc,
    Tcmalloc,
    /// The runtime of a Go program, which has no `malloc`.
    Go,
    Sanitizer,
    Unknown,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Jemalloc => "jemalloc",
            Self::Mimalloc => "mimalloc",
            Self::Tcmalloc => "tcmalloc",
            Self::Go => "go",
            Self::Sanitizer | Self::Unknown => "unknown",
        }
    }

    /// How the names begin that it gives its mappings (`PR_SET_VMA_ANON_NAME`), where it does.
    pub(super) const fn mapping_name(self) -> Option<&'static str> {
        match self {
            Self::Jemalloc => Some("jemalloc"),
            Self::Mimalloc => Some("mimalloc"),
            Self::Tcmalloc => Some("tcmalloc"),
            Self::Go => Some("Go: "),
            _ => None,
        }
    }

    const fn is_c_library(self) -> bool {
        matches!(self, Self::Glibc | Self::Musl)
    }
}

/// An allocator in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) version: Option<String>,
    /// The same in numbers, for glibc.
    pub(super) glibc: Option<(u32, u32)>,
}

/// What an object has.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Who defines the `malloc` that others can find, or that a static program calls.
    pub(super) malloc: Option<Found>,
    /// Allocators under other names than `malloc`, each with how it is called.
    pub(super) beside: Vec<(Kind, String)>,
}

impl Contents {
    pub(super) fn of(object: &Object, is_program: bool) -> Self {
        let Ok(facts) = &object.facts else {
            return Self {
                malloc: by_name(object),
                beside: Vec::new(),
            };
        };
        let is_static = is_program && !facts.interpreter && facts.needed.is_empty();
        let exports = facts.exports;
        // Before 2.31 glibc's loader had a `malloc` for its own start.
        let of_loader = exports.has(Names::GLIBC_LOADER) && !exports.has(Names::GLIBC);
        let defines = exports.has(Names::MALLOC) && !of_loader;
        let Some(file) = object.file.as_ref().filter(|_| is_program || defines) else {
            return Self {
                malloc: None,
                beside: beside(facts, None),
            };
        };
        let strings = Strings::search(file, &facts.constants);
        let kind = if is_static {
            Some(of_static(facts, &strings))
        } else if defines {
            Some(of_definition(object, facts, &strings))
        } else {
            None
        };
        let malloc = kind.map(|kind| found(kind, facts, &strings));
        let mut beside = beside(facts, kind);
        if is_program && facts.symbols == Names::default() {
            beside.extend(hidden(&strings, kind, &beside));
        }
        Self { malloc, beside }
    }
}

/// Of an object that others find `malloc` in.
fn of_definition(object: &Object, facts: &Facts, strings: &Strings) -> Kind {
    // A program exports of its own allocator only what libraries ask for: `malloc`.
    let kind = by_symbols(facts.exports.or(facts.symbols));
    let soname = facts.soname.as_deref().unwrap_or(object.file_name());
    match kind {
        Some(kind) => kind,
        None if is_musl(soname) || is_musl(object.file_name()) => Kind::Musl,
        None => by_strings(strings)
            .filter(|kind| !kind.is_c_library())
            .unwrap_or(Kind::Unknown),
    }
}

/// Of a static program. An allocator that replaces the C library's keeps that one out of it, so
/// where glibc's is there, it serves, and another one is called by its own names.
fn of_static(facts: &Facts, strings: &Strings) -> Kind {
    let symbols = facts.symbols;
    if symbols.has(Names::GLIBC_MALLOC) {
        return Kind::Glibc;
    }
    if symbols.has(Names::MALLOC) {
        return by_symbols(symbols).unwrap_or(Kind::Unknown);
    }
    if facts.go && !strings.has_glibc_malloc() {
        return Kind::Go;
    }
    by_strings(strings).unwrap_or(Kind::Unknown)
}

/// The C library comes last: everything may lie in one object with it.
fn by_symbols(names: Names) -> Option<Kind> {
    [
        (Names::SANITIZER, Kind::Sanitizer),
        (Names::JEMALLOC, Kind::Jemalloc),
        (Names::MIMALLOC, Kind::Mimalloc),
        (Names::TCMALLOC, Kind::Tcmalloc),
        (Names::GLIBC, Kind::Glibc),
        (Names::MUSL, Kind::Musl),
    ]
    .into_iter()
    .find_map(|(name, kind)| names.has(name).then_some(kind))
}

fn by_strings(strings: &Strings) -> Option<Kind> {
    [
        (strings.has_glibc_malloc(), Kind::Glibc),
        (strings.has_jemalloc(), Kind::Jemalloc),
        (strings.has_mimalloc(), Kind::Mimalloc),
        (strings.has_tcmalloc(), Kind::Tcmalloc),
        (strings.has_musl(), Kind::Musl),
    ]
    .into_iter()
    .find_map(|(has, kind)| has.then_some(kind))
}

fn found(kind: Kind, facts: &Facts, strings: &Strings) -> Found {
    let glibc = (kind == Kind::Glibc)
        .then(|| strings.glibc.or(facts.defines_glibc))
        .flatten();
    let version = match kind {
        Kind::Glibc => glibc.map(|(major, minor)| format!("{major}.{minor}")),
        Kind::Jemalloc => strings.jemalloc_version.clone(),
        Kind::Tcmalloc => strings.gperftools_version.clone(),
        _ => None,
    };
    Found {
        kind,
        version,
        glibc,
    }
}

/// Allocators that are called by names of their own.
fn beside(facts: &Facts, serving: Option<Kind>) -> Vec<(Kind, String)> {
    let names = facts.exports.or(facts.symbols);
    let mut beside = Vec::new();
    if let Some(name) = &facts.prefixed {
        beside.push((
            Kind::Jemalloc,
            format!("it serves those who call it under its prefix (`{name}`), not malloc"),
        ));
    }
    let by_own_name = [
        (Names::MIMALLOC, Kind::Mimalloc, "mi_malloc"),
        (Names::TCMALLOC, Kind::Tcmalloc, "tc_malloc"),
    ];
    for (name, kind, call) in by_own_name {
        if names.has(name) && serving != Some(kind) && serving != Some(Kind::Sanitizer) {
            beside.push((
                kind,
                format!("it serves those who call it by its own names (`{call}`), not malloc"),
            ));
        }
    }
    if facts.go && serving != Some(Kind::Go) {
        let why = "Go's runtime serves Go code, and malloc only the C code beside it";
        beside.push((Kind::Go, why.to_owned()));
    }
    beside
}

/// Allocators that a stripped program seems to have, by its texts.
fn hidden(
    strings: &Strings,
    serving: Option<Kind>,
    known: &[(Kind, String)],
) -> Vec<(Kind, String)> {
    [
        (strings.has_jemalloc(), Kind::Jemalloc),
        (strings.has_mimalloc(), Kind::Mimalloc),
        (strings.has_tcmalloc(), Kind::Tcmalloc),
    ]
    .into_iter()
    .filter(|(has, kind)| {
        *has && serving != Some(*kind) && known.iter().all(|(other, _)| other != kind)
    })
    .map(|(_, kind)| {
        let why = "its texts are in the program, which is stripped and exports no malloc of it: \
                   it seems to serve those who call it by names of its own";
        (kind, why.to_owned())
    })
    .collect()
}

/// All that is left where a file cannot be read.
fn by_name(object: &Object) -> Option<Found> {
    let name = object.file_name();
    let starts = |start| name.starts_with(start);
    let kind = if starts("libc.so.6") || starts("libc-2.") {
        Kind::Glibc
    } else if is_musl(name) {
        Kind::Musl
    } else if starts("libjemalloc") {
        Kind::Jemalloc
    } else if starts("libmimalloc") {
        Kind::Mimalloc
    } else if starts("libtcmalloc") {
        Kind::Tcmalloc
    } else {
        return None;
    };
    // Before 2.34 the file was called after the version.
    let glibc = name.strip_prefix("libc-").and_then(two_numbers);
    Some(Found {
        kind,
        version: glibc.map(|(major, minor)| format!("{major}.{minor}")),
        glibc,
    })
}

fn is_musl(name: &str) -> bool {
    name.starts_with("ld-musl-") || name.starts_with("libc.musl-")
}
