//! From a script to the program that runs it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::obstacle::Obstacle;
use super::resolve::{self, Run};
use crate::elf::{self, Unopened};
use crate::knob::KNOBS;
use crate::launch::{JEMALLOC_CONF, PRELOAD, TUNABLES};
use crate::profile::Profile;

/// How much of a file the kernel reads to tell what it is (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// How many interpreters the kernel follows one another (`exec_binprm`).
const MOST_INTERPRETERS: usize = 5;

/// Where a program leads.
pub(super) struct Followed {
    /// The last file that was looked at.
    pub(super) path: PathBuf,
    /// The file, where it is one that can be run, and can be read.
    pub(super) file: Option<(PathBuf, File)>,
}

/// Goes from script to interpreter until there is a program.
pub(super) fn follow(program: &Path, profile: &Profile, obstacles: &mut Vec<Obstacle>) -> Followed {
    let mut path = program.to_path_buf();
    for _ in 0..=MOST_INTERPRETERS {
        let file = match open(&path) {
            Ok(file) => file,
            Err(obstacle) => {
                obstacles.push(obstacle);
                return Followed { path, file: None };
            }
        };
        let line = match first_line(&file) {
            Ok(Some(line)) => line,
            Ok(None) => {
                return Followed {
                    path: path.clone(),
                    file: Some((path, file)),
                };
            }
            Err(reason) => {
                obstacles.push(Obstacle::UnknownFormat {
                    path: path.clone(),
                    reason,
                });
                return Followed { path, file: None };
            }
        };
        let next = line.program(&path, profile, obstacles);
        obstacles.push(Obstacle::Script {
            path,
            interpreter: next.clone(),
        });
        path = next;
    }
    obstacles.push(Obstacle::ScriptLoop {
        path: program.to_path_buf(),
    });
    Followed { path, file: None }
}

fn open(path: &Path) -> Result<File, Obstacle> {
    let path = path.to_path_buf();
    let opened = elf::open(&path);
    if let Err(Unopened::NotAFile(what)) = opened {
        return Err(Obstacle::NotAFile { path, what });
    }
    match resolve::runnable(&path) {
        Run::Yes => {}
        Run::Absent => {
            let reason = "there is no such file".to_owned();
            return Err(Obstacle::Missing { path, reason });
        }
        Run::No(reason) => {
            return Err(match path.metadata() {
                Ok(_) => Obstacle::NotExecutable { path },
                Err(_) => Obstacle::Missing { path, reason },
            });
        }
    }
    opened.map_err(|error| Obstacle::Unreadable {
        path,
        reason: match error {
            Unopened::Io(error) => error.to_string(),
            Unopened::NotAFile(what) => format!("it is {what}"),
        },
    })
}

/// What stands after `#!`.
struct FirstLine {
    interpreter: PathBuf,
    /// All that follows is one argument.
    argument: OsString,
}

/// The first line of a script; `None` where the file is none.
fn first_line(file: &File) -> Result<Option<FirstLine>, &'static str> {
    let mut head = [0; HEAD];
    let mut filled = 0;
    while filled < HEAD {
        match file.read_at(&mut head[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err("it cannot be read"),
        }
    }
    let head = &head[..filled];
    let Some(line) = head.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let end = line.iter().position(|byte| matches!(byte, b'\n' | 0));
    let whole = end.is_some() || filled < HEAD;
    let line = line[..end.unwrap_or(line.len())].trim_ascii();
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let (interpreter, argument) = match line.iter().position(blank) {
        Some(at) => (&line[..at], line[at..].trim_ascii()),
        None if !whole => return Err("its first line is longer than the kernel reads"),
        None => (line, &b""[..]),
    };
    if interpreter.is_empty() {
        return Err("its first line names no interpreter");
    }
    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Ok(Some(FirstLine {
        interpreter: owned(interpreter).into(),
        argument: owned(argument),
    }))
}

impl FirstLine {
    /// The program that runs the script. `env(1)` is looked through.
    fn program(self, script: &Path, profile: &Profile, obstacles: &mut Vec<Obstacle>) -> PathBuf {
        if self.interpreter.file_name() != Some(OsStr::new("env")) {
            return self.interpreter;
        }
        let mut clears = |what: &[u8]| {
            obstacles.push(Obstacle::ClearsEnvironment {
                path: script.to_path_buf(),
                what: String::from_utf8_lossy(what).into_owned(),
            });
        };
        let ours = |name: &[u8]| !super::asks_nothing(profile) && is_of_profile(name);
        let argument = self.argument.as_bytes();
        let split = argument
            .strip_prefix(b"-S")
            .or_else(|| argument.strip_prefix(b"--split-string="))
            .or_else(|| argument.strip_prefix(b"-vS"));
        let Some(split) = split else {
            return command(argument).unwrap_or(self.interpreter);
        };
        let mut words = split
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            match word {
                b"-i" | b"-" | b"--ignore-environment" if !super::asks_nothing(profile) => {
                    clears(b"the environment");
                }
                b"-u" | b"--unset" => {
                    if let Some(name) = words.next().filter(|name| ours(name)) {
                        clears(name);
                    }
                }
                b"-C" | b"--chdir" => {
                    words.next();
                }
                word if word.starts_with(b"-") => {}
                word => match word.iter().position(|byte| *byte == b'=') {
                    Some(at) if ours(&word[..at]) => clears(&word[..at]),
                    Some(_) => {}
                    None => return command(word).unwrap_or(self.interpreter),
                },
            }
        }
        self.interpreter
    }
}

/// The file of a command; a path that does not lead anywhere is left as it is, and said later.
fn command(word: &[u8]) -> Option<PathBuf> {
    if word.is_empty() {
        return None;
    }
    let word = OsStr::from_bytes(word);
    Some(resolve::resolve(word).unwrap_or_else(|_| word.into()))
}

/// Whether a profile may have set this variable.
fn is_of_profile(name: &[u8]) -> bool {
    let knobs = KNOBS.iter().flat_map(|knob| knob.variables).copied();
    [PRELOAD, TUNABLES, JEMALLOC_CONF]
        .into_iter()
        .chain(knobs)
        .any(|variable| variable.as_bytes() == name)
}
