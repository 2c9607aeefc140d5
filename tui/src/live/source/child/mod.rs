//! A run of our own: a program that publishes its events to a socket, which is heard.
//!
//! `process` has what outlives the screen: the program itself, and what it printed.

mod process;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use plimsoll_events::Event;

use super::{About, Control, Heard, Source, SourceError, SourceKind};
use crate::live::state::Ended;

pub use self::process::{ChildHandle, Stopped};

/// How often a child is looked at that is waited for.
const TICK: Duration = Duration::from_millis(10);

/// How long the stream and the process may end apart, before the word of one is taken for both.
const APART: Duration = Duration::from_secs(2);

/// Opens what a child publishes. It is called again, for a while, where it fails.
pub type Connect = Box<dyn FnMut(&Path) -> Result<Box<dyn Source>, SourceError> + Send>;

/// A program of ours that runs for as long as this is there.
///
/// Dropping it ends the program in order: see [`ChildHandle::stop`].
pub struct ChildSource {
    handle: ChildHandle,
    socket: PathBuf,
    patience: Duration,
    connect: Connect,
    inner: Option<Box<dyn Source>>,
    started: Instant,
    /// The program is gone, or its stream is: since when, and what was said of the stream.
    gone: Option<Instant>,
    stream_ended: Option<(Instant, Ended)>,
    told: bool,
    told_stream: bool,
}

impl ChildSource {
    /// Starts a program that is to publish at a socket within a time. It is waited for by
    /// [`hear`](Source::hear), not here.
    ///
    /// The program gets no standard input, and a process group of its own, so that Ctrl-C on the
    /// terminal does not reach it. What it prints goes to files that nobody else can open.
    ///
    /// # Errors
    /// The program cannot be started, or there is no place for what it prints.
    pub fn start(
        command: Command,
        socket: &Path,
        patience: Duration,
        connect: Connect,
    ) -> Result<ChildSource, SourceError> {
        Ok(ChildSource {
            handle: ChildHandle::start(command)?,
            socket: socket.to_owned(),
            patience,
            connect,
            inner: None,
            started: Instant::now(),
            gone: None,
            stream_ended: None,
            told: false,
            told_stream: false,
        })
    }

    /// What is left of it when this is gone.
    #[must_use]
    pub fn handle(&self) -> ChildHandle {
        self.handle.clone()
    }

    /// Waits for the socket, and connects.
    fn wait_for_socket(&mut self, until: Instant) -> Result<Heard, SourceError> {
        loop {
            let late = self.started.elapsed() > self.patience;
            let mut said = String::new();
            if fs::symlink_metadata(&self.socket).is_ok() {
                match (self.connect)(&self.socket) {
                    Ok(inner) => {
                        self.inner = Some(inner);
                        return Ok(Heard::Events);
                    }
                    Err(error) => said = error.to_string(),
                }
            }
            // Looked at after the socket: what is over may have been short, and no failure.
            if let Some(status) = self.handle.outcome() {
                if status.success() {
                    return Ok(self.tell(", before anything was seen of it"));
                }
                let how = format!("{} before it told anything", how_it_ended(status));
                return Err(self.error(how, said));
            }
            if late {
                let seconds = self.started.elapsed().as_secs();
                let socket = self.socket.display();
                let how = format!("has told nothing at {socket} for {seconds} s");
                return Err(self.error(how, said));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Events);
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// With the last of what it said, after what is known besides.
    fn error(&self, how: String, mut said: String) -> SourceError {
        if !said.is_empty() {
            said.push('\n');
        }
        said.push_str(&self.handle.quote());
        SourceError::Child {
            program: self.handle.program().to_owned(),
            how,
            said,
        }
    }

    /// How the program ended, once it has.
    fn tell(&mut self, besides: &str) -> Heard {
        let Some(status) = self.handle.outcome().filter(|_| !self.told) else {
            return Heard::Events;
        };
        self.told = true;
        Heard::Ended(Ended {
            why: format!("the run {}{besides}", how_it_ended(status)),
            in_order: status.success(),
        })
    }

    /// With the stream at its end: waits for the end of the program.
    fn wait_for_end(&mut self, since: Instant, stream: Ended, until: Instant) -> Heard {
        loop {
            if self.handle.outcome().is_some() {
                return self.tell(&if stream.in_order {
                    String::new()
                } else {
                    format!(" ({})", stream.why)
                });
            }
            // A stream that broke says so soon; one that ended waits for its program.
            if !stream.in_order && !self.told_stream && since.elapsed() > APART {
                self.told_stream = true;
                return Heard::Ended(Ended {
                    why: format!("{}; the run goes on", stream.why),
                    in_order: false,
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Events;
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

impl Source for ChildSource {
    fn about(&self) -> About {
        match &self.inner {
            Some(inner) => {
                let about = inner.about();
                About {
                    pid: about.pid.or(Some(self.handle.pid())),
                    ..about
                }
            }
            None => About {
                name: format!("{}:{}", self.handle.program(), self.handle.pid()),
                kind: SourceKind::Cache,
                pid: Some(self.handle.pid()),
                ..About::default()
            },
        }
    }

    fn hear(&mut self, within: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        let until = Instant::now()
            .checked_add(within)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        if self.told {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            return Ok(Heard::Events);
        }
        if let Some((since, stream)) = self.stream_ended.clone() {
            return Ok(self.wait_for_end(since, stream, until));
        }
        let Some(inner) = &mut self.inner else {
            return self.wait_for_socket(until);
        };
        let before = into.len();
        let heard = inner.hear(within, into)?;
        if let Heard::Ended(stream) = heard {
            self.stream_ended = Some((Instant::now(), stream));
            return Ok(Heard::Events);
        }
        // A socket that somebody else still holds open does not end with the program.
        if into.len() > before || !matches!(heard, Heard::Events) {
            self.gone = None;
        } else if self.handle.outcome().is_some()
            && self.gone.get_or_insert_with(Instant::now).elapsed() > APART
        {
            return Ok(self.tell(""));
        }
        Ok(heard)
    }

    fn control(&mut self, control: Control) {
        if let Some(inner) = &mut self.inner {
            inner.control(control);
        }
    }
}

impl Drop for ChildSource {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// How a program ended, in words that follow its name.
fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended in order, exit code 0".to_owned(),
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("was killed by {name}"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended, nobody knows how".to_owned(),
    }
}
