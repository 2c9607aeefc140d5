//! The values of a GGUF header: numbers, texts, and arrays of them.

use super::fault::GgufFault;
use super::reader::{LONGEST_PIECE, Reader, Source, Stop, trimmed};
use crate::model::metadata::LONGEST_VALUE;

/// How deep arrays may lie in one another. Programs write one level; llama.cpp reads no more.
pub(super) const MAX_ARRAY_DEPTH: usize = 8;

const WHAT: &str = "the value of a key";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// The numbers of `gguf_metadata_value_type`.
    fn of(id: u32) -> Option<ValueType> {
        Some(match id {
            0 => ValueType::U8,
            1 => ValueType::I8,
            2 => ValueType::U16,
            3 => ValueType::I16,
            4 => ValueType::U32,
            5 => ValueType::I32,
            6 => ValueType::F32,
            7 => ValueType::Bool,
            8 => ValueType::String,
            9 => ValueType::Array,
            10 => ValueType::U64,
            11 => ValueType::I64,
            12 => ValueType::F64,
            _ => return None,
        })
    }

    /// The fewest bytes that one takes: of strings the length, of arrays type and length.
    fn least_bytes(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
            ValueType::Array => 12,
        }
    }

    fn several(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bools",
            ValueType::String => "strings",
            ValueType::Array => "arrays",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

/// What is kept of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(ValueType, i128),
    Float(f64),
    /// Apart from `Float`, as it prints shorter.
    Single(f32),
    Bool(bool),
    /// A text that is short enough to be kept.
    Text(Box<str>),
    /// A text that is not.
    LongText,
    Array(ValueType, u64),
}

impl Value {
    /// As it is kept among the metadata; `None` if it is too long for that.
    pub(super) fn to_text(&self) -> Option<String> {
        Some(match self {
            Value::Integer(_, number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Single(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Text(text) => text.to_string(),
            Value::LongText => return None,
            Value::Array(of, len) => format!("[{len} {}]", of.several()),
        })
    }
}

impl<S: Source + ?Sized> Reader<'_, S> {
    /// A value with its type in front. Arrays and long texts are passed over.
    pub(super) fn value(&mut self, key: &str) -> Result<Value, Stop<S::Error>> {
        let of = self.value_type(key)?;
        let integer = |number| Value::Integer(of, number);
        Ok(match of {
            ValueType::U8 => integer(u8::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::I8 => integer(i8::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::U16 => integer(u16::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::I16 => integer(i16::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::U32 => integer(u32::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::I32 => integer(i32::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::U64 => integer(u64::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::I64 => integer(i64::from_le_bytes(self.array(WHAT)?).into()),
            ValueType::F32 => Value::Single(f32::from_le_bytes(self.array(WHAT)?)),
            ValueType::F64 => Value::Float(f64::from_le_bytes(self.array(WHAT)?)),
            ValueType::Bool => {
                let [byte] = self.array(WHAT)?;
                check_bools(key, &[byte])?;
                Value::Bool(byte == 1)
            }
            ValueType::String => self.text()?,
            ValueType::Array => {
                let (of, len) = self.array_of(key)?;
                self.pass(key, of, len, 1)?;
                Value::Array(of, len)
            }
        })
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType, Stop<S::Error>> {
        let id = self.u32(WHAT)?;
        ValueType::of(id).ok_or_else(|| {
            let key = key.into();
            GgufFault::ValueType { key, id }.into()
        })
    }

    fn text(&mut self) -> Result<Value, Stop<S::Error>> {
        let bytes = self.u64(WHAT)?;
        if bytes > LONGEST_VALUE as u64 {
            self.skip(WHAT, bytes)?;
            return Ok(Value::LongText);
        }
        let text = trimmed(self.piece(WHAT, bytes as usize)?);
        // Some programs write texts that are not UTF-8, which nothing here depends on.
        Ok(Value::Text(String::from_utf8_lossy(text).into()))
    }

    /// Type and length of an array, of which the file has room for its elements.
    fn array_of(&mut self, key: &str) -> Result<(ValueType, u64), Stop<S::Error>> {
        let of = self.value_type(key)?;
        let len = self.u64(WHAT)?;
        let (needs, left) = (len.saturating_mul(of.least_bytes()), self.left());
        if needs > left {
            let key = key.into();
            let fault = GgufFault::LongArray {
                key,
                len,
                needs,
                left,
            };
            return Err(fault.into());
        }
        Ok((of, len))
    }

    /// Passes over the elements of an array.
    fn pass(
        &mut self,
        key: &str,
        of: ValueType,
        len: u64,
        depth: usize,
    ) -> Result<(), Stop<S::Error>> {
        match of {
            ValueType::String => {
                for _ in 0..len {
                    let bytes = self.u64(WHAT)?;
                    self.skip(WHAT, bytes)?;
                }
            }
            ValueType::Array if depth == MAX_ARRAY_DEPTH => {
                return Err(GgufFault::DeepArray { key: key.into() }.into());
            }
            ValueType::Array => {
                for _ in 0..len {
                    let (of, len) = self.array_of(key)?;
                    self.pass(key, of, len, depth + 1)?;
                }
            }
            ValueType::Bool => {
                let mut left = len;
                while left > 0 {
                    let some = left.min(LONGEST_PIECE as u64);
                    check_bools(key, self.piece(WHAT, some as usize)?)?;
                    left -= some;
                }
            }
            number => self.skip(WHAT, len.saturating_mul(number.least_bytes()))?,
        }
        Ok(())
    }
}

fn check_bools(key: &str, bytes: &[u8]) -> Result<(), GgufFault> {
    match bytes.iter().find(|byte| **byte > 1) {
        None => Ok(()),
        Some(&byte) => {
            let key = key.into();
            Err(GgufFault::Bool { key, byte })
        }
    }
}
