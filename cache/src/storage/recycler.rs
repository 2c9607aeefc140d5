//! Recycled pages: what an eviction frees becomes the next model's memory.
//!
//! Page faults, not copying, bound a load: reading a warm file into fresh pages runs at a fifth of
//! the speed of reading it into pages that are there already. So the pages of an evicted model are
//! moved, not freed.
//!
//! A *home* is one mapping of which every page has an address. A load takes pieces of it and moves
//! their pages (`mremap`) to where the model's region lies; an eviction moves each piece back to its
//! own address, where it merges with its neighbours again, so that the number of mappings stays
//! small. One page of each home is touched and kept: pieces then share one `anon_vma`, without which
//! the kernel would not merge them.
//!
//! Only pages for loads that are under way are kept. What no load will use goes back to the system
//! at once, so an idle cache keeps nothing.

use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap_fixed, munmap,
};

use super::extents::Extents;

/// Homes are made of this size at least: address space is cheap, and few homes merge better.
const SMALLEST_HOME: usize = 1 << 30;

/// A piece of a region: where its pages live when no model uses them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    /// Its address in a home; `None` where the home could not serve and the pages are plain.
    home: Option<usize>,
    /// Bytes.
    len: usize,
}

/// How a region came by its pages.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The pieces, in the order of the region's addresses.
    pub(crate) pieces: Vec<Piece>,
    /// Bytes that have pages already.
    pub(crate) recycled_bytes: usize,
    /// Bytes of recycled pages that no load will use, given back to the system.
    pub(crate) gave_back: usize,
}

/// The homes and their free pieces.
#[derive(Debug)]
pub(crate) struct Recycler {
    page: usize,
    home_len: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    homes: Vec<(usize, usize)>,
    /// Addresses of homes that have no pages.
    vacant: Extents,
    /// Addresses of homes whose pages wait for a model.
    warm: Extents,
    /// Bytes that loads under way will still gather.
    expected: usize,
    /// Set when the kernel refuses to move pages (before Linux 5.7, or under a filter).
    refused: Option<Errno>,
}

impl Recycler {
    /// A recycler for regions of about `budget` bytes in all. Maps nothing yet.
    pub(crate) fn new(budget: u64) -> Recycler {
        let page = rustix::param::page_size();
        let home_len = usize::try_from(budget)
            .unwrap_or(usize::MAX / 4)
            .clamp(SMALLEST_HOME, 1 << 40)
            .next_multiple_of(page);
        Recycler {
            page,
            home_len,
            state: Mutex::new(State::default()),
        }
    }

    /// Announces that a load will gather this many bytes, so that evictions for it keep their pages.
    pub(crate) fn expect(&self, bytes: usize) {
        self.lock().expected += bytes;
    }

    /// Takes an announcement back: the load did not come to it. Returns the bytes given back to the
    /// system because nobody expects them any more.
    pub(crate) fn unexpect(&self, bytes: usize) -> usize {
        let mut state = self.lock();
        state.expected = state.expected.saturating_sub(bytes);
        self.give_back(&mut state)
    }

    /// Fills `len` bytes at `target` with pages: recycled ones as far as there are any, then fresh
    /// ones. `target` is address space of the caller, mapped without access.
    ///
    /// # Errors
    /// The system's answer where not even plain memory can be mapped. What was moved is moved back.
    ///
    /// # Safety
    /// `target..target + len` must be whole pages of address space that belong to the caller and
    /// that nobody reads or writes meanwhile.
    pub(crate) unsafe fn gather(&self, target: usize, len: usize) -> Result<Gathered, Errno> {
        let mut state = self.lock();
        state.expected = state.expected.saturating_sub(len);
        let mut gathered = Gathered::default();
        let mut done = 0;
        while done < len {
            let wanted = len - done;
            // SAFETY: the target is the caller's, and pieces do not overlap.
            let piece = match unsafe { self.next_piece(&mut state, target + done, wanted) } {
                Ok((piece, recycled)) => {
                    gathered.recycled_bytes += recycled;
                    piece
                }
                Err(errno) => {
                    drop(state);
                    // SAFETY: what was gathered so far lies from `target` on, and is unused.
                    unsafe { self.scatter(target, &gathered.pieces) };
                    return Err(errno);
                }
            };
            done += piece.len;
            gathered.pieces.push(piece);
        }
        gathered.gave_back = self.give_back(&mut state);
        Ok(gathered)
    }

    /// Moves the pages of a region home, to be recycled by loads that are expected; what none of
    /// them will use goes back to the system. Returns the bytes kept and the bytes returned.
    ///
    /// # Safety
    /// `pieces` must be what [`Recycler::gather`] put at `target`, and nobody may use the memory.
    /// Afterwards the addresses are mapped, empty, and the caller's to unmap.
    pub(crate) unsafe fn scatter(&self, target: usize, pieces: &[Piece]) -> (usize, usize) {
        let mut state = self.lock();
        let mut at = target;
        let mut total = 0;
        let mut moved = 0;
        for piece in pieces {
            total += piece.len;
            if let Some(home) = piece.home {
                // SAFETY: the piece's own addresses on both sides; its home is empty meanwhile.
                match unsafe { self.move_pages(at, home, piece.len) } {
                    Ok(()) => {
                        state.warm.insert(home, piece.len);
                        moved += piece.len;
                    }
                    // The pages stay in the region and go when it is unmapped.
                    Err(_) => state.vacant.insert(home, piece.len),
                }
            }
            at += piece.len;
        }
        let kept = moved.saturating_sub(self.give_back(&mut state));
        (kept, total - kept)
    }

