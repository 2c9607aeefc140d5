//! A folder of its own for each test, and the command run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// Where a test runs the command: an empty home, working directory and cache.
pub struct World {
    dir: tempfile::TempDir,
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

    /// The command, with these arguments, not started yet.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("PLIMSOLL_ALLOCATOR")
            .env_remove("GLIBC_TUNABLES");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, expects success, and reads the JSON it prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs it, expects exit code 2 and nothing on stdout, and gives what it said on stderr.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// Makes a folder `models` with models of the given bytes, by the safetensors library.
    pub fn models(&self, models: &[(&str, usize)]) -> PathBuf {
        let folder = self.path("models");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in models {
            model(&folder, name, *bytes);
        }
        folder
    }
}

pub fn model(folder: &Path, name: &str, bytes: usize) {
    let data: Vec<u8> = (0..bytes)
        .map(|at| (at * 31 + name.len() * 7 + at / 977) as u8)
        .collect();
    let part = (bytes / 3).max(1);
    let tensors = data.chunks(part).enumerate().map(|(index, chunk)| {
        let view = TensorView::new(Dtype::U8, vec![chunk.len()], chunk).unwrap();
        (format!("layer.{index}"), view)
    });
    let path = folder.join(format!("{name}.safetensors"));
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
