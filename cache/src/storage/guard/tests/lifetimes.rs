//! Guards that come and go while handlers run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use libc::{c_int, c_void, siginfo_t};

use super::super::Guarded;
use super::{Pages, install, lives, page, patch, still_works};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count()
}

#[test]
fn guards_that_come_and_go_leave_nothing_behind() {
    lives(|| {
        let pages = Pages::new(4);
        drop(pages.guard());
        let before = (descriptors(), mappings());
        for _ in 0..10_000 {
            let guard = pages.guard();
            assert_eq!(guard.poisoned(), None);
        }
        assert_eq!((descriptors(), mappings()), before);
        assert_eq!(Arc::strong_count(&pages.file), 1);
        for _ in 0..500 {
            let pages = Pages::new(4);
            let guard = pages.guard();
            still_works(&pages, &guard);
        }
        assert_eq!((descriptors(), mappings()), before);
    });
}

#[test]
fn many_ranges_are_guarded_at_once() {
    lives(|| {
        // More than one block of slots.
        let all: Vec<_> = (0..300).map(|_| Pages::new(2)).collect();
        let mut guards: Vec<_> = all.iter().map(Pages::guard).collect();
        all.iter().for_each(|pages| pages.cut(page()));
        for (index, (pages, guard)) in all.iter().zip(&guards).enumerate() {
            let expected = (index % 3 > 0).then(|| {
                assert_eq!(pages.read(page()), 0);
                page() as u64
            });
            assert_eq!(guard.poisoned(), expected);
        }
        // Those of the first block are given out again.
        guards.drain(..100);
        guards.extend(all.iter().take(100).map(Pages::guard));
        all.iter().for_each(|pages| pages.cut(0));
        for pages in &all {
            assert_eq!(pages.read(0), 0);
        }
        assert!(guards.iter().all(|guard| guard.poisoned() == Some(0)));
    });
}

#[test]
fn slots_change_owners_while_other_threads_fault() {
    lives(|| {
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                scope.spawn(move || {
                    for round in 0..400_usize {
                        let count = 2 + (thread + round) % 7;
                        let pages = Pages::new(count);
                        let guard = pages.guard();
                        let left = round % count;
                        pages.cut(left * page());
                        for number in (0..count).rev() {
                            let expected = match number < left {
                                true => Pages::byte_of(number),
                                false => 0,
                            };
                            assert_eq!(pages.read(number * page()), expected);
                        }
                        assert_eq!(guard.poisoned(), Some((left * page()) as u64));
                    }
                });
            }
        });
    });
}

static STRAYS: AtomicUsize = AtomicUsize::new(0);

/// Repairs faults that come too late for the guard, and swallows what is sent.
extern "C" fn repair(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    STRAYS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the kernel's.
    if unsafe { (*info).si_code } > 0 {
        // SAFETY: as above.
        patch(unsafe { (*info).si_addr() } as usize);
    }
}

#[test]
fn a_guard_that_goes_while_its_range_is_read_waits_and_ends() {
    lives(|| {
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = repair;
        install(handler as usize, libc::SA_SIGINFO, &[]);
        for round in 0..1_000_usize {
            let pages = Pages::new(4);
            let guard = pages.guard();
            pages.cut(0);
            let begun = Barrier::new(3);
            std::thread::scope(|scope| {
                for reader in 0..2 {
                    let (pages, begun) = (&pages, &begun);
                    scope.spawn(move || {
                        begun.wait();
                        assert_eq!(pages.read((reader + round) % 4 * page()), 0);
                    });
                }
                begun.wait();
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                drop(guard);
            });
        }
    });
}

#[test]
fn signals_that_are_sent_all_the_time_stop_nothing() {
    lives(|| {
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = repair;
        install(handler as usize, libc::SA_SIGINFO, &[]);
        let done = AtomicBool::new(false);
        // SAFETY: names this thread, which outlives the other.
        let target = unsafe { libc::pthread_self() } as usize;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    // SAFETY: as above.
                    unsafe { libc::pthread_kill(target as libc::pthread_t, libc::SIGBUS) };
                    std::thread::yield_now();
                }
            });
            let mut rounds = 0;
            while rounds < 2_000 || STRAYS.load(Ordering::SeqCst) < 100 {
                let pages = Pages::new(2);
                let guard = pages.guard();
                still_works_between_signals(&pages, &guard);
                rounds += 1;
            }
            done.store(true, Ordering::SeqCst);
        });
    });
}

fn still_works_between_signals(pages: &Pages, guard: &Guarded) {
    pages.cut(page());
    assert_eq!((pages.read(0), pages.read(page())), (1, 0));
    assert_eq!(guard.poisoned(), Some(page() as u64));
}

/// Forks, and returns whether the child's answer was yes.
fn in_a_child(run: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child makes system calls, and allocates where glibc lets it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a child that hangs is to fail the test; ends it without what is the parent's.
        unsafe {
            libc::alarm(30);
            let right = run();
            libc::_exit(i32::from(!right));
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[test]
fn a_forked_child_has_the_guards_and_may_drop_them() {
    lives(|| {
        let done = AtomicBool::new(false);
        let busy = Pages::new(2);
        let guard = std::mem::ManuallyDrop::new(busy.guard());
        std::thread::scope(|scope| {
            // Handlers are under way nearly all the time, in a range that the child has too.
            let (busy, done) = (&busy, &done);
            for _ in 0..2 {
                scope.spawn(move || {
                    while !done.load(Ordering::SeqCst) {
                        busy.file.set_len(0).unwrap();
                        // SAFETY: maps the file again over the zeros.
                        unsafe {
                            libc::mmap(
                                busy.at as *mut _,
                                2 * page(),
                                libc::PROT_READ | libc::PROT_WRITE,
                                libc::MAP_PRIVATE | libc::MAP_FIXED,
                                std::os::fd::AsRawFd::as_raw_fd(&*busy.file),
                                0,
                            )
                        };
                        assert_eq!(busy.read(page()), 0);
                    }
                });
            }
            for _ in 0..100 {
                let inherited = Pages::new(2);
                let inherited_guard = inherited.guard();
                inherited.cut(0);
                let right = in_a_child(|| {
                    let read = (inherited.read(page()), inherited_guard.poisoned());
                    // SAFETY: in the child it is not used again.
                    drop(unsafe { std::ptr::read(&*guard) });
                    let own = Pages::new(2);
                    let own_guard = own.guard();
                    own.cut(page());
                    read == (0, Some(0))
                        && (own.read(page()), own_guard.poisoned()) == (0, Some(page() as u64))
                });
                assert!(right);
                assert_eq!(
                    inherited_guard.poisoned(),
                    None,
                    "the child's memory is its own"
                );
            }
            done.store(true, Ordering::SeqCst);
        });
        drop(std::mem::ManuallyDrop::into_inner(guard));
    });
}
