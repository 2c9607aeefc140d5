//! What an ELF file says about allocators. The file is whatever the other process has mapped: every
//! count and size in it may lie, so reads are bounded, and go through `pread`, since a mapping of a
//! file that is cut short kills its reader.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;

use object::elf::{self, FileHeader32, FileHeader64};
use object::endian::{Endian, Endianness};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionTable, Sym};
use object::read::{ReadCache, ReadRef};

use super::names::{self, Names};

/// How much of one file is read for its tables, in bytes.
const MOST_READ: u64 = 64 << 20;
/// Entries of a dynamic segment, libraries needed, version definitions: well above any real file.
const MOST_ENTRIES: u64 = 4096;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether it is a 64-bit object.
    pub(super) wide: bool,
    /// Whether it is a program by its own word: fixed addresses, or marked as position independent
    /// *executable*.
    pub(super) executable: bool,
    /// Whether it asks for a loader (`PT_INTERP`), as all but static programs do.
    pub(super) interpreter: bool,
    /// The name others need it by (`DT_SONAME`).
    pub(super) soname: Option<String>,
    /// The libraries it needs, in order (`DT_NEEDED`).
    pub(super) needed: Vec<String>,
    /// What it defines for others, in its dynamic symbol table.
    pub(super) exports: Names,
    /// What it defines at all, in the table that `strip` removes; looked at where asked for.
    pub(super) symbols: Names,
    /// A jemalloc function under a prefix, such as `_rjem_mallctl`.
    pub(super) prefixed: Option<String>,
    /// The highest `GLIBC_x.y` that it defines.
    pub(super) defines_glibc: Option<(u32, u32)>,
    /// Whether the Go toolchain built it.
    pub(super) go: bool,
    /// Where its constants lie in the file.
    pub(super) constants: Vec<Range<u64>>,
}

/// Reads a file; its whole symbol table where `thoroughly`.
///
/// # Errors
///
/// Why it is no ELF file that could be loaded.
pub(super) fn read(file: &File, thoroughly: bool) -> Result<Facts, &'static str> {
    let cache = ReadCache::new(file);
    let left = Cell::new(MOST_READ);
    let data = Bounded {
        cache: &cache,
        left: &left,
    };
    let identity = data.read_bytes_at(0, 5).map_err(|()| "it is too short")?;
    if !identity.starts_with(&elf::ELFMAG) {
        return Err("it is no ELF file");
    }
    let facts = if identity.last() == Some(&elf::ELFCLASS64.0) {
        read_class::<FileHeader64<Endianness>>(data, thoroughly)
    } else {
        read_class::<FileHeader32<Endianness>>(data, thoroughly)
    };
    facts.ok_or("its ELF headers are malformed")
}

/// A file that is read in pieces, up to [`MOST_READ`] in all.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    cache: &'a ReadCache<&'a File>,
    left: &'a Cell<u64>,
}

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.left.set(self.left.get().checked_sub(size).ok_or(())?);
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.left.set(self.left.get().checked_sub(1).ok_or(())?);
        // A table that lies about its end must not hide the names in front of it.
        let end = range.end.min(self.len()?);
        self.cache
            .read_bytes_at_until(range.start..end.max(range.start), delimiter)
    }
}

fn read_class<E: FileHeader<Endian = Endianness>>(
    data: Bounded<'_>,
    thoroughly: bool,
) -> Option<Facts> {
    let header = E::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let mut facts = Facts {
        wide: header.is_type_64(),
        executable: header.e_type(endian) == elf::ET_EXEC,
        interpreter: segments.iter().any(|s| s.p_type(endian) == elf::PT_INTERP),
        constants: constants::<E>(segments, endian),
        ..Facts::default()
    };
    if let Some(dynamic) = Dynamic::<E>::find(data, endian, segments) {
        dynamic.tell(&mut facts);
    }
    if thoroughly && let Ok(sections) = header.sections(endian, data) {
        let go = b".go.buildinfo";
        facts.go = sections.section_by_name(endian, go).is_some();
        // A table that cannot be read is as good as one that was stripped.
        let _ = whole_table::<E>(data, endian, &sections, &mut facts);
    }
    Some(facts)
}

