//! Reading the other process: what is resident first, then contents, in windows.

use std::collections::HashMap;
use std::ops::Range;

use super::space::{AddressSpace, PageState, Run};

/// Pages whose state is asked for together.
const BLOCK_PAGES: u64 = 8192;
const WORDS: usize = (BLOCK_PAGES / 64) as usize;
/// Blocks kept, 3 KiB each: 128 GiB of address space. What is resident is asked once and before
/// anything is read, since asking costs a fifth of what reading does.
const BLOCKS: usize = 4096;
/// Pages kept for lists, which lead anywhere.
const PAGES: usize = 128;
/// User space ends below this on every 64-bit machine.
const END_OF_USER_SPACE: u64 = 1 << 56;

/// Why something cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// Its page is not there: never touched, given back, or not mapped.
    Absent,
    /// Its page is in swap; reading would bring it back into RAM.
    Swapped,
    /// The kernel refused: unmapped in the meantime.
    Refused,
}

/// The states of the pages of one block.
struct Block {
    resident: [u64; WORDS],
    zero: [u64; WORDS],
    swapped: [u64; WORDS],
}

/// A copy of some pages in a row.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// The memory of the other process, read with care: see [`AddressSpace`].
pub(super) struct Memory<'a> {
    space: &'a dyn AddressSpace,
    page: u64,
    largest: u64,
    blocks: HashMap<u64, Box<Block>>,
    window: Window,
    /// How much the next window takes if it follows on this one.
    ahead: u64,
    pages: Vec<Option<Window>>,
}

impl<'a> Memory<'a> {
    pub(super) fn new(space: &'a dyn AddressSpace, window: usize) -> Self {
        let page = space.page_size().next_power_of_two().max(64);
        Self {
            space,
            page,
            largest: (window as u64).max(page) / page * page,
            blocks: HashMap::new(),
            window: Window::default(),
            ahead: page,
            pages: std::iter::repeat_with(|| None).take(PAGES).collect(),
        }
    }

    pub(super) const fn page(&self) -> u64 {
        self.page
    }

