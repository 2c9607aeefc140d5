//! Other programs under a profile: real processes, looked at from outside.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod reach;
mod took;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds a C program; `None`, with the reason printed, where that compiler is not here.
fn build(compiler: &str, arguments: &[&str], source: &str, to: &Path) -> Option<PathBuf> {
    let file = to.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let output = Command::new(compiler)
        .args(arguments)
        .arg("-o")
        .arg(to)
        .arg(&file)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Some(to.to_path_buf()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            println!("skipped: {compiler} {arguments:?}: {why}");
            None
        }
        Err(error) => {
            println!("skipped: {compiler}: {error}");
            None
        }
    }
}
