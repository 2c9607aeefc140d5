//! A made-up address space: mappings, the pages that hold something, and a record of who reads.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use malloc_stats::heap::{AddressSpace, PageState, Run};
use malloc_stats::mappings::{Backing, Mapping};

pub const PAGE: u64 = 4096;
/// Where the files of all mappings are.
pub const DEVICE: (u32, u32) = (8, 1);

/// Changes what a read sees: given the address and the bytes that lie there.
pub type Tear = Box<dyn FnMut(u64, &mut [u8]) + Send>;

/// Memory that nobody has, and a walker can read.
///
/// It holds its reader to the contract of [`AddressSpace`]: reading a page that is absent or in
/// swap panics, as does asking where pages are that are not whole.
#[derive(Default)]
pub struct Forged {
    mappings: Vec<Mapping>,
    pages: BTreeMap<u64, Page>,
    /// Stretches of resident pages that are all alike, which cost nothing.
    repeated: Vec<(Range<u64>, Box<[u8; PAGE as usize]>)>,
    refused: Vec<Range<u64>>,
    tear: Mutex<Option<Tear>>,
    tally: Tally,
}

struct Page {
    state: PageState,
    /// Zeros where there are none.
    bytes: Option<Box<[u8; PAGE as usize]>>,
}

/// What was asked of a space.
#[derive(Default)]
pub struct Tally {
    pub reads: AtomicU64,
    pub bytes_read: AtomicU64,
    pub largest_read: AtomicU64,
    pub residency_calls: AtomicU64,
}

impl Forged {
    pub fn map(&mut self, range: Range<u64>, permissions: &str, backing: Backing) {
        let inode = u64::from(matches!(backing, Backing::File { .. }));
        self.map_at_offset(range, permissions, backing, 0, inode);
    }

    pub fn map_at_offset(
        &mut self,
        range: Range<u64>,
        permissions: &str,
        backing: Backing,
        offset: u64,
        inode: u64,
    ) {
        assert!(is_whole(&range) && !range.is_empty());
        let at = self
            .mappings
            .partition_point(|other| other.range.start < range.start);
        let clear = |other: Option<&Mapping>| {
            other.is_none_or(|o| o.range.end <= range.start || range.end <= o.range.start)
        };
        assert!(
            clear(self.mappings.get(at)) && clear(at.checked_sub(1).map(|b| &self.mappings[b]))
        );
        let permits = |letter| permissions.contains(letter);
        self.mappings.insert(
            at,
            Mapping {
                range,
                readable: permits('r'),
                writable: permits('w'),
                executable: permits('x'),
                shared: permits('s'),
                offset,
                device: if inode == 0 { (0, 0) } else { DEVICE },
                inode,
                backing,
            },
        );
    }

    /// Splits the mapping that spans `at` there, as `MADV_HUGEPAGE` on a part of it does.
    pub fn split(&mut self, at: u64) {
        let spanning = |m: &Mapping| m.range.start < at && at < m.range.end;
        if let Some(index) = self.mappings.iter().position(spanning) {
            let mut upper = self.mappings[index].clone();
            self.mappings[index].range.end = at;
            upper.range.start = at;
            self.mappings.insert(index + 1, upper);
        }
    }

    /// Joins the two mappings that meet at `at`, as the kernel does with neighbours of one sort.
    pub fn join(&mut self, at: u64) {
        let upper = self.mappings.iter().position(|m| m.range.start == at);
        if let Some(upper) = upper.filter(|upper| *upper > 0) {
            let joined = self.mappings.remove(upper);
            self.mappings[upper - 1].range.end = joined.range.end;
        }
    }

    /// The mapping that begins at or before `within` goes on to `end`, over what was there.
    pub fn extend_mapping(&mut self, within: u64, end: u64) {
        for mapping in &mut self.mappings {
            if mapping.range.contains(&within) {
                mapping.range.end = end;
            } else if (within..end).contains(&mapping.range.start) {
                mapping.range.start = end;
            }
        }
        self.mappings.retain(|mapping| !mapping.range.is_empty());
    }

