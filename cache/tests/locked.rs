//! A process that locks all its future memory (`mlockall`), as real-time programs do. In a file of
//! its own, since that holds for the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Folder, MIB, anonymous_rss, cache, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

#[test]
fn address_space_kept_for_weights_is_not_filled_with_locked_pages() {
    let folder = Folder::new();
    let models = ["a", "b"].map(|name| folder.model(name, MIB));
    let (cache, _) = cache(|builder| builder.ram(3 * MIB / 2));
    // SAFETY: takes flags only.
    if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
        return;
    }
    let before = anonymous_rss();
    for model in models.iter().cycle().take(6) {
        verify(&cache.lease([model]).unwrap(), model);
    }
    assert!(anonymous_rss() < before + 32 * MIB);
}
