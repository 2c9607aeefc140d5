//! The terminal: taken over, and given back whatever happens.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{QueueSelector, tcflush};

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A screen that is drawn to. It is never dropped: a [`Terminal`] that is tells on the standard error
/// that it cannot show the cursor of a terminal that is gone, and panics since that is gone too.
pub(super) type Screen = ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Stdout>>>>;

/// Draws a frame, which a terminal that can shows at once, rather than as it comes. Others ignore
/// what says so.
pub(super) fn draw(screen: &mut Screen, frame: impl FnOnce(&mut Buffer)) -> io::Result<()> {
    queue!(screen.backend_mut(), BeginSynchronizedUpdate)?;
    screen.draw(|to| frame(to.buffer_mut()))?;
    execute!(screen.backend_mut(), EndSynchronizedUpdate)
}

/// Has the next frame drawn whole. Unlike `Terminal::clear` it asks the terminal nothing: the answer
/// would come among the keys, or never.
pub(super) fn clear(screen: &mut Screen) -> io::Result<()> {
    let size = screen.size()?;
    screen.resize(Rect::new(0, 0, size.width, size.height))
}

/// Why there is no screen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TerminalError {
    /// There is no terminal.
    #[error(
        "{what} is no terminal, so there is no live screen; \
         --once prints one frame, and --once --json its numbers"
    )]
    NoTerminal {
        /// Which end.
        what: &'static str,
    },
    /// The terminal can do nothing.
    #[error(
        "TERM=dumb: this terminal cannot show a live screen; \
         --once prints one frame, and --once --json its numbers"
    )]
    Dumb,
    /// The terminal is too small.
    #[error(
        "the terminal has {columns} columns and {rows} rows, and the live screen needs {} and {}; \
         make it larger, or print a frame of any size: COLUMNS=120 LINES=36 plimsoll top --once",
        super::layout::LEAST.0, super::layout::LEAST.1
    )]
    TooSmall {
        /// Its columns.
        columns: u16,
        /// Its rows.
        rows: u16,
    },
    /// The system refuses.
    #[error("the terminal: {0}")]
    Io(#[from] io::Error),
}

/// Looks whether there can be a screen.
///
/// # Errors
/// [`TerminalError`], with what to do instead.
pub fn check() -> Result<(), TerminalError> {
    for (is_terminal, what) in [
        (io::stdin().is_terminal(), "standard input"),
        (io::stdout().is_terminal(), "standard output"),
    ] {
        if !is_terminal {
            return Err(TerminalError::NoTerminal { what });
        }
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return Err(TerminalError::Dumb);
    }
    let (columns, rows) = crossterm::terminal::size()?;
    // A terminal that was never told its size says 0, and may be any.
    let too_small = columns < super::layout::LEAST.0 || rows < super::layout::LEAST.1;
    if too_small && columns > 0 && rows > 0 {
        return Err(TerminalError::TooSmall { columns, rows });
    }
    Ok(())
}

/// Takes the terminal over. Dropping what this returns gives it back, and so does a panic.
pub(super) fn take(mouse: bool) -> io::Result<Taken> {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
    let taken = Taken { mouse };
    taken.enter()?;
    Ok(taken)
}

pub(super) struct Taken {
    mouse: bool,
}

impl Taken {
    /// Takes it over again, after it was given back for a while.
    pub(super) fn enter(&self) -> io::Result<()> {
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let mut stdout = io::stdout();
        queue!(stdout, EnterAlternateScreen, Hide)?;
        if self.mouse {
            queue!(stdout, EnableMouseCapture)?;
        }
        stdout.flush()
    }

    /// A screen on it.
    pub(super) fn screen(&self) -> io::Result<Screen> {
        // A frame is one write, or few.
        let writer = BufWriter::with_capacity(256 << 10, io::stdout());
        Terminal::new(CrosstermBackend::new(writer)).map(ManuallyDrop::new)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether it is ours still: a panic on any thread gives it back.
pub(super) fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Gives the terminal back as it was; once is enough. What cannot be written is lost: the terminal
/// is gone.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(
            io::stdout(),
            // It may have been in the midst of a frame.
            EndSynchronizedUpdate,
            DisableMouseCapture,
            LeaveAlternateScreen,
            Show
        );
        let _ = disable_raw_mode();
    }
}

/// Gives back a terminal that takes nothing, at the end of the process: whoever is in the midst of
/// writing to it has the lock of the standard output. What it did not take is thrown away, which
/// makes room for the last words.
pub(super) fn abandon() {
    let _ = disable_raw_mode();
    let stdout = io::stdout();
    let _ = tcflush(&stdout, QueueSelector::OFlush);
    let mut words = Vec::new();
    let written = queue!(
        words,
        EndSynchronizedUpdate,
        DisableMouseCapture,
        LeaveAlternateScreen,
        Show
    );
    if written.is_ok() && is_ready() {
        let _ = rustix::io::write(&stdout, &words);
    }
}

/// Whether the terminal is gone.
pub(super) fn is_gone() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(gone)
}

/// Whether the terminal takes a frame now. One that is slow, or stopped, has not read the last.
pub(super) fn is_ready() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Where it cannot be asked, writing tells.
    poll(&mut fds, Some(&now)).map_or(true, |ready| ready > 0)
}
