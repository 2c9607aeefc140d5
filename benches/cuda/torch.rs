//! PyTorch, in a process beside this one, which does in turns with it what it is asked for.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SCRIPT: &str = include_str!("torch.py");

/// The longest that it may take for an answer.
const PATIENCE: Duration = Duration::from_secs(600);

/// How it brings weights to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `.to("cuda")` and `.to("cpu")`.
    To,
    /// A state dict kept on the CPU, pageable.
    Pageable,
    /// The same, page-locked.
    Pinned,
}

impl Scheme {
    pub const ALL: [Scheme; 3] = [Scheme::To, Scheme::Pageable, Scheme::Pinned];

    pub fn name(self) -> &'static str {
        match self {
            Scheme::To => "to",
            Scheme::Pageable => "pageable",
            Scheme::Pinned => "pinned",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Scheme::To => ".to(\"cuda\"), .to(\"cpu\")",
            Scheme::Pageable => "kept copy, pageable",
            Scheme::Pinned => "kept copy, pinned",
        }
    }
}

/// What it is.
#[derive(Debug, Clone, Deserialize)]
pub struct About {
    pub torch: String,
    pub cuda: Option<String>,
    pub device: String,
}

/// One load and unload.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Round {
    pub load_s: f64,
    pub unload_s: f64,
    /// Bytes that it had on the device in between.
    pub allocated: u64,
    /// Bytes that it has there after.
    pub left: u64,
}

/// The process.
#[derive(Debug)]
pub struct Torch {
    child: Child,
    /// `None` only while it is being ended.
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    pub about: About,
}

impl Torch {
    /// Starts it on a device.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn start(python: &str, ordinal: u32) -> Result<Torch, String> {
        let mut child = Command::new(python)
            .args(["-u", "-c", SCRIPT, &ordinal.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{python}: {error}"))?;
        let requests = child.stdin.take();
        let (told, answers) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if told.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let mut torch = Torch {
            child,
            requests,
            answers,
            about: About {
                torch: String::new(),
                cuda: None,
                device: String::new(),
            },
        };
        torch.about = torch.answer()?;
        Ok(torch)
    }

    /// Reads the files as a scheme keeps them. What was there before goes first.
    ///
    /// # Errors
    /// Its words.
    pub fn prepare(&mut self, scheme: Scheme, files: &[PathBuf]) -> Result<(), String> {
        let request = json!({ "do": "prepare", "scheme": scheme.name(), "files": files });
        self.ask::<Value>(&request).map(drop)
    }

    /// Loads and unloads once.
    ///
    /// # Errors
    /// Its words.
    pub fn round(&mut self, gives_back: bool) -> Result<Round, String> {
        self.ask(&json!({ "do": "round", "give_back": gives_back }))
    }

    /// Lets go of everything but its context.
    ///
    /// # Errors
    /// Its words.
    pub fn release(&mut self) -> Result<(), String> {
        self.ask::<Value>(&json!({ "do": "release" })).map(drop)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T, String> {
        let requests = self.requests.as_mut().ok_or("it has ended")?;
        writeln!(requests, "{request}").map_err(|error| format!("it has ended: {error}"))?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let line = self
            .answers
            .recv_timeout(PATIENCE)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => format!("no answer within {} s", PATIENCE.as_secs()),
                RecvTimeoutError::Disconnected => match self.child.wait() {
                    Ok(status) => format!("it ended: {status}"),
                    Err(error) => format!("it ended: {error}"),
                },
            })?;
        let answer: Value = serde_json::from_str(&line)
            .map_err(|error| format!("{}: {error}", line.escape_debug()))?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            return Err(error.escape_debug().to_string());
        }
        serde_json::from_value(answer).map_err(|error| error.to_string())
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It ends when there is nothing more to read.
        self.requests = None;
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
