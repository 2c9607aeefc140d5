//! What is read where a file has ended.

use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Guarded;
use super::{Pages, lives, page};

const READERS: usize = 4;

/// Cuts a file of 64 pages to some bytes while four threads read it.
fn cut_under_readers(bytes: usize) {
    let pages = Pages::new(64);
    let guard = pages.guard();
    let left = bytes.div_ceil(page());
    let (begun, cut) = (Barrier::new(READERS + 1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (pages, guard, begun, cut) = (&pages, &guard, &begun, &cut);
            scope.spawn(move || {
                for pass in 0.. {
                    let was_cut = cut.load(Ordering::SeqCst);
                    for number in 0..64 {
                        // Each begins elsewhere, so that they fault in different pages at once.
                        let number = (number + reader * 16) % 64;
                        let byte = pages.read(number * page());
                        if byte == 0 {
                            assert!(number >= left, "page {number} is sound, and was zeros");
                            let poisoned = guard.poisoned().expect("zeros were read");
                            assert!(poisoned <= (number * page()) as u64);
                        } else {
                            assert_eq!(byte, Pages::byte_of(number));
                            assert!(!was_cut || number < left, "page {number} is gone");
                        }
                    }
                    if pass == 0 {
                        begun.wait();
                    }
                    if was_cut {
                        return;
                    }
                }
            });
        }
        assert_eq!(guard.poisoned(), None);
        begun.wait();
        pages.cut(bytes);
        cut.store(true, Ordering::SeqCst);
    });
    assert_eq!(guard.poisoned(), Some((left * page()) as u64));
    for at in (0..64 * page()).step_by(64) {
        let expected = match at < bytes {
            true => Pages::byte_of(at / page()),
            false => 0,
        };
        assert_eq!(pages.read(at), expected, "byte {at}, cut to {bytes}");
    }
}

#[test]
fn a_file_of_which_nothing_is_left_reads_as_zeros() {
    lives(|| (0..200).for_each(|_| cut_under_readers(0)));
}

#[test]
fn a_file_cut_inside_a_page_is_sound_up_to_there() {
    lives(|| (0..200).for_each(|_| cut_under_readers(10 * page() + 640)));
}

#[test]
fn a_file_cut_between_two_pages_is_sound_up_to_there() {
    lives(|| (0..200).for_each(|_| cut_under_readers(32 * page())));
}

#[test]
fn a_file_cut_again_is_poisoned_from_its_new_end_on() {
    lives(|| {
        let pages = Pages::new(64);
        let guard = pages.guard();
        for (left, read) in [(50, 60), (20, 49), (20, 63), (3, 3)] {
            pages.cut(left * page());
            assert_eq!(pages.read(read * page()), 0);
            assert_eq!(guard.poisoned(), Some((left * page()) as u64));
            assert_eq!(pages.read((left - 1) * page()), Pages::byte_of(left - 1));
        }
    });
}

#[test]
fn all_that_is_missing_becomes_zeros_at_once() {
    lives(|| {
        let pages = Pages::new(16);
        let guard = pages.guard();
        pages.cut(4 * page());
        assert_eq!(pages.read(9 * page()), 0);
        // Pages of the file would show what is written there now.
        let again = vec![7; 12 * page()];
        pages.file.write_all_at(&again, 4 * page() as u64).unwrap();
        for number in 4..16 {
            assert_eq!(pages.read(number * page()), 0, "page {number}");
        }
        assert_eq!(guard.poisoned(), Some(4 * page() as u64));
    });
}

#[test]
fn places_are_told_from_the_beginning_of_the_range() {
    lives(|| {
        for (left, poisoned) in [(10, 2), (8, 0), (5, 0), (0, 0)] {
            let pages = Pages::of(16, 8..14);
            let guard = pages.guard();
            pages.cut(left * page());
            assert_eq!(pages.read(5 * page()), 0);
            assert_eq!(guard.poisoned(), Some(poisoned * page() as u64));
            for number in 0..poisoned as usize {
                assert_eq!(pages.read(number * page()), Pages::byte_of(8 + number));
            }
        }
    });
}

