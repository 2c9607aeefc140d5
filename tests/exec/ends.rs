//! How it ends.

use crate::world::{BOTH, World, end_of, raw};

fn status_of(world: &World, words: &[&str]) -> i32 {
    raw(end_of(&mut world.probing(words).spawn().unwrap()))
}

#[test]
fn exit_codes_are_those_of_the_program() {
    for code in [0, 1, 2, 3, 125, 126, 127, 128, 137, 255] {
        let seen = BOTH.map(|how| status_of(&World::new(how), &["exit", &code.to_string()]));
        assert_eq!(seen, [code << 8, code << 8]);
    }
}

#[test]
fn death_by_a_signal_is_death_by_that_signal() {
    let signals = [
        libc::SIGTERM,
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGABRT,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGPIPE,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGALRM,
        libc::SIGBUS,
        libc::SIGXFSZ,
        libc::SIGSYS,
        libc::SIGRTMIN() + 3,
    ];
    for signal in signals {
        let seen = BOTH.map(|how| status_of(&World::new(how), &["die", &signal.to_string()]));
        assert_eq!(seen, [signal, signal]);
    }
}

#[test]
fn a_closed_pipe_ends_it_by_sigpipe() {
    for how in BOTH {
        let world = World::new(how);
        let mut yes = world.command(&["yes"]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = end_of(&mut yes.stdout(writer).spawn().unwrap());
        assert_eq!(raw(status), libc::SIGPIPE, "{how:?}");
    }
}

#[test]
fn a_script_without_a_first_line_runs_as_bare() {
    use std::os::unix::fs::PermissionsExt;
    for how in BOTH {
        let world = World::new(how);
        std::fs::write(world.path("script"), "exit 9\n").unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(world.path("script"), executable).unwrap();
        // Of a shell, which knows what to do with one.
        let line = world.line(&["./script".to_owned()]);
        let mut script = world.plain(["sh", "-c", &line].map(str::to_owned));
        assert_eq!(raw(end_of(&mut script.spawn().unwrap())), 9 << 8, "{how:?}");
    }
}
