//! The mappings of a process: `/proc/PID/maps` (`proc_pid_maps(5)`).

use std::ops::Range;
use std::path::Path;

/// What a mapping shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// Nothing but zeros at first: heaps, regions, the `.bss` of objects. The name is what the
    /// process gave it (`PR_SET_VMA_ANON_NAME`), without `[anon:` and `]`; mostly empty.
    Anonymous(String),
    /// The data segment that `brk(2)` moves, `[heap]`.
    Brk,
    /// The first thread's stack, `[stack]`.
    Stack,
    /// A file, by the path the kernel shows; `deleted` when it has none any more. Also shared
    /// memory (`/dev/zero`, `/memfd:…`, `/SYSV…`) and devices.
    File {
        /// The path, with newlines as the kernel escapes them (`\012`).
        path: String,
        /// Whether the kernel says ` (deleted)`.
        deleted: bool,
    },
    /// Of the kernel: `[vdso]`, `[vvar]`, `[vsyscall]` and the like.
    Kernel(String),
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses; whole pages.
    pub range: Range<u64>,
    /// Whether it can be read.
    pub readable: bool,
    /// Whether it can be written to.
    pub writable: bool,
    /// Whether it can be executed.
    pub executable: bool,
    /// Whether writes are seen by others (`MAP_SHARED`).
    pub shared: bool,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// The file's inode; 0 where there is none.
    pub inode: u64,
    /// What it shows.
    pub backing: Backing,
}

impl Mapping {
    /// A line of `/proc/PID/maps`; `None` where it is malformed.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut rest = line;
        let mut field = || {
            let trimmed = rest.trim_start_matches(' ');
            let (field, after) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
            rest = after;
            (!field.is_empty()).then_some(field)
        };
        let (start, end) = field()?.split_once('-')?;
        let range = hexadecimal(start)?..hexadecimal(end)?;
        let permissions = field()?.as_bytes();
        let offset = hexadecimal(field()?)?;
        let (major, minor) = field()?.split_once(':')?;
        let device = (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        );
        let inode = field()?.parse().ok()?;
        let flag = |at: usize, letter| permissions.get(at) == Some(&letter);
        (range.start < range.end && permissions.len() == 4).then(|| Self {
            range,
            readable: flag(0, b'r'),
            writable: flag(1, b'w'),
            executable: flag(2, b'x'),
            shared: flag(3, b's'),
            offset,
            device,
            inode,
            backing: Backing::of(rest.trim_start_matches(' '), inode),
        })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Never: a mapping has at least a page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The path of the file it shows.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.backing {
            Backing::File { path, .. } => Some(Path::new(path)),
            _ => None,
        }
    }

    /// Whether a heap can lie in it: private, readable and writable, of no file. Huge pages that
    /// were asked for by size (`MAP_HUGETLB`) are shown as a file without a name.
    #[must_use]
    pub fn is_private_anonymous(&self) -> bool {
        let anonymous = match &self.backing {
            Backing::Anonymous(_) | Backing::Brk => true,
            Backing::File { path, .. } => path == "/anon_hugepage",
            Backing::Stack | Backing::Kernel(_) => false,
        };
        anonymous && self.readable && self.writable && !self.shared
    }
}

impl Backing {
    fn of(name: &str, inode: u64) -> Self {
        let bracketed = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        match bracketed {
            // A file may be called anything, but has an inode.
            Some(_) | None if inode != 0 => Self::file(name),
            Some("heap") => Self::Brk,
            Some("stack") => Self::Stack,
            Some(other) => match other.strip_prefix("anon:") {
                Some(given) => Self::Anonymous(given.to_owned()),
                None if other.starts_with("anon_shmem:") => Self::file(name),
                None => Self::Kernel(other.to_owned()),
            },
            None if name.is_empty() => Self::Anonymous(String::new()),
            None => Self::file(name),
        }
    }

    fn file(name: &str) -> Self {
        let path = name.strip_suffix(" (deleted)");
        Self::File {
            path: path.unwrap_or(name).to_owned(),
            deleted: path.is_some(),
        }
    }
}

fn hexadecimal(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// The mappings in the text of `/proc/PID/maps`, in order of address. Lines that are malformed are
/// left out.
#[must_use]
pub fn parse(text: &str) -> Vec<Mapping> {
    text.lines().filter_map(Mapping::parse).collect()
}

/// The parts of a range outside of others, which are in order of address.
pub(crate) fn without(range: &Range<u64>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut start = range.start;
    let first = others.partition_point(|other| other.start < range.start);
    // One that begins before may reach in.
    for other in others.iter().skip(first.saturating_sub(1)) {
        if other.start >= range.end {
            break;
        }
        if other.start > start {
            parts.push(start..other.start);
        }
        start = start.max(other.end);
    }
    if start < range.end {
        parts.push(start..range.end);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sort_of_mapping_is_told_apart() {
        let backing = |line: &str| Mapping::parse(line).map(|m| m.backing);
        let anonymous = |name: &str| Some(Backing::Anonymous(name.to_owned()));
        let file = |path: &str, deleted| {
            let path = path.to_owned();
            Some(Backing::File { path, deleted })
        };
        let prefix = "5579c9335000-5579c9356000 rw-p 00000000 00:00 0";
        assert_eq!(backing(&format!("{prefix}    [heap]")), Some(Backing::Brk));
        assert_eq!(backing(&format!("{prefix} ")), anonymous(""));
        assert_eq!(backing(prefix), anonymous(""));
        assert_eq!(
            backing(&format!("{prefix}  [anon: glibc: malloc]")),
            anonymous(" glibc: malloc")
        );
        assert_eq!(
            backing(&format!("{prefix}  [vvar_vclock]")),
            Some(Backing::Kernel("vvar_vclock".to_owned()))
        );
        let mapped = "7f0000000000-7f0000021000 r--s 00002000 fe:0a 42";
        assert_eq!(
            backing(&format!("{mapped}   /lib/with two  spaces.so (deleted)")),
            file("/lib/with two  spaces.so", true)
        );
        assert_eq!(backing(&format!("{mapped} [heap]")), file("[heap]", false));
        let mapping = Mapping::parse(&format!("{mapped} /lib/libc.so.6")).unwrap();
        assert_eq!(mapping.device, (0xfe, 0x0a));
        assert_eq!((mapping.offset, mapping.inode), (0x2000, 42));
        assert!(mapping.shared && !mapping.writable && !mapping.is_private_anonymous());
        assert_eq!(backing("nonsense"), None);
        assert_eq!(backing("2-1 rw-p 0 00:00 0"), None);
    }
}
