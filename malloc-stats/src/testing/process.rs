//! Starts the process that measures, and waits for it.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;

use super::Fragmentation;
use super::Outcome;
use super::paper::{Asked, Paper, VARIABLE, Written};

/// The environment variable that says after how many seconds a measurement is given up; 600 without
/// it.
pub const SECONDS: &str = "MALLOC_STATS_MEASURE_SECONDS";

const DEFAULT_SECONDS: u64 = 600;

/// How much of the standard error of a process that failed is shown.
const SHOWN: usize = 4096;

/// How long the end of the process may go unnoticed.
const TICK: Duration = Duration::from_millis(10);

/// Has the measurement after the `earlier` ones taken.
pub(super) fn measure(
    test: &str,
    arguments: Option<&[String]>,
    index: usize,
    earlier: Vec<Outcome>,
) -> Result<Fragmentation, String> {
    let seconds = seconds()?;
    let failed = |what: &str, error: io::Error| {
        format!("measurement {} of {test:?}: {what}: {error}", index + 1)
    };
    let paper = Paper::new().map_err(|e| failed("memory to share (memfd_create)", e))?;
    paper
        .write(&Written::Asked(Asked::new(test, earlier)))
        .map_err(|e| failed("writing what to measure", e))?;
    let program = std::env::current_exe().map_err(|e| failed("finding this program", e))?;
    let mut command = Command::new(&program);
    match arguments {
        Some(arguments) => command.args(arguments),
        None => command.args([
            test,
            "--exact",
            "--nocapture",
            "--test-threads=1",
            "--include-ignored",
        ]),
    };
    let mut child = command
        .env(VARIABLE, paper.number())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&format!("starting {} again", program.display()), e))?;
    let (end, stderr) = wait(&mut child, Duration::from_secs(seconds))
        .map_err(|e| failed("waiting for its process", e))?;
    let reason = match (paper.read(), end) {
        (Ok(Written::Measured(seen)), Some(_)) => return Ok(seen),
        (_, None) => {
            format!("was not done after {seconds} s and was ended; {SECONDS} sets another bound")
        }
        (Ok(Written::Failed(reason)), _) => format!("failed: {reason}"),
        (Ok(Written::Begun), Some(status)) => {
            format!("did not come to its end: the closure's process ended with {status}")
        }
        (Ok(Written::Asked(_)), Some(status)) => format!(
            "was never come to: the process started for it ended with {status} before the call. Is \
             the test called {test:?}, as --list prints it \
             (Fragmentation::measure().named(…) tells another name), and does it take the same way \
             each time?"
        ),
        (Err(error), Some(status)) => {
            format!("left no result that can be read ({error}); its process ended with {status}")
        }
    };
    let stderr = stderr.trim();
    let said = if stderr.is_empty() {
        String::new()
    } else {
        format!("\nThe end of its standard error:\n{stderr}")
    };
    Err(format!(
        "measurement {} of the test {test:?} {reason}{said}",
        index + 1
    ))
}

fn seconds() -> Result<u64, String> {
    let Some(text) = std::env::var_os(SECONDS) else {
        return Ok(DEFAULT_SECONDS);
    };
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(seconds @ 1..) => Ok(seconds),
        _ => Err(format!(
            "{SECONDS}={text:?} is no number of seconds; write one such as 1200"
        )),
    }
}

/// How it ended, `None` where it had to be ended; and the end of what it said.
fn wait(child: &mut Child, patience: Duration) -> io::Result<(Option<ExitStatus>, String)> {
    let deadline = Instant::now().checked_add(patience);
    let mut stderr = child.stderr.take();
    if let Some(pipe) = &stderr {
        ioctl_fionbio(pipe, true)?;
    }
    let mut said = Vec::new();
    let end = loop {
        // Asked before the pipe is read, so that nothing said before the end is missed. The pipe
        // itself may stay open in processes that outlive this one.
        let end = child.try_wait()?;
        drain(&mut stderr, &mut said);
        if end.is_some() {
            break end;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            child.kill()?;
            child.wait()?;
            break None;
        }
        pause(stderr.as_ref());
    };
    Ok((end, String::from_utf8_lossy(&said).into_owned()))
}

/// Reads what there is, within a bound, and keeps the last of it.
fn drain(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) {
    let mut some = [0; 4096];
    for _ in 0..64 {
        let Some(pipe) = stderr else { return };
        match pipe.read(&mut some) {
            Ok(length) if length > 0 => {
                said.extend(some.iter().take(length));
                let surplus = said.len().saturating_sub(SHOWN);
                said.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => *stderr = None,
        }
    }
}

fn pause(stderr: Option<&ChildStderr>) {
    let Some(pipe) = stderr else {
        return std::thread::sleep(TICK);
    };
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(TICK.subsec_nanos()),
    };
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    // Where it cannot be polled, the next turn finds out.
    let _ = poll(&mut polled, Some(&tick));
}
