//! Texts in the constants of a file that give an allocator away: all that a stripped static program
//! leaves, and where versions stand.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::names::two_numbers;

/// How much of one file is searched, in bytes.
const MOST_SEARCHED: u64 = 64 << 20;
/// How much of it at a time.
const PIECE: usize = 1 << 20;
/// How far a find and what is wanted around it may reach.
const OVERLAP: usize = 512;
/// A program that only speaks of an allocator, as this one does, has its texts once or twice; one
/// that contains it has them by the dozen.
const CONTAINED: u32 = 3;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Strings {
    /// The version in glibc's banner.
    pub(super) glibc: Option<(u32, u32)>,
    /// The version of jemalloc.
    pub(super) jemalloc_version: Option<String>,
    /// The version of gperftools.
    pub(super) gperftools_version: Option<String>,
    glibc_malloc: u32,
    jemalloc: u32,
    mimalloc: u32,
    tcmalloc: u32,
    musl: u32,
}

#[derive(Clone, Copy)]
enum Text {
    Banner,
    GlibcMalloc,
    Jemalloc,
    JemallocVersion,
    Mimalloc,
    Tcmalloc,
    Gperftools,
    Musl,
}

const TEXTS: [(&[u8], Text); 10] = [
    (b"GNU C Library (", Text::Banner),
    (b"malloc(): ", Text::GlibcMalloc),
    (b"<jemalloc>: ", Text::Jemalloc),
    (b"-0-g", Text::JemallocVersion),
    (b"mimalloc: ", Text::Mimalloc),
    (b"TCMALLOC_", Text::Tcmalloc),
    (b"tcmalloc: ", Text::Tcmalloc),
    (b"gperftools ", Text::Gperftools),
    // The first of musl's messages of strerror(3), and one that others word differently.
    (b"No error information\0", Text::Musl),
    (b"Not a tty\0", Text::Musl),
];

impl Strings {
    /// Searches these parts of a file; what cannot be read is left out.
    pub(super) fn search(file: &File, parts: &[Range<u64>]) -> Self {
        let mut found = Self::default();
        let mut left = MOST_SEARCHED;
        let mut piece = vec![0; PIECE + OVERLAP];
        for part in parts {
            let mut at = part.start;
            let end = part.end.min(part.start.saturating_add(left));
            left -= end.saturating_sub(part.start);
            // Half of what overlaps is seen before a find, half behind.
            while at < end {
                let wanted = usize::try_from(end - at).map_or(piece.len(), |n| n.min(piece.len()));
                let Some(length) = fill(file, &mut piece[..wanted], at) else {
                    break;
                };
                let last = length < piece.len();
                let from = if at == part.start { 0 } else { OVERLAP / 2 };
                let to = if last { length } else { length - OVERLAP / 2 };
                found.look_at(&piece[..length], from..to);
                if last {
                    break;
                }
                at += PIECE as u64;
            }
        }
        found
    }

    /// Whether glibc's malloc is in it.
    pub(super) const fn has_glibc_malloc(&self) -> bool {
        self.glibc_malloc >= CONTAINED
    }

    /// Whether jemalloc is in it.
    pub(super) const fn has_jemalloc(&self) -> bool {
        self.jemalloc >= CONTAINED
    }

    /// Whether mimalloc is in it.
    pub(super) const fn has_mimalloc(&self) -> bool {
        self.mimalloc >= CONTAINED
    }

    /// Whether tcmalloc is in it.
    pub(super) const fn has_tcmalloc(&self) -> bool {
        self.tcmalloc >= CONTAINED
    }

    /// Whether musl is in it.
    pub(super) const fn has_musl(&self) -> bool {
        self.musl >= 2
    }

    /// Finds that begin within `starts`.
    fn look_at(&mut self, bytes: &[u8], starts: Range<usize>) {
        for (text, meaning) in TEXTS {
            let end = bytes.len().min(starts.end + text.len() - 1);
            let mut from = starts.start;
            while let Some(at) = find(&bytes[from..end], text) {
                let start = from + at;
                from = start + text.len();
                self.note(meaning, bytes, start, from);
            }
        }
    }

