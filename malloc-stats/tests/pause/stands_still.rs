//! What is stopped stands still, all of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malloc_stats::inspect::pause::{PauseError, Paused};

use crate::{Target, send_signal, until};

/// Held by the tests whose targets keep many threads running, each of which needs a processor to
/// come to its stop.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn sixty_four_threads_stand_still_and_go_on() {
    let _alone = alone();
    let Some(target) = Target::start("64", "counting.c", &["64"]) else {
        return;
    };
    for _ in 0..5 {
        let paused = Paused::stop(target.pid()).unwrap();
        assert_eq!((paused.pid(), paused.threads()), (target.pid(), 65));
        target.assert_stands_still();
        let so_far = paused.stopped_for();
        let all = paused.release().unwrap();
        assert!(all >= so_far);
        target.assert_counts_on();
    }
    target.assert_untraced();
}

#[test]
fn threads_without_their_leader_stand_still() {
    let Some(target) = Target::start("leaderless", "counting.c", &["3", "leaderless"]) else {
        return;
    };
    until("the leader has ended", || {
        target
            .of_threads("State")
            .contains(&"Z (zombie)".to_owned())
    });
    let paused = Paused::stop(target.pid()).unwrap();
    assert_eq!(paused.threads(), 4);
    target.assert_stands_still();
    paused.release().unwrap();
    target.assert_counts_on();
}

/// Stops a target that makes threads at full speed 200 times; counts births.
fn through_a_storm(kind: &str) {
    let _alone = alone();
    let Some(target) = Target::start(kind, "storm.c", &[kind]) else {
        return;
    };
    let mut worst = Duration::ZERO;
    for _ in 0..200 {
        let paused = Paused::stop(target.pid()).unwrap();
        let births = target.slots();
        let states = target.of_threads("State");
        assert_eq!(states.len(), paused.threads());
        assert!(
            states.iter().all(|state| state.starts_with('t')),
            "{states:?}"
        );
        assert_eq!(births, target.slots());
        worst = worst.max(paused.release().unwrap());
        until("threads are born", || births < target.slots());
    }
    target.assert_untraced();
    println!("{kind}: the longest of 200 stops took {worst:?}");
}

#[test]
fn a_storm_of_threads_stands_still() {
    through_a_storm("storm");
}

#[test]
fn a_relay_of_threads_stands_still() {
    through_a_storm("relay");
}

#[test]
fn threads_that_execute_the_program_anew_never_hang_us() {
    let _alone = alone();
    let Some(target) = Target::start("exec", "storm.c", &["exec"]) else {
        return;
    };
    let (mut held, mut refused) = (0, 0);
    while held < 200 {
        match Paused::stop(target.pid()) {
            Ok(paused) => {
                let births = target.slots();
                let states = target.of_threads("State");
                assert!(
                    states.iter().all(|state| state.starts_with('t')),
                    "{states:?}"
                );
                assert_eq!(births, target.slots());
                paused.release().unwrap();
                held += 1;
                until("it executes anew", || births < target.slots());
            }
            Err(PauseError::Restless { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(refused < 20, "refused {refused} times, held {held} times");
    }
    let births = target.slots();
    until("it executes anew", || births < target.slots());
}

#[test]
fn what_was_stopped_by_a_signal_stays_stopped() {
    let Some(target) = Target::start("sigstop", "counting.c", &["4"]) else {
        return;
    };
    let all_stopped = || {
        target
            .of_threads("State")
            .iter()
            .all(|state| state.starts_with('T'))
    };
    target.signal(libc::SIGSTOP);
    until("every thread is stopped by the signal", all_stopped);
    for _ in 0..20 {
        let paused = Paused::stop(target.pid()).unwrap();
        assert_eq!(paused.threads(), 5);
        target.assert_stands_still();
        paused.release().unwrap();
        until("every thread is stopped by the signal again", all_stopped);
        target.assert_stands_still();
    }
    target.signal(libc::SIGCONT);
    target.assert_counts_on();

    let paused = Paused::stop(target.pid()).unwrap();
    send_signal(target.pid(), libc::SIGSTOP);
    paused.release().unwrap();
    until("the signal of the pause stops every thread", all_stopped);

    let paused = Paused::stop(target.pid()).unwrap();
    send_signal(target.pid(), libc::SIGCONT);
    target.assert_stands_still();
    paused.release().unwrap();
    target.assert_counts_on();
}
