//! The program that is run: this file's binary itself, which does what its arguments say before
//! `main`, and so before the standard library changes how it was started.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The first argument of a probe.
pub const WORD: &str = "--probe";

/// Sent last: what was sent before it has arrived when it has.
pub fn fence() -> i32 {
    libc::SIGRTMIN() + 5
}

/// Ends a probe that counts, with code 7.
pub fn over() -> i32 {
    libc::SIGRTMIN() + 6
}

#[used]
// SAFETY: a section of pointers to functions that are called with the C convention, once, while
// there is one thread. The standard library's own entry, which notes the arguments, comes first.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == WORD) {
        let words: Vec<&str> = words[2..].iter().map(String::as_str).collect();
        let code = run(&words);
        // SAFETY: takes a number.
        unsafe { libc::_exit(code) };
    }
}

fn run(words: &[&str]) -> i32 {
    match words {
        ["state", out] => state(Path::new(out)),
        ["exit", code] => return code.parse().unwrap(),
        ["die", signal] => die(signal.parse().unwrap()),
        ["count", out] => count(out, &[]),
        ["count", out, "ignoring", signal] => count(out, &[signal.parse().unwrap()]),
        ["raw", out] => raw(out),
        ["line", out] => line(out, "/dev/stdin"),
        ["line", out, from] => line(out, from),
        ["relations", out] => relations(Path::new(out)),
        ["tell", text] => {
            return i32::from(
                std::io::stdout()
                    .write_all(format!("told: {text}").as_bytes())
                    .is_err(),
            );
        }
        other => panic!("no such probe: {other:?}"),
    }
    0
}

/// Everything that a program can see of how it was started, a line each.
fn state(out: &Path) {
    // First of all: what follows opens more.
    let mut text = String::new();
    for fd in 0..512 {
        // SAFETY: takes numbers.
        let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        if is_open {
            // SAFETY: as before.
            let (flags, tty) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::isatty(fd)) };
            writeln!(text, "fd {fd}: flags {flags:o}, terminal {tty}").unwrap();
        }
    }
    let argv0 = std::env::args_os().next();
    writeln!(text, "argv0 {argv0:?}").unwrap();
    writeln!(text, "cwd {:?}", std::env::current_dir()).unwrap();
    // SAFETY: takes numbers.
    unsafe {
        let (leader, group) = (libc::getpgrp() == libc::getpid(), libc::getpgrp());
        writeln!(text, "leads its group: {leader}").unwrap();
        writeln!(text, "has the terminal: {}", libc::tcgetpgrp(0) == group).unwrap();
        writeln!(text, "umask {:o}", libc::umask(0)).unwrap();
        writeln!(text, "nice {}", libc::getpriority(libc::PRIO_PROCESS, 0)).unwrap();
        writeln!(text, "dumpable {}", libc::prctl(libc::PR_GET_DUMPABLE)).unwrap();
    }
    for resource in 0..16 {
        let mut limit = std::mem::MaybeUninit::<libc::rlimit>::zeroed();
        // SAFETY: the limit lives here; zeroed memory is one.
        let limit = unsafe {
            libc::getrlimit(resource as _, limit.as_mut_ptr());
            limit.assume_init()
        };
        writeln!(
            text,
            "limit {resource}: {} {}",
            limit.rlim_cur, limit.rlim_max
        )
        .unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let wanted = [
        "SigQ",
        "SigPnd",
        "ShdPnd",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "NoNewPrivs",
        "CapEff",
        "Cpus_allowed",
        "Seccomp",
        "THP_enabled",
    ];
    for line in status.lines() {
        let key = line.split(':').next().unwrap();
        if wanted.contains(&key) && key != "SigQ" {
            writeln!(text, "{line}").unwrap();
        }
    }
    for name in [
        "oom_score_adj",
        "personality",
        "timerslack_ns",
        "coredump_filter",
    ] {
        let value = std::fs::read_to_string(format!("/proc/self/{name}"));
        writeln!(text, "{name} {:?}", value.ok()).unwrap();
    }
    let mut environment: Vec<_> = std::env::vars_os().collect();
    environment.sort();
    for (name, value) in environment {
        writeln!(text, "env {name:?}={value:?}").unwrap();
    }
    put(out, text.as_bytes());
}

/// What it is to others, a line each.
fn relations(out: &Path) {
    let mut text = String::new();
    // SAFETY: takes numbers and a number that lives here.
    unsafe {
        let mut at_end_of_parent = 0;
        libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut at_end_of_parent);
        let (leader, session) = (libc::getpgrp() == libc::getpid(), libc::getsid(0));
        writeln!(text, "leads its group: {leader}").unwrap();
        writeln!(text, "leads its session: {}", session == libc::getpid()).unwrap();
        writeln!(text, "at the end of its parent: {at_end_of_parent}").unwrap();
    }
    put(out, text.as_bytes());
}

