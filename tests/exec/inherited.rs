//! What a program has from whoever starts it.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::world::{BOTH, How, World, end_of};

/// What a program saw of how it was started, but for what `exec` tells it.
fn state(how: How, arrange: impl Fn(&mut Command)) -> BTreeSet<String> {
    let world = World::new(how);
    let out = world.name("state");
    let mut command = world.probing(&["state", &out]);
    command.env_remove("GLIBC_TUNABLES").current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    arrange(&mut command);
    assert!(end_of(&mut command.spawn().unwrap()).success(), "{how:?}");
    let own = [
        "env \"TMPDIR\"",
        "env \"PLIMSOLL_MARKS\"",
        "env \"GLIBC_TUNABLES\"",
        "env \"MALLOC_",
    ];
    let text = world.text("state");
    let lines = text
        .lines()
        .filter(|line| !own.iter().any(|own| line.starts_with(own)));
    lines.map(str::to_owned).collect()
}

/// Starts it bare and under `exec`; what is seen has to be the same, and to have all of `has`.
fn equal(has: &[&str], arrange: impl Fn(&mut Command)) -> BTreeSet<String> {
    let [bare, exec] = BOTH.map(|how| state(how, &arrange));
    let differ: Vec<_> = bare.symmetric_difference(&exec).collect();
    assert!(differ.is_empty(), "{differ:#?}\nof {bare:#?}");
    for line in has {
        assert!(
            bare.iter().any(|seen| seen.contains(line)),
            "no {line} in {bare:#?}"
        );
    }
    bare
}

/// Runs something between fork and exec.
fn before_exec(command: &mut Command, act: impl Fn() + Send + Sync + 'static) {
    // SAFETY: what is given makes system calls only.
    unsafe {
        command.pre_exec(move || {
            act();
            Ok(())
        });
    }
}

#[test]
fn a_plain_start_is_the_same() {
    equal(
        &["leads its group: false", "SigBlk:\t0000000000000000"],
        |_| {},
    );
}

#[test]
fn ignored_signals_stay_ignored() {
    let ignored = [
        libc::SIGHUP,
        libc::SIGCHLD,
        libc::SIGPIPE,
        libc::SIGXFSZ,
        libc::SIGINT,
    ];
    for signal in ignored
        .into_iter()
        .chain([libc::SIGQUIT, libc::SIGTSTP, libc::SIGUSR1])
    {
        let seen = equal(&[], |command| {
            before_exec(command, move || {
                // SAFETY: takes numbers.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            });
        });
        // Beside those that the C library or the caller's caller ignores.
        let mask = seen.iter().find_map(|line| line.strip_prefix("SigIgn:\t"));
        let mask = u64::from_str_radix(mask.unwrap(), 16).unwrap();
        assert_ne!(mask & 1 << (signal - 1), 0, "{signal}: {mask:x}");
    }
}

#[test]
fn blocked_signals_stay_blocked() {
    equal(&["SigBlk:\t0000000000004201"], |command| {
        before_exec(command, || {
            // SAFETY: the set lives here.
            unsafe {
                let mut set = std::mem::MaybeUninit::zeroed();
                libc::sigemptyset(set.as_mut_ptr());
                for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGTERM] {
                    libc::sigaddset(set.as_mut_ptr(), signal);
                }
                libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
            }
        });
    });
}

#[test]
fn closed_descriptors_stay_closed() {
    for fd in 0..3 {
        equal(&[], |command| {
            before_exec(command, move || {
                // SAFETY: takes a number.
                unsafe { libc::close(fd) };
            });
        });
        let bare = state(How::Bare, |command| {
            before_exec(command, move || {
                // SAFETY: takes a number.
                unsafe { libc::close(fd) };
            });
        });
        assert!(
            !bare
                .iter()
                .any(|line| line.starts_with(&format!("fd {fd}:")))
        );
    }
    equal(&[], |command| {
        before_exec(command, || {
            // SAFETY: takes numbers.
            (0..3).for_each(|fd| unsafe { assert_eq!(libc::close(fd), 0) });
        });
    });
}

#[test]
fn further_descriptors_go_through_and_none_is_added() {
    equal(&["fd 7:", "fd 100:"], |command| {
        before_exec(command, || {
            // SAFETY: takes numbers.
            unsafe { assert_eq!((libc::dup2(0, 7), libc::dup2(1, 100)), (7, 100)) };
        });
    });
}

#[test]
fn limits_umask_niceness_and_name_go_through() {
    equal(
        &["umask 27", "nice 5", "limit 7: 200 300", "limit 4: 0 0"],
        |command| {
            command.env("ODD", "a\nb\u{1b}[31m").env_remove("LANG");
            before_exec(command, || {
                let files = libc::rlimit {
                    rlim_cur: 200,
                    rlim_max: 300,
                };
                let core = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                // SAFETY: takes numbers and limits that live here.
                unsafe {
                    libc::umask(0o027);
                    libc::setpriority(libc::PRIO_PROCESS, 0, 5);
                    libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
                    libc::setrlimit(libc::RLIMIT_CORE, &raw const core);
                }
            });
        },
    );
}

#[test]
fn a_name_without_a_path_is_what_the_program_is_called() {
    let seen = BOTH.map(|how| {
        let world = World::new(how);
        let output = world.command(&["sh", "-c", "echo $0; tr '\\0' ' ' < /proc/$$/cmdline"]);
        let output = { output }.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].starts_with("sh\nsh -c"), "{}", seen[0]);
}
