//! CPython, which says itself what `mallinfo2` returns inside.

use std::path::PathBuf;
use std::process::Command;

use malloc_stats::Mallinfo;

use crate::agreement::Differences;
use crate::glibcs::{Glibc, minor};
use crate::look;
use crate::target::Target;
use crate::truth::PythonTruth;

/// The interpreter itself: what is on the path may be a script that finds it.
/// `PLIMSOLL_PYTHON` names another than `python3`, such as one with numpy.
fn interpreter() -> Option<PathBuf> {
    let named = std::env::var_os("PLIMSOLL_PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&named)
        .args(["-c", "import sys; sys.stdout.write(sys.executable)"])
        .output();
    match found {
        Ok(output) if output.status.success() => {
            Some(PathBuf::from(String::from_utf8(output.stdout).unwrap()))
        }
        Ok(output) => panic!(
            "{}: {}",
            named.display(),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => {
            eprintln!("skipped: no CPython: {}: {error}", named.display());
            None
        }
    }
}

#[test]
fn cpython_agrees() {
    let Some(interpreter) = interpreter() else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/targets/truth.py");
    for glibc in Glibc::all() {
        let mut command = glibc.run(&interpreter);
        command.arg(script);
        let Some((mut target, truth)) = Target::start::<PythonTruth>(command, &[]) else {
            assert!(!glibc.is_installed(), "{}", interpreter.display());
            eprintln!(
                "skipped: {} needs a newer one than {glibc}",
                interpreter.display()
            );
            continue;
        };
        let (pid, version, mallinfo) = match truth {
            PythonTruth::Told {
                pid,
                version,
                numpy,
                mallinfo,
            } => {
                if numpy.is_none() {
                    eprintln!("without numpy: {} has none", interpreter.display());
                }
                (pid, version, mallinfo)
            }
            PythonTruth::Skipped { skipped } => {
                eprintln!("skipped: {skipped}");
                continue;
            }
        };
        let heaps = look::heaps(pid).unwrap_or_else(|error| panic!("{glibc}: {error}"));
        let again: PythonTruth = target.ask("again");
        assert_eq!(told(&again), Some(&mallinfo), "it held still");
        let [heap] = &heaps[..] else {
            panic!("{glibc}: one heap, not {}", heaps.len());
        };
        let mut found = Differences::default();
        found.of_mallinfo(&mallinfo, &heap.totals.mallinfo);
        found.of_whole(minor(&version).unwrap(), heap);
        assert!(
            found.lines().is_empty(),
            "glibc {version}: {:#?}",
            found.lines()
        );
        // It freed 24 MiB that were mmapped.
        let settings = heap.settings.as_ref().unwrap();
        assert!(settings.has_risen(), "glibc {version}: {settings:?}");
    }
}

fn told(truth: &PythonTruth) -> Option<&Mallinfo> {
    match truth {
        PythonTruth::Told { mallinfo, .. } => Some(mallinfo),
        PythonTruth::Skipped { .. } => None,
    }
}
