//! The allocators that a profile can name.

use std::fmt;

use malloc_stats::AllocatorKind;
use serde::{Deserialize, Serialize};

/// An implementation of `malloc` that a program can be put under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Malloc {
    /// The GNU C library's own.
    Glibc,
    /// jemalloc; linked into Plimsoll, preloaded into other programs.
    Jemalloc,
    /// mimalloc; for other programs only, preloaded.
    Mimalloc,
    /// tcmalloc of gperftools; for other programs only, preloaded.
    Tcmalloc,
}

impl Malloc {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Glibc, Self::Jemalloc, Self::Mimalloc, Self::Tcmalloc];

    /// Its name in a profile, and in [`Detected::name`](malloc_stats::inspect::Detected).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Jemalloc => "jemalloc",
            Self::Mimalloc => "mimalloc",
            Self::Tcmalloc => "tcmalloc",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|malloc| malloc.name() == name)
    }

    /// What it is to a program whose global allocator is [`Selected`](crate::Selected); `None` where
    /// it can only be preloaded into other programs.
    #[must_use]
    pub const fn serves_here(self) -> Option<AllocatorKind> {
        match self {
            Self::Glibc => Some(AllocatorKind::Libc),
            Self::Jemalloc => Some(AllocatorKind::Jemalloc),
            Self::Mimalloc | Self::Tcmalloc => None,
        }
    }

    /// The files that have it, the preferred one first. The minimal tcmalloc is the allocator
    /// without the profilers, and does not unwind stacks.
    pub(crate) const fn libraries(self) -> &'static [&'static str] {
        match self {
            Self::Glibc => &[],
            Self::Jemalloc => &["libjemalloc.so.2"],
            Self::Mimalloc => &["libmimalloc.so.2", "libmimalloc.so.3", "libmimalloc.so"],
            Self::Tcmalloc => &["libtcmalloc_minimal.so.4", "libtcmalloc.so.4"],
        }
    }

    /// The packages that bring it.
    pub(crate) const fn packages(self) -> &'static str {
        match self {
            Self::Glibc => "",
            Self::Jemalloc => "Debian and Ubuntu: libjemalloc2; Fedora and Arch: jemalloc",
            Self::Mimalloc => {
                "Debian and Ubuntu: libmimalloc2.0 or libmimalloc3; Fedora and Arch: mimalloc"
            }
            Self::Tcmalloc => {
                "Debian and Ubuntu: libtcmalloc-minimal4; Fedora: gperftools-libs; Arch: gperftools"
            }
        }
    }

    /// The variable that names a file to preload instead of searching for one.
    pub(crate) const fn path_variable(self) -> Option<&'static str> {
        match self {
            Self::Glibc => None,
            Self::Jemalloc => Some("PLIMSOLL_JEMALLOC"),
            Self::Mimalloc => Some("PLIMSOLL_MIMALLOC"),
            Self::Tcmalloc => Some("PLIMSOLL_TCMALLOC"),
        }
    }
}

impl From<AllocatorKind> for Malloc {
    fn from(kind: AllocatorKind) -> Self {
        match kind {
            AllocatorKind::Libc => Self::Glibc,
            AllocatorKind::Jemalloc => Self::Jemalloc,
        }
    }
}

impl fmt::Display for Malloc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allocator_has_a_name_of_its_own_and_all_but_the_c_librarys_a_file() {
        for malloc in Malloc::ALL {
            assert_eq!(Malloc::from_name(malloc.name()), Some(malloc));
            assert_eq!(malloc.libraries().is_empty(), malloc == Malloc::Glibc);
            assert_eq!(
                malloc.path_variable().is_none(),
                malloc.libraries().is_empty()
            );
        }
        assert_eq!(Malloc::from_name("libc"), None);
    }
}
