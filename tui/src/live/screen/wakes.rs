//! What the drawing thread wakes for: keys, clicks, signals, news.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossterm::event::Event as Input;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::{Handle, Signals};

use super::terminal;

/// How often input is looked for whether it is to end.
const INPUT: Duration = Duration::from_millis(200);
/// What a terminal that takes nothing has, to take the last words, before it is left as it is.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Something that the drawing thread wakes for.
pub(super) enum Wake {
    Input(Input),
    /// There is something new; it may be looked at once for several of these.
    Changed,
    Signal(i32),
    /// The input has ended: the terminal is gone.
    Gone,
}

/// The threads that wake the drawing one. They end when this is dropped.
pub(super) struct Wakes {
    pub(super) woken: Receiver<Wake>,
    sender: Sender<Wake>,
    signals: Handle,
    stop: Arc<AtomicBool>,
    input: Option<JoinHandle<()>>,
}

impl Wakes {
    /// Begins to listen, on a terminal that was taken over.
    pub(super) fn begin() -> io::Result<Wakes> {
        let (sender, woken) = channel();
        let signals = listen(sender.clone())?;
        let stop = Arc::new(AtomicBool::new(false));
        let input = {
            let (sender, stop) = (sender.clone(), Arc::clone(&stop));
            std::thread::Builder::new()
                .name("plimsoll-input".to_owned())
                .spawn(move || read(&sender, &stop))?
        };
        Ok(Wakes {
            woken,
            sender,
            signals,
            stop,
            input: Some(input),
        })
    }

    /// What another thread says that there is something new with.
    pub(super) fn sender(&self) -> Sender<Wake> {
        self.sender.clone()
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.signals.close();
        self.stop.store(true, Ordering::SeqCst);
        // What is typed from now on is for others. From a terminal that is gone crossterm reads
        // without end.
        let until = Instant::now() + INPUT * 5;
        if let Some(input) = self.input.take() {
            while !input.is_finished() && !terminal::is_gone() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Passes signals on. Where the terminal takes nothing, so that the screen cannot end by itself,
/// patience ends the process.
fn listen(wakes: Sender<Wake>) -> io::Result<Handle> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGCONT])?;
    let handle = signals.handle();
    let closing = signals.handle();
    std::thread::Builder::new()
        .name("plimsoll-signals".to_owned())
        .spawn(move || {
            for signal in &mut signals {
                let told = wakes.send(Wake::Signal(signal)).is_ok();
                if told && matches!(signal, SIGTERM | SIGHUP | SIGINT) {
                    std::thread::sleep(LAST_WORDS);
                    if !closing.is_closed() {
                        terminal::abandon();
                        std::process::exit(128 + signal);
                    }
                }
            }
        })?;
    Ok(handle)
}

/// Reads keys and clicks, so that those are not lost that come while a frame is written.
fn read(wakes: &Sender<Wake>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let wake = match crossterm::event::poll(INPUT) {
            Ok(false) => continue,
            Ok(true) => crossterm::event::read().map_or(Wake::Gone, Wake::Input),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Wake::Gone,
        };
        let gone = matches!(wake, Wake::Gone);
        if wakes.send(wake).is_err() || gone {
            return;
        }
    }
}
