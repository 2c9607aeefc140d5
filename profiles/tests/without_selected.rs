//! A program that does not install [`Selected`]: nothing is adopted, and nothing breaks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use plimsoll_profiles::window::Window;
use plimsoll_profiles::{selected_is_installed, serving};

#[test]
fn where_the_dispatcher_is_not_installed_nothing_is_adopted() {
    assert!(!selected_is_installed());
    assert_eq!(serving(), malloc_stats::AllocatorKind::Libc);
    let span = Window::global().unwrap().span(4096).unwrap();
    // SAFETY: nothing is adopted, so nothing is read.
    assert!(unsafe { span.adopt::<u8>(0, 16) }.is_none());
}
