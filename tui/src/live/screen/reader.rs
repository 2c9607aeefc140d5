//! The thread that reads a source and folds what it hears. The screen never waits for it, and it
//! waits for the screen only while that takes a picture of the state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plimsoll_events::Event;

use crate::live::source::{About, Control, Heard, Source};
use crate::live::state::{Ended, State};

/// How long a source is listened to at a time: what a control waits for at most. Each time costs a
/// few system calls, so while nobody presses keys it is long.
const LISTEN: Duration = Duration::from_millis(200);
/// The same while somebody does, and in a recording.
const LISTEN_SHORTLY: Duration = Duration::from_millis(25);
/// So long after a control there may be another soon.
const BUSY: Duration = Duration::from_secs(3);
/// So often a source is looked at that has ended: for its answers to controls.
const IDLE: Duration = Duration::from_millis(100);

/// What was heard, and where it came from.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    pub(super) state: State,
    pub(super) about: About,
    /// When something was last heard; absent before the first.
    pub(super) heard: Option<Instant>,
    /// Why nothing can be heard at all.
    pub(super) failed: Option<String>,
}

/// What came of taking something over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Took {
    /// Whether anything is different.
    pub(super) news: bool,
    /// Whether the source has ended.
    pub(super) ended: bool,
}

impl Picture {
    /// Takes over what a source has told: events first, and what it said of them.
    pub(super) fn take(&mut self, about: About, events: &[Event], heard: Heard) -> Took {
        let mut took = Took {
            news: about != self.about || !events.is_empty(),
            ended: false,
        };
        self.about = about;
        for event in events {
            self.state.fold(event);
        }
        if !events.is_empty() {
            self.heard = Some(Instant::now());
        }
        match heard {
            Heard::Events => {}
            Heard::State(state) => {
                self.state = *state;
                took.news = true;
            }
            Heard::Chunks(chunks) => {
                self.state.chunks = Some(chunks.map(Arc::from));
                took.news = true;
            }
            Heard::Ended(ended) => {
                took.news |= self.state.ended.as_ref() != Some(&ended);
                took.ended = true;
                self.state.ended = Some(ended);
            }
        }
        took
    }

    /// The time that ages are told from: that of the last event, and what has passed since then
    /// where time goes on.
    pub(super) fn now_us(&self) -> u64 {
        if let Some(playing) = &self.about.playing {
            return playing.at_us.max(self.state.at_us);
        }
        let since = match (self.heard, &self.state.ended) {
            (Some(heard), None) => heard.elapsed(),
            _ => Duration::ZERO,
        };
        let since = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.state.at_us.saturating_add(since)
    }
}

/// The reading end of the screen.
pub(super) struct Reader {
    picture: Arc<Mutex<Picture>>,
    controls: Sender<Control>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Begins to read. `changed` is called whenever there is something new.
    pub(super) fn begin(
        source: Box<dyn Source>,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Reader> {
        let picture = Arc::new(Mutex::new(Picture {
            about: source.about(),
            ..Picture::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (controls, orders) = channel();
        let reading = Reading {
            source,
            picture: Arc::clone(&picture),
            stop: Arc::clone(&stop),
            orders,
        };
        let thread = std::thread::Builder::new()
            .name("plimsoll-reader".to_owned())
            .spawn(move || reading.run(&changed))?;
        Ok(Reader {
            picture,
            controls,
            stop,
            thread: Some(thread),
        })
    }

    /// What was heard until now.
    pub(super) fn picture(&self) -> MutexGuard<'_, Picture> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the source to do something.
    pub(super) fn control(&self, control: Control) {
        // A reader that has ended does nothing more.
        let _ = self.controls.send(control);
    }

    /// Ends the reading, and gives what was heard.
    pub(super) fn end(mut self) -> Picture {
        self.halt();
        std::mem::take(&mut *self.picture())
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic was told where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Reading {
    source: Box<dyn Source>,
    picture: Arc<Mutex<Picture>>,
    stop: Arc<AtomicBool>,
    orders: Receiver<Control>,
}

impl Reading {
    fn run(mut self, changed: &dyn Fn()) {
        let reading = AssertUnwindSafe(|| self.read(changed));
        if catch_unwind(reading).is_err() {
            let mut picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
            picture.failed = Some("a fault of the reader, told above".to_owned());
            drop(picture);
            changed();
        }
    }

    fn read(&mut self, changed: &dyn Fn()) {
        let mut batch = Vec::new();
        let mut ordered: Option<Instant> = None;
        let mut plays = true;
        while !self.stop.load(Ordering::SeqCst) {
            while let Ok(order) = self.orders.try_recv() {
                self.source.control(order);
                ordered = Some(Instant::now());
            }
            let is_busy = plays || ordered.is_some_and(|at| at.elapsed() < BUSY);
            let within = if is_busy { LISTEN_SHORTLY } else { LISTEN };
            batch.clear();
            let heard = self.source.hear(within, &mut batch);
            let about = self.source.about();
            plays = about.playing.is_some();
            let mut picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
            let took = match heard {
                Ok(heard) => picture.take(about, &batch, heard),
                Err(error) => {
                    picture.about = about;
                    picture.state.ended = Some(Ended {
                        why: error.to_string(),
                        in_order: false,
                    });
                    // What it would say next of itself is less to the point.
                    picture.failed = Some(error.to_string());
                    picture.state.conclude();
                    drop(picture);
                    changed();
                    return;
                }
            };
            if took.news {
                picture.state.conclude();
            }
            drop(picture);
            if took.news {
                changed();
            }
            if took.ended {
                std::thread::sleep(IDLE);
            }
        }
    }
}
