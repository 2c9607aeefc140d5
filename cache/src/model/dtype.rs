//! Element types: those of safetensors, and the blocks of GGUF.

use std::fmt;

use candle_core::DType;
use candle_core::quantized::GgmlDType;

/// The type of a tensor's elements.
///
/// Numbers are those of safetensors, under its names. *Blocks* are those of GGML: so many elements
/// that share scales, packed into so many bytes; only whole blocks exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs)]
#[non_exhaustive]
pub enum Dtype {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    IQ1_M,
    TQ1_0,
    TQ2_0,
    MXFP4,
}

/// How elements lie in memory: so many in so many bits, aligned to so many bytes.
struct Packing {
    elements: u64,
    bits: u64,
    alignment: u64,
}

const fn number(bits: u64, alignment: u64) -> Packing {
    Packing {
        elements: 1,
        bits,
        alignment,
    }
}

const fn block(elements: u64, bytes: u64, alignment: u64) -> Packing {
    Packing {
        elements,
        bits: bytes * 8,
        alignment,
    }
}

impl Dtype {
    /// The sizes of blocks are those of `ggml-common.h`; the alignment is of their widest field.
    const fn packing(self) -> Packing {
        match self {
            Dtype::F4 => number(4, 1),
            Dtype::F6_E2M3 | Dtype::F6_E3M2 => number(6, 1),
            Dtype::BOOL
            | Dtype::U8
            | Dtype::I8
            | Dtype::F8_E5M2
            | Dtype::F8_E4M3
            | Dtype::F8_E8M0
            | Dtype::F8_E4M3FNUZ
            | Dtype::F8_E5M2FNUZ => number(8, 1),
            Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::BF16 => number(16, 2),
            Dtype::I32 | Dtype::U32 | Dtype::F32 => number(32, 4),
            // Two numbers.
            Dtype::C64 => number(64, 4),
            Dtype::F64 | Dtype::I64 | Dtype::U64 => number(64, 8),
            Dtype::Q4_0 | Dtype::IQ4_NL => block(32, 18, 2),
            Dtype::Q4_1 => block(32, 20, 2),
            Dtype::Q5_0 => block(32, 22, 2),
            Dtype::Q5_1 => block(32, 24, 2),
            Dtype::Q8_0 => block(32, 34, 2),
            Dtype::Q8_1 => block(32, 36, 2),
            Dtype::Q2_K => block(256, 84, 2),
            Dtype::Q3_K | Dtype::IQ3_S => block(256, 110, 2),
            Dtype::Q4_K => block(256, 144, 2),
            Dtype::Q5_K => block(256, 176, 2),
            Dtype::Q6_K => block(256, 210, 2),
            Dtype::Q8_K => block(256, 292, 4),
            Dtype::IQ2_XXS | Dtype::TQ2_0 => block(256, 66, 2),
            Dtype::IQ2_XS => block(256, 74, 2),
            Dtype::IQ3_XXS => block(256, 98, 2),
            Dtype::IQ1_S => block(256, 50, 2),
            Dtype::IQ2_S => block(256, 82, 2),
            Dtype::IQ4_XS => block(256, 136, 2),
            Dtype::IQ1_M => block(256, 56, 1),
            Dtype::TQ1_0 => block(256, 54, 2),
            Dtype::MXFP4 => block(32, 17, 1),
        }
    }

    /// Bits of one element; of blocks, what a block has to an element, rounded up.
    #[must_use]
    pub const fn bitsize(self) -> usize {
        let Packing { elements, bits, .. } = self.packing();
        bits.div_ceil(elements) as usize
    }

    /// Elements of one block, and its bytes; `None` for numbers.
    #[must_use]
    pub const fn block(self) -> Option<(u64, u64)> {
        match self.packing() {
            Packing { elements: 1, .. } => None,
            Packing { elements, bits, .. } => Some((elements, bits / 8)),
        }
    }

    /// The alignment in bytes that elements need to be read in place. Types below a byte are packed
    /// and need none.
    #[must_use]
    pub const fn alignment(self) -> u64 {
        self.packing().alignment
    }

    /// The type of candle's that has these numbers; `None` for blocks, and for what candle has not.
    #[must_use]
    pub const fn candle(self) -> Option<DType> {
        Some(match self {
            Dtype::U8 => DType::U8,
            Dtype::U32 => DType::U32,
            Dtype::I16 => DType::I16,
            Dtype::I32 => DType::I32,
            Dtype::I64 => DType::I64,
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F8_E4M3 => DType::F8E4M3,
            Dtype::F6_E2M3 => DType::F6E2M3,
            Dtype::F6_E3M2 => DType::F6E3M2,
            Dtype::F4 => DType::F4,
            Dtype::F8_E8M0 => DType::F8E8M0,
            _ => return None,
        })
    }

    /// The blocks of candle's that these are; `None` for numbers, and for blocks that candle cannot
    /// compute with.
    #[must_use]
    pub const fn quantised(self) -> Option<GgmlDType> {
        Some(match self {
            Dtype::Q4_0 => GgmlDType::Q4_0,
            Dtype::Q4_1 => GgmlDType::Q4_1,
            Dtype::Q5_0 => GgmlDType::Q5_0,
            Dtype::Q5_1 => GgmlDType::Q5_1,
            Dtype::Q8_0 => GgmlDType::Q8_0,
            Dtype::Q8_1 => GgmlDType::Q8_1,
            Dtype::Q2_K => GgmlDType::Q2K,
            Dtype::Q3_K => GgmlDType::Q3K,
            Dtype::Q4_K => GgmlDType::Q4K,
            Dtype::Q5_K => GgmlDType::Q5K,
            Dtype::Q6_K => GgmlDType::Q6K,
            Dtype::Q8_K => GgmlDType::Q8K,
            _ => return None,
        })
    }

    /// Its name, as safetensors or llama.cpp have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// The number type of that name in safetensors.
    pub(super) fn of_safetensors(name: &str) -> Option<Dtype> {
        let numbers = NAMES
            .iter()
            .take_while(|(dtype, _)| dtype.block().is_none());
        let mut found = numbers.filter(|(_, known)| *known == name);
        found.next().map(|(dtype, _)| *dtype)
    }
}

macro_rules! names {
    ($($name:ident)*) => { &[$((Dtype::$name, stringify!($name)),)*] };
}

/// All of them in order, numbers first.
const NAMES: &[(Dtype, &str)] = names!(
    BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16
    I32 U32 F32 C64 F64 I64 U64 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS
    IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS IQ1_M TQ1_0 TQ2_0 MXFP4
);

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_name_and_the_size_that_candle_has() {
        for (at, (dtype, name)) in NAMES.iter().enumerate() {
            assert_eq!(*dtype as usize, at, "{name}");
            assert_eq!(dtype.name(), *name);
            if let Some(known) = dtype.quantised() {
                let sizes = (known.block_size() as u64, known.type_size() as u64);
                assert_eq!(dtype.block(), Some(sizes), "{name}");
            }
            if let Some(known) = dtype.candle() {
                assert_eq!(
                    dtype.bitsize().div_ceil(8),
                    known.size_in_bytes().max(1),
                    "{name}"
                );
            }
        }
    }
}
