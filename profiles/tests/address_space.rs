//! Addresses of the window: none is lost, and where they are limited enough is left for the rest.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use plimsoll_profiles::Selected;
use plimsoll_profiles::window::{Span, Window};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

#[global_allocator]
static ALLOCATOR: Selected = Selected;

const LIMITED: &str = "PLIMSOLL_TEST_LIMITED";

fn mapped_span(bytes: usize) -> Span {
    let span = Window::global().unwrap().span(bytes).unwrap();
    // SAFETY: the span is this test's own address space.
    unsafe {
        mmap_anonymous(
            span.base().as_ptr().cast(),
            span.bytes(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )
        .unwrap();
    }
    span
}

#[test]
fn spans_dropped_before_their_last_block_give_their_addresses_back_in_the_end() {
    let window = Window::global().unwrap();
    // Each takes a third of the window, so the fourth needs what an earlier one had.
    for _ in 0..8 {
        let span = mapped_span(window.bytes() / 3);
        // SAFETY: mapped above, zeros, and adopted once.
        let block = unsafe { span.adopt::<u8>(0, 4096) }.unwrap();
        match span.orphan() {
            Ok(_) => panic!("a block is alive"),
            Err(orphan) => drop(orphan),
        }
        assert_eq!(block[4095], 0);
        drop(block);
    }
}

#[test]
fn under_a_limit_of_address_space_the_window_leaves_room_for_everything_else() {
    if std::env::var_os(LIMITED).is_some() {
        // Where it fits at all is for the window to say; what is left has to serve the program.
        if let Ok(window) = Window::global() {
            drop(window.span(1 << 20).unwrap());
        }
        let gib = 1 << 30;
        let blocks: Vec<Vec<u8>> = (0..4).map(|_| Vec::with_capacity(gib)).collect();
        assert_eq!(blocks.len(), 4);
        return;
    }
    // In KiB: 9 and 17 GiB, little more than powers of two.
    for limit in [9 << 20, 17 << 20] {
        let program = std::env::current_exe().unwrap();
        let name = "under_a_limit_of_address_space_the_window_leaves_room_for_everything_else";
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit -v {limit} && exec \"$0\" \"$@\"")])
            .arg(program)
            .args(["--exact", name, "--nocapture"])
            .env(LIMITED, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{limit} KiB: {text}");
    }
}
