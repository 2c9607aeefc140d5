//! Choices, made by bytes: the same bytes choose the same.

/// Bytes that were not used yet. When they are used up, the first of everything is chosen.
pub struct Dice<'a>(pub &'a [u8]);

/// Names that have broken something somewhere.
const NAMES: [&str; 18] = [
    "m0",
    "ram",
    "simulated",
    "",
    "\u{1b}[2J\u{1b}]0;x\u{7}",
    "a\nb\tc\rd",
    "\u{202e}txt",
    "日本語の模型",
    "👩‍👩‍👧‍👦🏴‍☠️",
    "e\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
    "\u{0}",
    "\u{9b}31m",
    "\u{ad}\u{200b}\u{feff}",
    " ",
    "..",
    "/a/very/long/path/with/many/parts/that/does/not/fit/into/any/column/of/any/table/at/all/x.safetensors",
    "ﷺ﷽",
    "unlimited",
];

const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    99,
    4095,
    4096,
    1_000_000,
    1 << 20,
    1 << 30,
    u32::MAX as u64,
    1 << 40,
    (1 << 53) + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

impl Dice<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Below `end`, which is small.
    pub fn below(&mut self, end: usize) -> usize {
        let chosen = usize::from(self.byte()) << 8 | usize::from(self.byte());
        chosen % end.max(1)
    }

    pub fn chance(&mut self, of: u8) -> bool {
        self.byte() % of == of - 1
    }

    pub fn number(&mut self) -> u64 {
        let kind = self.byte();
        match kind {
            0..=127 => NUMBERS[usize::from(kind) % NUMBERS.len()],
            128..=191 => u64::from(self.byte()),
            192..=223 => self.below(1 << 16) as u64,
            _ => {
                let mut bytes = [0; 8];
                bytes.fill_with(|| self.byte());
                u64::from_le_bytes(bytes) >> (kind & 31)
            }
        }
    }

    pub fn text(&mut self) -> String {
        match self.byte() {
            kind @ 0..=199 => NAMES[usize::from(kind) % NAMES.len()].to_owned(),
            200..=229 => format!("m{}", self.byte()),
            230..=249 => {
                let bytes: Vec<u8> = (0..self.byte() % 24).map(|_| self.byte()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => self.text_of(self.0.len().min(4)),
        }
    }

    /// Something short, many times.
    fn text_of(&mut self, bytes: usize) -> String {
        let (short, rest) = self.0.split_at(bytes);
        self.0 = rest;
        String::from_utf8_lossy(short).repeat(1 + usize::from(self.byte()) * 16)
    }
}
