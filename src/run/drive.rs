//! The run itself: a baseline, a lease a step, everything dropped, and the time to settle.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use malloc_stats::{AllocatorKind, Reader};
use plimsoll_cache::observe::{LoadObserver, Trace};
use plimsoll_cache::{Cache, Error, Lease, Model};
use plimsoll_events::{Closed, Kind, Point, Publication, Report, Sample, Stream};
use plimsoll_profiles::Reclaim;
use xxhash_rust::xxh3::xxh3_64;

use super::audience::{Audience, Recording, Watcher, bar};
use super::churn::Churn;
use super::workload::Step;
use super::{Churning, Plan, Touch, opening, shown, touch};
use crate::output::{Output, complain};

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) interrupted: bool,
    /// Whether a lease was asked for wrongly, or weights were read that could not be, or were not what
    /// was loaded.
    pub(crate) is_poisoned: bool,
    pub(crate) recording_failed: Option<String>,
    /// What was transferred, and computed meanwhile, where that was asked for.
    pub(crate) trace: Option<Arc<Trace>>,
}

/// How often a recording has memory and residency.
const TICK: Duration = Duration::from_secs(1);

/// How often a wait looks whether it is to end.
const LISTEN: Duration = Duration::from_millis(50);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a plan.
pub(crate) fn drive(
    plan: &Plan,
    recording: Option<Recording>,
    traces: bool,
    output: &Output,
) -> Result<Outcome, Failure> {
    let interrupted = interruptible()?;
    let allocator = plimsoll_profiles::in_force(&plan.profile);
    let reader = Reader::new(allocator.clone())?;
    let bar = bar(expected_bytes(plan), "leased");
    let audience = Arc::new(Audience::new(recording, *output, bar.clone()));
    let stream = Stream::new(Arc::clone(&audience));
    let churn = (plan.churning != Churning::None).then(|| Arc::new(Churn::new(plan.seed)));
    let watcher = Watcher {
        bar: bar.clone(),
        churn: churn.clone(),
        failing_reads: plan.tiers.failing_reads(),
        reads: AtomicU64::new(0),
    };
    let watcher = Arc::new(watcher);
    let trace = traces.then(|| Arc::new(Trace::new().and(watcher.clone())));
    let observer: Arc<dyn LoadObserver> = match &trace {
        Some(trace) => trace.clone(),
        None => watcher,
    };
    let mut builder = Cache::builder();
    if plan.churning != Churning::Only {
        builder = plan.tiers.build_on(builder);
    }
    if audience.records() {
        builder = builder.ticks(TICK);
    }
    if let Some(bytes) = plan.pinned_at_most {
        builder = builder.pinned_at_most(bytes);
    }
    if let Some(churn) = churn.clone() {
        builder = builder.besides(move || churn.live_bytes());
    }
    // First of all, since a cache tells of its budgets as soon as it is there.
    let opened = opening::opened(plan, allocator.clone(), reader.allocator_name());
    stream.emit(Kind::Opened(Box::new(opened.clone())));
    let cache = builder
        .opened(opened)
        .storage(plan.storage)
        .mapping(plan.mapping)
        .huge_pages(plan.huge_pages)
        .snapshots(plan.snapshots)
        .reclaim(plan.profile.reclaim)
        .observer(observer)
        .stream(stream.clone())
        .allocator(allocator)
        .build()
        .inspect_err(|_| audience.forget())?;
    let published = shown::publish(&cache, &plan.publishing).inspect_err(|_| audience.forget())?;
    if let Some(text) = opening::beyond_the_limits(plan) {
        if output.json {
            complain(&format!("warning: {text}"));
        }
        stream.emit(Kind::Note { text });
    }
    let mut run = Running {
        plan,
        stream,
        reader,
        cache,
        churn,
        held: Vec::new(),
        started: Instant::now(),
        checksums: BTreeMap::new(),
        read: Vec::new(),
        is_poisoned: false,
        trace: trace.clone(),
        complained: HashSet::new(),
        interrupted: Arc::clone(&interrupted),
    };
    forget_peak();
    run.sample(Point::Baseline);
    for cycle in 0..plan.cycles {
        run.cycle(cycle, &bar);
        if run.is_interrupted() {
            break;
        }
    }
    let is_poisoned = run.is_poisoned;
    run.end(published.as_ref());
    // Once everything was told, and before the reader is told how it went.
    drop(published);
    bar.finish_and_clear();
    Ok(Outcome {
        report: audience.report(),
        interrupted: interrupted.load(Ordering::Relaxed),
        is_poisoned,
        recording_failed: audience.recording_failed(),
        trace,
    })
}

