//! Each allocator, where the loader or the linker put it.

use std::process::Command;

use malloc_stats::Metric;

use super::{Built, Waiting, library};

fn version_of(said: &str) -> (u32, u32) {
    let mut numbers = said.split('.').map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn glibc_is_found_with_its_own_version() {
    let Some(built) = Built::with("cc", "waits.c", &[]) else {
        return;
    };
    let process = Waiting::program(&built.path);
    if process.said == "none" {
        return println!("skipped: the system's C library is not glibc");
    }
    let found = process.detection();
    let detected = &found.detected;
    assert_eq!(detected.name, "glibc");
    assert_eq!(detected.version.as_deref(), Some(process.said.as_str()));
    assert_eq!(detected.placement, "library");
    assert!(detected.walkable && detected.reason.is_none(), "{found:?}");
    assert!(detected.mappings_rss.is_unavailable());
    assert!(
        detected.others.is_empty() && found.notes.is_empty(),
        "{found:?}"
    );
    let [libc] = &found.libcs[..] else {
        panic!("{found:?}");
    };
    assert_eq!(libc.version, Some(version_of(&process.said)));
    assert_eq!(Some(&libc.path), detected.object.as_ref());
}

#[test]
fn glibc_in_a_static_program_is_found_stripped_or_not() {
    for flags in [&["-static"][..], &["-static", "-s"], &["-static-pie", "-s"]] {
        let Some(built) = Built::with("cc", "waits.c", flags) else {
            continue;
        };
        let process = Waiting::program(&built.path);
        let found = process.detection();
        let detected = &found.detected;
        assert_eq!(detected.name, "glibc", "{flags:?} {found:?}");
        assert_eq!(detected.placement, "static");
        assert!(detected.walkable && detected.others.is_empty(), "{found:?}");
        let path = built.path.canonicalize().unwrap();
        assert_eq!(found.libcs[0].path, path.to_str().unwrap());
        // A static program need not have the banner.
        if let Some(version) = found.libcs[0].version {
            assert_eq!(version, version_of(&process.said));
        }
    }
}

#[test]
fn glibc_of_a_program_that_its_loader_was_started_with_is_found() {
    let Some(built) = Built::with("cc", "waits.c", &[]) else {
        return;
    };
    let Some(loader) = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        return println!("skipped: glibc's loader is not where it is expected");
    };
    let mut command = Command::new(loader);
    let process = Waiting::start(command.args(["--argv0", "other"]).arg(&built.path));
    let found = process.detection();
    assert_eq!(found.detected.name, "glibc", "{found:?}");
    assert_eq!(found.detected.placement, "library");
    assert_eq!(
        found.detected.version.as_deref(),
        Some(process.said.as_str())
    );
}

/// A preloaded allocator serves; glibc is there, too, and does not.
fn preloaded(name: &str, library_name: &str, version: bool) {
    let Some(built) = Built::with("cc", "waits.c", &[]) else {
        return;
    };
    let Some(library) = library(library_name) else {
        return;
    };
    // By its full path, and by its name alone.
    for given in [library.as_os_str(), library.file_name().unwrap()] {
        let process = Waiting::preloading(&built.path, given);
        let found = process.detection();
        let detected = &found.detected;
        assert_eq!(
            (&*detected.name, &*detected.placement),
            (name, "preloaded"),
            "{found:?}"
        );
        assert_eq!(detected.version.is_some(), version, "{found:?}");
        assert!(!detected.walkable && detected.reason.is_some());
        // The block of 1 MiB that the program has written to is part of it.
        match detected.mappings_rss {
            Metric::Upper(bytes) | Metric::Estimated(bytes) => assert!(bytes >= 1 << 20),
            other => panic!("{other}"),
        }
        let [libc] = &detected.others[..] else {
            panic!("{found:?}");
        };
        assert_eq!(libc.name, "glibc");
        assert_eq!(libc.version.as_deref(), Some(process.said.as_str()));
        assert!(libc.reason.as_ref().unwrap().contains("shadowed"));
        assert_eq!(found.libcs.len(), 1);
    }
}

#[test]
fn jemalloc_preloaded_serves_before_glibc() {
    preloaded("jemalloc", "libjemalloc.so.2", true);
}

#[test]
fn mimalloc_preloaded_serves_before_glibc() {
    preloaded("mimalloc", "libmimalloc.so.2", false);
}

#[test]
fn tcmalloc_preloaded_serves_before_glibc() {
    preloaded("tcmalloc", "libtcmalloc_minimal.so.4", true);
}

#[test]
fn a_library_that_the_program_needs_before_libc_serves() {
    let Some(path) = library("libjemalloc.so.2") else {
        return;
    };
    let linked = ["-Wl,--no-as-needed", path.to_str().unwrap()];
    let Some(built) = Built::with("cc", "waits.c", &linked) else {
        return;
    };
    let found = Waiting::program(&built.path).detection();
    assert_eq!(found.detected.name, "jemalloc", "{found:?}");
    assert_eq!(found.detected.placement, "library");
}

#[test]
fn musl_is_found_shared_and_static() {
    for (flags, placement) in [
        (&[][..], "library"),
        (&["-static"], "static"),
        (&["-static", "-s"], "static"),
    ] {
        let Some(built) = Built::with("musl-gcc", "waits.c", flags) else {
            continue;
        };
        let found = Waiting::program(&built.path).detection();
        let detected = &found.detected;
        assert_eq!(
            (&*detected.name, &*detected.placement),
            ("musl", placement),
            "{found:?}"
        );
        assert!(!detected.walkable && found.libcs.is_empty());
        assert!(detected.mappings_rss.bytes().unwrap() >= 1 << 20);
    }
}

#[test]
fn python_is_served_by_glibc() {
    let mut command = Command::new("python3");
    command.args([
        "-c",
        "import sys; print('up', flush=True); sys.stdin.read()",
    ]);
    if Command::new("python3").arg("--version").output().is_err() {
        return println!("skipped: python3 is not there");
    }
    let process = Waiting::start(&mut command);
    assert_eq!(process.said, "up");
    let found = process.detection();
    assert_eq!(found.detected.name, "glibc", "{found:?}");
    assert!(found.detected.walkable, "{found:?}");
}

#[test]
fn a_prefixed_jemalloc_of_a_rust_program_does_not_serve_malloc() {
    // This test itself has one.
    let target = malloc_stats::inspect::Target::open(std::process::id()).unwrap();
    let mappings = target.mappings().unwrap();
    let unavailable = |_: &malloc_stats::mappings::Mapping| Metric::Unavailable;
    let found = malloc_stats::inspect::detect(&target, &mappings, &unavailable);
    assert_eq!(found.detected.name, "glibc", "{found:?}");
    let [jemalloc] = &found.detected.others[..] else {
        panic!("{found:?}");
    };
    assert_eq!(jemalloc.name, "jemalloc");
    assert!(
        jemalloc.reason.as_ref().unwrap().contains("_rjem_mallctl"),
        "{jemalloc:?}"
    );
}