    /// From now on nothing in `range` can be read, though it is mapped.
    pub fn refuse(&mut self, range: Range<u64>) {
        self.refused.push(range);
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let mut address = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (address % PAGE) as usize;
            let (here, after) = rest.split_at(rest.len().min(PAGE as usize - within));
            self.writable_page(address)[within..within + here.len()].copy_from_slice(here);
            address = address.wrapping_add(here.len() as u64);
            rest = after;
        }
    }

    pub fn word(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    pub fn words(&mut self, address: u64, values: &[u64]) {
        for (value, at) in values.iter().zip((address..).step_by(8)) {
            self.word(at, *value);
        }
    }

    /// What lies at `address`, whatever state its page is in; 0 where nothing does.
    pub fn word_at(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.copy_out(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Every page of `range` that holds nothing yet is of this state from now on.
    pub fn fill(&mut self, range: Range<u64>, state: PageState) {
        for number in range.start / PAGE..range.end / PAGE {
            let page = || Page { state, bytes: None };
            self.pages.entry(number).or_insert_with(page);
        }
    }

    /// The page is of this state from now on, whatever it holds.
    pub fn set_state(&mut self, address: u64, state: PageState) {
        if let Some(page) = self.pages.get_mut(&(address / PAGE)) {
            page.state = state;
        }
    }

    /// The page is gone, with what it held.
    pub fn drop_page(&mut self, address: u64) {
        self.pages.remove(&(address / PAGE));
    }

    /// All pages of `range` are resident and hold the same.
    pub fn repeat(&mut self, range: Range<u64>, page: [u8; PAGE as usize]) {
        self.repeated.push((range, Box::new(page)));
        self.repeated.sort_by_key(|(range, _)| range.start);
    }

    /// From now on every read passes through `tear`.
    pub fn tear(&mut self, tear: Tear) {
        *self.tear.lock().unwrap() = Some(tear);
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub fn state_of(&self, address: u64) -> Option<PageState> {
        match self.pages.get(&(address / PAGE)) {
            Some(page) => Some(page.state),
            None => self.repeated_page(address).map(|_| PageState::Resident),
        }
    }

    /// How many bytes of `range` are on pages of this state.
    pub fn bytes_in(&self, range: Range<u64>, wanted: PageState) -> u64 {
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        self.pages
            .range(pages)
            .filter(|(_, page)| page.state == wanted)
            .map(|(number, _)| {
                let (start, end) = (number * PAGE, (number + 1) * PAGE);
                end.min(range.end) - start.max(range.start)
            })
            .sum()
    }

    /// The addresses of all pages that were written to.
    pub fn written_pages(&self) -> Vec<u64> {
        let written = self.pages.iter().filter(|(_, page)| page.bytes.is_some());
        written.map(|(number, _)| number * PAGE).collect()
    }

    pub fn resident_pages(&self) -> u64 {
        let repeated: u64 = self
            .repeated
            .iter()
            .map(|(r, _)| (r.end - r.start) / PAGE)
            .sum();
        self.pages.len() as u64 + repeated
    }

    fn writable_page(&mut self, address: u64) -> &mut [u8; PAGE as usize] {
        let blank = || Page {
            state: PageState::Resident,
            bytes: None,
        };
        let page = self.pages.entry(address / PAGE).or_insert_with(blank);
        page.bytes
            .get_or_insert_with(|| Box::new([0; PAGE as usize]))
    }

    fn repeated_page(&self, address: u64) -> Option<&[u8; PAGE as usize]> {
        let (_, page) = self
            .repeated
            .iter()
            .find(|(range, _)| range.contains(&address))?;
        Some(page)
    }

    fn copy_out(&self, address: u64, into: &mut [u8]) {
        let mut address = address;
        let mut rest = into;
        while !rest.is_empty() {
            let within = (address % PAGE) as usize;
            let here = rest.len().min(PAGE as usize - within);
            let (part, after) = rest.split_at_mut(here);
            let held = self.pages.get(&(address / PAGE));
            match held.map_or_else(|| self.repeated_page(address), |page| page.bytes.as_deref()) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + here]),
                None => part.fill(0),
            }
            address = address.wrapping_add(here as u64);
            rest = after;
        }
    }

    pub fn mappings_hold(&self, address: u64) -> bool {
        self.mappings
            .iter()
            .any(|mapping| mapping.range.contains(&address))
    }

    fn is_readable(&self, range: &Range<u64>) -> bool {
        let mut at = range.start;
        while at < range.end {
            let next = self.mappings.partition_point(|m| m.range.end <= at);
            match self.mappings.get(next) {
                Some(m) if m.range.start <= at && m.readable => at = m.range.end,
                _ => return false,
            }
        }
        true
    }
}

