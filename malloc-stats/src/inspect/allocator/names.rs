//! Function names that tell allocators and C libraries apart.

/// A set of names, one bit for each sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Names(u16);

impl Names {
    /// `malloc` itself.
    pub(super) const MALLOC: Self = Self(1);
    /// jemalloc's control function under its plain name: it then has the plain `malloc`, too.
    pub(super) const JEMALLOC: Self = Self(1 << 1);
    /// The same under a prefix: it serves those who call it by that, and not `malloc`.
    pub(super) const PREFIXED: Self = Self(1 << 2);
    /// mimalloc.
    pub(super) const MIMALLOC: Self = Self(1 << 3);
    /// tcmalloc, of gperftools or Google's later one.
    pub(super) const TCMALLOC: Self = Self(1 << 4);
    /// The GNU C library. Not `__libc_malloc`: mimalloc and tcmalloc define that, too.
    pub(super) const GLIBC: Self = Self(1 << 5);
    /// glibc's malloc inside a static program.
    pub(super) const GLIBC_MALLOC: Self = Self(1 << 6);
    /// musl: stages of its loader, or of its start in a static program.
    pub(super) const MUSL: Self = Self(1 << 7);
    /// glibc's loader, which before 2.31 had a `malloc` of its own for its start.
    pub(super) const GLIBC_LOADER: Self = Self(1 << 8);
    /// A sanitizer, which brings its own `malloc`.
    pub(super) const SANITIZER: Self = Self(1 << 9);

    /// Whether one of `any` is here.
    pub(super) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The names, with what they mean.
pub(super) const KNOWN: &[(&str, Names)] = &[
    ("malloc", Names::MALLOC),
    ("mallctl", Names::JEMALLOC),
    ("je_mallctl", Names::PREFIXED),
    ("_rjem_mallctl", Names::PREFIXED),
    ("je_arrow_mallctl", Names::PREFIXED),
    ("mi_malloc", Names::MIMALLOC),
    ("tc_malloc", Names::TCMALLOC),
    ("MallocExtension_ReleaseFreeMemory", Names::TCMALLOC),
    ("_ZN15MallocExtension8instanceEv", Names::TCMALLOC),
    ("TCMallocInternalMalloc", Names::TCMALLOC),
    ("MallocExtension_Internal_GetStats", Names::TCMALLOC),
    ("gnu_get_libc_version", Names::GLIBC),
    ("_int_malloc", Names::GLIBC_MALLOC),
    ("__dls3", Names::MUSL),
    ("__init_libc", Names::MUSL),
    ("_rtld_global", Names::GLIBC_LOADER),
    ("__asan_init", Names::SANITIZER),
    ("__msan_init", Names::SANITIZER),
    ("__tsan_init", Names::SANITIZER),
];

/// No known name is longer, in bytes, with its end; jemalloc's prefixes are short.
pub(super) const LONGEST: usize = 64;

/// What a name of a whole symbol table means. jemalloc may have any prefix there.
pub(super) fn known(name: &[u8]) -> Option<Names> {
    // Most of a million names differ in their last byte already.
    if !matches!(
        name.last(),
        Some(b'c' | b'l' | b'y' | b'v' | b's' | b'n' | b'3' | b't')
    ) {
        return None;
    }
    let known = KNOWN.iter().find(|(known, _)| known.as_bytes() == name);
    match known {
        Some((_, bit)) => Some(*bit),
        None => name.ends_with(b"_mallctl").then_some(Names::PREFIXED),
    }
}

/// `2.36` of `2.36`, `2.36.9000` and `2.36-9`.
pub(super) fn two_numbers(text: &str) -> Option<(u32, u32)> {
    let (first, rest) = text.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    Some((
        first.parse().ok()?,
        rest[..end.unwrap_or(rest.len())].parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_a_whole_symbol_table() {
        for (name, bit) in KNOWN {
            assert!(name.len() < LONGEST);
            assert_eq!(known(name.as_bytes()), Some(*bit), "{name}");
        }
        assert_eq!(known(b"je_unusual_mallctl"), Some(Names::PREFIXED));
        assert_eq!(known(b"xmalloc"), None);
        assert_eq!(known(b""), None);
    }

    #[test]
    fn versions_are_two_numbers() {
        assert_eq!(two_numbers("2.36"), Some((2, 36)));
        assert_eq!(two_numbers("2.41-6ubuntu1"), Some((2, 41)));
        assert_eq!(two_numbers("2.2.5"), Some((2, 2)));
        assert_eq!(two_numbers("2."), None);
        assert_eq!(two_numbers("PRIVATE"), None);
        assert_eq!(two_numbers("2.99999999999"), None);
    }
}
