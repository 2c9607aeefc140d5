//! A real terminal: a pty, and a parser of what is written to it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// Nothing that is waited for takes so long, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the parser knows nothing of: where frames begin and end.
#[derive(Default)]
struct Frames {
    /// What was on the screen before the frame that is being written.
    before: Option<String>,
}

impl vt100::Callbacks for Frames {
    fn unhandled_csi(
        &mut self,
        screen: &mut vt100::Screen,
        first: Option<u8>,
        _: Option<u8>,
        params: &[&[u16]],
        last: char,
    ) {
        match (first, params, last) {
            (Some(b'?'), [[2026]], 'h') => self.before = Some(rows(screen)),
            (Some(b'?'), [[2026]], 'l') => self.before = None,
            _ => {}
        }
    }
}

fn rows(screen: &vt100::Screen) -> String {
    let rows = screen.rows(0, u16::MAX);
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

/// A program in a terminal.
pub struct Terminal {
    child: Child,
    master: File,
    /// The other end, kept open so that the terminal outlives the program.
    tty: OwnedFd,
    parser: Arc<Mutex<vt100::Parser<Frames>>>,
    reader: Option<JoinHandle<()>>,
    /// Set to have the reader end.
    closing: Arc<AtomicBool>,
    /// While set, nothing is read: a terminal that is slow, or stopped.
    stopped: Arc<AtomicBool>,
}

impl Terminal {
    /// Runs a command in a terminal of so many columns and rows.
    pub fn run(command: Command, size: (u16, u16)) -> Terminal {
        Terminal::begin(command, size, true)
    }

    /// The same, but the terminal is somebody else's, as a shell's: when the leader of its session
    /// ends, the kernel throws away what was not read of it.
    pub fn lend(command: Command, size: (u16, u16)) -> Terminal {
        Terminal::begin(command, size, false)
    }

    fn begin(mut command: Command, (columns, rows): (u16, u16), leads: bool) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let tty = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap();
        tcsetwinsize(&tty, size(columns, rows)).unwrap();
        let end = || Stdio::from(tty.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        let fd = tty.as_raw_fd();
        // SAFETY: between fork and exec only `setsid` and `ioctl` are called, which are
        // async-signal-safe; the descriptor is open in the child until the exec.
        unsafe {
            command.pre_exec(move || {
                if leads && (libc::setsid() < 0 || libc::ioctl(fd, libc::TIOCSCTTY, 0) < 0) {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let size = (some(rows), some(columns));
        let parser = vt100::Parser::new_with_callbacks(size.0, size.1, 0, Frames::default());
        let parser = Arc::new(Mutex::new(parser));
        let master = File::from(master);
        let stopped = Arc::new(AtomicBool::new(false));
        let closing = Arc::new(AtomicBool::new(false));
        let reader = {
            let (parser, stopped) = (Arc::clone(&parser), Arc::clone(&stopped));
            let closing = Arc::clone(&closing);
            let mut master = master.try_clone().unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while !closing.load(Ordering::SeqCst) {
                    if stopped.load(Ordering::SeqCst) || !is_readable(&master) {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    match master.read(&mut bytes) {
                        Ok(read @ 1..) => parser.lock().unwrap().process(&bytes[..read]),
                        _ => return,
                    }
                }
            })
        };
        Terminal {
            child,
            master,
            tty,
            parser,
            reader: Some(reader),
            closing,
            stopped,
        }
    }

    /// What is on the screen, line by line: the last whole frame.
    pub fn text(&self) -> String {
        let parser = self.parser.lock().unwrap();
        let before = parser.callbacks().before.clone();
        before.unwrap_or_else(|| rows(parser.screen()))
    }

    /// Types something, escape sequences and all.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Clicks a cell, counted from 0 (SGR mouse reporting).
    pub fn click(&mut self, column: u16, row: u16) {
        let (x, y) = (column + 1, row + 1);
        self.send(&format!("\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m"));
    }

    /// Clicks where a text stands.
    pub fn click_on(&mut self, text: &str) {
        let screen = self.text();
        let (row, line) = screen
            .lines()
            .enumerate()
            .find(|(_, line)| line.contains(text))
            .unwrap_or_else(|| panic!("no {text:?} in\n{screen}"));
        let column = line[..line.find(text).unwrap()].chars().count();
        self.click(u16::try_from(column).unwrap(), u16::try_from(row).unwrap());
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.parser
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(some(rows), some(columns));
        tcsetwinsize(&self.tty, size(columns, rows)).unwrap();
    }

    /// Waits until the screen is as it should be.
    pub fn wait_for(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if is(&text) {
                return text;
            }
            assert!(
                Instant::now() < until,
                "waited in vain for {what}; there is\n{text}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until some text is there.
    pub fn wait_text(&self, text: &str) -> String {
        self.wait_for(text, |screen| screen.contains(text))
    }

    /// Reads nothing more of what is written, or goes on.
    pub fn stop_reading(&self, stop: bool) {
        self.stopped.store(stop, Ordering::SeqCst);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it is stopped, as Ctrl-Z stops a program.
    pub fn wait_stopped(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let until = Instant::now() + PATIENCE;
        let options = WaitOptions::UNTRACED | WaitOptions::NOHANG;
        loop {
            if let Some((_, status)) = waitpid(Some(pid), options).unwrap() {
                assert!(status.stopped(), "it has ended: {status:?}");
                break;
            }
            assert!(Instant::now() < until, "it goes on:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.settle();
    }

    /// Waits until the terminal has been taken over again.
    pub fn wait_damaged(&self) {
        let until = Instant::now() + PATIENCE;
        while self.damage().len() < 4 {
            assert!(Instant::now() < until, "only {:?}", self.damage());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the terminal is as it was, which a program that has ended may have left to the
    /// bytes that are on their way.
    pub fn wait_undamaged(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.damage().is_empty() {
            assert!(Instant::now() < until, "left: {:?}", self.damage());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Has the terminal edit lines and echo, as a shell does.
    pub fn make_cooked(&self) {
        let mut modes = tcgetattr(&self.tty).unwrap();
        modes.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(&self.tty, OptionalActions::Now, &modes).unwrap();
    }

    /// Whether clicks are reported.
    pub fn takes_clicks(&self) -> bool {
        let parser = self.parser.lock().unwrap();
        parser.screen().mouse_protocol_mode() != vt100::MouseProtocolMode::None
    }

    /// Takes the terminal away, as when a window is closed. The program goes on, or not.
    pub fn close(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.master = nowhere().into();
        self.tty = nowhere();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.settle();
                return status;
            }
            assert!(Instant::now() < until, "it goes on:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until what was written was read, unless nothing is read at all.
    fn settle(&self) {
        let reads = || !self.stopped.load(Ordering::SeqCst) && !self.closing.load(Ordering::SeqCst);
        while reads() && is_readable(&self.master) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What was read last is being taken in.
        std::thread::sleep(Duration::from_millis(50));
    }

    /// What of the terminal is not as a shell expects it.
    pub fn damage(&self) -> Vec<&'static str> {
        let mut damage = Vec::new();
        let modes = tcgetattr(&self.tty).unwrap().local_modes;
        if !modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG) {
            damage.push("raw mode");
        }
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        if screen.alternate_screen() {
            damage.push("alternate screen");
        }
        if screen.hide_cursor() {
            damage.push("hidden cursor");
        }
        if screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None {
            damage.push("mouse reporting");
        }
        damage
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.closing.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn is_readable(master: &File) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(master, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn nowhere() -> OwnedFd {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).unwrap()
}

fn some(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap()
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
