//! A source that is written down while it is heard.

use std::io;
use std::path::Path;
use std::time::Duration;

use plimsoll_events::{Closed, Event, Kind, Recorder, Sink, VERSION};

use super::{About, Control, Heard, Source, SourceError, SourceKind};
use crate::live::state::Ended;

/// Writes what another source tells to a new file, looks and pulses among it, which neither the
/// stream of a cache nor its own recording has; and in a note how it ended.
pub struct Recorded {
    inner: Box<dyn Source>,
    recorder: Recorder,
    /// The number and the time of the last event.
    last: (u64, u64),
    /// The stream has told its end.
    closed: bool,
    ended: Option<Ended>,
}

impl Recorded {
    /// Begins to write to a new file.
    ///
    /// # Errors
    /// The file is there already, or cannot be made; or what is heard is a recording, of which
    /// going to and fro leaves no stream.
    pub fn begin(inner: Box<dyn Source>, path: &Path) -> Result<Recorded, SourceError> {
        let failed = |source| SourceError::Record {
            path: path.to_owned(),
            source,
        };
        if inner.about().kind == SourceKind::Recording {
            let reason = "what is shown is a recording already; copy its file";
            let error = io::Error::new(io::ErrorKind::InvalidInput, reason);
            return Err(failed(error));
        }
        Ok(Recorded {
            recorder: Recorder::create(path).map_err(failed)?,
            inner,
            last: (0, 0),
            closed: false,
            ended: None,
        })
    }

    /// Writes something down that the source did not tell as an event.
    fn add(&self, kind: Kind) {
        let (seq, at_us) = self.last;
        self.recorder.event(&Event {
            v: VERSION,
            seq,
            at_us,
            kind,
        });
    }

    fn note_end(&mut self, ended: &Ended) {
        if self.ended.as_ref() != Some(ended) {
            self.add(Kind::Note {
                text: ended.why.clone(),
            });
            self.ended = Some(ended.clone());
        }
    }
}

impl Source for Recorded {
    fn about(&self) -> About {
        let mut about = self.inner.about();
        if let Some(failure) = self.recorder.failure() {
            let path = self.recorder.path().display();
            about
                .troubles
                .push(format!("the recording {path} is incomplete: {failure}"));
        }
        about
    }

    fn hear(&mut self, within: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        let known = into.len();
        let heard = self.inner.hear(within, into);
        for event in &into[known..] {
            self.recorder.event(event);
            self.last = (event.seq, event.at_us);
            self.closed |= matches!(event.kind, Kind::Closed(_));
        }
        if let Ok(Heard::Ended(ended)) = &heard {
            self.note_end(ended);
        }
        heard
    }

    fn control(&mut self, control: Control) {
        self.inner.control(control);
    }
}

impl Drop for Recorded {
    /// The recording ends in order, unless what it is of did not.
    fn drop(&mut self) {
        let in_order = self.ended.as_ref().is_none_or(|ended| ended.in_order);
        if in_order && !self.closed {
            self.add(Kind::Closed(Closed::default()));
        }
    }
}
