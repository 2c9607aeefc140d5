//! What a block seems to hold, from its first bytes.

use super::memory::Memory;
use super::report::{Address, Hint};
use crate::mappings::Mapping;

/// Bytes that are looked at.
const LOOKED_AT: usize = 64;
/// A shorter run of letters is chance.
const SHORTEST_TEXT: usize = 6;
/// `tp_name` in CPython's `PyTypeObject`, behind `ob_refcnt`, `ob_type` and `ob_size`.
const TYPE_NAME: u64 = 24;

/// Guesses what the block at `content` holds, of `length` bytes; `None` where nothing can be told.
pub(super) fn of(memory: &mut Memory<'_>, content: u64, length: u64) -> Option<Hint> {
    let wanted = usize::try_from(length).map_or(LOOKED_AT, |length| length.min(LOOKED_AT));
    let bytes = memory.stray_bytes(content, wanted).ok()?;
    if bytes.len() == wanted && wanted >= 16 && bytes.iter().all(|byte| *byte == 0) {
        return Some(Hint::Zeros);
    }
    if let Some(text) = text(&bytes) {
        return Some(Hint::Text(text));
    }
    // An object that the garbage collector follows has two words before it.
    if let Some(name) = [0, 16]
        .into_iter()
        .find_map(|shift| python_type(memory, content.checked_add(shift)?))
    {
        return Some(Hint::Python(name));
    }
    let pointer = memory.stray_word(content & !7).ok()?;
    points_into(memory.space().mappings(), pointer)
}

/// The letters at the beginning, if there are enough.
fn text(bytes: &[u8]) -> Option<String> {
    let printable = |byte: &u8| (0x20..0x7f).contains(byte) || matches!(byte, b'\n' | b'\t');
    let length = bytes.iter().take_while(|byte| printable(byte)).count();
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    (length >= SHORTEST_TEXT).then(|| text.to_owned())
}

/// The name of the type of a Python object at `object`: a type's own type is `type`.
fn python_type(memory: &mut Memory<'_>, object: u64) -> Option<String> {
    let kind = memory.stray_word(object.checked_add(8)?).ok()?;
    let its_kind = memory.stray_word(kind.checked_add(8)?).ok()?;
    let mut names = [kind, its_kind].into_iter().map(|kind| {
        let name = memory.stray_word(kind.checked_add(TYPE_NAME)?).ok()?;
        let bytes = memory.stray_bytes(name, LOOKED_AT).ok()?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let identifier = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        (!name.is_empty() && name.chars().all(identifier)).then(|| name.to_owned())
    });
    let (name, metatype) = (names.next()??, names.next()??);
    // Metaclasses of one's own are rare, and their names end like this.
    (metatype == "type" || metatype.ends_with("Meta")).then_some(name)
}

/// The object that a pointer leads into, and how far.
fn points_into(mappings: &[Mapping], pointer: u64) -> Option<Hint> {
    let at = mappings.partition_point(|mapping| mapping.range.end <= pointer);
    let mapping = mappings.get(at).filter(|m| m.range.contains(&pointer))?;
    let path = mapping.path()?;
    let first = mappings
        .iter()
        .find(|other| other.path() == Some(path))
        .map_or(mapping.range.start, |first| first.range.start);
    let path = path.to_string_lossy().into_owned();
    Some(Hint::PointsInto(path, Address(pointer - first)))
}
