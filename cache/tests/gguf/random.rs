//! Files at random: sound ones are read as they were written, and changed ones do no harm.

use candle_core::quantized::gguf_file::Value;
use plimsoll_cache::model::{Dtype, parse_gguf};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::agreement::agrees;
use crate::weight::weighed;
use crate::written::Gguf;

/// Some types, and elements and bytes of their blocks.
const TYPES: [(u32, Dtype, u64, u64); 8] = [
    (0, Dtype::F32, 1, 4),
    (1, Dtype::F16, 1, 2),
    (2, Dtype::Q4_0, 32, 18),
    (8, Dtype::Q8_0, 32, 34),
    (14, Dtype::Q6_K, 256, 210),
    (24, Dtype::I8, 1, 1),
    (28, Dtype::F64, 1, 8),
    (29, Dtype::IQ1_M, 256, 56),
];

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        "[a-zä]{0,12}".prop_map(Value::String),
    ];
    let alike = prop_oneof![
        vec(any::<u64>().prop_map(Value::U64), 0..20),
        vec("[a-z]{0,20}".prop_map(Value::String), 0..20),
        vec(any::<bool>().prop_map(Value::Bool), 0..20),
    ];
    let nested = vec(
        vec(any::<i8>().prop_map(Value::I8), 1..3).prop_map(Value::Array),
        0..3,
    );
    prop_oneof![4 => scalar, 2 => alike.prop_map(Value::Array), 1 => nested.prop_map(Value::Array)]
}

/// A tensor: which type, its dimensions with the first in blocks, and how much is left free
/// before it, in steps of the alignment.
type Tensor = (usize, Vec<u64>, u64);

#[derive(Debug, Clone)]
struct Written {
    version: u32,
    alignment: Option<u32>,
    keys: Vec<(String, Value)>,
    tensors: Vec<(String, Tensor)>,
}

fn written() -> impl Strategy<Value = Written> {
    let tensor = (0..TYPES.len(), vec(0_u64..4, 0..5), 0_u64..3);
    let alignment = prop_oneof![Just(None), (0_u32..8).prop_map(|power| Some(1 << power))];
    let keys = btree_map("[a-z.]{0,12}", value(), 0..8);
    let tensors =
        btree_map("[a-z.]{0,20}", tensor, 0..12).prop_map(|map| map.into_iter().collect());
    let tensors = (tensors, any::<u64>()).prop_map(|(mut tensors, seed): (Vec<_>, u64)| {
        let turn = seed as usize % tensors.len().max(1);
        tensors.rotate_left(turn);
        tensors
    });
    (2_u32..4, alignment, keys, tensors).prop_map(|(version, alignment, keys, tensors)| Written {
        version,
        alignment,
        keys: keys.into_iter().collect(),
        tensors,
    })
}

/// A tensor as it should be read: name, type, shape, offset from the start of the data, bytes.
type Wanted<'a> = (&'a str, Dtype, Vec<usize>, u64, u64);

impl Written {
    fn file(&self) -> (Gguf, Vec<Wanted<'_>>) {
        let mut file = Gguf::new().version(self.version);
        if let Some(alignment) = self.alignment {
            file = file.aligned(alignment);
        }
        for (key, value) in &self.keys {
            file = file.key(key, value);
        }
        let alignment = u64::from(self.alignment.unwrap_or(32));
        let mut wanted = Vec::new();
        let mut end = 0_u64;
        for (name, (of, dimensions, free)) in &self.tensors {
            let (id, dtype, block, block_bytes) = TYPES[*of];
            let mut dimensions = dimensions.clone();
            if dimensions.is_empty() && block > 1 {
                dimensions.push(1);
            }
            dimensions.truncate(4);
            let blocks: u64 = dimensions.iter().product();
            if let Some(row) = dimensions.first_mut() {
                *row *= block;
            }
            let offset = end.next_multiple_of(alignment) + free * alignment;
            file = file.tensor(name, &dimensions, id, offset);
            let shape = dimensions.iter().rev().map(|dimension| *dimension as usize);
            end = offset + blocks * block_bytes;
            wanted.push((&**name, dtype, shape.collect(), offset, end - offset));
        }
        (file.data(end as usize), wanted)
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(written in written()) {
        let (file, wanted) = written.file();
        let bytes = file.bytes();
        let header = parse_gguf(&bytes, bytes.len() as u64).unwrap();
        agrees(&bytes, &header);
        prop_assert_eq!(header.version, written.version);
        let read: Vec<Wanted<'_>> = header
            .tensors
            .iter()
            .map(|tensor| {
                let offset = tensor.offset - header.data_offset;
                (&*tensor.name, tensor.dtype, tensor.shape.to_vec(), offset, tensor.bytes)
            })
            .collect();
        prop_assert_eq!(read, wanted);
        prop_assert!(header.tensors.iter().all(|tensor| tensor.tied_to.is_none()));
        let keys = written.keys.iter().filter(|(_, value)| !matches!(value, Value::F32(_)));
        for (key, value) in keys {
            let text = match value {
                Value::U8(number) => number.to_string(),
                Value::I16(number) => number.to_string(),
                Value::U32(number) => number.to_string(),
                Value::I64(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::String(text) => text.clone(),
                Value::Array(values) => format!("[{} ", values.len()),
                _ => continue,
            };
            let kept = header.metadata.get(key).unwrap();
            prop_assert!(kept == text || kept.starts_with('[') && kept.starts_with(&text));
        }
    }

    #[test]
    fn changed_bytes_do_no_harm(
        written in written(),
        changes in vec((any::<Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let (file, _) = written.file();
        let mut bytes = file.bytes();
        let header = file.header().len();
        for (at, byte) in changes {
            bytes[at.index(header)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let (read, most) = weighed(|| parse_gguf(&bytes, bytes.len() as u64));
        prop_assert!(most < (256 << 10) + 32 * bytes.len() as u64, "{} bytes held", most);
        match read {
            Ok(header) => {
                for tensor in &header.tensors {
                    prop_assert!(tensor.offset >= header.data_offset);
                    prop_assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
                }
                agrees(&bytes, &header);
            }
            Err(fault) => prop_assert!(!fault.to_string().contains(char::is_control)),
        }
    }

    #[test]
    fn any_bytes_do_no_harm(mut bytes in vec(any::<u8>(), 0..400), begins in any::<bool>()) {
        if begins {
            let start = Gguf::new().counts(1, 1).header();
            bytes.splice(..0, start);
        }
        let (_, most) = weighed(|| parse_gguf(&bytes, bytes.len() as u64));
        prop_assert!(most < 256 << 10, "{} bytes held", most);
    }
}
