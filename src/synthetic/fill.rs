//! Weights: values that look like a model's, made as fast as memory takes them.

use safetensors::Dtype;

/// Fills `out` with the bytes that follow the first `offset` bytes of the tensor of `seed`, both a
/// multiple of 8 but for the tensor's last piece.
///
/// The bits come from SplitMix64 (Steele, Lea, Flood 2014) in counter mode, so that any part can be
/// made without the parts before it. The exponents of floating-point numbers are then confined: all
/// values are finite, normal and between 2⁻⁷ and 2 in magnitude, like weights, so that arithmetic
/// on them neither overflows nor slows down on subnormal numbers. Other types take the bits as they
/// are.
pub fn fill(out: &mut [u8], seed: u64, offset: u64, dtype: Dtype) {
    // Cleared, then set: the upper bits of the exponent, of which one pattern is left over.
    let (clear, set): (u64, u64) = match dtype {
        Dtype::F16 => (0x6000_6000_6000_6000, 0x2000_2000_2000_2000),
        Dtype::BF16 => (0x7c00_7c00_7c00_7c00, 0x3c00_3c00_3c00_3c00),
        Dtype::F32 => (0x7c00_0000_7c00_0000, 0x3c00_0000_3c00_0000),
        _ => (0, 0),
    };
    let mut counter = seed.wrapping_add((offset / 8).wrapping_mul(GAMMA));
    let mut next = || {
        counter = counter.wrapping_add(GAMMA);
        (mixed(counter) & !clear | set).to_le_bytes()
    };
    let mut words = out.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&next());
    }
    let rest = words.into_remainder();
    let last = next();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// SplitMix64's step: 2⁶⁴ divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function.
pub fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// SplitMix64 as a sequence.
pub struct Sequence(pub u64);

impl Sequence {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mixed(self.0)
    }

    /// The next number in 0..1, of 53 bits.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
