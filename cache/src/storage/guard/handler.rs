//! The handler of `SIGBUS`, and its place among those of others.
//!
//! It asks the slots first, and passes on all that is not theirs, so that the handler before it
//! behaves as if this one were not there: with its flags and its mask, and with `SIG_DFL` where it
//! resets itself. The one that Rust's standard library installs does that at the first signal that
//! is no stack overflow.
//!
//! Somebody may replace this handler and call it from theirs. Then it is installed once more before
//! theirs, through an entry of its own: each entry knows what it replaced, so calls go from the
//! newest to the oldest and end. With a single entry, theirs and this would call each other for ever.

use std::io;
use std::mem;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t, sigset_t, ucontext_t};
use rustix::process::getpid;

use super::slots;

type Entry = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// How often it is installed over the handlers of others; few, since all of them may come to share
/// a signal stack of 8 KiB.
const MOST: usize = 4;

static ENTRIES: [Entry; MOST] = [enter::<0>, enter::<1>, enter::<2>, enter::<3>];

/// What each entry replaced; null for the default. What they point to is never freed, as a handler
/// may be about to read it.
static PREVIOUS: [AtomicPtr<sigaction>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];

/// How many entries have been installed.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

static DEFAULT: sigaction = disposition(libc::SIG_DFL);
static IGNORE: sigaction = disposition(libc::SIG_IGN);

const fn disposition(handler: usize) -> sigaction {
    // SAFETY: a plain struct of numbers, an empty set, and a function that may be absent.
    let mut action: sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action
}

/// Whether a disposition is no function.
fn is_plain(handler: usize) -> bool {
    handler == libc::SIG_DFL || handler == libc::SIG_IGN
}

fn is_ours(handler: usize) -> bool {
    ENTRIES.iter().any(|entry| *entry as usize == handler)
}

/// Installs the handler, where it is not the one that is called first.
pub(super) fn install() -> io::Result<()> {
    if is_ours(current()?.sa_sigaction) {
        return Ok(());
    }
    let _turn = Turn::take();
    let theirs = current()?;
    if is_ours(theirs.sa_sigaction) {
        return Ok(());
    }
    let installed = INSTALLED.load(Ordering::Relaxed);
    let index = match installed.checked_sub(1) {
        // Nobody can be called back from there, so the newest entry may stand before it.
        Some(newest) if is_plain(theirs.sa_sigaction) => newest,
        _ => installed,
    };
    if index == installed {
        forget(&theirs, installed);
    }
    let Some(entry) = ENTRIES.get(index) else {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                "the handler of SIGBUS has been replaced {MOST} times: the last stays, and mapped \
                 files are guarded only if it calls the one that it replaced"
            );
        });
        return Ok(());
    };
    INSTALLED.store(index + 1, Ordering::Relaxed);
    // Before it is installed, since it may be called at once.
    remember(index, &theirs);
    let replaced = set(&over(*entry, &theirs))?;
    if ![theirs.sa_sigaction, *entry as usize].contains(&replaced.sa_sigaction) {
        remember(index, &replaced);
    }
    Ok(())
}

/// Whoever comes a second time may call any of the entries there are: none is to call it again.
fn forget(theirs: &sigaction, installed: usize) {
    let mut before = ptr::null_mut();
    for older in &PREVIOUS[..installed] {
        let known = older.load(Ordering::Acquire);
        // SAFETY: null, or one that is never freed.
        let is_theirs = unsafe { known.as_ref() }
            .is_some_and(|known| known.sa_sigaction == theirs.sa_sigaction);
        if is_theirs {
            older.store(before, Ordering::Release);
        } else {
            before = known;
        }
    }
}

fn remember(index: usize, action: &sigaction) {
    let kept: &'static sigaction = match action.sa_sigaction {
        libc::SIG_DFL => &DEFAULT,
        libc::SIG_IGN => &IGNORE,
        _ => Box::leak(Box::new(*action)),
    };
    PREVIOUS[index].store(ptr::from_ref(kept).cast_mut(), Ordering::Release);
}

/// How an entry is to be called that comes before another handler.
fn over(entry: Entry, theirs: &sigaction) -> sigaction {
    let mut action = DEFAULT;
    action.sa_sigaction = entry as usize;
    // Whether calls are restarted that a signal interrupts is theirs to say.
    let restarts = is_plain(theirs.sa_sigaction) || theirs.sa_flags & libc::SA_RESTART != 0;
    let restarts = if restarts { libc::SA_RESTART } else { 0 };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | restarts;
    // While a slot is in use nothing else is to run on this thread: it could wait for the slot, or
    // never come back. Faults are not put off, as the kernel kills whoever blocks them.
    // SAFETY: both only write to the set.
    unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        for fault in [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            libc::sigdelset(&raw mut action.sa_mask, fault);
        }
    }
    action
}

