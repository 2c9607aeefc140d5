//! Numbers as bytes, widened to double precision and rounded once back.

use half::{bf16, f16};

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
    fn all<const N: usize>(bytes: &[u8], into: &mut [f64], of: impl Fn([u8; N]) -> f64) {
        let (numbers, _) = bytes.as_chunks::<N>();
        for (into, number) in into.iter_mut().zip(numbers) {
            *into = of(*number);
        }
    }
    match dtype {
        Dtype::F16 => all(bytes, into, |number| f16::from_le_bytes(number).to_f64()),
        Dtype::BF16 => all(bytes, into, |number| bf16::from_le_bytes(number).to_f64()),
        Dtype::F32 => all(bytes, into, |number| f32::from_le_bytes(number).into()),
        Dtype::F64 => all(bytes, into, f64::from_le_bytes),
        _ => {}
    }
}

/// Rounds to the nearest, ties to even, and says how many of them are not finite.
pub(super) fn narrow(dtype: Dtype, numbers: &[f64], into: &mut [u8]) -> u64 {
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
    match dtype {
        Dtype::F16 => all(numbers, into, |number| {
            let number = f16::from_f32(odd(number));
            (number.to_le_bytes(), number.is_finite())
        }),
        Dtype::BF16 => all(numbers, into, |number| {
            let number = bf16::from_f32(odd(number));
            (number.to_le_bytes(), number.is_finite())
        }),
        Dtype::F32 => all(numbers, into, |number| {
            let number = number as f32;
            (number.to_le_bytes(), number.is_finite())
        }),
        Dtype::F64 => all(numbers, into, |number| {
            (number.to_le_bytes(), number.is_finite())
        }),
        _ => 0,
    }
}

/// Rounds to odd: what is not exact keeps its last bit set, so that rounding it again to half the
/// digits gives what rounding once would have given (Boldo and Melquiond, "When double rounding is
/// odd", 2005). `half` goes through single precision, or cuts off bits, on its own.
fn odd(number: f64) -> f32 {
    let near = number as f32;
    if near.is_nan() || f64::from(near) == number {
        return near;
    }
    let bits = near.to_bits();
    let inner = if f64::from(near).abs() > number.abs() {
        bits - 1
    } else {
        bits
    };
    f32::from_bits(inner | 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(dtype: Dtype, number: f64) -> f64 {
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
        assert_eq!(round(Dtype::F16, middle), 1.0);
        assert_eq!(round(Dtype::F16, middle + 1e-15), 1.0 + step);
        assert_eq!(round(Dtype::F16, -(middle + 1e-15)), -(1.0 + step));
        let step = f64::from(bf16::EPSILON.to_f32());
        assert_eq!(round(Dtype::BF16, 1.0 + step / 2.0 + 1e-15), 1.0 + step);
        assert_eq!(round(Dtype::BF16, 1.0 + step / 2.0), 1.0);
    }

    #[test]
    fn what_is_too_large_is_infinite_and_counted() {
        let mut bytes = [0; 6];
        assert_eq!(
            narrow(Dtype::F16, &[65519.9, 65520.0, f64::NAN], &mut bytes),
            2
        );
        assert_eq!(narrow(Dtype::BF16, &[1e300, -1e300, 3.3e38], &mut bytes), 2);
        assert_eq!(round(Dtype::F16, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(round(Dtype::F16, 1e-300), 0.0);
        assert!(round(Dtype::F32, -1e-300).is_sign_negative());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sixteen_bits_are_the_nearest_of_all(mantissa in -1.0..1.0_f64, exponent in -30..15_i32) {
            let number = mantissa * f64::from(exponent).exp2();
            for dtype in [Dtype::F16, Dtype::BF16] {
                prop_assert_eq!(round(dtype, number), nearest(dtype, number));
            }
        }
    }
}
