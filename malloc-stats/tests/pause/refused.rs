//! What cannot be stopped is refused in words.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use malloc_stats::inspect::pause::{PauseError, Paused};

use crate::pauser;
use crate::{Target, field_of, until};

fn refusal(pid: u32) -> PauseError {
    Paused::stop(pid)
        .map(|paused| paused.threads())
        .unwrap_err()
}

#[test]
fn our_own_process_and_threads() {
    let own = std::process::id();
    let thread = rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    assert_ne!(own, thread, "tests run on threads of their own");
    for pid in [own, thread] {
        let error = refusal(pid);
        assert!(matches!(error, PauseError::Own { .. }), "{error}");
    }
}

#[test]
fn what_is_not_there() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    until("it is a zombie", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        field_of(&status, "State").starts_with('Z')
    });
    let error = refusal(pid);
    assert!(matches!(error, PauseError::Zombie { .. }), "{error}");
    assert!(
        child.wait().unwrap().success(),
        "its status is still there for its parent"
    );
    for pid in [pid, 0, u32::MAX] {
        let error = refusal(pid);
        assert!(
            matches!(error, PauseError::NoProcess { .. }),
            "{pid}: {error}"
        );
    }
}

#[test]
fn a_thread_of_the_kernel() {
    match std::fs::read_to_string("/proc/2/comm") {
        Ok(name) if name == "kthreadd\n" => {
            let error = refusal(2);
            assert!(
                matches!(error, PauseError::KernelThread { pid: 2 }),
                "{error}"
            );
        }
        _ => println!("skipped: no threads of the kernel are seen here"),
    }
}

#[test]
fn a_second_pauser_is_told_who_the_first_is() {
    const NAME: &str = "refused::a_second_pauser_is_told_who_the_first_is";
    if let Some(pid) = pauser::asked() {
        return pauser::hold(pid);
    }
    let Some(target) = Target::start("second", "counting.c", &["2"]) else {
        return;
    };
    let mut other = pauser::holding(NAME, target.pid());
    let error = refusal(target.pid());
    let words = error.to_string();
    let PauseError::Traced {
        tracer,
        tracer_name,
        ..
    } = error
    else {
        panic!("{error}");
    };
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", other.id())).unwrap();
    assert_eq!((tracer, &*tracer_name), (other.id(), comm.trim_end()));
    assert!(words.contains("already traced by process"), "{words}");
    target.assert_stands_still();
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    target.assert_counts_on();

    let first = Paused::stop(target.pid()).unwrap();
    let error = refusal(target.pid());
    assert!(
        matches!(error, PauseError::Traced { tracer, .. } if tracer == std::process::id()),
        "{error}"
    );
    target.assert_stands_still();
    first.release().unwrap();
    target.assert_counts_on();
}

#[test]
fn a_process_of_another_user() {
    const NAME: &str = "refused::a_process_of_another_user";
    const NOBODY: u32 = 65534;
    if let Some(pid) = pauser::asked() {
        let error = refusal(pid);
        assert!(matches!(error, PauseError::Denied { .. }), "{error}");
        println!("REFUSED {error}");
        return;
    }
    let Some(target) = Target::start("denied", "counting.c", &["1"]) else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run a program as another user");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    pauser::ask(&mut command, NAME, &target.pid().to_string());
    command
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .stdout(Stdio::piped());
    let mut other = match command.spawn() {
        Ok(other) => other,
        Err(error) => {
            println!("skipped: another user cannot run this test binary: {error}");
            return;
        }
    };
    let mut words = String::new();
    other
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut words)
        .unwrap();
    assert!(other.wait().unwrap().success(), "{words}");
    assert!(
        words.contains(
            "it runs as user 0, and this program as 65534; run this program with CAP_SYS_PTRACE"
        ),
        "{words}"
    );
    target.assert_counts_on();
    target.assert_untraced();
}
