//! Giving freed memory back to the system.

use crate::profile::Reclaim;

impl Reclaim {
    /// Runs the action. It says nothing about how much came back: measure resident memory.
    /// (`malloc_trim` can answer 1 and release nothing.)
    ///
    /// # Errors
    /// [`Reclaim::Purge`] where jemalloc refuses, which it does when it does not serve.
    pub fn run(self) -> std::io::Result<()> {
        match self {
            Reclaim::None => Ok(()),
            Reclaim::Trim => {
                // SAFETY: takes a number, and glibc's own locks.
                unsafe { libc::malloc_trim(0) };
                Ok(())
            }
            Reclaim::Purge => purge(),
        }
    }
}

/// Purges every arena: 4096 is jemalloc's `MALLCTL_ARENAS_ALL`.
fn purge() -> std::io::Result<()> {
    // SAFETY: the name is NUL-terminated, and a purge neither reads nor writes a value.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arena.4096.purge".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        )
    };
    match code {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}