/// Writes a file that is there only when it is whole.
fn put(out: &Path, bytes: &[u8]) {
    let beside = out.with_extension("part");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(beside, out).unwrap();
}

fn die(signal: i32) {
    // SAFETY: takes numbers and a set that lives here.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::MaybeUninit::zeroed();
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
        libc::pause();
    }
}

static OUT: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

fn write_line(text: &str) {
    let out = OUT.load(std::sync::atomic::Ordering::Relaxed);
    // SAFETY: bytes that live here.
    unsafe { libc::write(out, text.as_ptr().cast(), text.len()) };
}

/// Async-signal-safe: writes the number of the signal.
extern "C" fn heard(signal: i32) {
    let digits = [
        b'0' + (signal / 10) as u8,
        b'0' + (signal % 10) as u8,
        b'\n',
    ];
    let out = OUT.load(std::sync::atomic::Ordering::Relaxed);
    // SAFETY: bytes that live here.
    unsafe { libc::write(out, digits.as_ptr().cast(), 3) };
    if signal == over() {
        // SAFETY: takes a number.
        unsafe { libc::_exit(7) };
    }
}

fn open(out: &str) {
    let path = CString::new(out).unwrap();
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
    // SAFETY: a string that lives here.
    let fd = unsafe { libc::open(path.as_ptr(), flags, 0o600) };
    OUT.store(fd, std::sync::atomic::Ordering::Relaxed);
}

fn listen(signals: impl IntoIterator<Item = i32>) {
    for signal in signals {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a zeroed action is one, and lives here; `heard` is async-signal-safe.
        unsafe {
            (*action.as_mut_ptr()).sa_sigaction = heard as *const () as usize;
            libc::sigfillset(&raw mut (*action.as_mut_ptr()).sa_mask);
            libc::sigaction(signal, action.as_ptr(), std::ptr::null_mut());
        }
    }
}

/// Writes each signal that comes, but for those that stop, until it is over.
fn count(out: &str, ignoring: &[i32]) {
    open(out);
    let stops = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    listen((1..=64).filter(|signal| !stops.contains(signal) && !ignoring.contains(signal)));
    for signal in ignoring {
        // SAFETY: takes numbers.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
    // SAFETY: takes nothing.
    let (pid, parent) = unsafe { (libc::getpid(), libc::getppid()) };
    write_line(&format!("pid {pid}\nparent {parent}\nready\n"));
    loop {
        rest();
    }
}

/// Until a signal comes; ends where the folder is gone, as after a test that failed.
fn rest() {
    let out = OUT.load(std::sync::atomic::Ordering::Relaxed);
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the stat lives here, and zeroed memory is one.
    unsafe {
        while libc::poll(std::ptr::null_mut(), 0, 500) == 0 {
            libc::fstat(out, stat.as_mut_ptr());
            if stat.assume_init_ref().st_nlink == 0 {
                libc::_exit(9);
            }
        }
    }
}

/// Makes the terminal raw but for its signals, stops by Ctrl-Z, and writes the modes after that.
fn raw(out: &str) {
    let modes = || {
        // SAFETY: zeroed memory is one, and lives here.
        unsafe {
            let mut modes = std::mem::MaybeUninit::<libc::termios>::zeroed();
            libc::tcgetattr(0, modes.as_mut_ptr());
            modes.assume_init()
        }
    };
    let mut raw = modes();
    raw.c_lflag &= !(libc::ICANON | libc::ECHO);
    raw.c_cc[libc::VMIN] = 1;
    // SAFETY: it lives here.
    unsafe { libc::tcsetattr(0, libc::TCSADRAIN, &raw const raw) };
    count_and_then(out, || {
        let now = modes();
        format!(
            "modes {:o} {:o} {:o} {:o}\n",
            now.c_iflag, now.c_oflag, now.c_cflag, now.c_lflag
        )
    });
}

fn count_and_then(out: &str, mut after: impl FnMut() -> String) {
    open(out);
    listen([libc::SIGCONT, libc::SIGINT, fence(), over()]);
    // SAFETY: takes nothing.
    let (pid, parent) = unsafe { (libc::getpid(), libc::getppid()) };
    write_line(&format!("pid {pid}\nparent {parent}\n{}ready\n", after()));
    loop {
        rest();
        write_line(&after());
    }
}

/// Reads a line and writes it.
fn line(out: &str, from: &str) {
    let path = CString::new(from.as_bytes()).unwrap();
    let mut bytes = [0_u8; 256];
    // SAFETY: the string and the bytes live here.
    let read = unsafe {
        let fd = if from == "/dev/stdin" {
            0
        } else {
            libc::open(path.as_ptr(), libc::O_RDWR)
        };
        libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len())
    };
    let text = match usize::try_from(read) {
        Ok(read) => std::ffi::OsStr::from_bytes(&bytes[..read])
            .to_string_lossy()
            .into_owned(),
        Err(_) => format!("{}\n", std::io::Error::last_os_error()),
    };
    put(Path::new(out), format!("read {text}").as_bytes());
}
