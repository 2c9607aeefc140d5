//! The run itself: a baseline, a lease a step, everything dropped, and the time to settle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use malloc_stats::limits::Limits;
use malloc_stats::{Reader, Size};
use plimsoll_cache::{Cache, Lease, Model};
use plimsoll_events::{Closed, Kind, Memory, ModelSeen, Opened, Point, Report, Sample, Stream};
use plimsoll_tui::decision;
use xxhash_rust::xxh3::xxh3_64;

use super::audience::{Audience, Recording, Watcher, bar};
use super::churn::Churn;
use super::workload::Step;
use super::{Churning, Plan, Touch, touch};
use crate::output::{Output, complain};

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) interrupted: bool,
    pub(crate) recording_failed: Option<String>,
}

/// How often a wait looks whether it is to end.
const LISTEN: Duration = Duration::from_millis(50);

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
    };
    let cache = Cache::builder()
        .ram(plan.budget)
        .storage(plan.storage)
        .snapshots(plan.snapshots)
        .reclaim(plan.profile.reclaim)
        .observer(Arc::new(watcher))
        .stream(stream.clone())
        .allocator(allocator.clone())
        .build()?;
    if !output.json {
        output.text(&(decision::heading(&output.paint) + "\n"))?;
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
        quiet: output.json,
        interrupted: Arc::clone(&interrupted),
    };
    run.open(allocator);
    forget_peak();
    run.sample(Point::Baseline);
    let mut leased_bytes = 0_u64;
    for (number, step) in plan.steps.iter().enumerate() {
        run.step(step);
        if run.is_interrupted() {
            break;
        }
        run.sample(Point::Step(number as u64 + 1));
        leased_bytes = leased_bytes.saturating_add(bytes_of(plan, step));
        bar.set_position(leased_bytes);
    }
    run.end();
    bar.finish_and_clear();
    Ok(Outcome {
        report: audience.report(),
        interrupted: interrupted.load(Ordering::Relaxed),
        recording_failed: audience.recording_failed(),
    })
}

/// Lets SIGINT and SIGTERM end the run in order; a second one ends it at once.
fn interruptible() -> std::io::Result<Arc<AtomicBool>> {
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
    bytes.fold(0, u64::saturating_add)
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
    /// Whether notes are not printed as they come.
    quiet: bool,
    interrupted: Arc<AtomicBool>,
}