    /// Gives the addresses of a region's pieces back without its pages, which somebody still holds
    /// where they are.
    pub(crate) fn abandon(&self, pieces: &[Piece]) {
        let mut state = self.lock();
        for piece in pieces {
            if let Some(home) = piece.home {
                state.vacant.insert(home, piece.len);
            }
        }
    }

    /// Bytes of pages that wait for a load under way.
    pub(crate) fn warm_bytes(&self) -> usize {
        self.lock().warm.bytes()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the next piece at `target`. Returns it, and how many of its bytes were recycled.
    ///
    /// # Safety
    /// As [`Recycler::gather`].
    unsafe fn next_piece(
        &self,
        state: &mut State,
        target: usize,
        wanted: usize,
    ) -> Result<(Piece, usize), Errno> {
        if state.refused.is_none() {
            let (found, recycled) = match state.warm.take(wanted) {
                Some(found) => (Some(found), found.1),
                None => (self.vacant(state, wanted), 0),
            };
            if let Some((home, len)) = found {
                // SAFETY: the home's addresses are free, the target is the caller's.
                match unsafe { self.move_pages(home, target, len) } {
                    Ok(()) => {
                        let piece = Piece {
                            home: Some(home),
                            len,
                        };
                        return Ok((piece, recycled));
                    }
                    Err(errno) => {
                        // SAFETY: free addresses of a home.
                        let _ = unsafe { madvise(home as *mut _, len, Advice::LinuxDontNeed) };
                        state.vacant.insert(home, len);
                        state.refused = Some(errno);
                        tracing::warn!(%errno, "pages cannot be moved; loads use fresh ones");
                    }
                }
            }
        }
        // SAFETY: the target is the caller's address space.
        unsafe { map_fresh(target, wanted) }?;
        let piece = Piece {
            home: None,
            len: wanted,
        };
        Ok((piece, 0))
    }

    /// Free addresses without pages, of a new home where there are none.
    fn vacant(&self, state: &mut State, wanted: usize) -> Option<(usize, usize)> {
        if state.vacant.bytes() == 0 {
            let len = self.home_len.max(wanted);
            let home = self.map_home(len).ok()?;
            state.homes.push((home, len + 2 * self.page));
            state.vacant.insert(home + self.page, len);
        }
        state.vacant.take(wanted)
    }

    /// Maps a home: a page that stays, `len` bytes, and a page that separates it from whatever
    /// comes next. Children do not inherit it: a living fork would turn every recycled page into a
    /// copy, and no child of `exec` misses it.
    fn map_home(&self, len: usize) -> Result<usize, Errno> {
        let whole = len + 2 * self.page;
        // SAFETY: a fresh mapping, not fixed.
        let home = unsafe {
            mmap_anonymous(
                null_mut(),
                whole,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        // SAFETY: the mapping made above; its first page is kept by this recycler alone.
        unsafe {
            madvise(home, whole, Advice::LinuxDontFork)?;
            home.cast::<u8>().write_volatile(1);
        }
        Ok(home as usize)
    }

    /// Moves pages, leaving the source mapped and empty.
    ///
    /// # Safety
    /// Both ranges must be the recycler's or the caller's own, and unused by anyone.
    unsafe fn move_pages(&self, from: usize, to: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: the caller owns both ranges. `DONTUNMAP` keeps strangers' mappings out of the
        // source.
        unsafe {
            mremap_fixed(
                from as *mut _,
                len,
                len,
                MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
                to as *mut _,
            )
        }?;
        Ok(())
    }

    /// Gives back warm pages beyond what loads under way expect.
    fn give_back(&self, state: &mut State) -> usize {
        let mut given = 0;
        while state.warm.bytes() > state.expected {
            let excess = state.warm.bytes() - state.expected;
            let Some((start, len)) = state.warm.take(excess) else {
                break;
            };
            // SAFETY: free addresses of a home, which nobody uses.
            if unsafe { madvise(start as *mut _, len, Advice::LinuxDontNeed) }.is_ok() {
                given += len;
            }
            state.vacant.insert(start, len);
        }
        given
    }
}

/// Maps plain fresh memory over addresses of the caller.
///
/// # Safety
/// The range must be the caller's own address space.
pub(crate) unsafe fn map_fresh(target: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: as the caller promises.
    unsafe {
        mmap_anonymous(
            target as *mut _,
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
        )
    }?;
    Ok(())
}

impl Drop for Recycler {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (home, len) in state.homes.drain(..) {
            // SAFETY: the recycler's own mapping. Pages that were moved out of it are elsewhere.
            let _ = unsafe { munmap(home as *mut _, len) };
        }
    }
}
