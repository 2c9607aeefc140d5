//! A process stopped for a moment: all of it stands still, and all of it goes on.

#![allow(clippy::unwrap_used)]

mod goes_on;
mod interrupted;
mod pauser;
mod refused;
mod signals;
mod stands_still;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits for what has to come true; long enough for a loaded machine.
fn until(what: &str, mut come_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !come_true() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        sleep(Duration::from_millis(2));
    }
}

/// A C program of this directory, running; its counters are in a file that it maps.
struct Target {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    directory: PathBuf,
    slots: Option<File>,
}

impl Target {
    /// Compiles and starts `source`; `None`, and words, where there is no C compiler. `test` names
    /// the directory of its files.
    fn start(test: &str, source: &str, arguments: &[&str]) -> Option<Self> {
        let name = format!("pause-{test}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let program = directory.join("target");
        let compiled = Command::new("cc")
            .args(["-O1", "-pthread", "-o"])
            .arg(&program)
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("tests/pause")
                    .join(source),
            )
            .status();
        match compiled {
            Ok(status) => assert!(status.success(), "{source} does not compile"),
            Err(error) => {
                println!("skipped: no C compiler to build the target with (cc: {error})");
                return None;
            }
        }
        let slots = directory.join("slots");
        let mut child = Command::new(program)
            .arg(&slots)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut target = Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            directory,
            slots: None,
        };
        assert_eq!(target.line(), "READY");
        target.slots = File::open(slots).ok();
        Some(target)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Its counters now, all read at once.
    fn slots(&self) -> Vec<u64> {
        let mut bytes = [0; 4096];
        let read = self.slots.as_ref().unwrap().read_at(&mut bytes, 0).unwrap();
        let slots = bytes[..read].chunks_exact(8);
        slots
            .map(|slot| u64::from_ne_bytes(slot.try_into().unwrap()))
            .collect()
    }

    /// The counters of its threads (`counting.c`).
    fn counters(&self) -> Vec<u64> {
        self.slots().split_off(2)
    }

    /// Waits until every thread of `counting.c` has counted on.
    fn assert_counts_on(&self) {
        let before = self.counters();
        until("every thread counts on", || {
            before
                .iter()
                .zip(self.counters())
                .all(|(before, now)| *before < now)
        });
    }

    /// Sees that no counter moves. That can only fail where something runs.
    fn assert_stands_still(&self) {
        let before = self.slots();
        for _ in 0..10 {
            sleep(Duration::from_millis(2));
            assert_eq!(before, self.slots(), "it counts on while it is stopped");
        }
    }

    /// The values of a field of the status of each thread.
    fn of_threads(&self, field: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let statuses = tasks.filter_map(|task| {
            // A thread may end between the two.
            std::fs::read_to_string(task.ok()?.path().join("status")).ok()
        });
        statuses.map(|status| field_of(&status, field)).collect()
    }

    fn assert_untraced(&self) {
        assert!(
            self.of_threads("TracerPid")
                .iter()
                .all(|tracer| tracer == "0")
        );
    }

    fn signal(&self, signal: libc::c_int) {
        send_signal(self.pid(), signal);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn field_of(status: &str, field: &str) -> String {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    value.unwrap().to_owned()
}

fn send_signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill(2) touches no memory of this process.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}
