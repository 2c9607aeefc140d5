//! This test binary as another program that stops a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use malloc_stats::inspect::pause::Paused;

const TARGET: &str = "PAUSE_TARGET";

/// The process that this program was started to stop, where it was.
pub fn asked() -> Option<u32> {
    std::env::var(TARGET).ok()?.parse().ok()
}

/// Makes a command run one test of this binary, which finds `target` by [`asked`].
pub fn ask(command: &mut Command, test: &str, target: &str) {
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(TARGET, target);
}

/// A test binary started by [`holding`]: holds the target until its input ends.
pub fn hold(pid: u32) {
    let paused = Paused::stop(pid).unwrap();
    let mut output = std::io::stdout().lock();
    output.write_all(b"\nHOLDING\n").unwrap();
    output.flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    paused.release().unwrap();
}

/// Starts another program that holds the process, and returns once it does. `test` calls [`hold`].
pub fn holding(test: &str, pid: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    ask(&mut command, test, &pid.to_string());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = output.by_ref().lines().map(Result::unwrap);
    assert!(
        lines.any(|line| line == "HOLDING"),
        "the other program holds {pid}"
    );
    // It has more to say, of how its test ended.
    child.stdout = Some(output.into_inner());
    child
}