fn current() -> io::Result<sigaction> {
    let mut action = DEFAULT;
    // SAFETY: changes nothing, and fills the struct.
    match unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut action) } {
        0 => Ok(action),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns what was there before.
fn set(action: &sigaction) -> io::Result<sigaction> {
    let mut replaced = DEFAULT;
    // SAFETY: a default, or an entry, which can be called at any moment.
    match unsafe { libc::sigaction(libc::SIGBUS, action, &raw mut replaced) } {
        0 => Ok(replaced),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One thread installs at a time. A plain lock could be held for ever in a forked child.
struct Turn;

/// The process whose turn it is, or zero.
static TURN: AtomicI32 = AtomicI32::new(0);

impl Turn {
    fn take() -> Turn {
        let own = getpid().as_raw_nonzero().get();
        let mut free = 0;
        while let Err(holder) =
            TURN.compare_exchange(free, own, Ordering::Acquire, Ordering::Relaxed)
        {
            // A holder in the parent will not come back here.
            free = if holder == own { 0 } else { holder };
            std::thread::yield_now();
        }
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.store(0, Ordering::Release);
    }
}

extern "C" fn enter<const INDEX: usize>(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the place of this thread's `errno`.
    let errno = unsafe { *libc::__errno_location() };
    let (code, address) = match info.is_null() {
        // Called by somebody who knows no more than the number.
        true => (libc::SI_USER, 0),
        // SAFETY: the kernel gives it, and so does whoever calls a handler with SA_SIGINFO.
        false => unsafe { ((*info).si_code, (*info).si_addr() as usize) },
    };
    // Nobody but the kernel can send this code, and it is the one of pages that cannot be had.
    if code != libc::BUS_ADRERR || !slots::fill(address) {
        // SAFETY: what this was called with.
        unsafe { pass_on(INDEX, code, signal, info, context) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Does what would be done if the entry were not there.
///
/// # Safety
/// On a signal, with what its handler was called with.
unsafe fn pass_on(
    index: usize,
    code: c_int,
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
) {
    let known = PREVIOUS[index].load(Ordering::Acquire);
    // SAFETY: null, or one that is never freed.
    let previous = unsafe { known.as_ref() }.unwrap_or(&DEFAULT);
    // The kernel's own come again if the access is tried again; but for one that only tells.
    let comes_again = code > 0 && code != libc::BUS_MCEERR_AO;
    if is_plain(previous.sa_sigaction) {
        // The kernel kills whoever ignores a fault.
        if comes_again || previous.sa_sigaction == libc::SIG_DFL {
            let _ = set(&DEFAULT);
        }
        if !comes_again && previous.sa_sigaction == libc::SIG_DFL {
            // SAFETY: blocked here, so it comes when the handler returns.
            unsafe { libc::raise(signal) };
        }
        return;
    }
    if previous.sa_flags & libc::SA_RESETHAND != 0 {
        let reset = ptr::null_mut();
        let _ = PREVIOUS[index].compare_exchange(known, reset, Ordering::AcqRel, Ordering::Relaxed);
    }
    // SAFETY: as the caller promises, and the mask is restored below.
    let own = unsafe { wear_mask(previous, signal, context.cast()) };
    // SAFETY: the handler of somebody who has installed it for this signal.
    unsafe { call(previous, signal, info, context) };
    // SAFETY: the mask that was there.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const own, ptr::null_mut()) };
    keep_place(index);
}

/// Blocks what the kernel would have blocked for a handler. Returns what was blocked.
///
/// # Safety
/// The context is that of a signal, or null.
unsafe fn wear_mask(handler: &sigaction, signal: c_int, context: *const ucontext_t) -> sigset_t {
    let (mut mask, mut own) = (DEFAULT.sa_mask, DEFAULT.sa_mask);
    // SAFETY: sets of this function, and those that the caller promises.
    unsafe {
        libc::sigemptyset(&raw mut mask);
        for number in 1..=libc::SIGRTMAX() {
            let was = !context.is_null()
                && libc::sigismember(&raw const (*context).uc_sigmask, number) == 1;
            let deferred = number == signal && handler.sa_flags & libc::SA_NODEFER == 0;
            if was || deferred || libc::sigismember(&raw const handler.sa_mask, number) == 1 {
                libc::sigaddset(&raw mut mask, number);
            }
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, &raw mut own);
    }
    own
}

/// # Safety
/// It is a function, installed for this signal, and the rest is what the kernel gave.
unsafe fn call(handler: &sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let address = handler.sa_sigaction as *const c_void;
    if handler.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: its flags say that it takes all three.
        let function = unsafe { mem::transmute::<*const c_void, Entry>(address) };
        function(signal, info, context);
    } else {
        // SAFETY: its flags say that it takes the number alone.
        let function = unsafe { mem::transmute::<*const c_void, extern "C" fn(c_int)>(address) };
        function(signal);
    }
}

/// A handler that has reset the signal, as Rust's own does, meant itself: that becomes what this one
/// stands before.
fn keep_place(index: usize) {
    if let Ok(now) = current()
        && is_plain(now.sa_sigaction)
    {
        // Plain ones cost no memory, which could not be had here.
        remember(index, &now);
        let _ = set(&over(ENTRIES[index], &now));
    }
}
