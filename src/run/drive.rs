//! The run itself: a baseline, a lease a step, everything dropped, and the time to settle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use malloc_stats::{AllocatorKind, Reader};
use plimsoll_cache::device::Device;
use plimsoll_cache::{Cache, Error, Lease, Model, Tier};
use plimsoll_events::{Closed, Kind, Point, Publication, Report, Sample, Stream, TierPicture};
use plimsoll_profiles::Reclaim;
use xxhash_rust::xxh3::xxh3_64;

use super::audience::{Audience, Recording, Watcher, bar};
use super::churn::Churn;
use super::workload::{On, Step};
use super::{Churning, Plan, Touch, opening, shown, touch};
use crate::output::{Output, complain};

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) interrupted: bool,
    /// Whether weights were read that could not be, or were not what was loaded.
    pub(crate) is_poisoned: bool,
    pub(crate) recording_failed: Option<String>,
}

/// How often a recording has memory and residency.
const TICK: Duration = Duration::from_secs(1);

/// How often a wait looks whether it is to end.
const LISTEN: Duration = Duration::from_millis(50);

/// How long a lease is waited for where transfers are made to stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most of RAM that a cache takes to stage a transfer.
const MOST_STAGED: u64 = 8 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a plan.
pub(crate) fn drive(
    plan: &Plan,
    recording: Option<Recording>,
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
    let mut builder = Cache::builder();
    if plan.churning != Churning::Only {
        builder = plan.tiers.build_on(builder);
    }
    if audience.records() {
        builder = builder.ticks(TICK);
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
        .observer(Arc::new(watcher))
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

/// Whether a transfer of so many bytes to a device could be staged in RAM beside what is pinned
/// there, or never will.
fn can_stage(ram: &TierPicture, bytes: u64) -> bool {
    let staged = bytes.min(MOST_STAGED).min(ram.budget_bytes / 2);
    staged <= ram.budget_bytes.saturating_sub(ram.pinned_bytes)
}

struct Running<'a> {
    plan: &'a Plan,
    stream: Stream,
    reader: Reader,
    cache: Cache,
    churn: Option<Arc<Churn>>,
    /// Leases that are still held, with the time of their release.
    held: Vec<(Instant, Lease)>,
    started: Instant,
    checksums: BTreeMap<String, String>,
    /// The checksum of each lease's models, in order.
    read: Vec<u8>,
    is_poisoned: bool,
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
        } else if let Some(lease) = self.lease(&models, self.tier(step.on)) {
            for model in &models {
                self.touch(&lease, model);
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

    /// Releases leases in the order of their times, waiting for each: those due until `limit`, or
    /// all.
    fn release_until(&mut self, limit: Option<Instant>) {
        self.held
            .sort_by_key(|(until, _)| std::cmp::Reverse(*until));
        while let Some((until, _)) = self.held.last() {
            if limit.is_some_and(|limit| *until > limit) {
                return;
            }
            self.sleep_until(*until);
            self.held.pop();
        }
    }

    /// The tier that a step asks for.
    fn tier(&self, on: On) -> Tier {
        match (on, self.plan.tiers.device()) {
            (On::Device, Some(device)) => device.tier(),
            (On::Device, None) | (On::Cpu, _) => Tier::RAM,
        }
    }

    /// Leases models, once what this run itself holds is no longer in the way. A refusal is an
    /// event, and the run goes on.
    fn lease(&mut self, models: &[&Model], tier: Tier) -> Option<Lease> {
        self.make_way(models, tier);
        let tiers = &self.plan.tiers;
        // It is the lease's, and so comes with one of its models.
        let working = std::iter::once(tiers.working).chain(std::iter::repeat(0));
        let models = models.iter().zip(working);
        let wanted = models.map(|(model, working)| model.on(tier).working_memory(working));
        let leased = match tiers.device() {
            Some(device) if tiers.sticks() && tier != Tier::RAM => {
                let leased = self.cache.lease_timeout(wanted, PATIENCE);
                if let Err(Error::Timeout { .. }) = leased {
                    device.unstick();
                }
                leased
            }
            _ => self.cache.try_lease(wanted),
        };
        leased
            .inspect_err(|error| tracing::debug!(%error, "the lease was not given"))
            .ok()
    }

    /// Waits for releases until models fit beside what is still held. Asking the cache instead
    /// would count a refusal for each answer.
    fn make_way(&mut self, models: &[&Model], tier: Tier) {
        while !self.held.is_empty() && !self.fits(models, tier) {
            let next = self.held.iter().map(|(until, _)| *until).min();
            self.release_until(next);
        }
    }

    /// Whether models fit beside what is still held, or never will.
    fn fits(&self, models: &[&Model], tier: Tier) -> bool {
        let tiers = self.cache.residency().tiers;
        let device = self.plan.tiers.device().filter(|_| tier != Tier::RAM);
        // RAM comes first, and there is at most one device.
        let Some(there) = tiers.get(usize::from(device.is_some())) else {
            return true;
        };
        let charge = |model: &Model| match device {
            Some(device) => device.charge(model),
            None => self.plan.storage.charge(model),
        };
        let is_held = |model: &Model| {
            let mut held = self.held.iter();
            held.any(|(_, lease)| lease.get_on(model, tier).is_ok())
        };
        let beyond = |working: u64| working.saturating_sub(there.reserve_bytes);
        let working = self.plan.tiers.working;
        let (mut all, mut new) = (0_u64, 0_u64);
        for model in models {
            all = all.saturating_add(charge(model));
            if !is_held(model) {
                new = new.saturating_add(charge(model));
            }
        }
        if all.saturating_add(beyond(working)) > there.budget_bytes {
            return true;
        }
        let taken = there
            .pinned_bytes
            .saturating_add(beyond(there.working_bytes.saturating_add(working)));
        let fits = new <= there.budget_bytes.saturating_sub(taken);
        fits && (device.is_none() || tiers.first().is_none_or(|ram| can_stage(ram, new)))
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Sleeps, but not through a signal.
    fn sleep_until(&self, until: Instant) {
        while !self.is_interrupted() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LISTEN));
        }
    }

    fn touch(&mut self, lease: &Lease, model: &Model) {
        let touched = lease.get(model).and_then(|weights| match self.plan.touch {
            Touch::None => Ok(()),
            Touch::Pages => touch::pages(&weights).map(|_| ()),
            Touch::Checksum => {
                let sum = touch::checksum(&weights)?;
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
        use plimsoll_cache::LoadObserver;

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
            .device()
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
