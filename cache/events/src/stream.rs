//! The writing end of a stream: numbers events, stamps them, and passes them to a sink.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::VERSION;
use crate::event::{Event, Kind, Sink};

/// Where a cache and the program around it tell what happens. Clones share one numbering.
#[derive(Clone)]
pub struct Stream {
    inner: Arc<Inner>,
}

struct Inner {
    started: Instant,
    sink: Option<Box<dyn Sink>>,
    next: Mutex<u64>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("heard", &self.is_heard())
            .finish_non_exhaustive()
    }
}

impl Default for Stream {
    fn default() -> Self {
        Stream::silent()
    }
}

impl Stream {
    /// A stream into a sink.
    #[must_use]
    pub fn new(sink: impl Sink + 'static) -> Stream {
        Stream::over(Some(Box::new(sink)))
    }

    /// A stream that nobody hears.
    #[must_use]
    pub fn silent() -> Stream {
        Stream::over(None)
    }

    fn over(sink: Option<Box<dyn Sink>>) -> Stream {
        Stream {
            inner: Arc::new(Inner {
                started: Instant::now(),
                sink,
                next: Mutex::new(0),
            }),
        }
    }

    /// Whether there is a sink.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.inner.sink.is_some()
    }

    /// Sends an event. The sink is called under a lock, so that it sees numbers in order.
    pub fn emit(&self, kind: Kind) {
        let Some(sink) = &self.inner.sink else {
            return;
        };
        let mut next = self
            .inner
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            v: VERSION,
            seq: *next,
            at_us: self.inner.started.elapsed().as_micros() as u64,
            kind,
        };
        *next += 1;
        sink.event(&event);
    }
}
