//! GGUF files, written byte by byte, so that they can be wrong in every way.

use candle_core::quantized::gguf_file::Value;

pub const F32: u32 = 0;
pub const F16: u32 = 1;
pub const Q8_0: u32 = 8;
pub const Q4_K: u32 = 12;

/// A file in the making.
#[derive(Debug, Clone)]
pub struct Gguf {
    start: Vec<u8>,
    keys: Vec<u8>,
    key_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    alignment: usize,
    data: Vec<u8>,
}

impl Gguf {
    /// A file of version 3 without keys, tensors and data, aligned to 32 bytes.
    pub fn new() -> Gguf {
        Gguf {
            start: b"GGUF\x03\0\0\0".to_vec(),
            keys: Vec::new(),
            key_count: 0,
            tensors: Vec::new(),
            tensor_count: 0,
            alignment: 32,
            data: Vec::new(),
        }
    }

    /// A file with one tensor `t` of 8 numbers and their data.
    pub fn one() -> Gguf {
        Gguf::new().tensor("t", &[8], F32, 0).data(32)
    }

    pub fn version(mut self, version: u32) -> Gguf {
        self.start[4..].copy_from_slice(&version.to_le_bytes());
        self
    }

    pub fn key(self, key: impl AsRef<[u8]>, value: &Value) -> Gguf {
        let mut bytes = Vec::new();
        write(&mut bytes, value);
        self.raw_key(key, type_of(value), &bytes)
    }

    pub fn raw_key(mut self, key: impl AsRef<[u8]>, id: u32, value: &[u8]) -> Gguf {
        text(&mut self.keys, key.as_ref());
        self.keys.extend(id.to_le_bytes());
        self.keys.extend(value);
        self.key_count += 1;
        self
    }

    /// The alignment that data and padding have, and the key that says so.
    pub fn aligned(mut self, alignment: u32) -> Gguf {
        self.alignment = alignment as usize;
        self.key("general.alignment", &Value::U32(alignment))
    }

    /// A tensor, its dimensions fastest first.
    pub fn tensor(
        mut self,
        name: impl AsRef<[u8]>,
        dimensions: &[u64],
        id: u32,
        offset: u64,
    ) -> Gguf {
        text(&mut self.tensors, name.as_ref());
        self.tensors.extend((dimensions.len() as u32).to_le_bytes());
        for dimension in dimensions {
            self.tensors.extend(dimension.to_le_bytes());
        }
        self.tensors.extend(id.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    /// So many bytes of data, that count up.
    pub fn data(mut self, bytes: usize) -> Gguf {
        self.data = (0..bytes).map(|at| at as u8).collect();
        self
    }

    /// Claims other numbers of tensors and keys than there are.
    pub fn counts(mut self, tensors: u64, keys: u64) -> Gguf {
        (self.tensor_count, self.key_count) = (tensors, keys);
        self
    }

    /// The header without padding.
    pub fn header(&self) -> Vec<u8> {
        let counts = [self.tensor_count, self.key_count].map(u64::to_le_bytes);
        [
            &self.start[..],
            counts.as_flattened(),
            &self.keys,
            &self.tensors,
        ]
        .concat()
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }
}

fn text(into: &mut Vec<u8>, text: &[u8]) {
    into.extend((text.len() as u64).to_le_bytes());
    into.extend(text);
}

fn type_of(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn write(into: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => into.extend(number.to_le_bytes()),
        Value::I8(number) => into.extend(number.to_le_bytes()),
        Value::U16(number) => into.extend(number.to_le_bytes()),
        Value::I16(number) => into.extend(number.to_le_bytes()),
        Value::U32(number) => into.extend(number.to_le_bytes()),
        Value::I32(number) => into.extend(number.to_le_bytes()),
        Value::F32(number) => into.extend(number.to_le_bytes()),
        Value::Bool(truth) => into.push(u8::from(*truth)),
        Value::String(string) => text(into, string.as_bytes()),
        Value::Array(values) => {
            let of = values.first().map_or(4, type_of);
            into.extend(array_of(of, values.len() as u64));
            values.iter().for_each(|value| write(into, value));
        }
        Value::U64(number) => into.extend(number.to_le_bytes()),
        Value::I64(number) => into.extend(number.to_le_bytes()),
        Value::F64(number) => into.extend(number.to_le_bytes()),
    }
}

/// The begin of an array: its type and length.
pub fn array_of(id: u32, len: u64) -> Vec<u8> {
    [&id.to_le_bytes()[..], &len.to_le_bytes()].concat()
}