impl AddressSpace for Forged {
    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn residency(&self, range: Range<u64>, runs: &mut Vec<Run>) -> io::Result<()> {
        self.tally.residency_calls.fetch_add(1, Relaxed);
        assert!(
            is_whole(&range) && range.start <= range.end,
            "asked where the pages of {range:x?} are, which are no whole pages"
        );
        let first = runs.len();
        let mut push = |range: Range<u64>, state| match runs[first..].last_mut() {
            Some(last) if last.range.end == range.start && last.state == state => {
                last.range.end = range.end;
            }
            _ => runs.push(Run { range, state }),
        };
        let mut at = range.start;
        let gap = |from: u64, to: u64, push: &mut dyn FnMut(Range<u64>, PageState)| {
            for (repeated, _) in &self.repeated {
                let (start, end) = (repeated.start.max(from), repeated.end.min(to));
                if start < end {
                    push(start..end, PageState::Resident);
                }
            }
        };
        for (number, page) in self.pages.range(range.start / PAGE..range.end / PAGE) {
            gap(at, number * PAGE, &mut push);
            at = (number + 1) * PAGE;
            push(number * PAGE..at, page.state);
        }
        gap(at, range.end, &mut push);
        Ok(())
    }

    fn next_present(&self, range: Range<u64>) -> io::Result<Option<u64>> {
        self.tally.residency_calls.fetch_add(1, Relaxed);
        let page = self.pages.range(range.start / PAGE..range.end / PAGE);
        let page = page.map(|(number, _)| number * PAGE).next();
        let repeated = self.repeated.iter().filter_map(|(repeated, _)| {
            let start = repeated.start.max(range.start);
            (start < repeated.end.min(range.end)).then_some(start)
        });
        Ok(repeated.chain(page).min())
    }

    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        let length = into.len() as u64;
        self.tally.reads.fetch_add(1, Relaxed);
        self.tally.bytes_read.fetch_add(length, Relaxed);
        self.tally.largest_read.fetch_max(length, Relaxed);
        let unmapped = || io::Error::from_raw_os_error(14);
        let end = address.checked_add(length).ok_or_else(unmapped)?;
        let gone = |range: &Range<u64>| range.start < end && address < range.end;
        if !self.is_readable(&(address..end)) || self.refused.iter().any(gone) {
            return Err(unmapped());
        }
        for page in (address / PAGE)..end.div_ceil(PAGE) {
            let state = self.state_of(page * PAGE);
            assert!(
                matches!(state, Some(PageState::Resident | PageState::Zero)),
                "read {length} bytes at {address:#x}, of which the page at {:#x} is {state:?}",
                page * PAGE
            );
        }
        self.copy_out(address, into);
        if let Some(tear) = self.tear.lock().unwrap().as_mut() {
            tear(address, into);
        }
        Ok(())
    }
}

fn is_whole(pages: &Range<u64>) -> bool {
    pages.start.is_multiple_of(PAGE) && pages.end.is_multiple_of(PAGE)
}

pub fn anonymous() -> Backing {
    Backing::Anonymous(String::new())
}

pub fn file(path: &str) -> Backing {
    Backing::File {
        path: Path::new(path).display().to_string(),
        deleted: false,
    }
}
