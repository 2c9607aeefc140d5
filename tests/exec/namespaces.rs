//! In a namespace of PIDs of its own, as in a container: as its first process, and where `/proc`
//! numbers processes otherwise than the kernel does.

use std::process::{Command, Output};

use crate::world::{How, World};

/// Runs `exec` with a shell's words as the first process of a namespace, in the group of a process
/// outside. `None` where one cannot be made.
fn first_process(world: &World, options: &[&str], script: &str) -> Option<Output> {
    let may = Command::new("unshare").args(["-pf", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no namespace of PIDs can be made here");
        return None;
    }
    let exec = world.exec(&["--json"]);
    let words = ["unshare", "-pf"].iter().chain(options).copied();
    let words = words.chain(exec.iter().map(String::as_str));
    let words = words.chain(["sh", "-c", script]).map(str::to_owned);
    Some(world.plain(words).output().unwrap())
}

fn report(world: &World) -> serde_json::Value {
    serde_json::from_str(&world.text("report")).unwrap()
}

#[test]
fn the_first_process_ends_as_its_command_does() {
    for (script, code) in [
        ("exit 3", 3),
        // The kernel ends no first process by a signal of its own: as shells tell it.
        ("kill -TERM $$", 128 + libc::SIGTERM),
        ("(sleep 0.2; echo late) & exit 4", 4),
    ] {
        let world = World::new(How::Exec);
        let Some(output) = first_process(&world, &["--mount-proc"], script) else {
            return;
        };
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
        let late = script.contains("late").then_some("late\n");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(out, late.unwrap_or_default(), "{script}");
    }
}

/// The numbers there are of other processes, which are not to be looked at, or killed, for ours.
#[test]
fn where_proc_has_other_numbers_nobody_else_is_looked_at() {
    let world = World::new(How::Exec);
    let Some(output) = first_process(&world, &[], "sleep 0.3; exit 5") else {
        return;
    };
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let report = report(&world);
    assert_eq!(report["samples"], 0, "{report:#}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("another namespace of PIDs"), "{notes}");
}

#[test]
fn where_proc_has_other_numbers_nobody_else_is_ended() {
    let world = World::new(How::Exec);
    let options = ["--for", "300ms"];
    let Some(_) = first_process(&world, &[], "true") else {
        return;
    };
    let mut words = vec!["unshare".to_owned(), "-pf".to_owned()];
    words.extend(world.exec(&options));
    words.extend(["sleep", "100"].map(str::to_owned));
    let mut bystander = Command::new("sleep").arg("100").spawn().unwrap();
    let output = world.plain(words).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(128 + libc::SIGTERM),
        "{output:?}"
    );
    assert_eq!(bystander.try_wait().unwrap(), None);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}
