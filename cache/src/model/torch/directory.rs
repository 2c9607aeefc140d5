//! The directory of a zip file, and the records at the end that say where it is.

use super::super::error::OpenError;
use super::archive::{Entry, Opened, plain};
use super::fault::TorchFault;

/// The most entries that are read. A checkpoint has one for each storage and a few more.
pub(super) const MAX_ENTRIES: u64 = 1 << 18;

/// The longest directory that is read, bytes. An entry takes 46 and its name.
pub(super) const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

/// The longest name of an entry, bytes: that of a file in a folder is shorter.
pub(super) const LONGEST_NAME: usize = 1024;

/// The fixed parts of the records: of an entry (4.3.12), of the end in zip64 (4.3.14), of what leads
/// there (4.3.15), of the end (4.3.16).
const CENTRAL: usize = 46;
const END_64: usize = 56;
const LOCATOR: usize = 20;
const END: usize = 22;

/// The extra field that has what does not fit 32 bits (4.5.3).
const ZIP64: u16 = 1;

/// What the records at the end say of the directory.
pub(super) struct End {
    pub(super) entries: u64,
    pub(super) begin: u64,
    pub(super) bytes: u64,
}

/// Finds the directory.
pub(super) fn end(file: &Opened<'_>) -> Result<End, OpenError> {
    let no_end = || {
        file.refuse(TorchFault::NoEnd {
            file_bytes: file.bytes,
        })
    };
    // At the very end, since PyTorch writes no comment behind it: a second record in a comment
    // would be a second truth.
    let at = file.bytes.checked_sub(END as u64).ok_or_else(no_end)?;
    let record: [u8; END] = file.record(at)?;
    if !record.starts_with(b"PK\x05\x06") {
        return Err(no_end());
    }
    if le(&record[4..8]) != 0 || record[8..10] != record[10..12] || le(&record[20..]) != 0 {
        return Err(file.broken("an end record of several parts or with a comment", at));
    }
    let short = [&record[10..12], &record[12..16], &record[16..20]];
    let (numbers, limit) = match at.checked_sub(LOCATOR as u64) {
        Some(locator) => match end_64(file, locator)? {
            Some((numbers, limit)) => (numbers, limit),
            None => (short.map(le), at),
        },
        None => (short.map(le), at),
    };
    // What does not fit is all ones, and only then may the two differ.
    let agree = short.iter().zip(numbers).all(|(field, number)| {
        let most = u64::MAX >> (64 - 8 * field.len());
        le(field) == number.min(most) && (limit != at || number < most)
    });
    let [entries, bytes, begin] = numbers;
    if !agree {
        return Err(file.broken("an end record with two truths", at));
    }
    if entries > MAX_ENTRIES || bytes > MAX_DIRECTORY_BYTES {
        return Err(file.refuse(TorchFault::DirectoryTooLarge { entries, bytes }));
    }
    if begin.checked_add(bytes) != Some(limit) {
        return Err(file.broken(
            "a directory that does not end where its end record begins",
            at,
        ));
    }
    Ok(End {
        entries,
        begin,
        bytes,
    })
}

/// The entries, bytes and begin of the directory as the zip64 record has them, and where that
/// begins, if `locator` is where one leads there.
fn end_64(file: &Opened<'_>, locator: u64) -> Result<Option<([u64; 3], u64)>, OpenError> {
    let leads: [u8; LOCATOR] = file.record(locator)?;
    if !leads.starts_with(b"PK\x06\x07") {
        return Ok(None);
    }
    let at = le(&leads[8..16]);
    let broken = || file.broken("a zip64 end record that is not as it should be", at);
    if le(&leads[4..8]) != 0 || at.checked_add(END_64 as u64) != Some(locator) {
        return Err(broken());
    }
    let record: [u8; END_64] = file.record(at)?;
    let is_sound = record.starts_with(b"PK\x06\x06")
        && le(&record[4..12]) == END_64 as u64 - 12
        && le(&record[16..24]) == 0
        && record[24..32] == record[32..40];
    if !is_sound {
        return Err(broken());
    }
    let numbers = [&record[32..40], &record[40..48], &record[48..56]];
    Ok(Some((numbers.map(le), at)))
}

