//! Choices drawn from bytes: the same bytes make the same image, fewer bytes a simpler one.

/// Every choice of a plan comes out of the bytes it was given; when they are used up, every choice
/// is the first one. So shrinking the bytes shrinks the image, and a fuzzer's bytes are a plan.
pub struct Dice<'a> {
    bytes: &'a [u8],
    /// For contents, which no shrinking needs to reach.
    noise: u64,
}

impl<'a> Dice<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, noise: 1 }
    }

    /// A number below `end`; 0 once the bytes are used up.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut drawn = 0;
        let mut reach: u64 = 1;
        while reach < end {
            drawn = (drawn << 8) | u64::from(self.byte());
            reach = reach.saturating_mul(256);
        }
        drawn % end.max(1)
    }

    /// True in `hits` of 256 throws; never once the bytes are used up.
    pub fn chance(&mut self, hits: u8) -> bool {
        let byte = self.byte();
        byte != 0 && byte <= hits
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Any number at all; 0 once the bytes are used up.
    pub fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| (word << 8) | u64::from(self.byte()))
    }

    /// Bytes that look like nothing in particular, and cost no choice.
    pub fn noise(&mut self) -> u64 {
        self.noise = scatter(self.noise);
        self.noise
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }
}

/// The next of a sequence of well mixed numbers (splitmix64).
pub fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
