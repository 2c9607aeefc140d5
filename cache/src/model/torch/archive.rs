//! The zip file around a checkpoint: which entries it has, and where their bytes lie.
//!
//! A reader of our own and not the zip crate, because what is needed is little and strict, and that
//! crate is general and lenient: it looks for the end record behind comments, takes the last of two
//! entries of one name, knows nothing of overlap, and keeps hundreds of bytes for each entry
//! before any could be refused. `torch.save` writes plain entries one behind another, the directory
//! behind them, and nothing after it (`caffe2/serialize/inline_container.cc`, over miniz in its
//! zip64 mode). What is otherwise is refused. Numbers of sections are those of APPNOTE.TXT 6.3.10.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::error::OpenError;
use super::super::names::{NameIndex, Named, Twice};
use super::directory::{end, entries, le};
use super::fault::TorchFault;

/// The fixed part of the header before an entry's data (4.3.7).
const LOCAL: usize = 30;

const STORED: u16 = 0;
/// Bits 0, 6 and 13 (4.4.4).
const ENCRYPTED: u16 = 0x2041;
/// Bit 3: the sizes are behind the data, and zero before it.
const SIZES_BEHIND: u16 = 1 << 3;

/// A file that is being read.
pub(super) struct Opened<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) bytes: u64,
}

impl Opened<'_> {
    pub(super) fn refuse(&self, fault: TorchFault) -> OpenError {
        OpenError::torch(self.path, fault)
    }

    pub(super) fn broken(&self, what: &'static str, at: u64) -> OpenError {
        self.refuse(TorchFault::Broken {
            what,
            at,
            file_bytes: self.bytes,
        })
    }

    fn fill(&self, into: &mut [u8], at: u64) -> Result<(), OpenError> {
        let read = self.file.read_exact_at(into, at);
        read.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.broken("a part that was cut off while it was read", at)
            }
            _ => OpenError::io(self.path, "read its zip directory", source),
        })
    }

    pub(super) fn record<const N: usize>(&self, at: u64) -> Result<[u8; N], OpenError> {
        let mut record = [0; N];
        self.fill(&mut record, at).map(|()| record)
    }

    /// The bytes of a range that lies in the file.
    pub(super) fn range(&self, at: u64, bytes: u64) -> Result<Vec<u8>, OpenError> {
        let memory = || OpenError::Memory {
            path: self.path.into(),
            bytes,
        };
        let len = usize::try_from(bytes).map_err(|_| memory())?;
        let mut range = Vec::new();
        range.try_reserve_exact(len).map_err(|_| memory())?;
        range.resize(len, 0);
        self.fill(&mut range, at).map(|()| range)
    }
}

/// An entry, and where its bytes lie.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    /// Where its data begins, counted from the start of the file; until its header was read, where
    /// that begins.
    pub(super) begin: u64,
    pub(super) bytes: u64,
}

impl Named for Entry {
    fn name(&self) -> &str {
        &self.name
    }
}

/// The entries of a zip file in the order of their bytes: all plain, all within the file, none in
/// another, each name once.
pub(super) struct Archive {
    pub(super) entries: Vec<Entry>,
    names: NameIndex,
}

impl Archive {
    pub(super) fn read(file: &Opened<'_>) -> Result<Archive, OpenError> {
        let end = end(file)?;
        let directory = file.range(end.begin, end.bytes)?;
        let mut entries = entries(file, &directory, &end)?;
        drop(directory);
        let names = NameIndex::new(&entries[..]).map_err(|Twice(first, _)| {
            file.refuse(TorchFault::DuplicateEntry {
                entry: entries[first].name.clone(),
            })
        })?;
        place(file, &mut entries, end.begin)?;
        Ok(Archive { entries, names })
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        let position = self.names.position(name, &self.entries[..])?;
        self.entries.get(position)
    }
}

/// Puts the entries in order, and finds where the data of each begins by the header before it.
/// `limit` is where the directory begins.
fn place(file: &Opened<'_>, entries: &mut [Entry], limit: u64) -> Result<(), OpenError> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&at| entries[at].begin);
    let mut last: Option<usize> = None;
    let mut header = Vec::new();
    for at in order {
        let Entry { name, begin, bytes } = &entries[at];
        let (begin, bytes) = (*begin, *bytes);
        let outside = |end: u64| {
            let entry = name.clone();
            file.refuse(TorchFault::OutsideFile {
                entry,
                begin,
                end,
                limit,
            })
        };
        let within = |data: u64| match data.checked_add(bytes) {
            Some(end) if end <= limit => Ok(()),
            end => Err(outside(end.unwrap_or(u64::MAX))),
        };
        within(begin.saturating_add((LOCAL + name.len()) as u64))?;
        if let Some(other) = last.map(|last| &entries[last])
            && begin < other.begin + other.bytes
        {
            return Err(file.refuse(TorchFault::Overlap {
                entry: name.clone(),
                begin,
                other: other.name.clone(),
                end: other.begin + other.bytes,
            }));
        }
        header.resize(LOCAL + name.len(), 0);
        file.fill(&mut header, begin)?;
        let extra = local_header(&header, name, bytes).map_err(|fault| match fault {
            Some(fault) => file.refuse(fault),
            None => file.broken(
                "the header of an entry that is not as the directory says",
                begin,
            ),
        })?;
        let data = begin + header.len() as u64 + extra;
        within(data)?;
        entries[at].begin = data;
        last = Some(at);
    }
    Ok(())
}

/// The length of the extra field behind the header of an entry, once that agrees with the
/// directory; otherwise what is wrong, if that can be said.
fn local_header(header: &[u8], name: &str, bytes: u64) -> Result<u64, Option<TorchFault>> {
    let (record, own_name) = header.split_at(LOCAL);
    let is_same = record.starts_with(b"PK\x03\x04")
        && le(&record[26..28]) == name.len() as u64
        && own_name == name.as_bytes();
    if !is_same {
        return Err(None);
    }
    let (flags, method) = (le(&record[6..8]) as u16, le(&record[8..10]) as u16);
    plain(name, flags, method, [bytes; 2])?;
    let sizes = [&record[18..22], &record[22..26]].map(le);
    for size in sizes {
        let is_behind = flags & SIZES_BEHIND != 0 && size == 0;
        // All ones stands for a size in the extra field, which the directory has too.
        if size != bytes && !is_behind && size != u64::from(u32::MAX) {
            return Err(Some(TorchFault::EntrySizes {
                entry: name.into(),
                one: bytes,
                other: size,
            }));
        }
    }
    Ok(le(&record[28..30]))
}

/// Refuses an entry that is not stored as it is. `sizes` are in the file, and unpacked.
pub(super) fn plain(
    name: &str,
    flags: u16,
    method: u16,
    [stored, bytes]: [u64; 2],
) -> Result<(), TorchFault> {
    let entry = || name.into();
    if flags & ENCRYPTED != 0 {
        let entry = entry();
        return Err(TorchFault::Encrypted { entry, bytes });
    }
    if method != STORED {
        return Err(TorchFault::Compressed {
            entry: entry(),
            method,
            stored,
            bytes,
        });
    }
    if stored != bytes {
        return Err(TorchFault::EntrySizes {
            entry: entry(),
            one: stored,
            other: bytes,
        });
    }
    Ok(())
}
