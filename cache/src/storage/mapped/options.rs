//! How files are mapped, as the program asks for it.

use std::fmt;
use std::str::FromStr;

/// How storage `mapped` maps files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mapping {
    /// What the kernel is told about the reads to come.
    pub advice: Advice,
    /// What becomes of a file's pages in the page cache when its model is unloaded.
    pub page_cache: PageCache,
    /// Map files on network file systems too, where a page that cannot be had kills the process
    /// unless it is [guarded](Self::guard), and costs 30 to 50 times as much as a local one.
    pub anywhere: bool,
    /// Install a handler of `SIGBUS`, so that a file that is cut short while it is mapped does not
    /// kill the process: pages that are gone read as zeros, and the lease says so
    /// ([`Lease::check`](crate::Lease::check)). It replaces the handler of the whole process, and
    /// calls the one before for all faults that are not of mapped weights.
    pub guard: bool,
}

/// What the kernel is told about the reads to come (`madvise(2)`). With a warm page cache any advice
/// costs more than it brings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: it reads ahead as it sees fit.
    #[default]
    None,
    /// Pages are read in order: read far ahead, drop behind.
    Sequential,
    /// All of it is needed soon: read it in the background.
    WillNeed,
    /// Read all of it, and enter every page in the page table, before the load returns.
    Populate,
}

/// What becomes of a file's pages in the page cache when its model is unloaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PageCache {
    /// They stay until the kernel needs the memory: coming back costs no reading.
    #[default]
    Keep,
    /// They are dropped (`posix_fadvise(2)`), unless somebody else has them mapped or dirty.
    Drop,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Advice::None => "none",
            Advice::Sequential => "sequential",
            Advice::WillNeed => "willneed",
            Advice::Populate => "populate",
        })
    }
}

impl FromStr for Advice {
    type Err = String;

    fn from_str(name: &str) -> Result<Advice, String> {
        let all = [
            Advice::None,
            Advice::Sequential,
            Advice::WillNeed,
            Advice::Populate,
        ];
        let found = all.into_iter().find(|advice| advice.to_string() == name);
        found.ok_or_else(|| {
            format!(
                "no advice `{}`: none, sequential, willneed or populate",
                name.escape_debug()
            )
        })
    }
}

impl fmt::Display for PageCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PageCache::Keep => "keep",
            PageCache::Drop => "drop",
        })
    }
}

impl FromStr for PageCache {
    type Err = String;

    fn from_str(name: &str) -> Result<PageCache, String> {
        match name {
            "keep" => Ok(PageCache::Keep),
            "drop" => Ok(PageCache::Drop),
            _ => Err(format!(
                "`{}` is nothing to do with the page cache: keep or drop",
                name.escape_debug()
            )),
        }
    }
}
