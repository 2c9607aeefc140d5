//! What is said of a program before it is started.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use plimsoll_profiles::reach::{Privilege, Runtime};
use plimsoll_profiles::{Malloc, Obstacle, Profile, Reach, reach};
use proptest::prelude::*;

use super::build;

const NOTHING: &str = "int main(void) { return 0; }\n";

fn profile(name: &str) -> Profile {
    Profile::find(name).unwrap()
}

fn of(path: &Path, name: &str) -> Reach {
    let reach = reach(path, &profile(name));
    // Whatever is said is one line, and names what it is about.
    for obstacle in &reach.obstacles {
        let text = obstacle.to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    reach
}

fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

fn blocking(reach: &Reach) -> Option<&Obstacle> {
    reach.blocking().next()
}

#[test]
fn an_ordinary_program_is_open_to_every_profile() {
    for profile in plimsoll_profiles::builtin::all() {
        let reach = of(Path::new("/bin/sleep"), &profile.name);
        assert_eq!(reach.obstacles, [], "{}", profile.name);
        assert!(reach.is_open());
    }
}

#[test]
fn a_script_is_followed_to_its_interpreter_through_env_too() {
    let folder = tempfile::tempdir().unwrap();
    let inner = file(folder.path(), "inner", b"#! /bin/sleep 1\n");
    let outer = format!("#!{} x\n", inner.display());
    let outer = file(folder.path(), "outer", outer.as_bytes());
    let reach = of(&outer, "glibc-mmap-1m");
    assert_eq!(reach.program, Path::new("/bin/sleep"));
    assert_eq!(reach.notes().count(), 2);
    assert!(reach.is_open());
    for line in [
        "#!/usr/bin/env sleep\n",
        "#!/usr/bin/env -S A=1 sleep 1\n",
        "#!/usr/bin/env -S -u HOME sleep",
    ] {
        let script = file(folder.path(), "by-env", line.as_bytes());
        let reach = of(&script, "glibc-mmap-1m");
        assert_eq!(reach.program.file_name().unwrap(), "sleep", "{line}");
        assert!(reach.is_open());
    }
}

#[test]
fn a_first_line_that_clears_the_profile_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "#!/usr/bin/env -S -i sleep 1\n",
        "#!/usr/bin/env -S -u GLIBC_TUNABLES sleep\n",
        "#!/usr/bin/env -S LD_PRELOAD=x.so sleep\n",
    ] {
        let script = file(folder.path(), "clears", line.as_bytes());
        let reach = of(&script, "glibc-mmap-1m");
        let found = matches!(blocking(&reach), Some(Obstacle::ClearsEnvironment { .. }));
        assert!(found, "{line}");
        assert!(of(&script, "glibc-default").is_open(), "{line}");
    }
}

#[test]
fn scripts_that_run_scripts_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loop");
    let script = file(
        folder.path(),
        "loop",
        format!("#!{}\n", path.display()).as_bytes(),
    );
    let reach = of(&script, "glibc-mmap-1m");
    assert!(matches!(
        blocking(&reach),
        Some(Obstacle::ScriptLoop { .. })
    ));
    assert!(Command::new(&script).status().is_err());
    let gone = file(folder.path(), "gone", b"#!/no/such/interpreter\n");
    let reach = of(&gone, "glibc-mmap-1m");
    assert!(matches!(blocking(&reach), Some(Obstacle::Missing { .. })));
}

#[test]
fn what_is_no_program_is_not_opened_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, is) in [
        (fifo.as_path(), "a FIFO"),
        (&socket, "a socket"),
        (Path::new("/dev/zero"), "a device"),
        (folder.path(), "a directory"),
    ] {
        let reach = of(path, "glibc-mmap-1m");
        let Some(Obstacle::NotAFile { what, .. }) = blocking(&reach) else {
            panic!("{path:?}: {reach:?}");
        };
        assert_eq!(*what, is);
    }
    let script = format!("#!{}\n", fifo.display());
    let script = file(folder.path(), "by-fifo", script.as_bytes());
    let reach = of(&script, "glibc-mmap-1m");
    assert!(matches!(blocking(&reach), Some(Obstacle::NotAFile { .. })));
    let missing = of(&folder.path().join("none"), "glibc-mmap-1m");
    assert!(matches!(blocking(&missing), Some(Obstacle::Missing { .. })));
    let plain = file(folder.path(), "plain\n\u{1b}[2J", b"");
    set_permissions(&plain, Permissions::from_mode(0o644)).unwrap();
    let plain = of(&plain, "glibc-mmap-1m");
    assert!(matches!(
        blocking(&plain),
        Some(Obstacle::NotExecutable { .. })
    ));
}

#[test]
fn a_static_program_takes_settings_where_its_glibc_reads_them_and_no_preload() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("static");
    let Some(path) = build("gcc", &["-static"], NOTHING, &at) else {
        return;
    };
    let runtime = Runtime::Glibc;
    let with_glibc = of(&path, "glibc-mmap-1m");
    assert!(with_glibc.is_open());
    let found =
        matches!(&with_glibc.obstacles[..], [Obstacle::Static { runtime: r, .. }] if *r == runtime);
    assert!(found, "{with_glibc:?}");
    assert!(!of(&path, "mimalloc-default").is_open());
}

