//! Applying a profile that needs a fresh start: what the program has before, it has afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use malloc_stats::AllocatorKind;
use plimsoll_profiles::{Profile, Selected, apply, serving};

#[global_allocator]
static ALLOCATOR: Selected = Selected;

const INSIDE: &str = "PLIMSOLL_TEST_INSIDE";
const ODD: &[u8] = b"not \xff text";

/// Runs the test of this name again, in a process of its own.
fn again(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1");
    command
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

#[test]
fn a_fresh_start_keeps_name_identity_environment_directory_and_descriptors() {
    if is_inside() {
        apply(&Profile::find("jemalloc-background-1s").unwrap()).unwrap();
        // Only what was started afresh comes here.
        assert_eq!(serving(), AllocatorKind::Jemalloc);
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let file = std::env::current_exe().unwrap();
        let file = file.file_name().unwrap().as_bytes();
        let shown = file.len().min(15);
        assert_eq!(name.trim_end().as_bytes(), &file[..shown]);
        assert_eq!(std::env::var_os("ODD").unwrap(), OsStr::from_bytes(ODD));
        assert_eq!(
            std::env::var("GLIBC_TUNABLES").unwrap(),
            "glibc.pthread.rseq=0"
        );
        assert_eq!(std::env::current_dir().unwrap().as_os_str(), "/");
        let mut sent = String::new();
        std::io::stdin().read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "through a descriptor");
        println!("pid {}", std::process::id());
        return;
    }
    let mut child =
        again("a_fresh_start_keeps_name_identity_environment_directory_and_descriptors")
            .env("ODD", OsStr::from_bytes(ODD))
            .env(
                "GLIBC_TUNABLES",
                "glibc.malloc.tcache_count=3:glibc.pthread.rseq=0",
            )
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"through a descriptor").unwrap();
    drop(stdin);
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    assert!(text.contains(&format!("pid {pid}")), "{text}");
}

#[test]
fn settings_that_contradict_a_profile_go_and_it_ends_there() {
    if is_inside() {
        apply(&Profile::find("glibc-default").unwrap()).unwrap();
        assert_eq!(serving(), AllocatorKind::Libc);
        for name in [
            "GLIBC_TUNABLES",
            "MALLOC_ARENA_MAX",
            "_RJEM_MALLOC_CONF",
            "PLIMSOLL_ALLOCATOR",
        ] {
            assert_eq!(std::env::var_os(name), None, "{name}");
        }
        return;
    }
    let output = again("settings_that_contradict_a_profile_go_and_it_ends_there")
        .env("GLIBC_TUNABLES", "::glibc.malloc.arena_max=1:")
        .env("MALLOC_ARENA_MAX", "1")
        .env("_RJEM_MALLOC_CONF", OsStr::from_bytes(ODD))
        .env("PLIMSOLL_ALLOCATOR", "jemalloc")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}
