//! The live screen, from its first frame to its last.
//!
//! One thread draws and takes keys; it never waits for anything but the terminal. Another reads the
//! terminal's input, so that keys that come while a frame is written are not lost; a third waits for
//! signals; a fourth reads the source. A frame is drawn when something changed, at most twenty a
//! second, and not while the terminal has not taken the last: that one is skipped, and the next
//! shows what is so then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crossterm::event::Event as Input;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGTSTP};

use super::config::Config;
use super::reader::{Picture, Reader};
use super::save;
use super::terminal::{self, Screen, Taken, TerminalError};
use super::theme::Role;
use super::ui::{Effect, Ui};
use super::wakes::{Wake, Wakes};
use crate::live::source::{About, Source};
use crate::live::state::State;

/// Between two frames that no key asked for.
const FRAME: Duration = Duration::from_millis(50);
/// News seldom comes alone: so long a frame waits for what comes with it.
const GATHER: Duration = Duration::from_millis(25);
/// Before a frame is tried again that the terminal did not take.
const RETRY: Duration = Duration::from_millis(20);
/// Ages are told in seconds.
const SECOND: Duration = Duration::from_secs(1);

/// How the screen ended.
#[derive(Debug)]
pub struct Finished {
    /// What was known last.
    pub state: State,
    /// The source, with its troubles.
    pub about: About,
    /// Whether a signal ended it, rather than a key.
    pub signal: Option<i32>,
    /// Why nothing could be shown at all.
    pub failed: Option<String>,
}

/// Shows a source until a key, a signal, or the terminal ends it. With `ends`, leaving asks first,
/// and says so.
///
/// # Errors
/// [`TerminalError`]: there is no terminal, or it is of no use. A source that cannot be shown is no
/// error here: see [`Finished::failed`].
pub fn run(
    source: Box<dyn Source>,
    config: &Config,
    ends: Option<String>,
) -> Result<Finished, TerminalError> {
    terminal::check()?;
    let ui = Ui::new(config.clone(), config.theme(true), ends);
    let taken = terminal::take(config.mouse)?;
    let wakes = Wakes::begin()?;
    let told = Arc::new(AtomicBool::new(false));
    let reader = {
        let (sender, told) = (wakes.sender(), Arc::clone(&told));
        // One word is enough until it was heard, however many events there are.
        Reader::begin(source, move || {
            if !told.swap(true, Ordering::SeqCst) {
                let _ = sender.send(Wake::Changed);
            }
        })?
    };
    let screen = taken.screen()?;
    let mut session = Session {
        ui,
        reader,
        told,
        taken,
        screen,
        wakes,
        due: Some(Instant::now()),
        drawn: None,
    };
    let signal = session.run().or_else(gone);
    let Session {
        reader,
        taken,
        wakes,
        ..
    } = session;
    // In this order: while there are wakes, a terminal that takes nothing is not waited for long.
    drop(taken);
    drop(wakes);
    let Picture {
        state,
        about,
        failed,
        ..
    } = reader.end();
    Ok(Finished {
        state,
        about,
        signal: signal?,
        failed,
    })
}

/// What cannot be written to a terminal that is gone is no error to tell: nobody sees it.
pub(super) fn gone(error: io::Error) -> io::Result<Option<i32>> {
    if terminal::is_gone() {
        Ok(Some(SIGHUP))
    } else {
        Err(error)
    }
}

/// The screen is left, by a signal or by a key.
struct Left(Option<i32>);

struct Session {
    ui: Ui,
    reader: Reader,
    /// Whether there is news that was not looked at.
    told: Arc<AtomicBool>,
    taken: Taken,
    screen: Screen,
    wakes: Wakes,
    /// When the next frame is to be drawn; absent while nothing has changed.
    due: Option<Instant>,
    drawn: Option<Instant>,
}

impl Session {
    /// Goes on until it ends; by which signal, if by one.
    fn run(&mut self) -> io::Result<Option<i32>> {
        // Nothing is drawn over what a panic said.
        while terminal::is_taken() {
            self.draw()?;
            match self.wakes.woken.recv_timeout(self.pause()) {
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if terminal::is_gone() => return Ok(Some(SIGHUP)),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Ok(wake) => {
                    // Keys that came while a frame was written are one frame together.
                    let mut next = Some(wake);
                    while let Some(wake) = next {
                        if let Some(left) = self.wake(wake)? {
                            return Ok(left.0);
                        }
                        next = self.wakes.woken.try_recv().ok();
                    }
                }
            }
        }
        Ok(None)
    }