#[test]
fn a_program_of_musl_is_out_of_reach_static_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    if let Some(path) = build("musl-gcc", &["-static"], NOTHING, &at("static")) {
        for name in ["glibc-default", "glibc-mmap-1m", "jemalloc-default"] {
            let reach = of(&path, name);
            let other = matches!(
                blocking(&reach),
                Some(Obstacle::Static {
                    runtime: Runtime::Other,
                    ..
                })
            );
            assert!(other, "{reach:?}");
        }
    }
    if let Some(path) = build("musl-gcc", &[], NOTHING, &at("dynamic")) {
        for name in ["glibc-mmap-1m", "jemalloc-default"] {
            let reach = of(&path, name);
            assert!(matches!(blocking(&reach), Some(Obstacle::Musl { .. })));
        }
    }
}

#[test]
fn a_go_program_is_known_by_what_go_writes_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("main.go");
    std::fs::write(&source, "package main\nfunc main() {}\n").unwrap();
    let path = folder.path().join("go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([&path, &source])
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", folder.path().join("cache"))
        .env("GOFLAGS", "-mod=mod")
        .output();
    if !built.is_ok_and(|built| built.status.success()) {
        println!("skipped: no Go toolchain");
        return;
    }
    let reach = of(&path, "glibc-mmap-1m");
    let go = matches!(
        blocking(&reach),
        Some(Obstacle::Static {
            runtime: Runtime::Go,
            ..
        })
    );
    assert!(go, "{reach:?}");
}

#[test]
fn an_allocator_that_comes_before_the_profiles_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let own = "#include <stddef.h>\nvoid *malloc(size_t n) { (void)n; return 0; }\n\
               int main(void) { return malloc(1) != 0; }\n";
    let at = folder.path().join("own");
    let Some(path) = build("gcc", &["-rdynamic", "-fno-builtin"], own, &at) else {
        return;
    };
    for name in ["glibc-default", "mimalloc-default"] {
        let reach = of(&path, name);
        let found = matches!(
            blocking(&reach),
            Some(Obstacle::OwnMalloc { library: None, .. })
        );
        assert!(found, "{reach:?}");
    }
    let needs = folder.path().join("needs");
    let link = ["-Wl,--no-as-needed", "-l:libjemalloc.so.2"];
    let Some(path) = build("gcc", &link, NOTHING, &needs) else {
        return;
    };
    let reach = of(&path, "glibc-default");
    let Some(Obstacle::OwnMalloc { serves, wanted, .. }) = blocking(&reach) else {
        panic!("{reach:?}");
    };
    assert_eq!((serves.as_str(), *wanted), ("jemalloc", Malloc::Glibc));
    assert!(of(&path, "jemalloc-default").is_open());
    assert!(of(&path, "tcmalloc-default").is_open());
}

#[test]
fn a_program_that_runs_as_another_user_ignores_the_environment() {
    if !rustix::process::getuid().is_root() {
        println!("skipped: only root can make a program of another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("as-nobody");
    std::fs::copy("/bin/sleep", &path).unwrap();
    let mode = |mode| set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    let own = |user, group| std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
    own(65534, 65534);
    for (bits, by) in [
        (0o4755, Privilege::SetUser(65534)),
        (0o2755, Privilege::SetGroup(65534)),
    ] {
        mode(bits);
        let reach = of(&path, "glibc-mmap-1m");
        let found =
            matches!(blocking(&reach), Some(Obstacle::Privileged { by: b, .. }) if *b == by);
        let nosuid = rustix::fs::statvfs(folder.path())
            .unwrap()
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::NOSUID);
        assert_eq!(found, !nosuid, "{reach:?}");
        assert!(of(&path, "glibc-default").is_open());
    }
    // Of mandatory locks, not of a group; and a program of the same user.
    mode(0o2745);
    assert!(of(&path, "glibc-mmap-1m").is_open());
    own(0, 0);
    mode(0o6755);
    assert!(of(&path, "glibc-mmap-1m").is_open());
}

fn own_bytes() -> Vec<u8> {
    std::fs::read("/bin/sleep").unwrap()
}

#[test]
fn files_that_lie_about_themselves_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let whole = own_bytes();
    let put = |at: usize, value: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let huge = (1_u64 << 60).to_le_bytes();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("magic", b"\x7fELF".to_vec()),
        ("header", whole[..40].to_vec()),
        ("no-segments", whole[..64].to_vec()),
        // e_phoff, e_phnum, e_phentsize, e_type of a 64-bit header.
        ("far-segments", put(32, &huge)),
        ("many-segments", put(56, &[0xfe, 0xff])),
        ("escaped-count", put(56, &[0xff, 0xff])),
        ("odd-segments", put(54, &[1, 0])),
        ("core", put(16, &[4, 0])),
        ("text", b"echo no first line\n".to_vec()),
    ] {
        let path = file(folder.path(), name, &bytes);
        let reach = of(&path, "jemalloc-default");
        let found = matches!(blocking(&reach), Some(Obstacle::UnknownFormat { .. }));
        assert!(found, "{name}: {reach:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_makes_it_panic(
        cut in 0..8192_usize,
        changes in prop::collection::vec((0..4096_usize, any::<u8>()), 0..24),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = own_bytes();
        if cut > 64 {
            bytes.truncate(cut);
        }
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let path = file(folder.path(), "mangled", &bytes);
        for name in ["glibc-mmap-1m", "jemalloc-default"] {
            let _ = of(&path, name);
        }
    }

    #[test]
    fn no_first_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "script", &[b"#!", &line[..]].concat());
        let _ = of(&path, "glibc-mmap-1m");
        let by_env = [b"#!/usr/bin/env -S ", &line[..]].concat();
        let _ = of(&file(folder.path(), "by-env", &by_env), "glibc-mmap-1m");
    }
}
