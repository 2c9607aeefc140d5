//! How processes end is told of those that are not ours to wait for.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use malloc_stats::inspect::{Ending, Target, Watch};
use malloc_stats::limits::CgroupVersion;

use crate::cgroup::{Cgroup, Running};
use crate::processes::{Forked, Shell};

fn watch(pid: u32) -> Watch {
    Watch::begin(&Target::open(pid).unwrap()).unwrap()
}

fn ended(watch: &mut Watch) -> Ending {
    let begun = Instant::now();
    loop {
        if let Some(ending) = watch.ending() {
            return ending;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never ends");
        sleep(Duration::from_millis(5));
    }
}

/// Whether the kernel keeps how a process ended once its parent knows.
fn kernel_tells() -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    version >= (6, 15)
}

/// `known`, or what is said in its place by an old kernel.
#[track_caller]
fn assert_says(ending: &Ending, known: &str) {
    let old = "ended; how is not known before Linux 6.15";
    let expected = if kernel_tells() { known } else { old };
    assert_eq!(ending.to_string(), expected, "{ending:?}");
}

#[test]
fn an_exit_code_is_known_after_somebody_else_has_waited() {
    for code in [0, 3, 255] {
        let mut shell = Shell::new(&format!("read line; exit {code}"));
        let mut watch = watch(shell.0.id());
        assert!(!watch.has_ended());
        assert_eq!(watch.ending(), None);
        shell.go_on();
        assert_eq!(shell.0.wait().unwrap().code(), Some(code));
        assert!(watch.has_ended());
        let ending = ended(&mut watch);
        assert_says(&ending, &format!("ended with exit code {code}"));
        assert_eq!(ending.code, kernel_tells().then_some(code));
        assert_eq!((ending.signal, ending.oom), (None, None));
    }
}

#[test]
fn a_signal_is_known_and_named() {
    let mut shell = Shell::new("read line; kill -KILL $$");
    let mut watch = watch(shell.0.id());
    shell.go_on();
    assert_eq!(shell.0.wait().unwrap().signal(), Some(9));
    let ending = ended(&mut watch);
    assert_says(&ending, "killed by signal 9 (SIGKILL)");
    assert_eq!(ending.code, None);
}

#[test]
fn a_zombie_has_ended_and_every_kernel_says_how() {
    let forked = Forked::new(|| {});
    let mut watch = watch(forked.pid);
    forked.kill();
    assert!(watch.has_ended());
    assert_eq!(ended(&mut watch).signal, Some(9));
}

#[test]
fn what_is_gone_is_not_watched() {
    let mut shell = Shell::new("read line");
    let target = Target::open(shell.0.id()).unwrap();
    shell.go_on();
    shell.0.wait().unwrap();
    let error = Watch::begin(&target).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
}

/// A shell in a cgroup of 32 MiB that `does` something with the line it is given.
fn limited(name: &str, does: &str) -> Option<(Cgroup, Running)> {
    let cgroup = Cgroup::make(CgroupVersion::V1, name, "memory.oom_control")?;
    cgroup.limit(32 << 20);
    let mut shell = cgroup.command("sh");
    let script = format!("echo ready; read line; {does}");
    shell.args(["-c", &script]).stdin(Stdio::piped());
    let mut shell = Running(shell.stdout(Stdio::piped()).spawn().unwrap());
    next_line(&mut shell.0);
    Some((cgroup, shell))
}

fn next_line(shell: &mut Child) {
    let mut line = String::new();
    let output = shell.stdout.as_mut().unwrap();
    BufReader::with_capacity(1, output)
        .read_line(&mut line)
        .unwrap();
}

fn go_on(shell: &mut Child) {
    use std::io::Write;
    shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

#[test]
fn a_kill_for_want_of_memory_is_named_with_its_cgroup() {
    let Some((cgroup, mut shell)) = limited("killed", "exec tail /dev/zero") else {
        return;
    };
    let mut watch = watch(shell.0.id());
    go_on(&mut shell.0);
    assert_eq!(shell.0.wait().unwrap().signal(), Some(9));
    let ending = ended(&mut watch);
    let name = cgroup.directory.file_name().unwrap().to_str().unwrap();
    assert!(ending.oom.as_ref().unwrap().ends_with(name), "{ending:?}");
    let says = ending.to_string();
    assert!(
        says.contains("killed for want of memory in cgroup /"),
        "{says}"
    );
    assert!(!kernel_tells() || says.starts_with("killed by signal 9 (SIGKILL); "));
}

#[test]
fn a_kill_before_the_watch_began_is_none_of_its_end() {
    let script = "tail /dev/zero; echo killed; read line; exit 0";
    let Some((_cgroup, mut shell)) = limited("before", script) else {
        return;
    };
    go_on(&mut shell.0);
    next_line(&mut shell.0);
    let mut watch = watch(shell.0.id());
    watch.note_kills();
    go_on(&mut shell.0);
    shell.0.wait().unwrap();
    assert_says(&ended(&mut watch), "ended with exit code 0");
}