    /// Does what it was woken for; whether that is to leave, and by which signal.
    fn wake(&mut self, wake: Wake) -> io::Result<Option<Left>> {
        match wake {
            Wake::Gone => return Ok(Some(Left(Some(SIGHUP)))),
            Wake::Changed => {
                self.told.store(false, Ordering::SeqCst);
                self.note_news();
            }
            Wake::Signal(SIGTSTP) => self.suspend()?,
            Wake::Signal(SIGCONT) => self.resume()?,
            Wake::Signal(signal) => return Ok(Some(Left(Some(signal)))),
            Wake::Input(input) => {
                // A key asks for a frame at once.
                self.due = Some(Instant::now());
                if self.input(&input)? {
                    return Ok(Some(Left(None)));
                }
            }
        }
        Ok(None)
    }

    /// Something changed that no key asked for.
    fn note_news(&mut self) {
        let gathered = Instant::now() + GATHER;
        let due = self
            .drawn
            .map_or(gathered, |drawn| gathered.max(drawn + FRAME));
        self.due.get_or_insert(due);
    }

    /// How long nothing changes by itself.
    fn pause(&self) -> Duration {
        let until = self.due.or(self.ui.deadline());
        let left = until.map_or(SECOND, |until| {
            until.saturating_duration_since(Instant::now())
        });
        left.clamp(Duration::from_millis(1), SECOND)
    }

    /// Nothing came: what is on the screen may still have aged.
    fn tick(&mut self) {
        if self
            .ui
            .deadline()
            .is_some_and(|until| until <= Instant::now())
        {
            self.due = Some(Instant::now());
        }
        let picture = self.reader.picture();
        let heard = picture.heard;
        let is_stale = heard.is_some_and(|heard| heard.elapsed() > SECOND * 2);
        let is_live = picture.about.playing.is_none() && picture.state.ended.is_none();
        drop(picture);
        if is_stale && is_live && self.ui.frozen.is_none() {
            self.due.get_or_insert_with(Instant::now);
        }
    }

    /// Draws what changed, where the terminal takes it.
    fn draw(&mut self) -> io::Result<()> {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        if !terminal::is_ready() {
            std::thread::sleep(RETRY);
            return Ok(());
        }
        self.ui.hush();
        let (ui, reader) = (&mut self.ui, &self.reader);
        // The reader waits for what is drawn, and not for what is written to the terminal.
        terminal::draw(&mut self.screen, |buffer| {
            ui.draw(&reader.picture(), buffer);
        })?;
        self.due = None;
        self.drawn = Some(Instant::now());
        Ok(())
    }

    /// Takes an input; whether to leave.
    fn input(&mut self, input: &Input) -> io::Result<bool> {
        let frozen = self.ui.frozen.take();
        let was_frozen = frozen.is_some();
        let effects = match &frozen {
            Some(shown) => self.ui.input(input, shown),
            None => self.ui.input(input, &self.reader.picture()),
        };
        // Freezing, of what is frozen, is going on.
        match (was_frozen, self.ui.frozen.is_some()) {
            (true, true) => self.ui.frozen = None,
            (true, false) => self.ui.frozen = frozen,
            (false, _) => {}
        }
        for effect in effects {
            match effect {
                Effect::Quit => return Ok(true),
                Effect::Suspend => self.suspend()?,
                Effect::Save => self.save(),
                Effect::Control(control) => self.reader.control(control),
            }
        }
        Ok(false)
    }

    fn save(&mut self) {
        let written = match self.ui.frozen.as_deref() {
            Some(shown) => save::write(shown),
            None => save::write(&self.reader.picture()),
        };
        match written {
            Ok(path) => self
                .ui
                .say(Role::Good, format!("written to {}", path.display())),
            Err(error) => self.ui.say(Role::Bad, format!("cannot write it: {error}")),
        }
    }

    /// Stops, as Ctrl-Z has any program stop, with the terminal as it was.
    fn suspend(&mut self) -> io::Result<()> {
        terminal::give_back();
        signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
        self.resume()
    }

    fn resume(&mut self) -> io::Result<()> {
        // Whoever had the terminal meanwhile may have changed it.
        terminal::give_back();
        self.taken.enter()?;
        terminal::clear(&mut self.screen)?;
        self.due = Some(Instant::now());
        Ok(())
    }
}
