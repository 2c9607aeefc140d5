//! Streams, which do one thing after the other, and events, which come between.

use std::fmt;
use std::ptr::null_mut;
use std::sync::Arc;

use super::functions::Handle;
use super::{Context, DriverError};

/// A stream that belongs to somebody else, such as candle's device: `CUstream` as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawStream(pub usize);

/// `CU_STREAM_NON_BLOCKING`: it does not wait for the stream that all threads share.
const NON_BLOCKING: u32 = 1;

/// `CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING`: whoever waits sleeps.
const SLEEPING: u32 = 1 | 2;

/// A stream.
pub(crate) struct Stream {
    context: Arc<Context>,
    handle: Handle,
    is_own: bool,
}

// SAFETY: the driver's calls may come from any thread; handles are not bound to one.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("is_own", &self.is_own)
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream of its own.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Stream, DriverError> {
        let _bound = context.bind()?;
        let mut handle = null_mut();
        // SAFETY: it writes one handle; `drop` ends it.
        unsafe {
            context
                .functions()
                .create_stream(&raw mut handle, NON_BLOCKING)
        }?;
        Ok(Stream {
            context: Arc::clone(context),
            handle,
            is_own: true,
        })
    }

    /// Somebody else's.
    ///
    /// # Safety
    /// It must be a stream of this context for as long as this lives.
    pub(crate) unsafe fn of(context: &Arc<Context>, stream: RawStream) -> Stream {
        Stream {
            context: Arc::clone(context),
            handle: stream.0 as Handle,
            is_own: false,
        }
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Waits until all that it was given is done.
    ///
    /// # Errors
    /// The driver's, of that work too.
    pub(crate) fn finish(&self) -> Result<(), DriverError> {
        let _bound = self.context.bind()?;
        // SAFETY: a stream of this context.
        unsafe { self.context.functions().synchronize_stream(self.handle) }
    }

    /// Does nothing of what it is given from now on before `other` has done what it was given.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn follow(&self, other: &Stream) -> Result<(), DriverError> {
        let event = Event::new(&self.context)?;
        event.record(other)?;
        let _bound = self.context.bind()?;
        // SAFETY: both are of this context. The event may end before it comes: the driver keeps it
        // until then.
        unsafe {
            self.context
                .functions()
                .wait_event(self.handle, event.handle, 0)
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_own
            && let Ok(_bound) = self.context.bind()
        {
            // SAFETY: its own, and nobody gives it anything any more.
            let _ = unsafe { self.context.functions().destroy_stream(self.handle) };
        }
    }
}

/// A point in a stream's work.
pub(crate) struct Event {
    context: Arc<Context>,
    handle: Handle,
}

// SAFETY: as of streams.
unsafe impl Send for Event {}

impl Event {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Event, DriverError> {
        let _bound = context.bind()?;
        let mut handle = null_mut();
        // SAFETY: it writes one handle; `drop` ends it.
        unsafe { context.functions().create_event(&raw mut handle, SLEEPING) }?;
        Ok(Event {
            context: Arc::clone(context),
            handle,
        })
    }

    /// Has it come once the stream has done what it was given so far.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        let _bound = self.context.bind()?;
        // SAFETY: both are of this context.
        unsafe {
            self.context
                .functions()
                .record_event(self.handle, stream.handle)
        }
    }

    /// Sleeps until it has come. One that was never recorded has.
    ///
    /// # Errors
    /// The driver's, of the work before it too.
    pub(crate) fn wait(&self) -> Result<(), DriverError> {
        let _bound = self.context.bind()?;
        // SAFETY: an event of this context.
        unsafe { self.context.functions().synchronize_event(self.handle) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_bound) = self.context.bind() {
            // SAFETY: its own. One that has not come yet is ended when it does.
            let _ = unsafe { self.context.functions().destroy_event(self.handle) };
        }
    }
}
