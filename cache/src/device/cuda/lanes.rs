//! Lanes: page-locked buffers through which bytes pass to a device, two halves each, of which one is
//! filled while the other is on its way.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::driver::{Context, DriverError, Event, Locked, PageLocker, Stream};

/// A half of a lane. From 1 to 4 MiB transfers gain, beyond that hardly.
pub(super) const HALF: usize = 4 << 20;

/// The most lanes: more do not copy faster than a link takes.
const MOST: usize = 8;

/// Why there is none.
#[derive(Debug)]
pub(super) enum NoLane {
    /// The system's words.
    Memory(String),
    /// The driver's.
    Driver(DriverError),
}

/// One lane.
pub(super) struct Lane {
    memory: Locked,
    sent: [Event; 2],
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lane").field(&self.memory).finish()
    }
}

impl Lane {
    fn new(context: &Arc<Context>) -> Result<Lane, NoLane> {
        let event = || Event::new(context).map_err(NoLane::Driver);
        let sent = [event()?, event()?];
        let mut memory = Locked::map(2 * HALF).map_err(NoLane::Memory)?;
        if let Err(error) = memory.lock(&PageLocker::of(context)) {
            tracing::warn!(
                %error,
                "weights pass to the device through memory that is not page-locked, which is slower"
            );
        }
        Ok(Lane { memory, sent })
    }

    /// The address of a half that nothing of is on its way any more.
    ///
    /// # Errors
    /// The driver's, of what was on its way too.
    pub(super) fn half(&mut self, which: usize) -> Result<usize, DriverError> {
        self.sent[which % 2].wait()?;
        Ok(self.memory.at() + which % 2 * HALF)
    }

    /// Notes that the stream was given what this half holds.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn sent(&mut self, which: usize, stream: &Stream) -> Result<(), DriverError> {
        self.sent[which % 2].record(stream)
    }

    /// Waits until nothing of it is on its way.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn settle(&mut self) -> Result<(), DriverError> {
        let [first, second] = &self.sent;
        first.wait().and(second.wait())
    }
}

/// The lanes of a device, which its loads share.
#[derive(Debug)]
pub(super) struct Lanes {
    context: Arc<Context>,
    /// It takes what lanes hold to the device.
    stream: Arc<Stream>,
    most: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Lane>,
    made: usize,
    locked_bytes: u64,
}

impl Lanes {
    pub(super) fn new(context: &Arc<Context>, stream: &Arc<Stream>) -> Lanes {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Lanes {
            context: Arc::clone(context),
            stream: Arc::clone(stream),
            most: threads.clamp(1, MOST),
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// The most that can be taken at once.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// What all of them take, bytes.
    pub(super) fn bytes(&self) -> u64 {
        (self.most * 2 * HALF) as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane that is idle, or a new one where there are not too many; waits for one that another
    /// load uses.
    ///
    /// # Errors
    /// One cannot be made, and there is none to wait for.
    pub(super) fn take(&self) -> Result<Taken<'_>, NoLane> {
        let mut state = self.state();
        loop {
            if let Some(lane) = state.idle.pop() {
                return Ok(self.taken(lane));
            }
            if state.made < self.most {
                state.made += 1;
                drop(state);
                return self.make();
            }
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Another lane for the same load, unless all are in use.
    pub(super) fn take_another(&self) -> Option<Taken<'_>> {
        let mut state = self.state();
        if let Some(lane) = state.idle.pop() {
            return Some(self.taken(lane));
        }
        if state.made >= self.most {
            return None;
        }
        state.made += 1;
        drop(state);
        self.make().ok()
    }

    fn make(&self) -> Result<Taken<'_>, NoLane> {
        match Lane::new(&self.context) {
            Ok(lane) => {
                if lane.memory.is_locked() {
                    self.state().locked_bytes += lane.memory.len() as u64;
                }
                Ok(self.taken(lane))
            }
            Err(error) => {
                self.state().made -= 1;
                self.freed.notify_one();
                Err(error)
            }
        }
    }

    fn taken(&self, lane: Lane) -> Taken<'_> {
        Taken {
            lanes: self,
            lane: Some(lane),
        }
    }

    /// What of RAM is page-locked for lanes, bytes.
    pub(super) fn locked_bytes(&self) -> u64 {
        self.state().locked_bytes
    }
}

/// A lane that a load uses until this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    lanes: &'a Lanes,
    /// `None` only while it is given back.
    lane: Option<Lane>,
}

impl Taken<'_> {
    pub(super) fn lane(&mut self) -> Option<&mut Lane> {
        self.lane.as_mut()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let Some(mut lane) = self.lane.take() else {
            return;
        };
        // What is still on its way reads the lane's memory.
        let settled = lane.settle().or_else(|_| self.lanes.stream.finish());
        let mut state = self.lanes.state();
        match settled {
            Ok(()) => state.idle.push(lane),
            Err(_) => {
                state.made -= 1;
                if lane.memory.is_locked() {
                    state.locked_bytes -= lane.memory.len() as u64;
                }
                // Nobody can tell whether the device reads it.
                std::mem::forget(lane);
            }
        }
        drop(state);
        self.lanes.freed.notify_one();
    }
}
