//! Numbers as bytes, widened to double precision and rounded once back.

use half::{bf16, f16};

use super::lanes::{Loop, widest};
use crate::model::Dtype;

/// Bytes of one number that can be added; `None` for all other types.
pub(super) fn width(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F16 | Dtype::BF16 => Some(2),
        Dtype::F32 => Some(4),
        Dtype::F64 => Some(8),
        _ => None,
    }
}

/// Widens as many numbers as both have room for. Exact.
pub(super) fn widen(dtype: Dtype, bytes: &[u8], into: &mut [f64]) {
    widest(Widen { dtype, bytes, into });
}

struct Widen<'a> {
    dtype: Dtype,
    bytes: &'a [u8],
    into: &'a mut [f64],
}

impl Loop for Widen<'_> {
    type Gives = ();

    #[inline(always)]
    fn run<const LANES: usize>(self) {
        #[inline(always)]
        fn all<const N: usize>(bytes: &[u8], into: &mut [f64], of: impl Fn([u8; N]) -> f64) {
            let (numbers, _) = bytes.as_chunks::<N>();
            for (into, number) in into.iter_mut().zip(numbers) {
                *into = of(*number);
            }
        }
        let Widen { dtype, bytes, into } = self;
        match dtype {
            Dtype::F16 => all(bytes, into, |number| half(u16::from_le_bytes(number))),
            Dtype::BF16 => all(bytes, into, |number| {
                f32::from_bits(u32::from(u16::from_le_bytes(number)) << 16).into()
            }),
            Dtype::F32 => all(bytes, into, |number| f32::from_le_bytes(number).into()),
            Dtype::F64 => all(bytes, into, f64::from_le_bytes),
            _ => {}
        }
    }
}

/// A number of F16, without branches, so that many are widened at once.
#[inline(always)]
fn half(bits: u16) -> f64 {
    /// What the exponents of both types are apart.
    const APART: u64 = (1023 - 15) << 52;
    /// The least that is not subnormal.
    const LEAST: u64 = APART + (1 << 52);
    let bits = u64::from(bits);
    let digits = (bits & 0x7fff) << 42;
    let subnormal = f64::from_bits(digits + LEAST) - f64::from_bits(LEAST);
    let is_subnormal = bits & 0x7c00 == 0;
    let is_finite = bits & 0x7c00 != 0x7c00;
    let normal = digits + if is_finite { APART } else { 2 * APART };
    let size = if is_subnormal {
        subnormal.to_bits()
    } else {
        normal
    };
    f64::from_bits(size | (bits & 0x8000) << 48)
}

/// Rounds to the nearest, ties to even, and says how many of them are not finite. What is no number
/// is always the same one: which of several a processor hands on is not defined.
///
/// F16, BF16 and F32 only.
pub(super) fn narrow(dtype: Dtype, numbers: &[f64], into: &mut [u8]) -> u64 {
    widest(Narrow {
        dtype,
        numbers,
        into,
    })
}

struct Narrow<'a> {
    dtype: Dtype,
    numbers: &'a [f64],
    into: &'a mut [u8],
}

impl Loop for Narrow<'_> {
    type Gives = u64;

    #[inline(always)]
    fn run<const LANES: usize>(self) -> u64 {
        #[inline(always)]
        fn all<const N: usize>(
            numbers: &[f64],
            into: &mut [u8],
            to: impl Fn(f64) -> ([u8; N], bool),
        ) -> u64 {
            let (into, _) = into.as_chunks_mut::<N>();
            let mut infinite = 0;
            for (into, number) in into.iter_mut().zip(numbers) {
                let (bytes, is_finite) = to(*number);
                *into = bytes;
                infinite += u64::from(!is_finite);
            }
            infinite
        }
        let Narrow {
            dtype,
            numbers,
            into,
        } = self;
        match dtype {
            Dtype::F16 => all(numbers, into, |number| {
                let bits = round::<10>(number);
                (bits.to_le_bytes(), f16::from_bits(bits).is_finite())
            }),
            Dtype::BF16 => all(numbers, into, |number| {
                let bits = round::<7>(number);
                (bits.to_le_bytes(), bf16::from_bits(bits).is_finite())
            }),
            Dtype::F32 => all(numbers, into, |number| {
                let near = if number.is_nan() {
                    f32::NAN
                } else {
                    number as f32
                };
                (near.to_le_bytes(), near.is_finite())
            }),
            _ => 0,
        }
    }
}

