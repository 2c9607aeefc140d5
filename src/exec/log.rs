//! The recording of a command: the same stream that a cache writes.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use malloc_stats::inspect::Inspection;
use plimsoll_events::{Closed, Event, Kind, Look, Opened, VERSION};

use crate::run::Recording;

/// Where what is seen of a command is written, if anywhere.
#[derive(Debug)]
pub(crate) struct Log {
    recording: Option<Recording>,
    begun: Instant,
    seq: u64,
}

impl Log {
    pub(crate) fn begin(recording: Option<Recording>, begun: Instant) -> Log {
        Log {
            recording,
            begun,
            seq: 0,
        }
    }

    /// The first line: what runs under which profile.
    pub(crate) fn open(&mut self, pid: u32, program: &str, profile: &str) {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.tell(Kind::Opened(Box::new(Opened {
            unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            pid,
            program: program.to_owned(),
            profile: profile.to_owned(),
            ..Opened::default()
        })));
    }

    pub(crate) fn tell(&mut self, kind: Kind) {
        let Some(recording) = &self.recording else {
            return;
        };
        recording.event(&Event {
            v: VERSION,
            seq: self.seq,
            at_us: u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            kind,
        });
        self.seq += 1;
    }

    pub(crate) fn look(&mut self, inspection: Inspection) {
        if self.recording.is_some() {
            self.tell(Kind::Look(Box::new(Look { inspection })));
        }
    }

    /// The last line; gives why the recording is incomplete, if it is.
    pub(crate) fn close(mut self, how: String) -> Option<String> {
        self.tell(Kind::Note { text: how });
        self.tell(Kind::Closed(Closed::default()));
        self.recording.as_ref()?.failure()
    }
}
