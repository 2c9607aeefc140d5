//! Who hears the events of a run: the report that is folded, the recording, and the reader.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_cache::LoadObserver;
use plimsoll_cache::Model;
use plimsoll_cache::model::TensorInfo;
use plimsoll_events::{Event, Kind, Load, Recorder, Report, Sink};
use plimsoll_tui::decision;

use super::churn::Churn;
use crate::output::Output;

/// A recording that has begun. Where the run does not come to its first event, the file goes again.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Recorder,
    used: AtomicBool,
}

impl Recording {
    pub(crate) fn begin(path: &Path) -> Result<Recording, String> {
        let recorder = Recorder::create(path).map_err(|error| {
            let advice = match (error.kind(), std::fs::metadata(path)) {
                (ErrorKind::AlreadyExists, Ok(meta)) if meta.is_file() => {
                    "; a recording is never overwritten: remove it, or name another file"
                }
                (ErrorKind::AlreadyExists, _) => "; name a new file",
                _ => "",
            };
            format!("cannot record in {}: {error}{advice}", path.display())
        })?;
        Ok(Recording {
            recorder,
            used: AtomicBool::new(false),
        })
    }

    /// Writes an event.
    pub(crate) fn event(&self, event: &Event) {
        self.used.store(true, Ordering::Relaxed);
        self.recorder.event(event);
    }
}

impl Recording {
    /// Why it is incomplete, if it is.
    pub(crate) fn failure(&self) -> Option<String> {
        let failure = self.recorder.failure()?;
        Some(format!("{}: {failure}", self.recorder.path().display()))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.used.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(self.recorder.path());
        }
    }
}

/// Takes the events of a run.
pub(crate) struct Audience {
    report: Mutex<Report>,
    /// Errors that were shown in full.
    shown: Mutex<HashSet<String>>,
    /// Whether the columns of the lines were named.
    headed: AtomicBool,
    recorder: Option<Recording>,
    output: Output,
    bar: ProgressBar,
}

impl Audience {
    pub(crate) fn new(recorder: Option<Recording>, output: Output, bar: ProgressBar) -> Audience {
        Audience {
            report: Mutex::new(Report::new()),
            shown: Mutex::default(),
            headed: AtomicBool::new(false),
            recorder,
            output,
            bar,
        }
    }

    /// The report as far as it goes.
    pub(crate) fn report(&self) -> Report {
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the run is recorded.
    pub(crate) fn records(&self) -> bool {
        self.recorder.is_some()
    }

    /// The run did not come about: its recording goes again.
    pub(crate) fn forget(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.used.store(false, Ordering::Relaxed);
        }
    }

    /// Why the recording is incomplete, if it is.
    pub(crate) fn recording_failed(&self) -> Option<String> {
        self.recorder.as_ref()?.failure()
    }
}

impl Audience {
    /// Whether a failed load's error was shown before: a broken file fails at every lease.
    fn was_shown(&self, load: &Load) -> bool {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        load.error
            .as_ref()
            .is_some_and(|error| !shown.insert(error.clone()))
    }
}

impl Sink for Audience {
    fn event(&self, event: &Event) {
        if let Some(recorder) = &self.recorder {
            recorder.event(event);
        }
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fold(event);
        if self.output.json {
            return;
        }
        let line = match &event.kind {
            Kind::Load(load) if self.was_shown(load) => {
                let mut load = load.clone();
                load.error = Some("as before".to_owned());
                let event = Event {
                    kind: Kind::Load(load),
                    ..*event
                };
                decision::line(&self.output.paint, &event)
            }
            _ => decision::line(&self.output.paint, event),
        };
        if let Some(line) = line {
            // A reader that has gone away ends the run when the report is printed, not here.
            let heading = if self.headed.swap(true, Ordering::Relaxed) {
                String::new()
            } else {
                decision::heading(&self.output.paint) + "\n"
            };
            self.bar.suspend(|| {
                let _ = self.output.text(&format!("{heading}{line}\n"));
            });
        }
    }
}

/// A bar on stderr, where that is a terminal.
pub(crate) fn bar(len: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    let template = "{prefix:>8} {wide_bar:.dim} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(what);
    bar
}

/// Watches loads from inside: moves the bar, and churns and has reads fail where that is asked for.
pub(crate) struct Watcher {
    pub(crate) bar: ProgressBar,
    pub(crate) churn: Option<Arc<Churn>>,
    /// Reads whose number, from 1, is a multiple of any of these fail.
    pub(crate) failing_reads: Vec<u64>,
    pub(crate) reads: AtomicU64,
}

impl LoadObserver for Watcher {
    fn before_tensor(&self, model: &Model, tensor: &TensorInfo) {
        if let Some(churn) = &self.churn {
            churn.before_tensor(model, tensor);
        }
    }

    fn after_tensor(&self, model: &Model, tensor: &TensorInfo) {
        if let Some(churn) = &self.churn {
            churn.after_tensor(model, tensor);
        }
    }

    fn before_read(&self, _: &Path, _: u64, _: u64) -> std::io::Result<()> {
        // Only the number counts, and nothing is ordered by it.
        let number = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        let mut failing = self.failing_reads.iter();
        if failing.any(|every| number.is_multiple_of(*every)) {
            return Err(std::io::Error::other("input/output error (injected)"));
        }
        Ok(())
    }

    fn bytes_read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}
