//! A thread that looks into a process at its own pace.

#![allow(clippy::unwrap_used)]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use malloc_stats::inspect::{Found, Looker, Target};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longer than any test: only what is asked for is looked at.
const HOUR: Duration = Duration::from_secs(3600);

struct Sleeps(Child);

impl Sleeps {
    fn new() -> Self {
        let command = Command::new("cat").stdin(Stdio::piped()).spawn();
        Self(command.unwrap())
    }

    fn target(&self) -> Arc<Target> {
        Arc::new(Target::open(self.0.id()).unwrap())
    }
}

impl Drop for Sleeps {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is found until the bell has rung with a look; at most a minute.
fn look(looker: &Looker) -> Found {
    let minute = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(looker.bell(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&minute)).unwrap(), 1, "it never rang");
        let found = looker.take();
        if found.inspection.is_some() || found.trouble.is_some() {
            return found;
        }
    }
}

#[test]
fn it_looks_at_once_then_when_asked_and_knows_what_it_took() {
    let (one, other) = (Sleeps::new(), Sleeps::new());
    let looker = Looker::begin(one.target(), HOUR).unwrap();
    let first = look(&looker).inspection.unwrap();
    assert_eq!(first.pid, one.0.id());
    let cpu = looker.cpu();
    assert!(!cpu.is_zero());
    assert!(looker.take().inspection.is_none());
    looker.look_now();
    assert_eq!(look(&looker).inspection.unwrap().pid, one.0.id());
    assert!(looker.cpu() > cpu);
    looker.turn_to(other.target());
    assert_eq!(look(&looker).inspection.unwrap().pid, other.0.id());
}
