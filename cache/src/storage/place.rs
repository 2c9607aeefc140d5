//! Address space for the weights of one model.

use std::ptr::{NonNull, null_mut};

use plimsoll_profiles::window::{Span, Window};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Address space of a region.
#[derive(Debug)]
pub(super) enum Place {
    /// In the window, so that blocks of it can be adopted.
    Span(Span),
    /// Elsewhere, where there is no window.
    Plain(Plain),
}

/// A mapping of its own.
#[derive(Debug)]
pub(super) struct Plain {
    base: usize,
    len: usize,
}

impl Place {
    pub(super) fn reserve(bytes: usize) -> Result<Place, String> {
        match Window::global().and_then(|window| window.span(bytes)) {
            Ok(span) => Ok(Place::Span(span)),
            // SAFETY: a fresh mapping, not fixed.
            Err(_) => unsafe {
                mmap_anonymous(
                    null_mut(),
                    bytes,
                    ProtFlags::empty(),
                    MapFlags::PRIVATE | MapFlags::NORESERVE,
                )
            }
            .map(|base| {
                Place::Plain(Plain {
                    base: base as usize,
                    len: bytes,
                })
            })
            .map_err(|errno| errno.to_string()),
        }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        match self {
            Place::Span(span) => span.base(),
            Place::Plain(plain) => {
                NonNull::new(plain.base as *mut u8).unwrap_or(NonNull::dangling())
            }
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: its own mapping, which nobody uses any more.
        let _ = unsafe { munmap(self.base as *mut _, self.len) };
    }
}