    pub(super) const fn space(&self) -> &'a dyn AddressSpace {
        self.space
    }

    /// Forgets what was read and what was resident: the process may have gone on.
    pub(super) fn forget(&mut self) {
        self.blocks.clear();
        self.forget_contents();
    }

    /// Forgets what was read.
    pub(super) fn forget_contents(&mut self) {
        self.pages.iter_mut().for_each(|page| *page = None);
        self.window.bytes.clear();
        self.ahead = self.page;
    }

    /// A word, by the window that walks forward. `address` is a multiple of 8.
    pub(super) fn word(&mut self, address: u64) -> Result<u64, Unread> {
        let window = self.window_at(address)?;
        word_of(window, address)
    }

    /// Two words side by side: a chunk's `prev_size` and `size`. `address` is a multiple of 16.
    pub(super) fn header(&mut self, address: u64) -> Result<(u64, u64), Unread> {
        let window = self.window_at(address)?;
        let offset = usize::try_from(address - window.start).unwrap_or(usize::MAX);
        let words: Option<&[u8; 16]> = window.bytes.get(offset..).and_then(<[u8]>::first_chunk);
        let both = u128::from_le_bytes(*words.ok_or(Unread::Refused)?);
        Ok((both as u64, (both >> 64) as u64))
    }

    /// A word from anywhere, which leaves the window where it is. `address` is a multiple of 8.
    pub(super) fn stray_word(&mut self, address: u64) -> Result<u64, Unread> {
        let page = self.stray_page(address)?;
        word_of(page, address)
    }

    /// Bytes from anywhere; fewer where a page behind the first cannot be read.
    pub(super) fn stray_bytes(&mut self, address: u64, length: usize) -> Result<Vec<u8>, Unread> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = address + bytes.len() as u64;
            let page = match self.stray_page(at) {
                Ok(page) => page,
                Err(unread) if bytes.is_empty() => return Err(unread),
                Err(_) => break,
            };
            let offset = usize::try_from(at - page.start).unwrap_or(usize::MAX);
            let rest = page.bytes.get(offset..).unwrap_or_default();
            let wanted = rest.len().min(length - bytes.len());
            bytes.extend_from_slice(rest.get(..wanted).unwrap_or_default());
        }
        Ok(bytes)
    }

    /// How many bytes of `range` lie on resident pages.
    pub(super) fn resident(&mut self, range: Range<u64>) -> u64 {
        self.count(range, |block| &block.resident)
    }

    /// How many bytes of `range` lie on pages in swap.
    pub(super) fn swapped(&mut self, range: Range<u64>) -> u64 {
        self.count(range, |block| &block.swapped)
    }

    /// Whether the page of `address` can be read without changing anything.
    pub(super) fn readable(&mut self, address: u64) -> Result<(), Unread> {
        let number = address / self.page;
        let block = self.block(number / BLOCK_PAGES);
        let (word, bit) = place(number);
        if (block.resident[word] | block.zero[word]) & bit != 0 {
            Ok(())
        } else if block.swapped[word] & bit != 0 {
            Err(Unread::Swapped)
        } else {
            Err(Unread::Absent)
        }
    }

    /// The same, and asked again where it could not be read: it may have been touched since.
    fn readable_by_now(&mut self, address: u64) -> Result<(), Unread> {
        let Err(unread) = self.readable(address) else {
            return Ok(());
        };
        let number = address / self.page;
        if address >= END_OF_USER_SPACE {
            return Err(unread);
        }
        let range = number * self.page..(number + 1) * self.page;
        if let Some(block) = self.blocks.get_mut(&(number / BLOCK_PAGES)) {
            block.ask(range, self.page, self.space);
        }
        self.readable(address)
    }

    /// The first address from `from` on, below `end`, whose page can be read.
    pub(super) fn next_readable(&mut self, from: u64, end: u64) -> Option<u64> {
        let mut number = from / self.page;
        while number * self.page < end {
            let block = self.block(number / BLOCK_PAGES);
            let (word, bit) = place(number);
            // What is above the bit, the bit among it.
            let ahead = (block.resident[word] | block.zero[word]) & !(bit - 1);
            if ahead != 0 {
                number = number / 64 * 64 + u64::from(ahead.trailing_zeros());
                let address = (number * self.page).max(from);
                return (address < end).then_some(address);
            }
            number = (number / 64 + 1) * 64;
            if number.is_multiple_of(BLOCK_PAGES) && number * self.page < end {
                let rest = number * self.page..end.next_multiple_of(self.page);
                let present = self.space.next_present(rest).ok().flatten()?;
                number = (present / self.page).max(number);
            }
        }
        None
    }

    fn window_at(&mut self, address: u64) -> Result<&Window, Unread> {
        if address.wrapping_sub(self.window.start) >= self.window.bytes.len() as u64 {
            self.move_window(address)?;
        }
        Ok(&self.window)
    }

    fn move_window(&mut self, address: u64) -> Result<(), Unread> {
        self.readable_by_now(address)?;
        let start = address / self.page * self.page;
        let end = self.window.start + self.window.bytes.len() as u64;
        // Chunks near each other are read with what lies between them; after a leap, the page of
        // the header alone.
        let follows = (end..end + 4 * self.page).contains(&address);
        self.ahead = if follows {
            (2 * self.ahead).min(self.largest)
        } else {
            self.page
        };
        let mut length = self.page;
        while length < self.ahead && self.readable(start + length).is_ok() {
            length += self.page;
        }
        self.window.start = start;
        self.window
            .bytes
            .resize(usize::try_from(length).unwrap_or(0), 0);
        if self.space.read(start, &mut self.window.bytes).is_ok() {
            return Ok(());
        }
        // Part of it was unmapped in the meantime; perhaps not the part that is wanted.
        self.window
            .bytes
            .truncate(usize::try_from(self.page).unwrap_or(0));
        self.space.read(start, &mut self.window.bytes).map_err(|_| {
            self.window.bytes.clear();
            Unread::Refused
        })
    }

    fn stray_page(&mut self, address: u64) -> Result<&Window, Unread> {
        let number = address / self.page;
        let start = number * self.page;
        let slot = usize::try_from(number % PAGES as u64).unwrap_or(0);
        let kept = self.pages[slot]
            .as_ref()
            .is_some_and(|page| page.start == start);
        if !kept {
            self.readable_by_now(address)?;
            let mut page = self.pages[slot].take().unwrap_or_default();
            page.start = start;
            page.bytes
                .resize(usize::try_from(self.page).unwrap_or(0), 0);
            self.space
                .read(start, &mut page.bytes)
                .map_err(|_| Unread::Refused)?;
            self.pages[slot] = Some(page);
        }
        self.pages[slot].as_ref().ok_or(Unread::Refused)
    }

    fn count(&mut self, range: Range<u64>, of: impl Fn(&Block) -> &[u64; WORDS]) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        let page = self.page;
        let (first, last) = (range.start / page, (range.end - 1) / page);
        let mut bytes = 0;
        let mut number = first;
        while number <= last {
            let bits = of(self.block(number / BLOCK_PAGES));
            let end = ((number / BLOCK_PAGES + 1) * BLOCK_PAGES).min(last + 1);
            bytes += ones(bits, number % BLOCK_PAGES, end - number) * page;
            // The pages at both ends count in part.
            for (edge, outside) in [
                (first, range.start - first * page),
                (last, (last + 1) * page - range.end),
            ] {
                let (word, bit) = place(edge);
                if (number..end).contains(&edge) && bits[word] & bit != 0 {
                    bytes -= outside;
                }
            }
            number = end;
        }
        bytes
    }

    fn block(&mut self, number: u64) -> &Block {
        if self.blocks.len() >= BLOCKS && !self.blocks.contains_key(&number) {
            self.blocks.clear();
        }
        let (page, space) = (self.page, self.space);
        self.blocks
            .entry(number)
            .or_insert_with(|| Box::new(Block::read(number, page, space)))
    }
}

