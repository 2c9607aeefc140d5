//! Signals sent while a process is stopped arrive once, and later.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use malloc_stats::inspect::pause::Paused;

use crate::pauser;
use crate::{Target, until};

/// Sends a real-time signal, of which each is kept, with a value. The kernel keeps only so many.
fn send(pid: u32, value: usize) {
    let value = libc::sigval {
        sival_ptr: std::ptr::without_provenance_mut(value),
    };
    loop {
        // SAFETY: sigqueue(3) passes the value on and touches no memory of this process.
        if unsafe { libc::sigqueue(pid.cast_signed(), libc::SIGRTMIN(), value) } == 0 {
            return;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
        thread::yield_now();
    }
}

/// Number and sum of the values of the signals that arrived.
fn arrived(target: &Target) -> (u64, u64) {
    (target.slots()[0], target.slots()[1])
}

#[test]
fn a_signal_during_the_pause_arrives_once_after_it() {
    let Some(target) = Target::start("signals", "counting.c", &["2"]) else {
        return;
    };
    let paused = Paused::stop(target.pid()).unwrap();
    for value in 1..=10 {
        send(target.pid(), value);
    }
    target.assert_stands_still();
    assert_eq!(arrived(&target), (0, 0));
    paused.release().unwrap();
    until("ten signals arrive", || arrived(&target).0 == 10);
    target.assert_counts_on();
    assert_eq!(arrived(&target), (10, 55));
}

/// Sends without end, while `pause` stops and releases; every signal has to arrive once.
fn none_is_lost(test: &str, mut pause: impl FnMut(&Target)) {
    let Some(target) = Target::start(test, "counting.c", &["4"]) else {
        return;
    };
    let done = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let pid = target.pid();
        let done = &done;
        let sender = scope.spawn(move || {
            let mut sent = 0;
            while !done.load(Relaxed) {
                sent += 1;
                send(pid, sent);
            }
            sent as u64
        });
        pause(&target);
        done.store(true, Relaxed);
        sender.join().unwrap()
    });
    until("every signal arrives", || arrived(&target).0 >= sent);
    target.assert_counts_on();
    assert_eq!(arrived(&target), (sent, sent * (sent + 1) / 2));
}

#[test]
fn no_signal_of_a_stream_is_lost_or_doubled() {
    none_is_lost("stream", |target| {
        for _ in 0..200 {
            Paused::stop(target.pid()).unwrap().release().unwrap();
        }
    });
}

#[test]
fn no_signal_of_a_stream_is_lost_when_the_pauser_is_killed() {
    const NAME: &str = "signals::no_signal_of_a_stream_is_lost_when_the_pauser_is_killed";
    if let Some(pid) = pauser::asked() {
        return pauser::hold(pid);
    }
    none_is_lost("stream-killed", |target| {
        for _ in 0..20 {
            let mut other = pauser::holding(NAME, target.pid());
            other.kill().unwrap();
            other.wait().unwrap();
        }
    });
}
