//! What is resident of each mapping: `/proc/PID/smaps` (`proc_pid_smaps(5)`).
//!
//! The kernel walks every page of the process to write it. Big processes have tens of thousands of
//! mappings of twenty-five lines each, so the text is never held as a whole. The crate `procfs`
//! gives each mapping a map of texts and ends at the first byte that is no UTF-8, which a process
//! can put there by the name of a file.

use std::io::{self, BufRead, BufReader};

use super::target::Target;
use crate::mappings::{Backing, Mapping};
use crate::metric::Metric;
use crate::process::decimal;

/// A mapping, and what is in memory of it; in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmapsEntry {
    /// The mapping.
    pub mapping: Mapping,
    /// Resident pages: `Rss`. Without huge pages of hugetlbfs.
    pub rss: u64,
    /// Resident pages, each shared one divided by how many processes have it: `Pss`.
    pub pss: u64,
    /// Of `rss`, what no file backs: `Anonymous`.
    pub anonymous: u64,
    /// Of `anonymous`, what the kernel may drop as it was given back by `MADV_FREE`: `LazyFree`.
    pub lazy_free: u64,
    /// Pages in swap: `Swap`.
    pub swap: u64,
    /// Pages of hugetlbfs, which are in no other number: `Shared_Hugetlb` and `Private_Hugetlb`.
    pub hugetlb: u64,
    /// Whether a device put the pages there, so that they are in no number (`pf` or `io` of
    /// `VmFlags`).
    pub of_device: bool,
    /// Whether it grows downwards, or is a shadow stack (`gd` or `ss` of `VmFlags`).
    pub is_stack: bool,
}

impl SmapsEntry {
    /// A mapping of which nothing is known to be in memory.
    #[must_use]
    pub fn empty(mapping: Mapping) -> Self {
        Self {
            mapping,
            rss: 0,
            pss: 0,
            anonymous: 0,
            lazy_free: 0,
            swap: 0,
            hugetlb: 0,
            of_device: false,
            is_stack: false,
        }
    }

    /// Whether its pages are anonymous from the start: of no file, or huge pages without a name.
    #[must_use]
    pub fn is_private_anonymous(&self) -> bool {
        let anonymous = match &self.mapping.backing {
            Backing::Anonymous(_) | Backing::Brk => true,
            Backing::File { path, .. } => path == "/anon_hugepage",
            Backing::Stack | Backing::Kernel(_) => false,
        };
        anonymous && !self.mapping.shared
    }

    fn attribute(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = line.split_at(colon);
        let field = match name {
            b"Rss" => &mut self.rss,
            b"Pss" => &mut self.pss,
            b"Anonymous" => &mut self.anonymous,
            b"LazyFree" => &mut self.lazy_free,
            b"Swap" => &mut self.swap,
            b"Shared_Hugetlb" | b"Private_Hugetlb" => {
                self.hugetlb = self.hugetlb.saturating_add(kibibytes(value).unwrap_or(0));
                return;
            }
            b"VmFlags" => {
                for flag in value.split(u8::is_ascii_whitespace) {
                    self.of_device |= matches!(flag, b"pf" | b"io");
                    self.is_stack |= matches!(flag, b"gd" | b"ss");
                }
                return;
            }
            _ => return,
        };
        *field = kibibytes(value).unwrap_or(0);
    }
}

/// The bytes in `:   1234 kB`.
fn kibibytes(value: &[u8]) -> Option<u64> {
    let number = value.get(1..)?.trim_ascii().strip_suffix(b" kB")?;
    decimal(number)?.checked_mul(1024)
}

/// Takes the lines of `smaps` one after the other. Unknown ones are passed over, and so is all of
/// a mapping whose first line is malformed.
#[derive(Debug, Default)]
pub struct SmapsParser {
    current: Option<SmapsEntry>,
}

impl SmapsParser {
    /// The next line, without its end. Gives the mapping that it ends.
    pub fn line(&mut self, line: &[u8]) -> Option<SmapsEntry> {
        // The kernel writes addresses in lower case, and begins all else with a capital.
        if line.first().is_none_or(u8::is_ascii_uppercase) {
            if let Some(entry) = &mut self.current {
                entry.attribute(line);
            }
            return None;
        }
        let mapping = Mapping::parse(&String::from_utf8_lossy(line));
        std::mem::replace(&mut self.current, mapping.map(SmapsEntry::empty))
    }

    /// The last mapping.
    #[must_use]
    pub fn finish(self) -> Option<SmapsEntry> {
        self.current
    }
}

/// The mappings in the text of `/proc/PID/smaps`, in order of address.
///
/// # Errors
///
/// What the reader says.
pub fn read_smaps(mut text: impl BufRead) -> io::Result<Vec<SmapsEntry>> {
    let mut parser = SmapsParser::default();
    let mut entries = Vec::new();
    let mut line = Vec::with_capacity(256);
    while text.read_until(b'\n', &mut line)? > 0 {
        entries.extend(parser.line(line.strip_suffix(b"\n").unwrap_or(&line)));
        line.clear();
    }
    entries.extend(parser.finish());
    Ok(entries)
}

/// The sums over all mappings: `/proc/PID/smaps_rollup` (Linux 4.14). The kernel walks as many
/// pages for it as for `smaps`, but writes twenty lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rollup {
    /// Resident pages.
    pub rss: Metric,
    /// Resident pages, each shared one divided by how many processes have it: the sum over all
    /// processes counts no page twice.
    pub pss: Metric,
    /// Of `rss`, what no file backs.
    pub anonymous: Metric,
    /// Pages in swap.
    pub swap: Metric,
}

/// Takes the sums out of the text of `/proc/PID/smaps_rollup`; unavailable where it is malformed.
#[must_use]
pub fn parse_rollup(text: &[u8]) -> Rollup {
    let mut rollup = Rollup::default();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let field = match name {
            b"Rss" => &mut rollup.rss,
            b"Pss" => &mut rollup.pss,
            b"Anonymous" => &mut rollup.anonymous,
            b"Swap" => &mut rollup.swap,
            _ => continue,
        };
        *field = kibibytes(value).into();
    }
    rollup
}

impl Target {
    /// Its mappings with what is in memory of them, in order of address. It goes on running
    /// meanwhile, so they are of no one instant.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file); needs the permission to look at it (`PTRACE_MODE_READ`).
    pub fn smaps(&self) -> io::Result<Vec<SmapsEntry>> {
        read_smaps(BufReader::with_capacity(64 << 10, self.file("smaps")?))
    }

    /// The sums over its mappings.
    ///
    /// # Errors
    ///
    /// As [`smaps`](Self::smaps).
    pub fn rollup(&self) -> io::Result<Rollup> {
        Ok(parse_rollup(&self.bytes("smaps_rollup")?))
    }
}