impl Block {
    /// Asks the space. What it does not tell is taken for absent, and not read.
    fn read(number: u64, page: u64, space: &dyn AddressSpace) -> Self {
        let mut block = Self {
            resident: [0; WORDS],
            zero: [0; WORDS],
            swapped: [0; WORDS],
        };
        let start = number.checked_mul(BLOCK_PAGES * page);
        let Some(start) = start.filter(|start| *start < END_OF_USER_SPACE) else {
            return block;
        };
        block.ask(start..start + BLOCK_PAGES * page, page, space);
        block
    }

    /// Asks about a part of it, of which nothing is noted yet.
    fn ask(&mut self, range: Range<u64>, page: u64, space: &dyn AddressSpace) {
        let mut runs: Vec<Run> = Vec::new();
        if space.residency(range.clone(), &mut runs).is_err() {
            return;
        }
        for run in runs {
            let bits = match run.state {
                PageState::Resident => &mut self.resident,
                PageState::Zero => &mut self.zero,
                PageState::Swapped => &mut self.swapped,
            };
            let first = run.range.start.max(range.start).div_ceil(page);
            let last = run.range.end.min(range.end) / page;
            for number in first..last {
                let (word, bit) = place(number);
                bits[word] |= bit;
            }
        }
    }
}

/// The word and the bit of a page in its block.
const fn place(number: u64) -> (usize, u64) {
    let within = number % BLOCK_PAGES;
    ((within / 64) as usize, 1 << (within % 64))
}

/// How many of `count` bits from `from` on are set.
fn ones(bits: &[u64; WORDS], from: u64, count: u64) -> u64 {
    let mut total = 0;
    let (mut at, end) = (from, from + count);
    while at < end {
        let in_word = (64 - at % 64).min(end - at);
        let mask = if in_word == 64 {
            u64::MAX
        } else {
            ((1 << in_word) - 1) << (at % 64)
        };
        let word = usize::try_from(at / 64).unwrap_or(0);
        total += u64::from((bits[word] & mask).count_ones());
        at += in_word;
    }
    total
}

fn word_of(window: &Window, address: u64) -> Result<u64, Unread> {
    let offset = usize::try_from(address - window.start).unwrap_or(usize::MAX);
    let bytes = window
        .bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk());
    bytes
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or(Unread::Refused)
}
