//! Commands that end as they should not, or not at all.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::World;

const ONCE: &str = "compare --profile glibc-default -n 1 --warm-up 0";

#[test]
fn a_command_that_fails_is_quoted() {
    let world = World::new();
    let fails = ["sh", "-c", "echo the disk is full >&2; exit 3"];
    world
        .run(ONCE, &fails)
        .ends(1)
        .tells(&["glibc-default", "exit code 3", "the disk is full"]);
    world
        .run("check --baseline memory.json --update -n 1", &fails)
        .ends(1)
        .tells(&["exit code 3", "the disk is full"]);
    assert!(!world.path("memory.json").exists());
}

#[test]
fn a_command_that_dies_by_a_signal_is_no_trial_whatever_is_allowed() {
    let world = World::new();
    let dies = ["sh", "-c", "kill -SEGV $$"];
    world.run(ONCE, &dies).ends(1).tells(&["SIGSEGV"]);
    let any = format!("{ONCE} --any-code");
    world.run(&any, &dies).ends(1).tells(&["SIGSEGV"]);
}

#[test]
fn any_code_is_good_where_that_is_said() {
    let world = World::new();
    let any = format!("{ONCE} --any-code");
    world
        .run(&any, &["sh", "-c", "$PLIMSOLL mark dropped; exit 3"])
        .ends(0);
}

#[test]
fn a_server_is_ended_after_a_while_with_all_its_processes() {
    let world = World::new();
    let server = ["sh", "-c", "echo $$ > one; sleep 600 & echo $! > two; wait"];
    world.run(&format!("{ONCE} --for 500ms"), &server).ends(0);
    for name in ["one", "two"] {
        assert!(is_gone(world.read(name).trim()), "{name} is still there");
    }
}

#[test]
fn an_interruption_ends_all_of_it() {
    for line in ["compare", "check --baseline memory.json --update"] {
        let world = World::new();
        let words = line.split(' ').chain(["--", "sh", "-c"]);
        let server = "echo $$ > one; sleep 600 & echo $! > two; wait";
        let mut command = world.command(words.chain([server]));
        let mut command = command
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        until(|| world.read("two").ends_with('\n'));
        let pid = i32::try_from(command.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let code = command.wait().unwrap().code();
        let mut said = String::new();
        let mut stderr = command.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(code, Some(130), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        for name in ["one", "two"] {
            assert!(is_gone(world.read(name).trim()), "{name} is still there");
        }
        assert!(!world.path("memory.json").exists());
    }
}

/// Waits for something that comes within a minute on any machine.
fn until(mut come: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !come() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process has ended; a dead one that nobody waited for has.
fn is_gone(pid: &str) -> bool {
    assert!(pid.parse::<u32>().is_ok(), "`{pid}` is no process");
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.map_or(true, |stat| stat.contains(") Z"))
}
