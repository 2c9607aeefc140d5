//! What is being done, on stderr, where that lasts and stderr is a terminal.

use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_cache::model::escape_path;
use plimsoll_tui::paint::shortened;

/// What takes no longer is not announced.
const SHORT: Duration = Duration::from_secs(1);
/// How often a line turns that has nothing to count.
const TURN: Duration = Duration::from_millis(100);
/// How much is shown of a file's name, columns.
const FILE_NAME: usize = 40;

/// Does the work; meanwhile a line turns.
pub(super) fn searching<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let (done, until_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if until_done.recv_timeout(SHORT) == Err(RecvTimeoutError::Timeout) {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                    bar.set_style(style);
                }
                bar.set_message(format!("reading headers below {}", escape_path(path)));
                bar.enable_steady_tick(TURN);
                let _ = until_done.recv();
                bar.finish_and_clear();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// A bar that is shown once it has been there for a second.
pub(super) struct Bar {
    bar: ProgressBar,
    begun: Instant,
}

impl Bar {
    pub(super) fn new(models: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(models as u64), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("models {wide_bar:.dim} {pos}/{len} {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self {
            bar,
            begun: Instant::now(),
        }
    }

    /// The next one is looked at, which was found here.
    pub(super) fn next(&self, path: &Path) {
        if self.bar.is_hidden() && self.begun.elapsed() > SHORT {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        let file_name = path.file_name().unwrap_or_default();
        let message = escape_path(Path::new(file_name)).to_string();
        // A bar of several lines flickers, and leaves no room for itself.
        self.bar
            .set_message(shortened(&message, FILE_NAME).into_owned());
        self.bar.inc(1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
