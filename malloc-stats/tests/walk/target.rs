//! A running target, and the talk with it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::truth::Told;

/// Goes when it is dropped.
pub struct Target {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Target {
    /// Starts it with nothing from outside that would tune malloc. `None` where it tells nothing:
    /// it did not start.
    pub fn start<T: Told>(mut command: Command, environment: &[(&str, &str)]) -> Option<(Self, T)> {
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("MALLOC_") || name == "GLIBC_TUNABLES" || name == "LD_PRELOAD" {
                command.env_remove(&variable);
            }
        }
        let mut child = command
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut target = Self {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        let truth: T = target.answer()?;
        if let Some(pid) = truth.pid() {
            settle(pid);
        }
        Some((target, truth))
    }

    /// Sends a command, and waits for its answer.
    pub fn ask<T: DeserializeOwned>(&mut self, command: &str) -> T {
        // In one write: the target takes each read for a command.
        let line = format!("{command}\n");
        self.commands.write_all(line.as_bytes()).unwrap();
        self.answer()
            .unwrap_or_else(|| panic!("no answer to {command}"))
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| {
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // A child it forked ends with the pipe of commands.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the first thread sleeps: it has told its truth, and waits for a command.
fn settle(pid: u32) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        if after_name.starts_with('S') {
            return;
        }
        assert!(Instant::now() < until, "process {pid} never rests: {stat}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
