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

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect,
    mremap_fixed, munlock, munmap,
};
use rustix::process::{Resource, getrlimit};

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
    /// Bytes of recycled pages that no load used and that went back to the system, not told yet.
    given: usize,
    /// Set when the kernel will not move pages at all (before Linux 5.7, or under a filter).
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
                    Err(_) => renew(&mut state, home, piece.len),
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
                        renew(state, home, len);
                        if matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::PERM) {
                            state.refused = Some(errno);
                        }
                        tracing::warn!(%errno, "pages cannot be moved; a load uses fresh ones");
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
            // Where address space is limited, it is not for us to take most of it.
            let limit = getrlimit(Resource::As).current;
            if limit.is_some_and(|limit| len as u64 > limit / 4) {
                return None;
            }
            let home = self.map_home(len).ok()?;
            state.homes.push((home, len + 2 * self.page));
            state.vacant.insert(home + self.page, len);
        }
        state.vacant.take(wanted)
    }

    /// Maps a home: a page that stays, `len` bytes, and a page that separates it from whatever
    /// comes next.
    fn map_home(&self, len: usize) -> Result<usize, Errno> {
        let whole = len + 2 * self.page;
        // SAFETY: a fresh mapping, not fixed.
        let home = unsafe { map_home(null_mut(), whole, MapFlags::empty()) }?;
        // SAFETY: the mapping made above; its first page is kept by this recycler alone.
        unsafe { (home as *mut u8).write_volatile(1) };
        Ok(home)
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
            given += len;
            // SAFETY: free addresses of a home, which nobody uses.
            match unsafe { madvise(start as *mut _, len, Advice::LinuxDontNeed) } {
                Ok(()) => state.vacant.insert(start, len),
                Err(_) => renew(state, start, len),
            }
        }
        given
    }
}

/// Makes free addresses of a home one empty mapping again. A move that failed may have left pages
/// there, several mappings or, before Linux 6.17, none at all. Addresses that cannot be mapped are
/// not used again.
fn renew(state: &mut State, home: usize, len: usize) {
    // SAFETY: addresses of a home that no region uses.
    if unsafe { map_home(home as *mut _, len, MapFlags::FIXED) }.is_ok() {
        state.vacant.insert(home, len);
    }
}

/// Maps addresses of a home, without pages: those of a process that locks all it maps
/// (`mlockall(MCL_FUTURE)`) are unlocked before they are accessible, or they would all be there at
/// once.
///
/// Pages of a home take its advice along wherever they are moved. They are kept out of forked
/// children, since a living one would turn every recycled page into a copy; but the addresses have
/// to stay taken there (`WIPEONFORK`, not `DONTFORK`), lest what is moved to them lands on memory of
/// the child's own. And they are kept out of core dumps, where a home would be as long as its
/// addresses. Where advice is not taken, all still works.
///
/// # Safety
/// As `mmap`: what lies at fixed addresses is replaced.
unsafe fn map_home(at: *mut c_void, len: usize, fixed: MapFlags) -> Result<usize, Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | fixed;
    // SAFETY: as the caller promises.
    let home = unsafe { mmap_anonymous(at, len, ProtFlags::empty(), flags) }?;
    // SAFETY: the mapping made above, which nobody uses yet.
    unsafe {
        let _ = munlock(home, len);
        for advice in [Advice::LinuxWipeOnFork, Advice::LinuxDontDump] {
            let _ = madvise(home, len, advice);
        }
        if let Err(errno) = mprotect(home, len, MprotectFlags::READ | MprotectFlags::WRITE) {
            // At fixed addresses that would leave a gap in a home.
            if !fixed.contains(MapFlags::FIXED) {
                let _ = munmap(home, len);
            }
            return Err(errno);
        }
    }
    Ok(home as usize)
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
