//! What is said of a process that was started under a profile.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use malloc_stats::SettingGrade;
use malloc_stats::inspect::{Ask, Target, inspect};
use plimsoll_profiles::{Error, Malloc, Profile, Took, builtin, foreign_environment, took};

use super::build;

/// Says that it runs, having allocated, and waits to be ended.
const WAITS: &str = "\
#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
int main(void) { void *p = malloc(1000); puts(p ? \"up\" : \"\"); fflush(stdout); \
char c; return read(0, &c, 1) < 0; }\n";

/// A process that has said that it runs; it ends with its stdin.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = [0];
        let stdout = child.stdout.as_mut().unwrap();
        let read = std::io::Read::read(stdout, &mut first).unwrap();
        assert_eq!(read, 1, "it ended at once");
        Self(child)
    }

    fn took(&self, profile: &Profile) -> Took {
        let target = Target::open(self.0.id()).unwrap();
        let ask = Ask {
            surroundings: false,
            ..Ask::default()
        };
        let seen = inspect(&target, &ask).unwrap();
        let environ = target.bytes("environ").unwrap();
        took(profile, &seen, Some(&environ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program under a profile; `None`, with the reason printed, where its allocator is not
/// installed.
fn under(profile: &Profile, program: &mut Command) -> Option<Running> {
    match foreign_environment(profile) {
        Ok(environment) => {
            environment.put(program);
            Some(Running::start(program))
        }
        Err(error @ Error::NotInstalled { .. }) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn grade(took: &Took, name: &str) -> SettingGrade {
    took.settings.get(name).unwrap().grade
}

fn custom(knobs: &str) -> Profile {
    let text = format!("name='mine'\nwhy='test'\nallocator='glibc'\n[knobs]\n{knobs}\n");
    Profile::from_toml(&text, "mine").unwrap()
}

#[test]
fn every_profile_takes_in_a_real_program() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build("gcc", &[], WAITS, &folder.path().join("waits")) else {
        return;
    };
    for profile in builtin::all() {
        let mut command = Command::new(&path);
        // What would contradict every one of them.
        command
            .env("MALLOC_TOP_PAD_", "4096")
            .env("MALLOC_CONF", "dirty_decay_ms:77")
            .env("TCMALLOC_RELEASE_RATE", "0");
        let Some(running) = under(profile, &mut command) else {
            continue;
        };
        let took = running.took(profile);
        assert!(took.is_in_force(), "{}: {took:?}", profile.name);
        assert_eq!(took.allocator, profile.allocator.name());
        assert_eq!(grade(&took, "allocator"), SettingGrade::Verified);
        let expected = match profile.allocator {
            Malloc::Glibc => SettingGrade::Verified,
            _ => SettingGrade::Requested,
        };
        for (knob, _) in profile.knobs() {
            assert_eq!(grade(&took, knob.name), expected, "{}", profile.name);
        }
        if profile.allocator == Malloc::Glibc {
            assert_eq!(grade(&took, "mmap_threshold"), SettingGrade::Verified);
        }
    }
}

#[test]
fn every_setting_of_glibc_that_can_be_read_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build("gcc", &[], WAITS, &folder.path().join("waits")) else {
        return;
    };
    let profile = custom(
        "mmap_threshold='2 MiB'\ntrim_threshold='3 MiB'\ntop_pad=8192\nmmap_max=77\narena_max=3\n\
         tcache_count=5\ntcache_max=500\nmxfast=64\n",
    );
    let took = under(&profile, &mut Command::new(&path))
        .unwrap()
        .took(&profile);
    assert!(took.is_in_force(), "{took:?}");
    for (knob, _) in profile.knobs() {
        let expected = match knob.name {
            "mxfast" => SettingGrade::Requested,
            _ => SettingGrade::Verified,
        };
        assert_eq!(grade(&took, knob.name), expected, "{}", knob.name);
    }
    assert_eq!(took.settings.len(), 1 + profile.knobs.len());
}

#[test]
fn a_setting_that_glibc_ignores_is_refused_with_what_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build("gcc", &[], WAITS, &folder.path().join("waits")) else {
        return;
    };
    let profile = custom("arena_max=0\ntcache_count=100000\n");
    let took = under(&profile, &mut Command::new(&path))
        .unwrap()
        .took(&profile);
    // 0 arenas is what malloc starts with, and means that nothing limits them.
    assert_eq!(grade(&took, "tcache_count"), SettingGrade::Refused);
    assert!(took.refused[0].contains("100000 asked"), "{took:?}");
}

#[test]
fn a_program_that_tunes_itself_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let source = WAITS.replace("void *p", "mallopt(M_MMAP_THRESHOLD, 65536 * 3); void *p");
    let source = format!("#include <malloc.h>\n{source}");
    let Some(path) = build("gcc", &[], &source, &folder.path().join("tunes")) else {
        return;
    };
    for name in ["glibc-default", "glibc-mmap-1m"] {
        let profile = Profile::find(name).unwrap();
        let took = under(&profile, &mut Command::new(&path))
            .unwrap()
            .took(&profile);
        assert!(took.refused[0].contains("192.0 KiB"), "{took:?}");
        assert!(took.refused[0].contains("mallopt"), "{took:?}");
    }
}

#[test]
fn a_preload_that_is_not_there_is_refused() {
    let profile = Profile::find("jemalloc-decay-0").unwrap();
    let mut command = Command::new("/bin/cat");
    command
        .env("LD_PRELOAD", "/nonexistent/libjemalloc.so.2")
        .env("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
    let running = echo(&mut command);
    let took = running.took(&profile);
    assert_eq!(took.allocator, "glibc");
    assert_eq!(grade(&took, "allocator"), SettingGrade::Refused);
    assert_eq!(grade(&took, "dirty_decay_ms"), SettingGrade::Refused);
    assert!(took.refused[0].contains("LD_PRELOAD names it"), "{took:?}");
}

/// `cat` after it has answered.
fn echo(command: &mut Command) -> Running {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
    let mut answer = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut answer).unwrap();
    Running(child)
}

#[test]
fn an_environment_that_was_cleared_between_is_named_as_that() {
    for name in ["mimalloc-purge-0", "glibc-mmap-1m"] {
        let profile = Profile::find(name).unwrap();
        let Ok(environment) = foreign_environment(&profile) else {
            continue;
        };
        let mut cleared = Command::new("/usr/bin/env");
        environment.put(&mut cleared);
        // What is left is an environment still.
        cleared.args(["-i", "LEFT=1", "/bin/cat"]);
        let took = echo(&mut cleared).took(&profile);
        assert!(!took.is_in_force());
        assert!(took.refused[0].contains("environment"), "{took:?}");
        assert!(took.refused[0].contains("between") || took.refused[0].contains("does not have"));
    }
}

#[test]
fn a_static_program_takes_settings_and_no_preload() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build("gcc", &["-static"], WAITS, &folder.path().join("static")) else {
        return;
    };
    let glibc = Profile::find("glibc-mmap-1m").unwrap();
    let took = under(&glibc, &mut Command::new(&path))
        .unwrap()
        .took(&glibc);
    assert!(took.is_in_force(), "{took:?}");
    assert_eq!(grade(&took, "mmap_threshold"), SettingGrade::Verified);
    for name in ["jemalloc-default", "mimalloc-default"] {
        let profile = Profile::find(name).unwrap();
        let Some(running) = under(&profile, &mut Command::new(&path)) else {
            continue;
        };
        let took = running.took(&profile);
        assert!(took.refused[0].contains("part of the program"), "{took:?}");
    }
}

#[test]
fn a_program_of_musl_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build("musl-gcc", &["-static"], WAITS, &folder.path().join("musl")) else {
        return;
    };
    let profile = Profile::find("glibc-mmap-1m").unwrap();
    let took = under(&profile, &mut Command::new(&path))
        .unwrap()
        .took(&profile);
    assert_eq!(took.allocator, "musl");
    assert_eq!(grade(&took, "mmap_threshold"), SettingGrade::Refused);
}

