//! What an ELF file says of itself: for which machine it is, which loader it asks for, what it needs
//! and whether it has a `malloc` of its own. Any file may be given as a program, so every count and
//! size may lie, and nothing that is no plain file is opened at all.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader32, FileHeader64};
use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Sym};
use object::read::{ReadCache, ReadRef};

/// How much of one file is read for its tables, in bytes.
const MOST_READ: u64 = 32 << 20;
/// How much of one file is searched for texts, in bytes.
const MOST_SEARCHED: u64 = 256 << 20;
/// Program headers in bytes, as the kernel takes them (`load_elf_phdrs`).
const MOST_HEADERS: u64 = 64 << 10;
/// A path, as the kernel takes it.
const MOST_PATH: u64 = 4096;
/// Entries of a dynamic segment: well above any real file.
const MOST_ENTRIES: u64 = 4096;

/// Functions that tell whose `malloc` a file has, in the order in which they are asked for.
const OWNERS: [(&[u8], &str); 4] = [
    (b"mallctl", "jemalloc"),
    (b"mi_malloc", "mimalloc"),
    (b"tc_malloc", "tcmalloc"),
    (b"gnu_get_libc_version", "glibc"),
];

/// Why a path cannot be looked into.
#[derive(Debug)]
pub(crate) enum Unopened {
    /// It leads to nothing, or not for us.
    Io(io::Error),
    /// It is no plain file but this.
    NotAFile(&'static str),
}

/// Opens a plain file. Anything else is not even opened: that of a FIFO waits, and that of a device
/// may do something.
pub(crate) fn open(path: &Path) -> Result<File, Unopened> {
    let plain = |meta: std::fs::Metadata| {
        let kind = meta.file_type();
        let what = match () {
            () if kind.is_file() => return Ok(()),
            () if kind.is_dir() => "a directory",
            () if kind.is_fifo() => "a FIFO",
            () if kind.is_socket() => "a socket",
            () => "a device",
        };
        Err(Unopened::NotAFile(what))
    };
    plain(path.metadata().map_err(Unopened::Io)?)?;
    // It may have been replaced meanwhile.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(Unopened::Io)?;
    plain(file.metadata().map_err(Unopened::Io)?)?;
    Ok(file)
}

/// For which processor a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) wide: bool,
    pub(crate) big_endian: bool,
    /// `e_machine`.
    pub(crate) number: u16,
}

impl Machine {
    /// That of this program.
    pub(crate) fn own() -> Option<Self> {
        let file = open(Path::new("/proc/self/exe")).ok()?;
        Some(Elf::read(&file).ok()?.machine)
    }

    /// Such as `32-bit x86`.
    pub(crate) fn name(self) -> String {
        let bits = if self.wide { "64-bit" } else { "32-bit" };
        let name = match elf::Machine(self.number) {
            elf::EM_386 => "x86",
            elf::EM_X86_64 => "x86-64",
            elf::EM_ARM => "ARM",
            elf::EM_AARCH64 => "AArch64",
            elf::EM_RISCV => "RISC-V",
            elf::EM_PPC64 => "PowerPC",
            elf::EM_S390 => "s390",
            elf::EM_LOONGARCH => "LoongArch",
            other => return format!("{bits} machine {}", other.0),
        };
        format!("{bits} {name}")
    }
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    pub(crate) machine: Machine,
    /// Whether it is a program or library that can be loaded, not an object file or a core.
    pub(crate) loadable: bool,
    /// Whether it is position independent: a library, or most programs.
    pub(crate) shared: bool,
    /// The loader it asks for (`PT_INTERP`); none in static programs and in most libraries.
    pub(crate) loader: Option<PathBuf>,
    /// The name others need it by (`DT_SONAME`).
    pub(crate) soname: Option<String>,
    /// The libraries it needs (`DT_NEEDED`).
    pub(crate) needed: Vec<String>,
    /// Whose `malloc` it has for others to find: an allocator's name, or `unknown`.
    pub(crate) malloc: Option<&'static str>,
    /// Whether the Go toolchain built it.
    pub(crate) go: bool,
}

impl Elf {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it is no ELF file that could be loaded.
    pub(crate) fn read(file: &File) -> Result<Self, &'static str> {
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
        match identity.last() {
            Some(class) if *class == elf::ELFCLASS64.0 => {
                read_class::<FileHeader64<Endianness>>(data)
            }
            _ => read_class::<FileHeader32<Endianness>>(data),
        }
    }
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
        let end = range.end.min(self.len()?);
        self.cache
            .read_bytes_at_until(range.start..end.max(range.start), delimiter)
    }
}

