//! What ends a wait for memory pressure: the kernel, other threads, and the clock.

#![allow(clippy::unwrap_used)]

mod cgroup;
mod kernel;
mod waits;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use malloc_stats::limits::watch::{PressureWatch, Woken};

/// Waits for what has to come true; long enough for a loaded machine.
fn until(what: &str, mut come_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !come_true() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The machine of the tests may be short of memory too, which is not what most of them ask.
fn wait_past_pressure(watch: &PressureWatch, timeout: Duration) -> Woken {
    loop {
        match watch.wait(timeout) {
            Woken::Pressure => {}
            other => return other,
        }
    }
}

/// Runs `wait` in a thread, and returns once that sleeps in it.
fn asleep<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (sender, receiver) = mpsc::channel();
    let thread = spawn(move || {
        sender.send(rustix::thread::gettid()).unwrap();
        drop(sender);
        wait()
    });
    let stat = format!("/proc/self/task/{}/stat", receiver.recv().unwrap());
    until("the thread sleeps", || {
        // The name in parentheses may hold anything; the state is after it.
        std::fs::read_to_string(&stat)
            .is_ok_and(|text| text.rsplit(')').next().unwrap().starts_with(" S"))
    });
    thread
}

/// A directory for the files of one test; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
