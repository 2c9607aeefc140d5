//! The writing end of a stream: numbers events, stamps them, and passes them to whoever hears.

use std::fmt;
use std::sync::Arc;

use crate::event::{Kind, Sink};
use crate::subscribe::{Hearers, Subscription};

/// Where a cache and the program around it tell what happens. Clones share one numbering.
///
/// A stream has at most one [`Sink`], which is there from the start and hears every event on the
/// thread that tells it, and any number of [subscriptions](Stream::subscribe), which come and go
/// and are never waited for. An event that nobody hears is not numbered and costs two loads.
#[derive(Clone)]
pub struct Stream {
    inner: Arc<Inner>,
}

struct Inner {
    sink: Option<Box<dyn Sink>>,
    hearers: Arc<Hearers>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hearers.close();
    }
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

    /// A stream without a sink: nobody hears it until somebody subscribes.
    #[must_use]
    pub fn silent() -> Stream {
        Stream::over(None)
    }

    fn over(sink: Option<Box<dyn Sink>>) -> Stream {
        Stream {
            inner: Arc::new(Inner {
                sink,
                hearers: Arc::default(),
            }),
        }
    }

    /// Whether there is a sink or a subscription.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.inner.sink.is_some() || self.inner.hearers.any()
    }

    /// Sends an event. The sink is called under a lock, so that it sees numbers in order; it must
    /// not emit into this stream, nor subscribe to it. Subscriptions are never waited for.
    pub fn emit(&self, kind: Kind) {
        if self.is_heard() {
            self.inner.hearers.tell(kind, self.inner.sink.as_deref());
        }
    }

    /// Hears the stream from the next event on, with room for `capacity` events that were not
    /// received yet (at least one). See [`subscribe`](crate::subscribe) for what is guaranteed.
    #[must_use = "dropping a subscription unsubscribes"]
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        self.inner.hearers.subscribe(capacity, None).0
    }

    /// Who hears, without keeping the stream open.
    pub(crate) fn hearers(&self) -> &Arc<Hearers> {
        &self.inner.hearers
    }
}