impl Running<'_> {
    fn open(&self, allocator: malloc_stats::Allocator) {
        let plan = self.plan;
        let cached = plan.churning != Churning::Only;
        let mut options = BTreeMap::from([
            ("workload".to_owned(), plan.workload.clone()),
            ("steps".to_owned(), plan.steps.len().to_string()),
            ("seed".to_owned(), plan.seed.to_string()),
            ("touch".to_owned(), plan.touch.to_string()),
            (
                "settle".to_owned(),
                format!("{} s", plan.settle.as_secs_f64()),
            ),
        ]);
        if plan.churning != Churning::None {
            let churn = if cached { "beside" } else { "only" };
            options.insert("churn".to_owned(), churn.to_owned());
        }
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let opened = Opened {
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
            pid: std::process::id(),
            program: concat!("plimsoll ", env!("CARGO_PKG_VERSION")).to_owned(),
            profile: plan.profile.name.clone(),
            allocator_name: self.reader.allocator_name(),
            allocator: Some(allocator),
            storage: plan.storage.to_string(),
            budget_bytes: cached.then_some(plan.budget),
            options,
            models: plan
                .models
                .iter()
                .map(|model| ModelSeen {
                    name: model.name().to_owned(),
                    bytes: model.bytes(),
                    tensors: model.tensors().len() as u64,
                })
                .collect(),
        };
        self.stream.emit(Kind::Opened(Box::new(opened)));
        if cached {
            self.warn_of_limits();
        }
    }

    /// A budget above what the limits leave is an out-of-memory kill in waiting.
    fn warn_of_limits(&self) {
        let limits = Limits::of_self();
        let (Some(headroom), Some(tightest)) = (limits.headroom().bytes(), limits.tightest())
        else {
            return;
        };
        if headroom < self.plan.budget {
            let text = format!(
                "the budget of {} is more than the {} that {} leaves",
                Size(self.plan.budget),
                Size(headroom),
                tightest.bound
            );
            if self.quiet {
                complain(&format!("warning: {text}"));
            }
            self.stream.emit(Kind::Note { text });
        }
    }

    fn sample(&self, point: Point) {
        let deep = !matches!(point, Point::Step(_));
        let usage = self.cache.usage();
        let memory = Memory {
            live_bytes: usage.used_bytes,
            held_bytes: usage.held_bytes,
            churn_bytes: self.churn.as_ref().map_or(0, |churn| churn.live_bytes()),
        };
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

    fn step(&mut self, step: &Step) {
        self.wait_for(step);
        let models: Vec<&Model> = step
            .models
            .iter()
            .map(|model| &self.plan.models[*model])
            .collect();
        if self.plan.churning == Churning::Only {
            self.churn_as_if_loading(&models);
        } else if let Some(lease) = self.lease(&models) {
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

    /// Leases models, once what this run itself holds is no longer in the way. A refusal is an
    /// event, and the run goes on.
    fn lease(&mut self, models: &[&Model]) -> Option<Lease> {
        self.make_way(models);
        match self.cache.try_lease(models.iter().copied()) {
            Ok(lease) => Some(lease),
            Err(error) => {
                tracing::debug!(%error, "the lease was not given");
                None
            }
        }
    }

    /// Waits for releases until models fit beside what is still held. Asking the cache instead
    /// would count a refusal for each answer.
    fn make_way(&mut self, models: &[&Model]) {
        let charge = |model: &&Model| self.plan.storage.charge(model);
        let charges: Vec<u64> = models.iter().map(charge).collect();
        let all = charges.iter().copied().fold(0, u64::saturating_add);
        while all <= self.plan.budget && !self.held.is_empty() {
            let is_held = |model: &Model| {
                let mut held = self.held.iter().flat_map(|(_, lease)| lease.models());
                held.any(|held| held.id() == model.id())
            };
            let new = models
                .iter()
                .zip(&charges)
                .filter(|(model, _)| !is_held(model));
            let new: u64 = new.map(|(_, charge)| charge).sum();
            if new
                <= self
                    .plan
                    .budget
                    .saturating_sub(self.cache.usage().pinned_bytes)
            {
                return;
            }
            let next = self.held.iter().map(|(until, _)| *until).min();
            self.release_until(next);
        }
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
                self.checksums
                    .insert(model.name().to_owned(), format!("{sum:016x}"));
                self.read.extend(sum.to_le_bytes());
                Ok(())
            }
        });
        if let Err(error) = touched {
            tracing::warn!(%error, "weights could not be read");
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

    /// Drops everything, settles, and closes the stream.
    fn end(mut self) {
        self.held.clear();
        if let Some(churn) = &self.churn {
            churn.drop_buffers();
        }
        self.cache.clear();
        // The last unload of the run is the churn's, so the profile's action follows it too.
        if let Err(error) = self.plan.profile.reclaim.run() {
            tracing::warn!(%error, "reclaim failed");
        }
        self.cache.tell_hits();
        self.sample(Point::Dropped);
        if !self.plan.settle.is_zero() {
            self.sleep_until(Instant::now() + self.plan.settle);
            self.sample(Point::Settled);
        }
        let checksum = (self.plan.touch == Touch::Checksum && !self.read.is_empty())
            .then(|| format!("{:016x}", xxh3_64(&self.read)));
        let interrupted = self.is_interrupted();
        self.stream.emit(Kind::Closed(Closed {
            checksum,
            model_checksums: self.checksums,
            interrupted,
        }));
    }
}
