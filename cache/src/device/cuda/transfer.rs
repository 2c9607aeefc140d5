//! A load on its way to a device.
//!
//! From page-locked memory the device reads by itself: neighbours in one copy. From anywhere else
//! bytes go through lanes, each of which a thread fills, from RAM or straight from the files, and
//! sends on the device's copy stream. What goes through a lane at a time mirrors a stretch of the
//! device's memory, so that small tensors pass in one copy too.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::lanes::{HALF, Lanes, Taken};
use super::layout::Layout;
use crate::driver::{DriverError, Event, Stream, copy_to_device};
use crate::error::LoadError;
use crate::model::Model;
use crate::observe::LoadObserver;
use crate::storage::{Sources, Target, WeightBytes, read_targets};

/// A part of a tensor within a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    tensor: usize,
    /// Where in the tensor it begins.
    offset: usize,
    /// Where in the stretch.
    at: usize,
    len: usize,
}

/// A stretch of an area's memory, which passes at once.
#[derive(Debug, PartialEq, Eq)]
struct Stretch {
    area: usize,
    /// Where in the area.
    at: u64,
    len: usize,
    parts: Vec<Part>,
}

/// Cuts a model's areas into stretches of at most `most` bytes, in the order of the files.
fn stretches(model: &Model, layout: &Layout, most: usize) -> Vec<Stretch> {
    let mut done: Vec<Stretch> = Vec::new();
    // The stretch of each area that is not full yet.
    let mut open: Vec<Option<usize>> = layout.areas.iter().map(|_| None).collect();
    let tensors = model.tensors().iter().zip(&layout.homes).enumerate();
    for (tensor, (info, home)) in tensors.filter(|(_, (info, _))| info.tied_to.is_none()) {
        let (mut at, mut offset, len) = (home.at, 0, info.bytes as usize);
        while offset < len {
            let begin = at / most as u64 * most as u64;
            let stretch = match open[home.area].filter(|open| done[*open].at == begin) {
                Some(open) => open,
                None => {
                    done.push(Stretch {
                        area: home.area,
                        at: begin,
                        len: 0,
                        parts: Vec::new(),
                    });
                    *open[home.area].insert(done.len() - 1)
                }
            };
            let stretch = &mut done[stretch];
            let within = (at - begin) as usize;
            let part = (len - offset).min(most - within);
            stretch.parts.push(Part {
                tensor,
                offset,
                at: within,
                len: part,
            });
            stretch.len = within + part;
            at += part as u64;
            offset += part;
        }
    }
    done
}

/// Where the bytes of a load come from.
pub(super) enum From<'a> {
    /// RAM.
    Ram(&'a [WeightBytes<'a>]),
    /// The model's files, or what is computed of them.
    Sources(&'a Sources),
}

/// A load under way.
pub(super) struct Transfer<'a> {
    pub(super) device: &'a str,
    pub(super) model: &'a Model,
    pub(super) layout: &'a Layout,
    /// Where each area is.
    pub(super) addresses: &'a [u64],
    pub(super) stream: &'a Stream,
    pub(super) observer: &'a dyn LoadObserver,
}

