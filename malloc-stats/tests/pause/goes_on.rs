//! What was stopped goes on, whatever becomes of who stopped it.

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use malloc_stats::inspect::pause::{PauseError, Paused};

use crate::pauser;
use crate::{Target, until};

#[test]
fn it_goes_on_when_the_pauser_is_killed() {
    const NAME: &str = "goes_on::it_goes_on_when_the_pauser_is_killed";
    if let Some(pid) = pauser::asked() {
        return pauser::hold(pid);
    }
    let Some(target) = Target::start("killed", "counting.c", &["8"]) else {
        return;
    };
    let mut other = pauser::holding(NAME, target.pid());
    target.assert_stands_still();
    other.kill().unwrap();
    other.wait().unwrap();
    target.assert_counts_on();
    target.assert_untraced();
}

#[test]
fn it_goes_on_when_the_pauser_panics() {
    let Some(target) = Target::start("panic", "counting.c", &["2"]) else {
        return;
    };
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _paused = Paused::stop(target.pid()).unwrap();
        target.assert_stands_still();
        panic!("in the middle of it");
    }));
    assert!(panic.is_err());
    target.assert_counts_on();
    target.assert_untraced();
}

#[test]
fn another_thread_can_release_it() {
    let Some(target) = Target::start("thread", "counting.c", &["2"]) else {
        return;
    };
    let paused = Paused::stop(target.pid()).unwrap();
    std::thread::spawn(move || paused.release().unwrap())
        .join()
        .unwrap();
    target.assert_counts_on();
}

#[test]
fn killed_meanwhile_it_ends_as_it_should() {
    let Some(mut target) = Target::start("target-killed", "counting.c", &["8"]) else {
        return;
    };
    let mut unrelated = Command::new("false").spawn().unwrap();
    let paused = Paused::stop(target.pid()).unwrap();
    target.signal(libc::SIGKILL);
    until("every thread has ended", || {
        target
            .of_threads("State")
            .iter()
            .all(|state| state.starts_with('Z'))
    });
    let error = paused.release().unwrap_err();
    assert!(matches!(error, PauseError::Gone { .. }), "{error}");
    // The status is for its parent, as are those of other children.
    assert_eq!(target.child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(unrelated.wait().unwrap().code(), Some(1));
}

#[test]
fn a_thread_that_cannot_stop_is_named_and_the_rest_goes_on() {
    let Some(mut target) = Target::start("vfork", "vforking.c", &[]) else {
        return;
    };
    until("the leader waits for its child", || {
        target
            .of_threads("State")
            .iter()
            .any(|state| state.starts_with('D'))
    });
    for _ in 0..2 {
        let error = Paused::stop(target.pid()).unwrap_err();
        let words = error.to_string();
        let PauseError::Stuck {
            tid, name, state, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(
            (tid.unsigned_abs(), &*name, state),
            (target.pid(), "target", 'D')
        );
        assert!(words.contains("uninterruptible sleep (D)"), "{words}");
        target.assert_untraced();
        let before = target.slots();
        until("the other thread counts on", || before < target.slots());
    }
    drop(target.input.take());
    until("its child has ended", || {
        target
            .of_threads("State")
            .iter()
            .any(|state| state.starts_with('S'))
    });
    assert_eq!(Paused::stop(target.pid()).unwrap().threads(), 2);
}

#[test]
fn a_parent_is_stopped_by_its_child_and_still_gets_its_status() {
    const NAME: &str = "goes_on::a_parent_is_stopped_by_its_child_and_still_gets_its_status";
    if pauser::asked().is_some() {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let paused = Paused::stop(parent.unsigned_abs()).unwrap();
        assert_eq!(paused.threads(), 1);
        return;
    }
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "\"$0\" \"$@\"; exit $?"])
        .arg(std::env::current_exe().unwrap());
    pauser::ask(&mut shell, NAME, "0");
    let output = shell.output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && words.contains("1 passed"),
        "{words}"
    );
}