/// The parts that are read-only, without the code where that lies apart.
fn constants<E: FileHeader>(segments: &[E::ProgramHeader], endian: E::Endian) -> Vec<Range<u64>> {
    let read_only = |with_code: bool| {
        segments
            .iter()
            .filter(|s| s.p_type(endian) == elf::PT_LOAD)
            .filter(|s| {
                let flags = s.p_flags(endian);
                !flags.contains(elf::PF_W) && flags.contains(elf::PF_X) == with_code
            })
            .map(|s| {
                let (offset, size) = s.file_range(endian);
                offset..offset.saturating_add(size)
            })
            .collect::<Vec<_>>()
    };
    let apart = read_only(false);
    if apart.is_empty() {
        read_only(true)
    } else {
        apart
    }
}

/// The dynamic segment: what the loader itself goes by, whatever the section headers say.
struct Dynamic<'a, E: FileHeader> {
    data: Bounded<'a>,
    endian: E::Endian,
    segments: &'a [E::ProgramHeader],
    entries: &'a [E::Dyn],
}

impl<'a, E: FileHeader<Endian = Endianness>> Dynamic<'a, E> {
    fn find(
        data: Bounded<'a>,
        endian: E::Endian,
        segments: &'a [E::ProgramHeader],
    ) -> Option<Self> {
        let segment = segments
            .iter()
            .find(|s| s.p_type(endian) == elf::PT_DYNAMIC)?;
        let (offset, size) = segment.file_range(endian);
        let each = size_of::<E::Dyn>() as u64;
        let count = (size / each).min(MOST_ENTRIES);
        let entries = data
            .read_slice_at(offset, usize::try_from(count).ok()?)
            .ok()?;
        Some(Self {
            data,
            endian,
            segments,
            entries,
        })
    }

    /// The values of a tag.
    fn values(&self, tag: elf::DynamicTag) -> impl Iterator<Item = u64> {
        self.entries
            .iter()
            .take_while(|entry| entry.tag(self.endian) != elf::DT_NULL)
            .filter(move |entry| entry.tag(self.endian) == tag)
            .map(|entry| entry.val(self.endian))
    }

    fn value(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.values(tag).next()
    }

    /// Where in the file lies what the tag has the address of.
    fn located(&self, tag: elf::DynamicTag) -> Option<u64> {
        let address = self.value(tag)?;
        self.segments
            .iter()
            .filter(|s| s.p_type(self.endian) == elf::PT_LOAD)
            .find_map(|s| {
                let (offset, size) = s.file_range(self.endian);
                let within = address.checked_sub(s.p_vaddr(self.endian).into())?;
                (within < size).then(|| offset.checked_add(within))?
            })
    }