/// The entries as the directory has them, folders left out.
pub(super) fn entries(
    file: &Opened<'_>,
    directory: &[u8],
    end: &End,
) -> Result<Vec<Entry>, OpenError> {
    // Not more than the directory has room for, whatever it claims.
    let room = (directory.len() / CENTRAL).min(end.entries as usize);
    let mut entries = Vec::with_capacity(room);
    let mut rest = directory;
    for _ in 0..end.entries {
        let at = end.begin + (directory.len() - rest.len()) as u64;
        let broken = || file.broken("an entry of the directory that is not as it should be", at);
        let (record, behind) = rest
            .split_at_checked(CENTRAL)
            .filter(|(record, _)| record.starts_with(b"PK\x01\x02"))
            .ok_or_else(broken)?;
        let lengths = [&record[28..30], &record[30..32], &record[32..34]].map(le);
        let [name, extra, comment] = lengths.map(|length| length as usize);
        let (name, behind) = behind.split_at_checked(name).ok_or_else(broken)?;
        let (extra, behind) = behind.split_at_checked(extra).ok_or_else(broken)?;
        let (_, behind) = behind.split_at_checked(comment).ok_or_else(broken)?;
        rest = behind;
        let name =
            entry_name(name).map_err(|entry| file.refuse(TorchFault::EntryName { entry, at }))?;
        let mut sizes = [&record[24..28], &record[20..24], &record[42..46]].map(le);
        let is_read = widen(&mut sizes, extra);
        if le(&record[34..36]) != 0 || !is_read {
            return Err(broken());
        }
        let [bytes, stored, begin] = sizes;
        let (flags, method) = (le(&record[8..10]) as u16, le(&record[10..12]) as u16);
        plain(name, flags, method, [stored, bytes]).map_err(|fault| file.refuse(fault))?;
        if name.ends_with('/') && bytes == 0 {
            continue;
        }
        entries.push(Entry {
            name: name.into(),
            begin,
            bytes,
        });
    }
    if !rest.is_empty() {
        let at = end.begin + (directory.len() - rest.len()) as u64;
        return Err(file.broken("a directory with more than its entries", at));
    }
    Ok(entries)
}

/// Takes the numbers that are all ones in 32 bits from the zip64 field in `extra`, in their order.
/// Whether that has them all.
fn widen(numbers: &mut [u64; 3], mut extra: &[u8]) -> bool {
    let mut wide: &[u8] = &[];
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let (id, length) = (le(&head[..2]) as u16, le(&head[2..]) as usize);
        let Some((field, rest)) = rest.split_at_checked(length) else {
            return false;
        };
        if id == ZIP64 {
            wide = field;
        }
        extra = rest;
    }
    for number in numbers {
        if *number != u64::from(u32::MAX) {
            continue;
        }
        let Some((field, rest)) = wide.split_at_checked(8) else {
            return false;
        };
        *number = le(field);
        wide = rest;
    }
    true
}

/// An entry's name, if it is a plain path within the archive; otherwise what to show of it.
fn entry_name(name: &[u8]) -> Result<&str, Box<str>> {
    let odd = |text: &str| {
        let mut parts = text.strip_suffix('/').unwrap_or(text).split('/');
        text.len() > LONGEST_NAME
            || text.contains(|c: char| c.is_control() || c == '\\')
            || parts.any(|part| matches!(part, "" | "." | ".."))
    };
    match str::from_utf8(name) {
        Ok(text) if !odd(text) => Ok(text),
        _ => Err(String::from_utf8_lossy(name).into()),
    }
}

/// The number of up to eight bytes, the least first.
pub(super) fn le(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
