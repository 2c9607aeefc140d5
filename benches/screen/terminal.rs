//! A program in a terminal that takes all it writes, and what that program uses.

use std::fs::{self, File};
use std::io::Read;
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::SIZE;

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Terminal {
    child: Child,
    _master: File,
    _tty: OwnedFd,
    screen: Arc<(Mutex<vt100::Parser>, Condvar)>,
}

/// What a program has used, in nanoseconds of processor time.
#[derive(Clone, Copy)]
pub struct Used {
    at: Instant,
    /// The thread that looks into the process at the other end.
    look: u64,
    rest: u64,
}

impl Used {
    /// Percent of a core since then: of the thread that looks, and of all others.
    pub fn since(&self, before: &Used) -> (f64, f64) {
        let wall = (self.at - before.at).as_nanos() as f64;
        let share = |after: u64, before: u64| (after - before) as f64 / wall * 100.0;
        (share(self.look, before.look), share(self.rest, before.rest))
    }
}

impl Terminal {
    pub fn run(command: &mut Command) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: SIZE.1,
            ws_col: SIZE.0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&tty, size).unwrap();
        let end = || Stdio::from(tty.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        let fd = tty.as_raw_fd();
        // SAFETY: between fork and exec only `setsid` and `ioctl` are called, which are
        // async-signal-safe; the descriptor is open in the child until the exec.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() < 0 || libc::ioctl(fd, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let parser = vt100::Parser::new(one(SIZE.1), one(SIZE.0), 0);
        let screen = Arc::new((Mutex::new(parser), Condvar::new()));
        let master = File::from(master);
        let mut reader = master.try_clone().unwrap();
        let shown = Arc::clone(&screen);
        // It ends when the terminal does.
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                shown.0.lock().unwrap().process(&bytes[..read]);
                shown.1.notify_all();
            }
        });
        Terminal {
            child,
            _master: master,
            _tty: tty,
            screen,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn text(&self) -> String {
        self.screen.0.lock().unwrap().screen().contents()
    }

    /// When a text is on the screen.
    pub fn wait_text(&self, text: &str) -> Instant {
        let until = Instant::now() + PATIENCE;
        let mut parser = self.screen.0.lock().unwrap();
        while !parser.screen().contents().contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited in vain for {text}:\n{}",
                parser.screen().contents()
            );
            parser = self.screen.1.wait_timeout(parser, left).unwrap().0;
        }
        Instant::now()
    }

    pub fn used(&self) -> Used {
        let mut used = Used {
            at: Instant::now(),
            look: 0,
            rest: 0,
        };
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        for task in tasks.flatten() {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let first = read("schedstat");
            let time = first.split(' ').next().and_then(|ns| ns.parse().ok());
            let time: u64 = time.unwrap_or(0);
            match read("comm").trim_end() {
                "plimsoll-look" => used.look += time,
                _ => used.rest += time,
            }
        }
        used
    }

    /// How often its threads went to sleep.
    pub fn sleeps(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let status = tasks
            .flatten()
            .map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default());
        status
            .map(|status| number(&status, "voluntary_ctxt_switches:"))
            .sum()
    }

    /// Its resident anonymous memory, MiB.
    pub fn anonymous(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        number(&status, "RssAnon:") as f64 / 1024.0
    }
}

fn one(size: u16) -> NonZero<u16> {
    NonZero::new(size).unwrap()
}

fn number(status: &str, name: &str) -> u64 {
    let mut lines = status.lines();
    let found = lines.find_map(|line| line.strip_prefix(name));
    let word = found.and_then(|rest| rest.split_ascii_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