    fn string(&self, at: u64) -> Option<&'a [u8]> {
        let table = self.located(elf::DT_STRTAB)?;
        let end = table.checked_add(self.value(elf::DT_STRSZ)?)?;
        let start = table.checked_add(at).filter(|start| *start < end)?;
        self.data.read_bytes_at_until(start..end, 0).ok()
    }

    fn text(&self, at: u64) -> Option<String> {
        Some(String::from_utf8_lossy(self.string(at)?).into_owned())
    }

    fn word(&self, at: u64) -> Option<u32> {
        let bytes = self.data.read_bytes_at(at, 4).ok()?;
        Some(self.endian.read_u32(bytes.try_into().ok()?))
    }

    fn tell(&self, facts: &mut Facts) {
        facts.soname = self.value(elf::DT_SONAME).and_then(|at| self.text(at));
        facts.needed = self
            .values(elf::DT_NEEDED)
            .filter_map(|at| self.text(at))
            .collect();
        let flags = self.value(elf::DT_FLAGS_1).unwrap_or(0);
        facts.executable |= flags & elf::DF_1_PIE.0 != 0;
        for (name, bit) in names::KNOWN {
            if self.defines(name.as_bytes()) {
                facts.exports.insert(*bit);
                if *bit == Names::PREFIXED && facts.prefixed.is_none() {
                    facts.prefixed = Some((*name).to_owned());
                }
            }
        }
        if facts.exports.has(Names::GLIBC) {
            facts.defines_glibc = self.highest_glibc();
        }
    }

    /// Whether others find a definition of `name` here, by the loader's own hash tables.
    fn defines(&self, name: &[u8]) -> bool {
        self.gnu_hashed(name)
            .unwrap_or_else(|| self.sysv_hashed(name).unwrap_or(false))
    }

    /// `None` where there is no such table.
    fn gnu_hashed(&self, name: &[u8]) -> Option<bool> {
        let table = self.located(elf::DT_GNU_HASH)?;
        let field = |at: u64| self.word(table.checked_add(at * 4)?).map(u64::from);
        let (buckets, base, blooms) = (field(0)?, field(1)?, field(2)?);
        if buckets == 0 || blooms == 0 {
            return Some(false);
        }
        let hash = elf::gnu_hash(name);
        let words = blooms * size_of::<E::Word>() as u64 / 4;
        // One bit of the filter rules out nearly every name that is not there.
        let bits = size_of::<E::Word>() as u64 * 8;
        let bit = u64::from(hash) % bits;
        let bloom = (u64::from(hash) / bits % blooms) * (bits / 32);
        let half = if self.endian.is_big_endian() && bits == 64 {
            1 - bit / 32
        } else {
            bit / 32
        };
        if field(4 + bloom + half)? >> (bit % 32) & 1 == 0 {
            return Some(false);
        }
        let first = field(4 + words + u64::from(hash) % buckets)?;
        if first < base {
            return Some(false);
        }
        for index in first..first + MOST_ENTRIES {
            let chained = field(4 + words + buckets + (index - base))?;
            if chained | 1 == u64::from(hash) | 1 && self.is_definition_of(index, name) {
                return Some(true);
            }
            if chained & 1 != 0 {
                break;
            }
        }
        Some(false)
    }

    fn sysv_hashed(&self, name: &[u8]) -> Option<bool> {
        let table = self.located(elf::DT_HASH)?;
        let field = |at: u64| self.word(table.checked_add(at * 4)?).map(u64::from);
        let buckets = field(0)?;
        let bucket = u64::from(elf::hash(name)).checked_rem(buckets)?;
        let mut index = field(2 + bucket)?;
        // A chain may loop.
        for _ in 0..MOST_ENTRIES {
            if index == 0 {
                break;
            }
            if self.is_definition_of(index, name) {
                return Some(true);
            }
            index = field(2 + buckets + index)?;
        }
        Some(false)
    }

    fn is_definition_of(&self, index: u64, name: &[u8]) -> bool {
        let symbol = || {
            let table = self.located(elf::DT_SYMTAB)?;
            let at = table.checked_add(index.checked_mul(size_of::<E::Sym>() as u64)?)?;
            self.data.read_at::<E::Sym>(at).ok()
        };
        symbol().is_some_and(|symbol| {
            let hidden = [elf::STV_HIDDEN, elf::STV_INTERNAL].contains(&symbol.st_visibility());
            !symbol.is_undefined(self.endian)
                && !symbol.is_local()
                && !hidden
                && self.string(u64::from(symbol.st_name(self.endian))) == Some(name)
        })
    }

    fn highest_glibc(&self) -> Option<(u32, u32)> {
        let mut at = self.located(elf::DT_VERDEF)?;
        let mut highest = None;
        for _ in 0..self.value(elf::DT_VERDEFNUM)?.min(MOST_ENTRIES) {
            let definition = self.data.read_at::<elf::Verdef<Endianness>>(at).ok()?;
            let name = at.checked_add(definition.vd_aux.get(self.endian).into());
            let name = self
                .data
                .read_at::<elf::Verdaux<Endianness>>(name?)
                .ok()
                .and_then(|aux| self.text(aux.vda_name.get(self.endian).into()));
            let version = name
                .as_deref()
                .and_then(|name| name.strip_prefix("GLIBC_"))
                .and_then(names::two_numbers);
            highest = highest.max(version);
            let next = u64::from(definition.vd_next.get(self.endian));
            if next == 0 {
                break;
            }
            at = at.checked_add(next)?;
        }
        highest
    }
}

/// Goes through `.symtab`.
fn whole_table<'a, E: FileHeader<Endian = Endianness>>(
    data: Bounded<'a>,
    endian: E::Endian,
    sections: &SectionTable<'a, E, Bounded<'a>>,
    facts: &mut Facts,
) -> object::read::Result<()> {
    let table = sections.symbols(endian, data, elf::SHT_SYMTAB)?;
    if table.is_empty() {
        return Ok(());
    }
    // In one piece: a read for each name would take seconds.
    let strings = sections.section(table.string_section())?;
    let strings = object::read::elf::SectionHeader::data(strings, endian, data)?;
    for symbol in table.iter().filter(|symbol| !symbol.is_undefined(endian)) {
        let start = symbol.st_name(endian) as usize;
        let Some(name) = strings.get(start..) else {
            continue;
        };
        let name = &name[..name.len().min(names::LONGEST)];
        let Some(name) = name.split(|byte| *byte == 0).next() else {
            continue;
        };
        if let Some(bit) = names::known(name) {
            facts.symbols.insert(bit);
            if bit == Names::PREFIXED && facts.prefixed.is_none() {
                facts.prefixed = Some(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Ok(())
}
