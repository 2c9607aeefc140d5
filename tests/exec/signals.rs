//! Signals that are sent to it, one by one or as a group.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::probe::over;
use crate::world::{BOTH, How, World, end_of, lives, raw, send, state, wait_until};

/// What it is in the process groups of whoever starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Of its parent's group.
    Member,
    /// The leader of one.
    Leader,
    /// The leader of a session.
    Session,
}

fn put(command: &mut Command, place: Place) {
    match place {
        Place::Member => {}
        Place::Leader => {
            command.process_group(0);
        }
        Place::Session => {
            // SAFETY: one system call, without arguments.
            unsafe {
                command.pre_exec(|| {
                    libc::setsid();
                    Ok(())
                });
            }
        }
    }
}

fn signals() -> Vec<i32> {
    vec![
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
        libc::SIGCONT,
        libc::SIGALRM,
        libc::SIGPIPE,
        libc::SIGABRT,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGXFSZ,
        libc::SIGURG,
        libc::SIGRTMIN() + 3,
    ]
}

fn each_comes_once(place: Place, to_group: bool) {
    for how in BOTH {
        let world = World::new(how);
        let out = world.name("seen");
        let mut command = world.probing(&["count", &out]);
        put(&mut command, place);
        let mut child = command.spawn().unwrap();
        let counting = world.counting("seen");
        assert_eq!(counting.known_as(), child.id().cast_signed());
        for signal in signals() {
            let to = counting.known_as();
            send(if to_group { -to } else { to }, signal);
            let came = counting.settled(signal);
            assert_eq!(
                came, 1,
                "signal {signal}, {how:?}, {place:?}, group: {to_group}"
            );
        }
        for signal in signals() {
            assert_eq!(counting.count(signal), 1, "{signal}: {:?}", counting.seen());
        }
        counting.end();
        assert_eq!(raw(end_of(&mut child)), 7 << 8, "{how:?}");
    }
}

#[test]
fn each_that_is_sent_to_it_comes_once() {
    for place in [Place::Member, Place::Leader, Place::Session] {
        each_comes_once(place, false);
    }
}

#[test]
fn each_that_is_sent_to_its_group_comes_once() {
    for place in [Place::Leader, Place::Session] {
        each_comes_once(place, true);
    }
}

/// As `subprocess.Popen(start_new_session=True)` and `os.killpg` do, to what the program started.
#[test]
fn what_is_sent_to_its_group_comes_to_its_children_too() {
    for (how, place) in BOTH.into_iter().zip([Place::Session, Place::Session]) {
        let world = World::new(how);
        let probe = World::probe(&["count", &world.name("seen")]);
        let script = format!("trap '' TERM; '{}' & wait; wait; exit 3", probe.join("' '"));
        let mut command = world.command(&["sh", "-c", &script]);
        put(&mut command, place);
        let mut child = command.spawn().unwrap();
        let counting = world.counting("seen");
        send(-child.id().cast_signed(), libc::SIGTERM);
        counting.wait_seen(libc::SIGTERM);
        send(counting.pid, over());
        assert_eq!(raw(end_of(&mut child)), 3 << 8, "{how:?}");
        assert_eq!(counting.count(libc::SIGTERM), 1, "{how:?}");
    }
}

#[test]
fn a_value_that_is_queued_with_a_signal_comes_with_it() {
    if !crate::world::has("python3") {
        return;
    }
    let script = "import signal,sys\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
        open(sys.argv[1], 'w').close()\n\
        print(signal.sigwaitinfo([signal.SIGUSR1]).si_code)";
    let seen = BOTH.map(|how| {
        let world = World::new(how);
        let mut python = world.command(&["python3", "-c", script, &world.name("ready")]);
        let child = python.stdout(std::process::Stdio::piped()).spawn().unwrap();
        world.wait_file("ready");
        let value = libc::sigval {
            sival_ptr: std::ptr::without_provenance_mut(77),
        };
        // SAFETY: takes values.
        unsafe { libc::sigqueue(child.id().cast_signed(), libc::SIGUSR1, value) };
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    });
    // SI_QUEUE
    assert_eq!(seen, ["-1\n", "-1\n"]);
}

#[test]
fn one_that_it_ignores_does_not_end_it() {
    for how in BOTH {
        let world = World::new(how);
        let ignored = libc::SIGTERM.to_string();
        let mut probe = world.probing(&["count", &world.name("seen"), "ignoring", &ignored]);
        let mut child = probe.spawn().unwrap();
        let counting = world.counting("seen");
        send(counting.known_as(), libc::SIGTERM);
        send(counting.known_as(), libc::SIGUSR1);
        assert_eq!(counting.settled(libc::SIGUSR1), 1);
        assert_eq!(counting.count(libc::SIGTERM), 0);
        counting.end();
        assert_eq!(raw(end_of(&mut child)), 7 << 8, "{how:?}");
    }
}

#[test]
fn each_that_ends_it_ends_it() {
    for signal in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGKILL,
    ] {
        for how in BOTH {
            let world = World::new(how);
            let ready = world.name("ready");
            let script =
                format!("echo $$ > '{ready}'; mv '{ready}' '{ready}.whole'; exec sleep 100");
            let mut command = world.command(&["sh", "-c", &script]);
            // SAFETY: one system call, on numbers.
            unsafe {
                command.pre_exec(move || {
                    // The tests themselves may run with one ignored, as under nohup.
                    libc::signal(signal, libc::SIG_DFL);
                    Ok(())
                });
            }
            let mut child = command.spawn().unwrap();
            let pid: i32 = world.wait_file("ready.whole").trim().parse().unwrap();
            send(child.id().cast_signed(), signal);
            assert_eq!(raw(end_of(&mut child)), signal, "{how:?}");
            // Killed, `exec` takes the program with it.
            wait_until("its end", || !lives(pid));
        }
    }
}

/// The kernel stops and continues `exec` without asking it. What differs is told in the docs.
#[test]
fn sigstop_stops_all_of_a_group_but_only_exec_where_it_is_sent_to_that() {
    for how in BOTH {
        let world = World::new(how);
        let mut command = world.probing(&["count", &world.name("seen")]);
        let mut child = command.process_group(0).spawn().unwrap();
        let counting = world.counting("seen");
        let to = counting.known_as();
        send(-to, libc::SIGSTOP);
        wait_until("a stop", || state(to) == 'T' && state(counting.pid) == 'T');
        send(-to, libc::SIGCONT);
        assert_eq!(counting.settled(libc::SIGCONT), 1, "{how:?}");
        send(to, libc::SIGSTOP);
        wait_until("a stop", || state(to) == 'T');
        if how == How::Exec {
            assert_ne!(state(counting.pid), 'T');
        }
        send(to, libc::SIGCONT);
        wait_until("both", || counting.count(libc::SIGCONT) == 2);
        counting.end();
        assert_eq!(raw(end_of(&mut child)), 7 << 8, "{how:?}");
    }
}
