//! A load on its way to a device.
//!
//! From page-locked memory the device reads by itself: neighbours in one copy. From anywhere else
//! bytes go through lanes, each of which a thread fills, from RAM or straight from the files, and
//! sends on the device's copy stream. Small tensors that are neighbours on the device pass in one
//! copy there too.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::lanes::{HALF, Lanes, NoLane, Taken};
use super::layout::{ALIGNMENT, Layout};
use crate::driver::{DriverError, Event, Stream, copy_to_device};
use crate::error::LoadError;
use crate::model::Model;
use crate::observe::LoadObserver;
use crate::storage::{Sources, Target, WIDEST, WeightBytes, read_targets};

/// A part of a tensor in a half of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    tensor: usize,
    /// Where in the tensor it begins.
    offset: usize,
    /// Where in the half.
    at: usize,
    len: usize,
}

/// A stretch of an area's memory that one copy fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    area: usize,
    /// Where in the area.
    to: u64,
    /// Where in the half.
    at: usize,
    len: usize,
}

/// What passes in a half of a lane at once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Batch {
    parts: Vec<Part>,
    stretches: Vec<Stretch>,
}

/// Cuts a model into what halves of `most` bytes hold, in the order of the files. Small tensors that
/// are neighbours on the device pass in one copy.
fn batches(model: &Model, layout: &Layout, most: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut end = most;
    let tensors = model.tensors().iter().zip(&layout.homes).enumerate();
    for (tensor, (info, home)) in tensors.filter(|(_, (info, _))| info.tied_to.is_none()) {
        let (mut to, mut offset, len) = (home.at, 0, info.bytes as usize);
        while offset < len {
            let open = batches.last_mut().filter(|_| end < most);
            // What goes on where the last copy ends is part of it, with the gap for alignment.
            let goes_on = open
                .as_ref()
                .and_then(|batch| batch.stretches.last())
                .and_then(|last| {
                    let gap = to.checked_sub(last.to + last.len as u64)? as usize;
                    let is_near = last.area == home.area && gap < ALIGNMENT as usize;
                    (is_near && end + gap < most).then_some(gap)
                });
            let begin = match goes_on {
                Some(gap) => end + gap,
                // No part ends within an element: what is computed comes whole.
                None => end.next_multiple_of(WIDEST),
            };
            let batch = match open {
                Some(batch) if begin < most => batch,
                _ => {
                    batches.push(Batch::default());
                    end = 0;
                    continue;
                }
            };
            let part = (len - offset).min(most - begin);
            batch.parts.push(Part {
                tensor,
                offset,
                at: begin,
                len: part,
            });
            match batch.stretches.last_mut() {
                Some(last) if goes_on.is_some() => last.len = begin + part - last.at,
                _ => batch.stretches.push(Stretch {
                    area: home.area,
                    to,
                    at: begin,
                    len: part,
                }),
            }
            end = begin + part;
            to += part as u64;
            offset += part;
        }
    }
    batches
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
            tensor: self
                .model
                .tensors()
                .get(tensor)
                .map_or_else(String::new, |tensor| tensor.name.to_string()),
            offset: offset as u64,
            reason: error.to_string(),
        }
    }

    fn no_lane(&self, error: NoLane) -> LoadError {
        match error {
            NoLane::Memory(reason) => LoadError::Memory {
                model: self.model.name().to_owned(),
                bytes: 2 * HALF as u64,
                reason: format!("for staging: {reason}"),
            },
            NoLane::Driver(error) => LoadError::Device {
                device: self.device.to_owned(),
                model: self.model.name().to_owned(),
                error: Box::new(error),
            },
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
    /// The first batch that cannot be filled or sent. None is under way any more.
    pub(super) fn staged(
        &self,
        lanes: &Lanes,
        from: &From<'_>,
        staging: u64,
    ) -> Result<(), LoadError> {
        let page = rustix::param::page_size();
        let staging = usize::try_from(staging).unwrap_or(usize::MAX);
        let most = (staging / 2 / page * page).clamp(page, HALF);
        let batches = batches(self.model, self.layout, most);
        let threads = (staging / (2 * HALF)).clamp(1, lanes.most());
        let work = Work {
            transfer: self,
            from,
            batches: &batches,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        let first = lanes.take().map_err(|error| self.no_lane(error))?;
        std::thread::scope(|scope| {
            for _ in 1..threads.min(batches.len()) {
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

/// Batches that several threads share.
struct Work<'a> {
    transfer: &'a Transfer<'a>,
    from: &'a From<'a>,
    batches: &'a [Batch],
    next: AtomicUsize,
    stop: AtomicBool,
    failure: Mutex<Option<LoadError>>,
}

impl Work<'_> {
    fn run(&self, mut lane: Taken<'_>) {
        let mut turn = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = self.batches.get(next) else {
                break;
            };
            if let Err(error) = self.pass(&mut lane, turn, batch) {
                self.fail(error);
            }
            turn += 1;
        }
        let settled = lane.lane().map_or(Ok(()), |lane| lane.settle());
        if let Err(error) = settled {
            let last = self.transfer.model.tensors().len().saturating_sub(1);
            self.fail(self.transfer.failed(last, 0, &error));
        }
    }

    fn fail(&self, error: LoadError) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    fn pass(&self, lane: &mut Taken<'_>, turn: usize, batch: &Batch) -> Result<(), LoadError> {
        let transfer = self.transfer;
        let begin = batch.parts.first();
        let (tensor, offset) = begin.map_or((0, 0), |part| (part.tensor, part.offset));
        let failed = |error: DriverError| transfer.failed(tensor, offset, &error);
        let Some(lane) = lane.lane() else {
            return Ok(());
        };
        let at = lane.half(turn).map_err(failed)?;
        // SAFETY: nothing of this half is on its way, and no other thread has the lane.
        unsafe { self.fill(at, batch) }?;
        let sent = batch.stretches.iter().try_for_each(|stretch| {
            let to = transfer.addresses[stretch.area] + stretch.to;
            // SAFETY: the stretch lies in the area, which nobody else uses yet, and no two stretches
            // overlap; the half stays as it is until its event has come.
            unsafe { copy_to_device(to, at + stretch.at, stretch.len, transfer.stream) }
        });
        // Of what was sent before one was refused, too.
        let noted = lane.sent(turn, transfer.stream);
        if noted.is_err() {
            // Without an event, all that the stream was given is waited for.
            let _ = transfer.stream.finish();
        }
        sent.and(noted).map_err(failed)
    }

    /// # Safety
    /// `HALF` bytes at `at` are mapped and this thread's alone.
    unsafe fn fill(&self, at: usize, batch: &Batch) -> Result<(), LoadError> {
        let model = self.transfer.model;
        match self.from {
            From::Ram(bytes) => {
                for part in &batch.parts {
                    let from = &bytes[part.tensor][part.offset..part.offset + part.len];
                    // SAFETY: the part lies in the half.
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
                let targets: Vec<Target> = batch
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
                    gap < ALIGNMENT && start.checked_sub(run.from + run.len) == Some(gap as usize)
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