fn read_class<E: FileHeader<Endian = Endianness>>(data: Bounded<'_>) -> Result<Elf, &'static str> {
    let header = E::parse(data).map_err(|_| "its ELF header is cut short or malformed")?;
    let endian = header
        .endian()
        .map_err(|_| "its ELF header names no byte order")?;
    let size = u64::from(header.e_phnum(endian)) * size_of::<E::ProgramHeader>() as u64;
    if size > MOST_HEADERS {
        return Err("it has more program headers than the kernel takes");
    }
    let segments = header
        .program_headers(endian, data)
        .map_err(|_| "its program headers are beyond its end, or malformed")?;
    let kind = header.e_type(endian);
    let mut facts = Elf {
        machine: Machine {
            wide: header.is_type_64(),
            big_endian: header.is_big_endian(),
            number: header.e_machine(endian).0,
        },
        loadable: [elf::ET_EXEC, elf::ET_DYN].contains(&kind)
            && segments.iter().any(|s| s.p_type(endian) == elf::PT_LOAD),
        shared: kind == elf::ET_DYN,
        loader: None,
        soname: None,
        needed: Vec::new(),
        malloc: None,
        go: false,
    };
    let loader = segments.iter().find(|s| s.p_type(endian) == elf::PT_INTERP);
    if let Some(segment) = loader {
        let (offset, size) = segment.file_range(endian);
        let path = (2..=MOST_PATH).contains(&size);
        let path = path
            .then(|| data.read_bytes_at(offset, size).ok())
            .flatten();
        let path = path.ok_or("the loader it asks for is not named in it")?;
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        facts.loader = Some(OsString::from_vec(path.to_vec()).into());
    }
    dynamic::<E>(data, endian, segments, &mut facts);
    symbols::<E>(data, endian, header, &mut facts);
    Ok(facts)
}

/// The libraries it needs and its own name, as the loader reads them.
fn dynamic<E: FileHeader<Endian = Endianness>>(
    data: Bounded<'_>,
    endian: Endianness,
    segments: &[E::ProgramHeader],
    facts: &mut Elf,
) -> Option<()> {
    let segment = segments
        .iter()
        .find(|s| s.p_type(endian) == elf::PT_DYNAMIC)?;
    let (offset, size) = segment.file_range(endian);
    let count = (size / size_of::<E::Dyn>() as u64).min(MOST_ENTRIES);
    let entries: &[E::Dyn] = data
        .read_slice_at(offset, usize::try_from(count).ok()?)
        .ok()?;
    let values = |tag: elf::DynamicTag| {
        entries
            .iter()
            .take_while(|entry| entry.tag(endian) != elf::DT_NULL)
            .filter(move |entry| entry.tag(endian) == tag)
            .map(|entry| entry.val(endian))
    };
    let address = values(elf::DT_STRTAB).next()?;
    let table = segments
        .iter()
        .filter(|s| s.p_type(endian) == elf::PT_LOAD)
        .find_map(|s| {
            let (offset, size) = s.file_range(endian);
            let within = address.checked_sub(s.p_vaddr(endian).into())?;
            (within < size).then(|| offset.checked_add(within))?
        })?;
    let end = table.checked_add(values(elf::DT_STRSZ).next()?)?;
    let text = |at: u64| {
        let start = table.checked_add(at).filter(|start| *start < end)?;
        let text = data.read_bytes_at_until(start..end, 0).ok()?;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    facts.soname = values(elf::DT_SONAME).next().and_then(text);
    facts.needed = values(elf::DT_NEEDED).filter_map(text).collect();
    Some(())
}

/// Whether it defines `malloc` for others, and whose that is.
fn symbols<'a, E: FileHeader<Endian = Endianness>>(
    data: Bounded<'a>,
    endian: Endianness,
    header: &E,
    facts: &mut Elf,
) -> Option<()> {
    let sections = header.sections(endian, data).ok()?;
    facts.go = sections.section_by_name(endian, b".go.buildinfo").is_some();
    let table = sections.symbols(endian, data, elf::SHT_DYNSYM).ok()?;
    if table.is_empty() {
        return None;
    }
    // In one piece: a read for each name would take long.
    let strings = sections.section(table.string_section()).ok()?;
    let strings = object::read::elf::SectionHeader::data(strings, endian, data).ok()?;
    let mut malloc = false;
    let mut owners = [false; OWNERS.len()];
    for symbol in table.iter() {
        let hidden = [elf::STV_HIDDEN, elf::STV_INTERNAL].contains(&symbol.st_visibility());
        if symbol.is_undefined(endian) || symbol.is_local() || hidden {
            continue;
        }
        let start = symbol.st_name(endian) as usize;
        let is = |name: &[u8]| {
            let rest = strings.get(start..).and_then(|s| s.strip_prefix(name));
            rest.is_some_and(|rest| rest.first() == Some(&0))
        };
        malloc |= is(b"malloc");
        for (owner, (name, _)) in owners.iter_mut().zip(OWNERS) {
            *owner |= is(name);
        }
    }
    let owner = owners.iter().position(|has| *has);
    facts.malloc = malloc.then(|| owner.map_or("unknown", |at| OWNERS[at].1));
    Some(())
}

/// Which of some short texts are in a file.
pub(crate) fn holds<const N: usize>(file: &File, texts: [&[u8]; N]) -> io::Result<[bool; N]> {
    const BLOCK: usize = 256 << 10;
    let overlap = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let mut found = [false; N];
    let mut block = vec![0; BLOCK];
    let mut offset = 0;
    while offset < MOST_SEARCHED && found.contains(&false) {
        let mut filled = 0;
        while filled < BLOCK {
            match file.read_at(&mut block[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for (found, text) in found.iter_mut().zip(texts) {
            *found = *found || contains(&block[..filled], text);
        }
        if filled < BLOCK {
            break;
        }
        offset += (BLOCK - overlap) as u64;
    }
    Ok(found)
}

fn contains(block: &[u8], text: &[u8]) -> bool {
    // SAFETY: memmem(3) reads both slices within their lengths, and keeps neither.
    let at = unsafe {
        libc::memmem(
            block.as_ptr().cast(),
            block.len(),
            text.as_ptr().cast(),
            text.len(),
        )
    };
    !at.is_null()
}