/// Lets SIGINT and SIGTERM end the run in order; a second one ends it at once.
pub(crate) fn interruptible() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(super::INTERRUPTED),
            Arc::clone(&interrupted),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Resets VmHWM (proc(5), `clear_refs`), so that what came before the baseline, such as making
/// models, is no peak of this run. Where that is not allowed the peak includes it.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn bytes_of(plan: &Plan, step: &Step) -> u64 {
    step.models
        .iter()
        .map(|model| plan.models[*model].bytes())
        .sum()
}

fn expected_bytes(plan: &Plan) -> u64 {
    let bytes = plan.steps.iter().map(|step| bytes_of(plan, step));
    let once = bytes.fold(0, u64::saturating_add);
    once.saturating_mul(plan.cycles.into())
}

/// A run under way.
pub(super) struct Running<'a> {
    pub(super) plan: &'a Plan,
    stream: Stream,
    reader: Reader,
    pub(super) cache: Cache,
    churn: Option<Arc<Churn>>,
    /// Leases that are still held, with the time of their release.
    pub(super) held: Vec<(Instant, Lease)>,
    started: Instant,
    checksums: BTreeMap<String, String>,
    /// The checksum of each lease's models, in order.
    read: Vec<u8>,
    pub(super) is_poisoned: bool,
    /// Gathers what is transferred, and computed meanwhile, where that is asked for.
    trace: Option<Arc<Trace>>,
    /// Errors that were said.
    pub(super) complained: HashSet<String>,
    interrupted: Arc<AtomicBool>,
}