#[test]
fn a_cut_behind_what_is_mapped_harms_nothing() {
    lives(|| {
        let pages = Pages::of(16, 4..8);
        let guard = pages.guard();
        pages.cut(7 * page() + 1);
        for number in 0..4 {
            assert_eq!(pages.read(number * page()), Pages::byte_of(4 + number));
        }
        assert_eq!(guard.poisoned(), None);
    });
}

#[test]
fn pages_that_were_written_go_with_the_end_of_the_file() {
    lives(|| {
        let pages = Pages::new(8);
        let guard = pages.guard();
        (0..8).for_each(|number| pages.write(number * page(), 77));
        pages.cut(4 * page());
        let read = (0..8).map(|number| pages.read(number * page()));
        assert_eq!(read.collect::<Vec<_>>(), [77, 77, 77, 77, 0, 0, 0, 0]);
        assert_eq!(guard.poisoned(), Some(4 * page() as u64));
        // And can be written again, where a write may be the first to meet them.
        pages.cut(2 * page());
        pages.write(3 * page(), 78);
        let read = (0..4).map(|number| pages.read(number * page()));
        assert_eq!(read.collect::<Vec<_>>(), [77, 77, 0, 78]);
    });
}

#[test]
fn a_page_that_cannot_be_read_costs_no_other() {
    lives(|| {
        let pages = Pages::new(8);
        let guard = pages.guard();
        // A disk that fails is told in the same way, with the file as long as it was.
        // SAFETY: a plain struct, filled as `rt_tgsigqueueinfo(2)` wants it; to oneself any code
        // may be sent.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            info.si_signo = libc::SIGBUS;
            info.si_code = libc::BUS_ADRERR;
            let address = (&raw mut info).cast::<usize>().add(2);
            address.write(pages.at + 5 * page() + 9);
            assert_eq!(info.si_addr() as usize, pages.at + 5 * page() + 9);
            let (process, thread) = (libc::getpid(), libc::gettid());
            let number = libc::SYS_rt_tgsigqueueinfo;
            let sent = libc::syscall(number, process, thread, libc::SIGBUS, &raw const info);
            assert_eq!(sent, 0);
        }
        assert_eq!(guard.poisoned(), Some(5 * page() as u64));
        for number in 0..8 {
            let expected = if number == 5 {
                0
            } else {
                Pages::byte_of(number)
            };
            assert_eq!(pages.read(number * page()), expected);
        }
    });
}

#[test]
fn errno_stays_as_it_was() {
    lives(|| {
        let pages = Pages::new(2);
        let _guard = pages.guard();
        pages.cut(0);
        // SAFETY: the place of this thread's `errno`.
        let errno = unsafe {
            *libc::__errno_location() = libc::EXDEV;
            pages.read(0);
            *libc::__errno_location()
        };
        assert_eq!(errno, libc::EXDEV);
    });
}

#[test]
fn a_system_call_raises_no_signal_and_notes_nothing() {
    lives(|| {
        let pages = Pages::new(2);
        let guard = pages.guard();
        pages.cut(0);
        // SAFETY: the range is mapped, and nobody writes to it.
        let bytes = unsafe { std::slice::from_raw_parts(pages.at as *const u8, page()) };
        let error = tempfile::tempfile()
            .unwrap()
            .write_at(bytes, 0)
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert_eq!(guard.poisoned(), None);
    });
}

#[test]
fn what_is_no_whole_pages_is_refused() {
    let pages = Pages::new(2);
    let refused = [
        Guarded::new(pages.at + 1, page(), &pages.file, 0),
        Guarded::new(pages.at, page(), &pages.file, 7),
        Guarded::new(pages.at, usize::MAX, &pages.file, 0),
        Guarded::new(pages.at, usize::MAX / page() * page(), &pages.file, 0),
    ];
    for refused in refused {
        assert_eq!(
            refused.unwrap_err().kind(),
            std::io::ErrorKind::InvalidInput
        );
    }
}