/// Rounds to 16 bits, `DIGITS` of them behind the point and all but one before those the exponent.
///
/// A power of two is added whose last digit is the last that the result has: the sum is rounded there,
/// to even, once, and its digits are the result's.
#[inline(always)]
fn round<const DIGITS: u32>(number: f64) -> u16 {
    const SIGN: u64 = 1 << 63;
    const EXPONENT: u64 = 0x7ff << 52;
    let middle = (1_u64 << (14 - DIGITS)) - 1;
    let power = |exponent: u64| f64::from_bits(exponent << 52);
    let least = power(1023 - (middle - 1));
    let beyond = power(1023 + middle + 1);
    let infinite = ((1_u16 << (15 - DIGITS)) - 1) << DIGITS;

    let bits = number.to_bits();
    let size = f64::from_bits(bits & !SIGN);
    let size = if size < beyond { size } else { beyond };
    let exponent = f64::from_bits(size.to_bits() & EXPONENT);
    let exponent = if exponent > least { exponent } else { least };
    let added = exponent * power(1023 + u64::from(52 - DIGITS));
    let digits = (size + added).to_bits() - added.to_bits();
    let steps = (exponent.to_bits() - least.to_bits()) >> (52 - DIGITS);
    let signed = (digits + steps) as u16 | ((bits & SIGN) >> 48) as u16;
    if number.is_nan() {
        infinite | 1 << (DIGITS - 1)
    } else {
        signed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rounded(dtype: Dtype, number: f64) -> f64 {
        let mut bytes = [0; 8];
        let width = width(dtype).unwrap_or(0);
        narrow(dtype, &[number], &mut bytes[..width]);
        let mut back = [0.0];
        widen(dtype, &bytes[..width], &mut back);
        back[0]
    }

    /// The neighbours of a number of 16 bits, among all there are, that enclose a number.
    fn nearest(dtype: Dtype, number: f64) -> f64 {
        let mut best = f64::NAN;
        let mut distance = f64::INFINITY;
        for bits in 0..=u16::MAX {
            let mut one = [0.0];
            widen(dtype, &bits.to_le_bytes(), &mut one);
            let away = (one[0] - number).abs();
            let is_even = bits & 1 == 0;
            if one[0].is_finite() && (away < distance || away == distance && is_even) {
                (best, distance) = (one[0], away);
            }
        }
        best
    }

    #[test]
    fn what_lies_a_hair_beside_the_middle_goes_to_its_own_side() {
        let step = f64::from(f16::EPSILON.to_f32());
        let middle = 1.0 + step / 2.0;
        assert_eq!(rounded(Dtype::F16, middle), 1.0);
        assert_eq!(rounded(Dtype::F16, middle + 1e-15), 1.0 + step);
        assert_eq!(rounded(Dtype::F16, -(middle + 1e-15)), -(1.0 + step));
        let step = f64::from(bf16::EPSILON.to_f32());
        assert_eq!(rounded(Dtype::BF16, 1.0 + step / 2.0 + 1e-15), 1.0 + step);
        assert_eq!(rounded(Dtype::BF16, 1.0 + step / 2.0), 1.0);
    }

    #[test]
    fn what_is_too_large_is_infinite_and_counted() {
        let mut bytes = [0; 6];
        assert_eq!(
            narrow(Dtype::F16, &[65519.9, 65520.0, f64::NAN], &mut bytes),
            2
        );
        assert_eq!(narrow(Dtype::BF16, &[1e300, -1e300, 3.3e38], &mut bytes), 2);
        assert_eq!(rounded(Dtype::F16, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(rounded(Dtype::F16, 1e-300), 0.0);
        assert!(rounded(Dtype::F32, -1e-300).is_sign_negative());
    }

    #[test]
    fn sixteen_bits_come_back_from_double_precision_as_they_were() {
        for bits in 0..=u16::MAX {
            for (dtype, known) in [
                (Dtype::F16, f16::from_bits(bits).to_f64()),
                (Dtype::BF16, bf16::from_bits(bits).to_f64()),
            ] {
                let mut wide = [0.0];
                widen(dtype, &bits.to_le_bytes(), &mut wide);
                if known.is_nan() {
                    assert!(wide[0].is_nan());
                    continue;
                }
                assert_eq!(wide[0].to_bits(), known.to_bits());
                let mut back = [0; 2];
                narrow(dtype, &wide, &mut back);
                assert_eq!(u16::from_le_bytes(back), bits, "{dtype} {known}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_always_the_same_one() {
        for bits in [0x7ff0_0000_0000_0001, 0x7ff8_0000_0000_0000, u64::MAX] {
            for (dtype, same) in [(Dtype::F16, 0x7e00), (Dtype::BF16, 0x7fc0)] {
                let mut bytes = [0; 2];
                assert_eq!(narrow(dtype, &[f64::from_bits(bits)], &mut bytes), 1);
                assert_eq!(u16::from_le_bytes(bytes), same);
            }
            let mut bytes = [0; 4];
            narrow(Dtype::F32, &[f64::from_bits(bits)], &mut bytes);
            assert_eq!(bytes, f32::NAN.to_le_bytes());
        }
    }

    #[test]
    fn registers_of_all_widths_give_the_same_bits() {
        let mut state = 7_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from_bits(state)
        };
        let numbers: Vec<f64> = std::iter::repeat_with(&mut next).take(4099).collect();
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
            let bytes = 4099 * width(dtype).unwrap_or(0);
            let [mut widest, mut least] = [vec![0; bytes], vec![0; bytes]];
            let count = narrow(dtype, &numbers, &mut widest);
            let into = &mut least;
            let narrow = Narrow {
                dtype,
                numbers: &numbers,
                into,
            };
            assert_eq!(narrow.run::<2>(), count);
            assert_eq!(widest, least);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sixteen_bits_are_the_nearest_of_all(mantissa in -1.0..1.0_f64, exponent in -30..15_i32) {
            let number = mantissa * f64::from(exponent).exp2();
            for dtype in [Dtype::F16, Dtype::BF16] {
                prop_assert_eq!(rounded(dtype, number), nearest(dtype, number));
            }
            let small = number * (-112.0_f64).exp2();
            prop_assert_eq!(rounded(Dtype::BF16, small), nearest(Dtype::BF16, small));
        }
    }
}
