//! A home of its own for each test, with models and something that lives in it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::terminal::Terminal;

/// Nothing that is waited for takes so long, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The models that there are: their names, and bytes in KiB.
pub const MODELS: [(&str, usize); 4] = [
    ("alpha", 1536),
    ("bravo", 1024),
    ("charlie", 768),
    ("delta", 256),
];

/// Where a test runs the command: an empty home, working directory, cache and folder for sockets.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let world = World {
            dir: tempfile::tempdir().unwrap(),
        };
        let mut private = std::fs::DirBuilder::new();
        private.mode(0o700).create(world.path("run")).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command, with these arguments, not started yet.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color");
        for variable in [
            "LC_ALL",
            "LC_CTYPE",
            "COLORTERM",
            "NO_COLOR",
            "COLUMNS",
            "LINES",
            "PLIMSOLL_ALLOCATOR",
            "GLIBC_TUNABLES",
        ] {
            command.env_remove(variable);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, expects success, and reads the JSON it prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs it, expects exit code 2 and nothing on stdout, and gives what it said on stderr.
    pub fn refused(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(text(&output.stdout), "", "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// `plimsoll top` with these arguments in a terminal of so many columns and rows.
    pub fn top(&self, arguments: &[&str], size: (u16, u16)) -> Terminal {
        let arguments = std::iter::once("top").chain(arguments.iter().copied());
        Terminal::run(self.command(arguments), size)
    }

    /// The recording that is kept, with its moments told in the sources of its tests.
    pub fn recording(&self) -> &'static str {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/top/fixtures/serve.jsonl"
        )
    }

    /// A folder of [`MODELS`].
    fn models(&self) -> PathBuf {
        let folder = self.path("models");
        if !folder.exists() {
            std::fs::create_dir(&folder).unwrap();
            for (name, kib) in MODELS {
                model(&folder, name, kib << 10);
            }
        }
        folder
    }

    /// A run that goes on until it is ended.
    pub fn served(&self, steps: Steps, more: &[&str]) -> Served {
        let begin = if steps == Steps::Later { 5000 } else { 0 };
        let mut lines = String::new();
        if steps == Steps::Calm {
            for (name, _) in MODELS {
                let hold = if name == "alpha" { 3_600_000 } else { 0 };
                lines += &format!("{{\"lease\":[\"{name}\"],\"at_ms\":0,\"hold_ms\":{hold}}}\n");
            }
            lines += "{\"lease\":[\"alpha\"],\"at_ms\":3600000}\n";
        } else {
            for step in 0..36_000 {
                let name = MODELS[step % MODELS.len()].0;
                let at_ms = begin + step * 100;
                lines += &format!("{{\"lease\":[\"{name}\"],\"at_ms\":{at_ms}}}\n");
            }
        }
        std::fs::write(self.path("work.jsonl"), lines).unwrap();
        let models = self.models();
        let ram = if steps == Steps::Calm {
            "16MiB"
        } else {
            "2MiB"
        };
        let mut command = self.command(["run", "--json", "--workload", "work.jsonl"]);
        command
            .args(["--ram", ram, "--models"])
            .arg(&models)
            .args(more);
        Served::begin(command, &self.path("run/plimsoll"))
    }
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// All models come into RAM, alpha is leased for good, and nothing more happens.
    Calm,
    /// A lease every 100 ms, of models that do not fit beside each other.
    Busy,
    /// The same, after 5 s.
    Later,
}

/// A run that publishes.
pub struct Served {
    child: Child,
    pub socket: PathBuf,
}

impl Served {
    fn begin(mut command: Command, folder: &Path) -> Served {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let socket = folder.join(format!("{}.sock", child.id()));
        let until = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < until, "no {}", socket.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        Served { child, socket }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn at(&self) -> &str {
        self.socket.to_str().unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that knows nothing of this, with some memory, where Python is there to have it.
pub struct Foreign(Child);

impl Foreign {
    pub fn begin() -> Foreign {
        let script = "import sys\nkeep = [bytes(2000) for _ in range(20000)]\n\
                      print('up', flush=True)\nsys.stdin.read()";
        let python = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = python.unwrap_or_else(|_| {
            let mut cat = Command::new("cat");
            cat.stdin(Stdio::piped()).stdout(Stdio::null());
            cat.spawn().unwrap()
        });
        if let Some(stdout) = child.stdout.take() {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).unwrap();
        }
        Foreign(child)
    }

    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Has it end by itself.
    pub fn end(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn model(folder: &Path, name: &str, bytes: usize) {
    let data = vec![7_u8; bytes];
    let tensors = data.chunks(bytes / 4).enumerate().map(|(index, chunk)| {
        let view = TensorView::new(Dtype::U8, vec![chunk.len()], chunk).unwrap();
        (format!("layers.{index}.weight"), view)
    });
    let path = folder.join(format!("{name}.safetensors"));
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