#[test]
fn a_privileged_program_refuses_what_it_was_given() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::getuid().is_root() {
        println!("skipped: only root can make a program of another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("as-nobody");
    std::fs::copy("/bin/cat", &path).unwrap();
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let profile = Profile::find("glibc-mmap-1m").unwrap();
    if plimsoll_profiles::reach(&path, &profile).is_open() {
        println!("skipped: the folder for temporary files is mounted without setuid");
        return;
    }
    let mut command = Command::new(&path);
    foreign_environment(&profile).unwrap().put(&mut command);
    // A program of another user, that root may look into all the same.
    let running = echo(&mut command);
    let took = running.took(&profile);
    assert!(!took.is_in_force(), "{took:?}");
    assert_eq!(grade(&took, "allocator"), SettingGrade::Verified);
    assert!(took.refused[0].contains("privileged"), "{took:?}");
}

#[test]
fn a_version_that_has_no_such_knob_is_found_out_before_and_after() {
    let text = "name='m'\nwhy='w'\nallocator='mimalloc'\n[knobs]\npurge_decommits=true\n\
                purge_delay=0\nallow_large_os_pages=0\n";
    let profile = Profile::from_toml(text, "m").unwrap();
    let Ok(environment) = foreign_environment(&profile) else {
        println!("skipped: no mimalloc");
        return;
    };
    let library = environment.library.clone().unwrap();
    // mimalloc says which options it has, and what they are.
    let mut asked = Command::new("/bin/true");
    environment.put(&mut asked);
    let told = asked.env("MIMALLOC_VERBOSE", "1").output().unwrap();
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let has = |option: &str| told.contains(&format!("option '{option}'"));
    assert!(
        has("purge_delay") || has("decommit_delay"),
        "{library:?}: {told}"
    );
    let running = {
        let mut command = Command::new("/bin/cat");
        environment.put(&mut command);
        echo(&mut command)
    };
    let took = running.took(&profile);
    let expected = |known: bool| match known {
        true => SettingGrade::Requested,
        false => SettingGrade::Refused,
    };
    assert_eq!(grade(&took, "purge_delay"), SettingGrade::Requested);
    assert_eq!(
        grade(&took, "allow_large_os_pages"),
        SettingGrade::Requested
    );
    let decommits = has("purge_decommits") || has("reset_decommits");
    assert_eq!(grade(&took, "purge_decommits"), expected(decommits));
    let said = environment
        .notes
        .iter()
        .any(|n| n.contains("purge_decommits"));
    assert_eq!(said, !decommits);
}

/// What is claimed of the profiles that return memory at once, in a program that frees all it has.
#[test]
fn profiles_that_return_at_once_do() {
    let source = "\
#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
static char *p[1024];\n\
int main(void) { for (int i = 0; i < 1024; i++) memset(p[i] = malloc(65536), 1, 65536);\n\
for (int i = 0; i < 1024; i++) free(p[i]);\n\
puts(\"up\"); fflush(stdout); char c; return read(0, &c, 1) < 0; }\n";
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = build("gcc", &[], source, &folder.path().join("frees")) else {
        return;
    };
    let resident = |name: &str| {
        let running = under(&Profile::find(name).unwrap(), &mut Command::new(&path))?;
        let target = Target::open(running.0.id()).unwrap();
        let status = target.text("status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().ok()
    };
    for (plain, returning) in [
        ("mimalloc-default", "mimalloc-purge-0"),
        ("tcmalloc-default", "tcmalloc-release"),
        ("jemalloc-default", "jemalloc-decay-0"),
    ] {
        let (Some(plain), Some(returning)) = (resident(plain), resident(returning)) else {
            continue;
        };
        assert!(plain > 32 << 10, "{plain} KiB");
        assert!(returning < plain / 2, "{returning} of {plain} KiB");
    }
}

#[test]
fn a_program_that_wrote_over_its_environment_is_not_accused() {
    let profile = Profile::find("mimalloc-purge-0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = WAITS
        .replace(
            "#include <stdio.h>",
            "#include <stdio.h>\n#include <string.h>",
        )
        .replace(
            "int main(void) {",
            "extern char **environ; int main(void) { char **e = environ; \
                 while (*e) { memset(*e, 0, strlen(*e)); e++; }",
        );
    let Some(path) = build("gcc", &[], &source, &folder.path().join("titled")) else {
        return;
    };
    let Some(running) = under(&profile, &mut Command::new(&path)) else {
        return;
    };
    let took = running.took(&profile);
    assert!(took.is_in_force(), "{took:?}");
    assert_eq!(grade(&took, "purge_delay"), SettingGrade::Requested);
}

#[test]
fn a_script_hands_the_profile_to_what_it_starts() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\nexec cat\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let profile = Profile::find("glibc-mmap-1m").unwrap();
    assert!(plimsoll_profiles::reach(&script, &profile).is_open());
    let mut command = Command::new(&script);
    foreign_environment(&profile).unwrap().put(&mut command);
    let running = echo(&mut command);
    let name = std::fs::read_link(format!("/proc/{}/exe", running.0.id())).unwrap();
    assert_eq!(name.file_name(), Path::new("cat").file_name());
    let took = running.took(&profile);
    assert!(took.is_in_force(), "{took:?}");
    assert_eq!(grade(&took, "mmap_threshold"), SettingGrade::Verified);
}
