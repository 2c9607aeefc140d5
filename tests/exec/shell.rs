//! A terminal of its own, and an interactive shell in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::world::{PATIENCE, World, has, wait_until};

/// A program that leads a session with a terminal.
pub struct Terminal {
    pub child: Child,
    master: Option<File>,
    tty: Option<OwnedFd>,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn run(mut command: Command) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        let end = || Stdio::from(tty.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        let fd = tty.as_raw_fd();
        // SAFETY: system calls on numbers; the descriptor is open in the child until the exec.
        unsafe {
            command.pre_exec(move || {
                // As after a login: a test that runs in the background of a script, or under nohup,
                // was told to ignore these, and so would all that it starts.
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                if libc::setsid() < 0 || libc::ioctl(fd, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let said = Arc::new(Mutex::new(Vec::new()));
        let (heard, mut reader) = (Arc::clone(&said), master.try_clone().unwrap());
        // It ends with the terminal, which has no other end when all have closed it.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                heard.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Terminal {
            child,
            master: Some(master),
            tty: Some(tty),
            said,
        }
    }

    pub fn keys(&mut self, keys: &str) {
        self.master
            .as_mut()
            .unwrap()
            .write_all(keys.as_bytes())
            .unwrap();
    }

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    pub fn resize(&self, columns: u16) {
        let size = Winsize {
            ws_row: 30,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(self.tty.as_ref().unwrap(), size).unwrap();
    }

    pub fn local_modes(&self) -> u32 {
        tcgetattr(self.tty.as_ref().unwrap())
            .unwrap()
            .local_modes
            .bits()
    }

    /// The group that has it.
    pub fn foreground(&self) -> i32 {
        let mut group = 0;
        let master = self.master.as_ref().unwrap().as_raw_fd();
        // SAFETY: the number lives here.
        unsafe { libc::ioctl(master, libc::TIOCGPGRP, &raw mut group) };
        group
    }

    /// Hangs up, as a window that is closed.
    pub fn hang_up(&self) {
        // SAFETY: takes numbers. Of a pty this needs no privilege on the master, and what is
        // hung up is the end that programs have.
        let done =
            unsafe { libc::ioctl(self.tty.as_ref().unwrap().as_raw_fd(), libc::TIOCVHANGUP) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An interactive shell with job control.
pub struct Shell {
    pub terminal: Terminal,
    asked: usize,
}

impl Shell {
    /// `None` where there is none.
    pub fn start(world: &World) -> Option<Shell> {
        if !has("bash") {
            return None;
        }
        let words = ["bash", "--noediting", "--norc", "--noprofile", "-i"];
        let mut command = world.plain(words.map(str::to_owned));
        command
            .env("PS1", "")
            .env("PS2", "")
            .env("LC_ALL", "C")
            .env_remove("PROMPT_COMMAND");
        let mut shell = Shell {
            terminal: Terminal::run(command),
            asked: 0,
        };
        shell.ask("stty -echo; set +o history; bind 2>/dev/null");
        Some(shell)
    }

    /// Types a line.
    pub fn line(&mut self, line: &str) {
        self.terminal.keys(&format!("{line}\n"));
    }

    /// Types a line, waits until the shell is back, and gives what was printed meanwhile.
    pub fn ask(&mut self, line: &str) -> String {
        let before = self.terminal.said().len();
        self.line(line);
        self.back(before)
    }

    /// Waits until the shell reads lines again, which whoever has the terminal now may not do.
    pub fn back(&mut self, before: usize) -> String {
        // What is typed while another has the terminal is that one's to read: not before.
        let shell = self.terminal.child.id().cast_signed();
        wait_until(
            &format!("the shell; there is {:?}", self.terminal.said()),
            || self.terminal.foreground() == shell,
        );
        self.asked += 1;
        let mark = format!("<{}>", self.asked);
        self.line(&format!("echo '<'{}'>'", self.asked));
        wait_until(
            &format!("{mark}; there is {:?}", self.terminal.said()),
            || self.terminal.said()[before..].contains(&mark),
        );
        let said = self.terminal.said()[before..].to_owned();
        said[..said.rfind(&mark).unwrap()].to_owned()
    }

    /// Asks until a job of the background has stopped.
    pub fn wait_stopped(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.terminal.said().contains("Stopped") {
            let said = self.ask("jobs");
            assert!(Instant::now() < until, "it does not stop: {said}");
        }
    }

    /// The status of the last command, as the shell tells it.
    pub fn status(&mut self) -> i32 {
        let said = self.ask("echo =$?=");
        let said = said.split('=').nth(1).unwrap_or_else(|| panic!("{said:?}"));
        said.parse().unwrap()
    }
}
