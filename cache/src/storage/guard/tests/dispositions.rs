//! What becomes of signals that are not the guard's, where nobody else handles them.

use std::ptr;

use super::{Pages, dies, guard_works, install, lives, page, send, still_works};

#[test]
fn an_unguarded_mapping_still_dies() {
    dies(|| {
        guard_works();
        let pages = Pages::new(4);
        pages.cut(0);
        pages.read(0);
    });
}

#[test]
fn a_mapping_that_is_guarded_no_more_dies_again() {
    dies(|| {
        let pages = Pages::new(4);
        let guard = pages.guard();
        pages.cut(2 * page());
        assert_eq!(pages.read(2 * page()), 0);
        drop(guard);
        pages.cut(0);
        pages.read(0);
    });
}

#[test]
fn an_unguarded_mapping_dies_by_default_too() {
    dies(|| {
        install(libc::SIG_DFL, 0, &[]);
        guard_works();
        let pages = Pages::new(4);
        pages.cut(0);
        pages.read(0);
    });
}

#[test]
fn nobody_can_ignore_a_fault() {
    dies(|| {
        install(libc::SIG_IGN, 0, &[]);
        guard_works();
        let pages = Pages::new(4);
        pages.cut(0);
        pages.read(0);
    });
}

#[test]
fn a_sent_signal_kills_by_default() {
    dies(|| {
        install(libc::SIG_DFL, 0, &[]);
        guard_works();
        send();
    });
}

#[test]
fn a_signal_that_was_sent_to_the_process_kills_by_default() {
    dies(|| {
        install(libc::SIG_DFL, 0, &[]);
        guard_works();
        // SAFETY: no memory is involved.
        unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
        // It comes to some thread of the process, and not before long.
        std::thread::sleep(std::time::Duration::from_secs(60));
    });
}

#[test]
fn a_sent_signal_that_is_ignored_changes_nothing() {
    lives(|| {
        install(libc::SIG_IGN, 0, &[]);
        let pages = Pages::new(4);
        let guard = pages.guard();
        (0..3).for_each(|_| send());
        still_works(&pages, &guard);
        guard_works();
    });
}

/// The handler of Rust's standard library takes the first signal, whatever it is, and resets itself.
#[test]
fn the_handler_of_rust_may_reset_itself_and_guards_go_on() {
    lives(|| {
        let pages = Pages::new(4);
        let guard = pages.guard();
        send();
        still_works(&pages, &guard);
        guard_works();
    });
}

#[test]
fn once_rusts_handler_has_reset_itself_the_next_sent_signal_kills() {
    dies(|| {
        guard_works();
        send();
        guard_works();
        send();
    });
}

#[test]
fn a_reset_by_the_program_is_the_default_behind_the_guard() {
    dies(|| {
        guard_works();
        install(libc::SIG_DFL, 0, &[]);
        // More often than there are entries for handlers.
        for _ in 0..10 {
            guard_works();
            install(libc::SIG_DFL, 0, &[]);
        }
        guard_works();
        send();
    });
}

#[test]
fn a_thread_that_blocks_the_signal_dies() {
    dies(|| {
        let pages = Pages::new(4);
        let _guard = pages.guard();
        pages.cut(0);
        // SAFETY: a set of this function.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGBUS);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        }
        pages.read(0);
    });
}
