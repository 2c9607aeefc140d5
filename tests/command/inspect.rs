//! `plimsoll inspect` and `plimsoll ps` on real processes.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{World, text};

/// A process that waits until it is dropped.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Sleeper {
        Sleeper(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command with an hour between its looks, and waits until it has taken the first: from
/// then on it catches SIGINT.
fn between_looks(world: &World, pid: &str) -> Child {
    let arguments = ["inspect", pid, "--for", "1h", "--json"];
    let mut child = world
        .command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let is_caught = || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & 1 << (Signal::INT.as_raw() - 1) != 0)
    };
    while !is_caught() {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it ended before its first look"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

#[test]
fn processes_that_are_not_there_are_refused_by_what_was_asked_for() {
    let world = World::new();
    for asked in ["4194305", "no-process-is-called-so"] {
        let said = world.refused(&["inspect", asked]);
        assert!(said.contains(asked), "{said}");
    }
    let said = world.refused(&["inspect", "a\x1b[2J"]);
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn a_heap_that_may_not_be_read_is_a_failure_with_the_way_out() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root has processes that others may not read");
        return;
    }
    let sleeper = Sleeper::new();
    // Not everybody may enter the directory of the build.
    let copy = tempfile::Builder::new().prefix("plimsoll").tempfile();
    let (_, path) = copy.unwrap().keep().unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_plimsoll"), &path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let inspect = || {
        let mut command = Command::new(&path);
        command.args(["inspect", &sleeper.pid()]);
        command.uid(65534).gid(65534).output()
    };
    let mut output = inspect();
    // A child that another test starts just now holds what was open for writing, until it executes.
    while matches!(&output, Err(error) if error.kind() == ErrorKind::ExecutableFileBusy) {
        std::thread::yield_now();
        output = inspect();
    }
    std::fs::remove_file(&path).unwrap();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let page = text(&output.stdout);
    let way = format!("sudo plimsoll inspect {}", sleeper.pid());
    assert!(text(&output.stderr).contains(&way), "{page}");
    assert!(
        page.contains("RSS") && page.contains("not-walkable"),
        "{page}"
    );
    assert!(!page.contains("memory by class"), "{page}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let world = World::new();
    let own = std::process::id().to_string();
    for (arguments, word) in [
        (&["inspect", &own, "--map=0x9"][..], "100x30"),
        (&["inspect", &own, "--for", "0s"], "30s"),
        (&["inspect", &own, "--map", "--json"], "--json"),
        (&["ps", "--sort", "size"], "waste"),
        (&["ps", "--sort", "waste", "--no-heaps"], "--no-heaps"),
        (&["ps", "--all", "--top", "1"], "--top"),
    ] {
        let said = world.refused(arguments);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn the_help_says_what_a_pause_may_do_and_what_permission_is_needed() {
    let said = text(&World::new().run(&["inspect", "--help"]).stdout);
    for word in [
        "EINTR",
        "epoll_wait",
        "ptrace_scope",
        "CAP_SYS_PTRACE",
        "130",
    ] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
}

#[test]
fn a_live_process_has_a_page_and_a_json_object() {
    let (world, sleeper) = (World::new(), Sleeper::new());
    let output = world.run(&["inspect", &sleeper.pid()]);
    let page = text(&output.stdout);
    assert!(
        page.starts_with(&format!("{} sleep 1000\n", sleeper.pid())),
        "{page}"
    );
    let at = |heading: &str| {
        let found = page.find(&format!("\n{heading}\n"));
        found.unwrap_or_else(|| panic!("no {heading} in {page}"))
    };
    assert!(at("verdict") < at("headroom") && at("headroom") < at("allocator"));
    let output = world.run(&["inspect", &sleeper.pid(), "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["pid"].to_string(), sleeper.pid());
    assert!(
        json["process"]["rss"]["bytes"].as_u64().unwrap() > 0,
        "{json}"
    );
    assert!(json.get("growth").is_none());
}

#[test]
fn two_looks_have_the_growth_between_them() {
    let (world, sleeper) = (World::new(), Sleeper::new());
    let arguments = ["inspect", &sleeper.pid(), "--for", "200ms", "--json"];
    let output = world.run(&arguments);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["growth"].is_object(), "{json}");
}

#[test]
fn an_interrupt_between_looks_takes_the_second_now() {
    let (world, sleeper) = (World::new(), Sleeper::new());
    let child = between_looks(&world, &sleeper.pid());
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["growth"].is_object(), "{json}");
}

#[test]
fn a_process_that_ends_between_looks_leaves_the_first() {
    let (world, sleeper) = (World::new(), Sleeper::new());
    let pid = sleeper.pid();
    let child = between_looks(&world, &pid);
    drop(sleeper);
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no second look"), "{said}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["pid"].to_string(), pid);
    assert!(json.get("growth").is_none(), "{json}");
}

#[test]
fn processes_are_listed_by_memory() {
    let (world, sleeper) = (World::new(), Sleeper::new());
    let listed = world.json(&["ps", "--all", "--no-heaps", "--json"]);
    let listed = listed.as_array().unwrap();
    let own = listed.iter().find(|one| one["pid"] == sleeper.0.id());
    let own = own.unwrap();
    assert_eq!(own["command"], "sleep 1000");
    assert_eq!(own["waste_absent"], "-");
    let rss = |one: &Value| one["rss"]["bytes"].as_u64().unwrap();
    assert!(listed.windows(2).all(|two| rss(&two[0]) >= rss(&two[1])));
    let first = world.json(&["ps", "--top", "1", "--json"]);
    assert_eq!(first.as_array().unwrap().len(), 1);
    let page = text(&world.run(&["ps", "--top", "2"]).stdout);
    assert!(page.lines().next().unwrap().contains("PID"), "{page}");
    assert!(page.contains(" processes (--all)"), "{page}");
}