    fn note(&mut self, meaning: Text, bytes: &[u8], start: usize, end: usize) {
        let behind = &bytes[end..bytes.len().min(end + OVERLAP / 2)];
        let behind = behind.split(|b| *b == 0).next().unwrap_or_default();
        match meaning {
            Text::Banner => {
                let text = String::from_utf8_lossy(behind);
                let version = text.split_once(" version ").map(|(_, version)| version);
                self.glibc = self.glibc.or_else(|| version.and_then(two_numbers));
            }
            Text::GlibcMalloc => self.glibc_malloc += 1,
            Text::Jemalloc => self.jemalloc += 1,
            Text::JemallocVersion => {
                let is_commit = behind.len() == 40 && behind.iter().all(u8::is_ascii_hexdigit);
                if is_commit && self.jemalloc_version.is_none() {
                    self.jemalloc_version = number_before(&bytes[..start]);
                }
            }
            Text::Mimalloc => self.mimalloc += 1,
            Text::Tcmalloc => self.tcmalloc += 1,
            Text::Gperftools => {
                let text = String::from_utf8_lossy(behind);
                if self.gperftools_version.is_none() && two_numbers(&text).is_some() {
                    self.gperftools_version = Some(text.into_owned());
                }
            }
            Text::Musl => self.musl += 1,
        }
    }
}

/// Where `text` begins. By the C library, which looks at far less than every byte.
fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    // SAFETY: memmem(3) reads these two slices, within their lengths.
    let found = unsafe {
        libc::memmem(
            bytes.as_ptr().cast(),
            bytes.len(),
            text.as_ptr().cast(),
            text.len(),
        )
    };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

/// `5.3.0` at the end of these bytes.
fn number_before(bytes: &[u8]) -> Option<String> {
    let digits = |b: &&u8| b.is_ascii_digit() || **b == b'.';
    let length = bytes.iter().rev().take(16).take_while(digits).count();
    let number = String::from_utf8_lossy(&bytes[bytes.len() - length..]).into_owned();
    two_numbers(&number).map(|_| number)
}

/// Reads until the piece is full or the file ends. `None` where there is nothing.
fn fill(file: &File, piece: &mut [u8], at: u64) -> Option<usize> {
    let mut length = 0;
    while length < piece.len() {
        match file.read_at(&mut piece[length..], at + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    (length > 0).then_some(length)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn searched(bytes: &[u8]) -> Strings {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let whole = 0..u64::MAX;
        Strings::search(&file, std::slice::from_ref(&whole))
    }

    #[test]
    fn the_banner_is_found_wherever_pieces_meet() {
        let banner =
            b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\n";
        for shift in (0..2 * OVERLAP).step_by(37) {
            let mut bytes = vec![b'm'; PIECE - OVERLAP / 2 + shift];
            bytes.extend_from_slice(banner);
            bytes.resize(bytes.len() + PIECE, b'-');
            assert_eq!(searched(&bytes).glibc, Some((2, 36)), "{shift}");
        }
    }

    #[test]
    fn a_find_where_pieces_meet_counts_once() {
        for shift in (0..2 * OVERLAP).step_by(13) {
            let mut bytes = vec![0; PIECE - OVERLAP + shift];
            bytes.extend_from_slice(b"<jemalloc>: text");
            bytes.resize(bytes.len() + PIECE, 0);
            assert_eq!(searched(&bytes).jemalloc, 1, "{shift}");
        }
    }

    #[test]
    fn versions_are_read_and_a_mere_mention_is_no_allocator() {
        let found = searched(
            b"\x005.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c\0gperftools 2.10\0<jemalloc>: \0",
        );
        assert_eq!(found.jemalloc_version.as_deref(), Some("5.3.0"));
        assert_eq!(found.gperftools_version.as_deref(), Some("2.10"));
        assert!(!found.has_jemalloc() && !found.has_musl());
        assert_eq!(searched(b"").glibc, None);
        assert_eq!(searched(b"GNU C Library (").glibc, None);
    }
}
