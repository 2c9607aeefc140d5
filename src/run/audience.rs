//! Who hears the events of a run: the report that is folded, the recording, and the reader.

use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_cache::LoadObserver;
use plimsoll_cache::Model;
use plimsoll_cache::model::TensorInfo;
use plimsoll_events::{Event, Recorder, Report, Sink};
use plimsoll_tui::decision;

use super::churn::Churn;
use crate::output::Output;

/// Takes the events of a run.
pub(crate) struct Audience {
    report: Mutex<Report>,
    recorder: Option<Recorder>,
    output: Output,
    bar: ProgressBar,
}

impl Audience {
    pub(crate) fn new(recorder: Option<Recorder>, output: Output, bar: ProgressBar) -> Audience {
        Audience {
            report: Mutex::new(Report::new()),
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

    /// Why the recording is incomplete, if it is.
    pub(crate) fn recording_failed(&self) -> Option<String> {
        self.recorder.as_ref()?.failure()
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
        if let Some(line) = decision::line(&self.output.paint, event) {
            // A reader that has gone away ends the run when the report is printed, not here.
            self.bar.suspend(|| {
                let _ = self.output.text(&format!("{line}\n"));
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

/// Watches loads from inside: moves the bar, and churns where that is asked for.
pub(crate) struct Watcher {
    pub(crate) bar: ProgressBar,
    pub(crate) churn: Option<Arc<Churn>>,
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

    fn bytes_read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}
