//! What a pickle makes: values that refer to each other by number, so that they are small, are
//! copied and freed without recursion, and may form circles.

use super::globals::Global;

/// The longest tuple that is kept, and so the most dimensions: as for safetensors files.
pub(super) const LONGEST_TUPLE: usize = super::super::header::MAX_DIMENSIONS;

/// The longest text that is kept, bytes. What a table has under a longer name is counted and left
/// out. That a text can be named again and again, each time in two bytes, must not cost much.
pub(super) const LONGEST_TEXT: usize = 4096;

/// A value, in 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text),
    Tuple(Tuple),
    /// A position in [`Values::tables`].
    Table(u32),
    Global(Global),
    /// A position in [`Values::storages`].
    Storage(u32),
    /// A position in [`Values::tensors`].
    Tensor(u32),
    /// What no tensor is made of: lists, sets, bytes, long tuples and texts, long integers.
    Other,
}

/// A range of the pickle that is UTF-8, at most [`LONGEST_TEXT`] long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Text {
    at: u32,
    len: u32,
}

impl Text {
    /// The `len` bytes before `end`. A pickle is shorter than 2³² bytes.
    pub(super) fn ending(end: usize, len: usize) -> Text {
        Text {
            at: (end - len) as u32,
            len: len as u32,
        }
    }

    /// Its length, bytes.
    pub(super) fn len(self) -> usize {
        self.len as usize
    }

    pub(super) fn of(self, pickle: &[u8]) -> &[u8] {
        &pickle[self.at as usize..][..self.len as usize]
    }
}

/// A range of [`Values::elements`], at most [`LONGEST_TUPLE`] long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tuple {
    pub(super) at: u32,
    pub(super) len: u32,
}

impl Tuple {
    pub(super) fn of(self, elements: &[Value]) -> &[Value] {
        &elements[self.at as usize..][..self.len as usize]
    }
}

/// A Python dictionary.
#[derive(Default)]
pub(super) struct Table {
    /// What has a text for a name, in the order in which it was put in.
    pub(super) entries: Vec<(Text, Value)>,
    /// How many of these are tensors.
    pub(super) tensors: usize,
    /// How many other entries there are.
    pub(super) unnamed: usize,
}

/// Where the bytes of tensors lie, as a pickle names it.
#[derive(Clone, Copy)]
pub(super) struct Storage {
    /// A position in [`STORAGES`](super::globals::STORAGES).
    pub(super) of: u8,
    pub(super) key: Text,
    /// How many elements it has.
    pub(super) count: u64,
}

/// A tensor as a pickle names it.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    /// A position in [`Values::storages`].
    pub(super) storage: u32,
    /// Its type, a position in [`DTYPES`](super::globals::DTYPES), if not that of its storage.
    pub(super) dtype: Option<u8>,
    /// Its first element, counted in the storage.
    pub(super) first: u64,
    pub(super) shape: Tuple,
    pub(super) stride: Tuple,
}

/// What a pickle made.
pub(super) struct Values<'a> {
    pub(super) pickle: &'a [u8],
    pub(super) root: Value,
    pub(super) elements: Vec<Value>,
    pub(super) tables: Vec<Table>,
    pub(super) storages: Vec<Storage>,
    pub(super) tensors: Vec<Raw>,
}

impl Values<'_> {
    pub(super) fn text(&self, text: Text) -> &str {
        // Only what is UTF-8 became one.
        str::from_utf8(text.of(self.pickle)).unwrap_or_default()
    }

    pub(super) fn tuple(&self, tuple: Tuple) -> &[Value] {
        tuple.of(&self.elements)
    }
}