impl Running<'_> {
    fn sample(&self, point: Point) {
        let deep = !matches!(point, Point::Step(_));
        let memory = self.cache.memory();
        let snapshot = if deep {
            self.reader.full()
        } else {
            self.reader.bracket()
        };
        self.stream.emit(Kind::Sample(Box::new(Sample {
            point,
            memory,
            snapshot,
        })));
    }

    /// All steps once, and everything dropped.
    fn cycle(&mut self, cycle: u32, bar: &ProgressBar) {
        self.started = Instant::now();
        let before = u64::from(cycle) * self.plan.steps.len() as u64;
        for (number, step) in (before + 1..).zip(&self.plan.steps) {
            self.step(step);
            if self.is_interrupted() {
                break;
            }
            self.sample(Point::Step(number));
            bar.inc(bytes_of(self.plan, step));
        }
        self.drop_everything();
        self.sample(Point::Dropped);
    }

    fn step(&mut self, step: &Step) {
        self.wait_for(step);
        let models: Vec<&Model> = step
            .models
            .iter()
            .map(|model| &self.plan.models[*model])
            .collect();
        if self.plan.churning == Churning::Only {
            self.churn_as_if_loading(&models);
        } else if let Some(lease) = self.lease(&step.models, self.tier(step.on)) {
            for model in &step.models {
                self.touch(&lease, *model);
            }
            self.held.push((Instant::now() + step.hold, lease));
        }
        if let Some(churn) = &self.churn {
            churn.step();
        }
        if step.at.is_none() {
            self.release_until(None);
        }
    }

    /// Waits for a step's time, releasing what is due meanwhile.
    fn wait_for(&mut self, step: &Step) {
        let at = step.at.map_or_else(Instant::now, |at| self.started + at);
        self.release_until(Some(at));
        self.sleep_until(at);
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Sleeps, but not through a signal.
    pub(super) fn sleep_until(&self, until: Instant) {
        while !self.is_interrupted() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LISTEN));
        }
    }

    fn touch(&mut self, lease: &Lease, model: usize) {
        let order = self.plan.terms.order(model);
        let trace = self.trace.as_deref();
        let model = &self.plan.models[model];
        let touched = lease.get(model).and_then(|weights| match self.plan.touch {
            Touch::None => Ok(()),
            Touch::Pages => touch::pages(&weights, order, trace).map(|_| ()),
            Touch::Checksum => {
                let sum = touch::checksum(&weights, trace)?;
                // What was read may not be what is in the file.
                lease.check()?;
                self.checksums
                    .insert(model.name().to_owned(), format!("{sum:016x}"));
                self.read.extend(sum.to_le_bytes());
                Ok(())
            }
        });
        match touched.and_then(|()| lease.check()) {
            Ok(()) => {}
            // The lease says so itself when it is released.
            Err(Error::Poisoned { .. }) => self.is_poisoned = true,
            Err(error) => {
                self.is_poisoned = true;
                tracing::warn!(%error, "weights could not be read");
            }
        }
    }

    fn churn_as_if_loading(&self, models: &[&Model]) {
        let Some(churn) = &self.churn else {
            return;
        };
        for model in models {
            for tensor in model.tensors() {
                churn.before_tensor(model, tensor);
                churn.after_tensor(model, tensor);
            }
        }
    }

    /// Waits for loads that a lease gave up on: they go on without it, and are not to outlast the
    /// run.
    fn end_loads(&self) {
        let Some(device) = self
            .plan
            .tiers
            .simulated()
            .filter(|_| self.plan.tiers.sticks())
        else {
            return;
        };
        loop {
            let picture = self.cache.residency();
            let mut places = picture.models.iter().flat_map(|model| &model.places);
            let is_used = places.any(|place| place.phase == "loading" || place.leases > 0);
            let is_staging = picture.tiers.iter().any(|tier| tier.staging_bytes > 0);
            if !is_used && !is_staging {
                return;
            }
            device.unstick();
            std::thread::sleep(LISTEN / 10);
        }
    }

    fn drop_everything(&mut self) {
        self.held.clear();
        self.end_loads();
        if let Some(churn) = &self.churn {
            churn.drop_buffers();
        }
        self.cache.clear();
        // The last unload of the run is the churn's, so the profile's action follows it too.
        if let Err(error) = self.plan.profile.reclaim.run() {
            tracing::warn!(%error, "reclaim failed");
        }
        self.cache.tell_hits();
    }

    /// Settles, sees what a purge would gain, and closes the stream.
    fn end(self, published: Option<&Publication>) {
        if !self.plan.settle.is_zero() {
            self.sleep_until(Instant::now() + self.plan.settle);
            self.sample(Point::Settled);
        }
        let purge = match plimsoll_profiles::serving() {
            AllocatorKind::Libc => Reclaim::Trim,
            AllocatorKind::Jemalloc => Reclaim::Purge,
        };
        match purge.run() {
            Ok(()) => self.sample(Point::Purged),
            Err(error) => tracing::warn!(%error, "the probe for structural waste failed"),
        }
        let checksum = (self.plan.touch == Touch::Checksum && !self.read.is_empty())
            .then(|| format!("{:016x}", xxh3_64(&self.read)));
        let interrupted = self.is_interrupted();
        // Nothing is told after the end, by a request neither.
        if let Some(published) = published {
            published.end_requests();
        }
        drop(self.cache);
        self.stream.emit(Kind::Closed(Closed {
            checksum,
            model_checksums: self.checksums,
            interrupted,
        }));
    }
}
