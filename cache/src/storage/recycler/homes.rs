//! Mappings that pages come from and go back to, of small pages or of huge ones.

use std::ffi::c_void;
use std::fs;
use std::ptr::null_mut;

use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munlock, munmap,
};

/// Huge pages of any other size do not begin where regions do.
const HUGE: usize = 2 << 20;

/// What a recycler's pages are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    size: usize,
    /// Of a small page.
    base: usize,
}

/// A mapping of which every page has an address.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) start: usize,
    /// Bytes.
    pub(super) len: usize,
    /// The first address that pieces are made of.
    pub(super) first: usize,
}

impl Pages {
    pub(super) fn small() -> Pages {
        let base = rustix::param::page_size();
        Pages { size: base, base }
    }

    /// Transparent huge pages, where the kernel gives any to those who ask
    /// (`Documentation/admin-guide/mm/transhuge.rst`).
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn huge() -> Result<Pages, String> {
        let read = |name: &str| {
            let path = format!("/sys/kernel/mm/transparent_hugepage/{name}");
            fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
        };
        let size = read("hpage_pmd_size")?;
        if size.trim().parse() != Ok(HUGE) {
            let size = size.trim();
            return Err(format!("they are of {size} bytes here, not of {HUGE}"));
        }
        if read("enabled")?.contains("[never]") {
            return Err("/sys/kernel/mm/transparent_hugepage/enabled says never".to_owned());
        }
        Ok(Pages {
            size: HUGE,
            ..Pages::small()
        })
    }

    /// Of one, bytes.
    pub(super) fn size(self) -> usize {
        self.size
    }

    /// What of so many bytes is whole pages.
    pub(super) fn whole(self, bytes: usize) -> usize {
        bytes - bytes % self.size
    }

    fn is_huge(self) -> bool {
        self.size > self.base
    }

    /// Maps a home: a small page that stays, `len` bytes of whole pages, and something that
    /// separates them from whatever comes next.
    pub(super) fn home(self, len: usize) -> Result<Home, Errno> {
        let whole = len + 2 * self.size;
        // SAFETY: a fresh mapping, not fixed.
        let start = unsafe { map(null_mut(), whole, MapFlags::empty()) }?;
        let first = (start + self.base).next_multiple_of(self.size);
        // Touched before huge pages are asked for, or one would be resident for it.
        let stays = (first - self.base) as *mut u8;
        // SAFETY: a page of the mapping made above, which nobody else knows.
        unsafe { stays.write_volatile(1) };
        // SAFETY: a part of that mapping.
        unsafe { self.advise(first, len) };
        Ok(Home {
            start,
            len: whole,
            first,
        })
    }

    /// Maps addresses of a home anew, without pages.
    ///
    /// # Safety
    /// They must be whole pages of a home, and unused: what lies there is replaced.
    pub(super) unsafe fn renew(self, at: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: as the caller promises.
        unsafe {
            map(at as *mut _, len, MapFlags::FIXED)?;
            self.advise(at, len);
        }
        Ok(())
    }

    /// Maps plain fresh memory over addresses of the caller.
    ///
    /// # Safety
    /// The range must be the caller's own address space.
    pub(super) unsafe fn map_fresh(self, at: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: as the caller promises.
        unsafe {
            mmap_anonymous(
                at as *mut _,
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )?;
            self.advise(at, len);
        }
        Ok(())
    }

    /// Asks for huge pages, where these are. Without them all still works.
    ///
    /// # Safety
    /// The range must be a mapping of the caller's.
    unsafe fn advise(self, at: usize, len: usize) {
        if self.is_huge() {
            // SAFETY: as the caller promises; what is there stays.
            let _ = unsafe { madvise(at as *mut _, len, Advice::LinuxHugepage) };
        }
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
unsafe fn map(at: *mut c_void, len: usize, fixed: MapFlags) -> Result<usize, Errno> {
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