impl Transfer<'_> {
    fn failed(&self, tensor: usize, offset: usize, error: &DriverError) -> LoadError {
        LoadError::Transfer {
            device: self.device.to_owned(),
            model: self.model.name().to_owned(),
            tensor: self.model.tensors()[tensor].name.to_string(),
            offset: offset as u64,
            reason: error.to_string(),
        }
    }

    /// Copies out of memory that was page-locked in pieces of `granule` bytes, and waits for it.
    ///
    /// # Errors
    /// The first copy that cannot be made. None is under way any more.
    pub(super) fn direct(&self, from: &[WeightBytes<'_>], granule: usize) -> Result<(), LoadError> {
        let sent = Event::new(self.stream.context()).map_err(|error| self.failed(0, 0, &error))?;
        let copied = runs(self.model, self.layout, from)
            .into_iter()
            .flat_map(|run| run.cut(granule))
            .try_for_each(|run| {
                let to = self.addresses[run.area] + run.at;
                // SAFETY: the run lies in the area, which nobody else uses yet; `from` keeps its
                // source as it is until this has waited.
                unsafe { copy_to_device(to, run.from, run.len, self.stream) }
                    .map_err(|error| self.failed(run.tensor, 0, &error))
            });
        let last = self.model.tensors().len().saturating_sub(1);
        let waited = sent
            .record(self.stream)
            .and_then(|()| sent.wait())
            // Without an event, all that the stream was given is waited for.
            .or_else(|error| self.stream.finish().and(Err(error)))
            .map_err(|error| self.failed(last, 0, &error));
        copied.and(waited)
    }

    /// Copies through lanes, and waits for it.
    ///
    /// # Errors
    /// The first stretch that cannot be filled or sent. None is under way any more.
    pub(super) fn staged(
        &self,
        lanes: &Lanes,
        from: &From<'_>,
        staging: u64,
    ) -> Result<(), LoadError> {
        let page = rustix::param::page_size();
        let staging = usize::try_from(staging).unwrap_or(usize::MAX);
        let most = (staging / 2 / page * page).clamp(page, HALF);
        let stretches = stretches(self.model, self.layout, most);
        let threads = (staging / (2 * HALF)).clamp(1, lanes.most());
        let work = Work {
            transfer: self,
            from,
            stretches: &stretches,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        let first = lanes.take().map_err(|reason| LoadError::Memory {
            model: self.model.name().to_owned(),
            bytes: 2 * HALF as u64,
            reason: format!("for staging: {reason}"),
        })?;
        std::thread::scope(|scope| {
            for _ in 1..threads.min(stretches.len()) {
                let Some(another) = lanes.take_another() else {
                    break;
                };
                let work = &work;
                // Where no thread can be had, those that there are do all of it.
                let _ = std::thread::Builder::new()
                    .name("plimsoll-send".into())
                    .spawn_scoped(scope, move || work.run(another));
            }
            work.run(first);
        });
        match work
            .failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Stretches that several threads share.
struct Work<'a> {
    transfer: &'a Transfer<'a>,
    from: &'a From<'a>,
    stretches: &'a [Stretch],
    next: AtomicUsize,
    stop: AtomicBool,
    failure: Mutex<Option<LoadError>>,
}

impl Work<'_> {
    fn run(&self, mut lane: Taken<'_>) {
        let mut turn = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(stretch) = self
                .stretches
                .get(self.next.fetch_add(1, Ordering::Relaxed))
            else {
                break;
            };
            if let Err(error) = self.pass(&mut lane, turn, stretch) {
                self.fail(error);
            }
            turn += 1;
        }
        let settled = lane.lane().map_or(Ok(()), |lane| lane.settle());
        if let Err(error) = settled {
            let last = self.transfer.model.tensors().len() - 1;
            self.fail(self.transfer.failed(last, 0, &error));
        }
    }

    fn fail(&self, error: LoadError) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    fn pass(&self, lane: &mut Taken<'_>, turn: usize, stretch: &Stretch) -> Result<(), LoadError> {
        let transfer = self.transfer;
        let begin = stretch.parts.first();
        let (tensor, offset) = begin.map_or((0, 0), |part| (part.tensor, part.offset));
        let failed = |error: DriverError| transfer.failed(tensor, offset, &error);
        let Some(lane) = lane.lane() else {
            return Ok(());
        };
        let at = lane.half(turn).map_err(failed)?;
        // SAFETY: nothing of this half is on its way, and no other thread has the lane.
        unsafe { self.fill(at, stretch) }?;
        let to = transfer.addresses[stretch.area] + stretch.at;
        // SAFETY: the stretch lies in the area, which nobody else uses yet, and no two stretches
        // overlap; the half stays as it is until its event has come.
        unsafe { copy_to_device(to, at, stretch.len, transfer.stream) }.map_err(failed)?;
        lane.sent(turn, transfer.stream).map_err(|error| {
            // Without an event, all that the stream was given is waited for.
            let _ = transfer.stream.finish();
            failed(error)
        })
    }

    /// # Safety
    /// `HALF` bytes at `at` are mapped and this thread's alone.
    unsafe fn fill(&self, at: usize, stretch: &Stretch) -> Result<(), LoadError> {
        let model = self.transfer.model;
        match self.from {
            From::Ram(bytes) => {
                for part in &stretch.parts {
                    let from = &bytes[part.tensor][part.offset..part.offset + part.len];
                    // SAFETY: the part lies in the stretch, which is at most a half long.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            from.as_ptr(),
                            (at + part.at) as *mut u8,
                            part.len,
                        );
                    };
                }
                Ok(())
            }
            From::Sources(sources) => {
                let targets: Vec<Target> = stretch
                    .parts
                    .iter()
                    .map(|part| {
                        let tensor = &model.tensors()[part.tensor];
                        Target {
                            file: tensor.file,
                            offset: tensor.offset + part.offset as u64,
                            at: at + part.at,
                            bytes: part.len,
                        }
                    })
                    .collect();
                // SAFETY: the parts lie in the half, which is initialised and this thread's.
                unsafe { read_targets(model, sources, &targets, 1, self.transfer.observer) }
            }
        }
    }
}

/// Bytes that lie together, both in RAM and on the device.
#[derive(Clone, Copy)]
struct Run {
    /// The first tensor in it.
    tensor: usize,
    area: usize,
    at: u64,
    from: usize,
    len: usize,
}

impl Run {
    /// Cuts it where what was locked at once ends.
    fn cut(self, granule: usize) -> impl Iterator<Item = Run> {
        let (mut done, len) = (0, self.len);
        std::iter::from_fn(move || {
            let from = self.from + done;
            let next = (granule - from % granule).min(len - done);
            let at = self.at + done as u64;
            done += next;
            (next > 0).then_some(Run {
                at,
                from,
                len: next,
                ..self
            })
        })
    }
}

/// The largest gap between tensors that is alignment, and copied along: it belongs to the same
/// region in RAM.
const GAP: u64 = 64;

fn runs(model: &Model, layout: &Layout, from: &[WeightBytes<'_>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let tensors = model.tensors().iter().zip(&layout.homes).zip(from);
    for (tensor, ((info, home), bytes)) in tensors.enumerate() {
        if info.tied_to.is_some() || bytes.is_empty() {
            continue;
        }
        let start = bytes.as_ptr() as usize;
        let neighbour = runs.last_mut().filter(|run| {
            let gap = home.at.checked_sub(run.at + run.len as u64);
            run.area == home.area
                && gap.is_some_and(|gap| {
                    gap < GAP && start.checked_sub(run.from + run.len) == Some(gap as usize)
                })
        });
        match neighbour {
            Some(run) => run.len = start + bytes.len() - run.from,
            None => runs.push(Run {
                tensor,
                area: home.area,
                at: home.at,
                from: start,
                len: bytes.len(),
            }),
        }
    }
    runs
}
