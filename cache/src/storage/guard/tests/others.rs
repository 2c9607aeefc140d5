//! Handlers of others, before the guard's and after it.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t};

use super::{Pages, dies, guard_works, install, lives, page, patch, send, still_works};

static CALLS: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);
/// Whether SIGUSR1, SIGUSR2 and SIGBUS were blocked, as bits.
static BLOCKED: AtomicUsize = AtomicUsize::new(0);

fn calls() -> usize {
    CALLS.load(Ordering::SeqCst)
}

fn blocked() -> usize {
    let signals = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGBUS];
    // SAFETY: a set of this function.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut set);
        let bits = signals.iter().enumerate();
        bits.map(|(bit, signal)| (libc::sigismember(&raw const set, *signal) as usize) << bit)
            .sum()
    }
}

/// Deals with whatever comes: repairs faults, takes notes of the rest.
extern "C" fn first(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    BLOCKED.store(blocked(), Ordering::SeqCst);
    // SAFETY: the kernel's.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    CODE.store(code, Ordering::SeqCst);
    if code > 0 {
        VALUE.store(address, Ordering::SeqCst);
        patch(address);
    } else if code == libc::SI_QUEUE {
        // SAFETY: as the code says.
        let value = unsafe { (*info).si_value() };
        VALUE.store(value.sival_ptr as usize, Ordering::SeqCst);
    }
}

extern "C" fn plain(_: c_int) {
    CALLS.fetch_add(1, Ordering::SeqCst);
}

fn queue(value: usize) {
    let value = libc::sigval {
        sival_ptr: value as *mut c_void,
    };
    // SAFETY: to this process, whose only thread that takes it is this one.
    unsafe { libc::pthread_sigqueue(libc::pthread_self(), libc::SIGBUS, value) };
}

fn address_of(handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void)) -> usize {
    handler as usize
}

#[test]
fn a_handler_before_the_guard_gets_its_own_faults() {
    lives(|| {
        install(address_of(first), libc::SA_SIGINFO, &[]);
        let (theirs, guarded) = (Pages::new(4), Pages::new(4));
        let guard = guarded.guard();
        theirs.cut(page());
        guarded.cut(page());
        assert_eq!(theirs.read(2 * page() + 17), 0);
        assert_eq!(
            (calls(), CODE.load(Ordering::SeqCst)),
            (1, libc::BUS_ADRERR)
        );
        assert_eq!(VALUE.load(Ordering::SeqCst), theirs.at + 2 * page() + 17);
        assert_eq!(guarded.read(2 * page()), 0);
        assert_eq!((calls(), guard.poisoned()), (1, Some(page() as u64)));
        drop(guard);
        guarded.cut(0);
        assert_eq!((guarded.read(0), calls()), (0, 2));
    });
}

#[test]
fn a_handler_before_the_guard_gets_what_is_sent() {
    lives(|| {
        install(address_of(first), libc::SA_SIGINFO, &[]);
        let pages = Pages::new(4);
        let guard = pages.guard();
        queue(0xabc);
        assert_eq!((calls(), CODE.load(Ordering::SeqCst)), (1, libc::SI_QUEUE));
        assert_eq!(VALUE.load(Ordering::SeqCst), 0xabc);
        // The address of a guarded page, but nobody has met it there.
        queue(pages.at);
        assert_eq!((calls(), guard.poisoned()), (2, None));
        still_works(&pages, &guard);
        assert_eq!(calls(), 2);
    });
}

#[test]
fn a_handler_before_the_guard_keeps_its_mask() {
    lives(|| {
        for (flags, blocked_signals, expected) in [
            (0, &[libc::SIGUSR1][..], 0b101),
            (libc::SA_NODEFER, &[libc::SIGUSR2], 0b010),
            (0, &[], 0b100),
        ] {
            install(address_of(first), libc::SA_SIGINFO | flags, blocked_signals);
            send();
            let without = BLOCKED.load(Ordering::SeqCst);
            guard_works();
            send();
            assert_eq!(BLOCKED.load(Ordering::SeqCst), without);
            assert_eq!(without, expected);
            assert_eq!(blocked(), 0, "afterwards nothing is");
        }
    });
}

#[test]
fn a_handler_that_takes_only_a_number_is_called_once_if_it_asks_for_that() {
    dies(|| {
        install(
            plain as extern "C" fn(c_int) as usize,
            libc::SA_RESETHAND,
            &[],
        );
        guard_works();
        send();
        if calls() != 1 {
            std::process::exit(1);
        }
        guard_works();
        send();
    });
}

#[test]
fn a_handler_that_never_returns_holds_up_nothing() {
    extern "C" fn stays(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
        CALLS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the kernel's.
        patch(unsafe { (*info).si_addr() } as usize);
        // As with `siglongjmp`, the frames of the handlers are left for good.
        loop {
            std::thread::park();
        }
    }
    lives(|| {
        install(address_of(stays), libc::SA_SIGINFO, &[]);
        guard_works();
        for calls_by_now in 1..=3 {
            std::thread::spawn(|| {
                let theirs = Pages::new(1);
                theirs.cut(0);
                theirs.read(0);
            });
            while calls() < calls_by_now {
                std::thread::yield_now();
            }
        }
        // Nothing waits for the handlers that never return.
        (0..200).for_each(|_| guard_works());
    });
}

