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
//!
//! With huge pages all pieces are whole huge pages, as moving a part of one would split it. What is
//! left of a region, less than one, is small pages of its own.

mod homes;

use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{Advice, MremapFlags, madvise, mremap_fixed, munmap};
use rustix::process::{Resource, getrlimit};

use self::homes::{Home, Pages};
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
}

/// The homes and their free pieces.
#[derive(Debug)]
pub(crate) struct Recycler {
    pages: Pages,
    home_len: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    homes: Vec<Home>,
    /// Addresses of homes that have no pages.
    vacant: Extents,
    /// Addresses of homes whose pages wait for a model.
    warm: Extents,
    /// Bytes that loads under way will still gather.
    expected: usize,
    /// Bytes of recycled pages that no load used and that went back to the system, not told yet.
    given: usize,
    /// Set when the kernel will not move pages at all (before Linux 5.7, or under a filter).
    refused: Option<Errno>,
}

impl Recycler {
    /// A recycler for regions of about `budget` bytes in all. Maps nothing yet.
    pub(crate) fn new(budget: u64) -> Recycler {
        Recycler::of(Pages::small(), budget)
    }

    /// Another of huge pages, for as many bytes.
    ///
    /// # Errors
    /// Why there are none here.
    pub(crate) fn to_huge(&self) -> Result<Recycler, String> {
        Ok(Recycler::of(Pages::huge()?, self.home_len as u64))
    }

    fn of(pages: Pages, budget: u64) -> Recycler {
        let home_len = usize::try_from(budget)
            .unwrap_or(usize::MAX / 4)
            .clamp(SMALLEST_HOME, 1 << 40)
            .next_multiple_of(pages.size());
        Recycler {
            pages,
            home_len,
            state: Mutex::new(State::default()),
        }
    }

    /// Announces that a load will gather this many bytes, so that evictions for it keep their pages.
    pub(crate) fn expect(&self, bytes: usize) {
        self.lock().expected += bytes;
    }

    /// Takes an announcement back: the load did not come to it. Pages that nobody expects any more
    /// go back to the system.
    pub(crate) fn unexpect(&self, bytes: usize) {
        let mut state = self.lock();
        state.expected = state.expected.saturating_sub(bytes);
        state.given += self.give_back(&mut state);
    }

    /// Notes recycled pages that a load had gathered and that went back with it.
    pub(crate) fn given(&self, bytes: usize) {
        self.lock().given += bytes;
    }

    /// Bytes of recycled pages that no load used and that went back to the system, since the last
    /// call. Each is told once, so that what evictions freed adds up.
    pub(crate) fn take_given(&self) -> u64 {
        std::mem::take(&mut self.lock().given) as u64
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
                    let (_, returned) = unsafe { self.scatter(target, &gathered.pieces) };
                    self.given(returned.min(gathered.recycled_bytes));
                    return Err(errno);
                }
            };
            done += piece.len;
            gathered.pieces.push(piece);
        }
        state.given += self.give_back(&mut state);
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
                    Err(_) => self.renew(&mut state, home, piece.len),
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
        let whole = self.pages.whole(wanted);
        if state.refused.is_none() && whole > 0 && target.is_multiple_of(self.pages.size()) {
            let (found, recycled) = match state.warm.take(whole) {
                Some(found) => (Some(found), found.1),
                None => (self.vacant(state, whole), 0),
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
                        self.renew(state, home, len);
                        if matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::PERM) {
                            state.refused = Some(errno);
                        }
                        tracing::warn!(%errno, "pages cannot be moved; a load uses fresh ones");
                    }
                }
            }
        }
        // SAFETY: the target is the caller's address space.
        unsafe { self.pages.map_fresh(target, wanted) }?;
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
            // Where address space is limited, it is not for us to take most of it.
            let limit = getrlimit(Resource::As).current;
            if limit.is_some_and(|limit| len as u64 > limit / 4) {
                return None;
            }
            let home = self.pages.home(len).ok()?;
            state.vacant.insert(home.first, len);
            state.homes.push(home);
        }
        state.vacant.take(wanted)
    }

    /// Makes free addresses of a home one empty mapping again. A move that failed may have left
    /// pages there, several mappings or, before Linux 6.17, none at all. Addresses that cannot be
    /// mapped are not used again.
    fn renew(&self, state: &mut State, home: usize, len: usize) {
        // SAFETY: addresses of a home that no region uses.
        if unsafe { self.pages.renew(home, len) }.is_ok() {
            state.vacant.insert(home, len);
        }
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
        loop {
            // What is left of a region beyond whole pages is never recycled.
            let wanted = self.pages.whole(state.expected);
            let excess = state.warm.bytes().saturating_sub(wanted);
            if excess == 0 {
                break;
            }
            let Some((start, len)) = state.warm.take(excess) else {
                break;
            };
            given += len;
            // SAFETY: free addresses of a home, which nobody uses.
            match unsafe { madvise(start as *mut _, len, Advice::LinuxDontNeed) } {
                Ok(()) => state.vacant.insert(start, len),
                Err(_) => self.renew(state, start, len),
            }
        }
        given
    }
}

impl Drop for Recycler {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for home in state.homes.drain(..) {
            // SAFETY: the recycler's own mapping. Pages that were moved out of it are elsewhere.
            let _ = unsafe { munmap(home.start as *mut _, home.len) };
        }
    }
}
