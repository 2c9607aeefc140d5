//! What becomes of the models' files when the benchmark does not end in order.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::files::{self, Scratch};
use crate::shapes::Planned;

const WITHIN: &str = "PLIMSOLL_TEST_WITHIN";

/// What the tests below run in a process of its own; by itself it does nothing.
#[test]
fn child() {
    let Some(within) = std::env::var_os(WITHIN) else {
        return;
    };
    let scratch = Scratch::new(Path::new(&within)).unwrap();
    scratch.heed_signals().unwrap();
    files::write(scratch.path(), &Planned::mlp(64, 128, 2)).unwrap();
    println!("\nin {}", scratch.path().display());
    if std::env::var_os("PLIMSOLL_TEST_PANIC").is_some() {
        panic!("in the midst of it");
    }
    std::thread::sleep(Duration::from_secs(60));
}

/// A child, once its file is there, and its folder.
fn started(within: &Path, panics: bool) -> (Child, PathBuf) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "removal::child", "--nocapture"])
        .env(WITHIN, within)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if panics {
        command.env("PLIMSOLL_TEST_PANIC", "1");
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let folder = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("in ").map(PathBuf::from));
    (child, folder.unwrap())
}

#[test]
fn a_signal_that_ends_the_process_removes_the_files() {
    let within = tempfile::tempdir().unwrap();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let (mut child, folder) = started(within.path(), false);
        assert!(folder.join("mlp.safetensors").exists());
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(!folder.exists());
    }
}

#[test]
fn a_panic_removes_the_files() {
    let within = tempfile::tempdir().unwrap();
    let (mut child, folder) = started(within.path(), true);
    assert!(!child.wait().unwrap().success());
    assert!(!folder.exists());
}

#[test]
fn what_a_kill_leaves_the_next_one_removes() {
    let within = tempfile::tempdir().unwrap();
    let (mut child, folder) = started(within.path(), false);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(folder.exists());
    let next = Scratch::new(within.path()).unwrap();
    assert!(!folder.exists());
    drop(next);
    assert_eq!(std::fs::read_dir(within.path()).unwrap().count(), 0);
}