/// What a handler after the guard's has replaced.
static REPLACED: AtomicUsize = AtomicUsize::new(0);
static LATER_CALLS: AtomicUsize = AtomicUsize::new(0);
/// The page that it takes care of.
static OWN_PAGE: AtomicUsize = AtomicUsize::new(0);

/// Takes care of one page, and passes on everything else.
extern "C" fn later(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    LATER_CALLS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the kernel's.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code > 0 && address / page() * page() == OWN_PAGE.load(Ordering::SeqCst) {
        return patch(address);
    }
    let replaced = REPLACED.load(Ordering::SeqCst) as *const sigaction;
    // SAFETY: leaked by `install_later`; all that it can be takes three arguments.
    unsafe {
        assert!((*replaced).sa_flags & libc::SA_SIGINFO != 0);
        let handler = (*replaced).sa_sigaction as *const c_void;
        type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
        std::mem::transmute::<*const c_void, Handler>(handler)(signal, info, context);
    }
}

/// Knows only what it has replaced last, as careless libraries do that are set up twice.
fn install_later() {
    let replaced = install(address_of(later), libc::SA_SIGINFO | libc::SA_ONSTACK, &[]);
    if replaced.sa_sigaction == address_of(later) {
        // It would call itself.
        return;
    }
    REPLACED.store(Box::into_raw(Box::new(replaced)) as usize, Ordering::SeqCst);
}

/// A fault that neither the guard nor `later` knows comes to `first`, once.
fn first_gets_the_rest() {
    let before = calls();
    let nobodys = Pages::new(1);
    nobodys.cut(0);
    assert_eq!((nobodys.read(0), calls()), (0, before + 1));
    send();
    assert_eq!(calls(), before + 2);
}

#[test]
fn a_handler_after_the_guard_that_calls_it_goes_with_it() {
    lives(|| {
        install(address_of(first), libc::SA_SIGINFO, &[]);
        let (guarded, theirs) = (Pages::new(4), Pages::new(1));
        let guard = guarded.guard();
        OWN_PAGE.store(theirs.at, Ordering::SeqCst);
        install_later();
        still_works(&guarded, &guard);
        first_gets_the_rest();
        let before = LATER_CALLS.load(Ordering::SeqCst);
        theirs.cut(0);
        assert_eq!(theirs.read(0), 0);
        assert_eq!(LATER_CALLS.load(Ordering::SeqCst), before + 1);

        // From here on the guard comes first again.
        guard_works();
        assert_eq!(LATER_CALLS.load(Ordering::SeqCst), before + 1);
        let theirs = Pages::new(1);
        OWN_PAGE.store(theirs.at, Ordering::SeqCst);
        theirs.cut(0);
        let before = (calls(), LATER_CALLS.load(Ordering::SeqCst));
        assert_eq!(theirs.read(0), 0);
        let after = (calls(), LATER_CALLS.load(Ordering::SeqCst));
        assert_eq!(after, (before.0, before.1 + 1));
        OWN_PAGE.store(0, Ordering::SeqCst);
        first_gets_the_rest();
        assert_eq!(LATER_CALLS.load(Ordering::SeqCst), after.1 + 2, "once each");
    });
}

#[test]
fn handlers_that_come_again_and_again_never_call_each_other_for_ever() {
    lives(|| {
        install(address_of(first), libc::SA_SIGINFO, &[]);
        for _ in 0..10 {
            guard_works();
            install_later();
            guard_works();
            first_gets_the_rest();
        }
    });
}

#[test]
fn a_handler_after_the_guard_that_does_not_call_it_is_called_by_it() {
    lives(|| {
        let guarded = Pages::new(4);
        let guard = guarded.guard();
        install(address_of(first), libc::SA_SIGINFO, &[]);
        guarded.cut(3 * page());
        assert_eq!((guarded.read(3 * page()), calls()), (0, 1));
        assert_eq!(guard.poisoned(), None, "disarmed");
        guard_works();
        guarded.cut(2 * page());
        assert_eq!((guarded.read(2 * page()), calls()), (0, 1));
        assert_eq!(guard.poisoned(), Some(2 * page() as u64));
        first_gets_the_rest();
    });
}

#[test]
fn a_handler_that_was_put_back_is_the_guards_again() {
    lives(|| {
        install(address_of(first), libc::SA_SIGINFO, &[]);
        guard_works();
        for _ in 0..20 {
            let ours = install(plain as extern "C" fn(c_int) as usize, 0, &[]);
            // SAFETY: what was there a moment ago.
            unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) };
            guard_works();
            first_gets_the_rest();
        }
    });
}
