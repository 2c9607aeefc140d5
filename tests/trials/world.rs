//! A folder of its own for each test, and the command run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Where a test runs the command.
pub struct World {
    dir: tempfile::TempDir,
}

/// What a run of the command came to.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub said: String,
}

impl World {
    pub fn new() -> World {
        World {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What stands in a file; nothing where there is none.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    pub fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<String> = files
            .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        files
    }

    /// The command with these arguments, not started yet.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(arguments);
        self.tidy(&mut command);
        command
    }

    /// A shell. `$PLIMSOLL` is the command in it.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        self.tidy(&mut command);
        command
    }

    fn tidy(&self, command: &mut Command) {
        command
            .current_dir(self.dir.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("PLIMSOLL", env!("CARGO_BIN_EXE_plimsoll"))
            .stdin(Stdio::null());
        for variable in [
            "GITHUB_ACTIONS",
            "PLIMSOLL_ALLOCATOR",
            "PLIMSOLL_MARKS",
            "GLIBC_TUNABLES",
            "MALLOC_MMAP_THRESHOLD_",
        ] {
            command.env_remove(variable);
        }
    }

    /// Runs the command; `line` is split at spaces, and `command` goes behind `--`, if it is not
    /// empty.
    pub fn run(&self, line: &str, command: &[&str]) -> Ran {
        let words = line.split_whitespace();
        let rest = (!command.is_empty()).then_some("--").into_iter();
        finish(&mut self.command(words.chain(rest).chain(command.iter().copied())))
    }
}

/// Runs it to its end.
pub fn finish(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let ran = Ran {
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        said: String::from_utf8_lossy(&stderr).into_owned(),
    };
    assert!(!ran.said.contains("panicked"), "{}", ran.said);
    ran
}

impl Ran {
    /// It ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Ran {
        let Ran { out, said, .. } = &self;
        assert_eq!(self.code, Some(code), "{out}\n{said}");
        self
    }

    /// All of these stand in what it printed or said.
    #[track_caller]
    pub fn tells(self, words: &[&str]) -> Ran {
        let all = format!("{}\n{}", self.out, self.said);
        for word in words {
            assert!(all.contains(word), "`{word}` is not in: {all}");
        }
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {}", self.out))
    }
}

/// Python itself, and no shim in front of it; where there is none, says so.
pub fn python() -> Option<String> {
    let asked = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    match asked {
        Ok(Output { status, stdout, .. }) if status.success() => {
            Some(String::from_utf8_lossy(&stdout).trim().to_owned())
        }
        _ => {
            eprintln!("skipped: there is no python3");
            None
        }
    }
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
