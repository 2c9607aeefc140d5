//! What was seen of a command, gathered into its outcome.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use malloc_stats::inspect::Inspection;
use malloc_stats::{Grade, Limits, Metric, Process, Vram};
use plimsoll_trials::outcome::{Cycle, Ended, HeapSeen, Member, Outcome, SCHEMA};

use super::kernel::Used;
use super::programs::{InForce, Tried};

/// Points of the curve that are kept; when there are more, two become one.
const MOST_POINTS: usize = 512;
/// More cycles than this are not told one by one.
const MOST_CYCLES: usize = 100_000;
/// More processes than this are not told one by one.
const MOST_MEMBERS: usize = 64;
/// More notes than this nobody reads.
const MOST_NOTES: usize = 50;

/// What was seen until now.
#[derive(Debug)]
pub(crate) struct Gathering {
    begun: Instant,
    outcome: Outcome,
    /// When memory was last read, and what was resident then.
    last: Option<(Instant, Metric)>,
    /// Bytes times seconds, and the seconds.
    area: (f64, f64),
    /// Readings that a point of the curve stands for, and that the last one does by now.
    apart: (u32, u32),
    vram_used: u64,
    tried: Vec<Tried>,
    /// The most that was resident in us until we had forked.
    own_peak: u64,
}

impl Gathering {
    /// To be begun when the command has been started.
    pub(crate) fn new(begun: Instant, command: Vec<String>, profile: String) -> Gathering {
        let own = std::fs::read("/proc/self/status").unwrap_or_default();
        let own = malloc_stats::process::parse_status(&own, Grade::Estimated);
        Gathering {
            begun,
            outcome: Outcome {
                schema: SCHEMA,
                command,
                profile,
                ..Outcome::default()
            },
            last: None,
            area: (0.0, 0.0),
            apart: (1, 1),
            vram_used: 0,
            tried: Vec::new(),
            own_peak: own.hwm.bytes().unwrap_or(u64::MAX),
        }
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.begun).as_secs_f64()
    }

    /// Memory of all processes together, at a moment.
    pub(crate) fn sample(&mut self, at: Instant, total: Process) {
        let Some(rss) = total.rss.bytes() else {
            return;
        };
        let outcome = &mut self.outcome;
        outcome.samples += 1;
        if outcome.baseline_rss.is_unavailable() {
            outcome.baseline_rss = total.rss;
        }
        if outcome.peak_rss.bytes().is_none_or(|peak| rss > peak) {
            outcome.peak_rss = total.rss;
            outcome.at_peak = total;
        }
        if let Some((before, resident)) = self.last {
            let seconds = at.saturating_duration_since(before).as_secs_f64();
            let mean = (resident.bytes().unwrap_or(rss) as f64 + rss as f64) / 2.0;
            self.area = (self.area.0 + mean * seconds, self.area.1 + seconds);
        }
        self.last = Some((at, total.rss));
        self.outcome.last_rss = total.rss;
        self.draw((self.seconds(at), rss));
    }

    /// Adds to the curve. Of what becomes one point the highest stays: a peak is never lost.
    fn draw(&mut self, point: (f64, u64)) {
        let curve = &mut self.outcome.curve;
        let (apart, taken) = &mut self.apart;
        match curve.last_mut() {
            Some(last) if *taken < *apart => {
                *taken += 1;
                if point.1 > last.1 {
                    *last = point;
                }
            }
            _ => {
                *taken = 1;
                curve.push(point);
            }
        }
        if curve.len() > MOST_POINTS {
            let higher = |pair: &[(f64, u64)]| pair.iter().copied().max_by_key(|(_, rss)| *rss);
            *curve = curve.chunks(2).filter_map(higher).collect();
            *apart = apart.saturating_mul(2);
        }
    }

    /// Whether a heap was looked into.
    pub(crate) fn has_looked(&self) -> bool {
        self.outcome.looks > 0
    }

    /// What was resident in all processes when that was last read.
    pub(crate) fn resident(&self) -> Metric {
        self.outcome.last_rss
    }

    /// What the kernel noted as the peak of one of the processes: all together held no less then.
    fn peak_at_least(&mut self, peak: Metric) {
        let known = self.outcome.peak_rss.bytes().unwrap_or(0);
        if peak.bytes().is_some_and(|peak| peak > known) {
            self.outcome.peak_rss = peak;
        }
    }

    pub(crate) fn surroundings(&mut self, charged: Metric, limits: Option<&Limits>, vram: &[Vram]) {
        let outcome = &mut self.outcome;
        if charged.bytes() > outcome.cgroup_peak.bytes() {
            outcome.cgroup_peak = charged;
        }
        if let Some(tightest) = limits.and_then(Limits::tightest) {
            let left = tightest.headroom;
            let known = outcome
                .nearest_limit
                .as_ref()
                .and_then(|(_, left)| left.bytes());
            if known.is_none() || left.bytes().is_some_and(|left| Some(left) < known) {
                outcome.nearest_limit = Some((tightest.bound.to_string(), left));
            }
        }
        let used = |vram: &[Vram]| {
            vram.iter()
                .filter_map(|gpu| gpu.process.bytes())
                .sum::<u64>()
        };
        if !vram.is_empty() && (outcome.vram.is_empty() || used(vram) > self.vram_used) {
            self.vram_used = used(vram);
            outcome.vram = vram.to_vec();
        }
    }

    /// A heap was looked into. `keep` makes it the one that is reported.
    pub(crate) fn look(&mut self, at: Instant, inspection: &Inspection, keep: bool) {
        self.outcome.looks += 1;
        self.outcome.verdicts.clone_from(&inspection.verdicts);
        let Some(heap) = &inspection.heap else {
            return;
        };
        let seen = HeapSeen {
            pid: inspection.pid,
            at_seconds: self.seconds(at),
            in_use: heap.totals.in_use,
            heap_rss: heap.totals.heap_rss,
            free_resident: heap.trim.free_resident,
            releasable: heap.trim.releasable,
        };
        let waste = |seen: &HeapSeen| seen.heap_rss.minus_saturating(seen.in_use).bytes();
        if keep {
            self.outcome.heap = Some(seen);
        }
        let worst = self.outcome.worst_waste.as_ref().and_then(waste);
        if waste(&seen) > worst || self.outcome.worst_waste.is_none() {
            self.outcome.worst_waste = Some(seen);
        }
    }

    /// What was resident at the mark, in place of what was at first.
    pub(crate) fn baseline(&mut self, rss: Metric) {
        if !rss.is_unavailable() {
            self.outcome.baseline_rss = rss;
            self.outcome.baseline_marked = true;
        }
    }

    pub(crate) fn cycle(&mut self, rss: Metric, in_use: Metric) {
        if self.outcome.cycles.len() < MOST_CYCLES {
            self.outcome.cycles.push(Cycle { rss, in_use });
        }
    }

    pub(crate) fn dropped(&mut self, rss: Metric) {
        self.outcome.dropped_rss = rss;
    }

    pub(crate) fn waited_at_mark(&mut self, time: Duration) {
        self.outcome.marks_seconds += time.as_secs_f64();
    }

    /// The programs of which it was found out whether the profile took.
    pub(crate) fn programs(&mut self, tried: Vec<Tried>) {
        self.tried = tried;
    }

    pub(crate) fn note(&mut self, note: String) {
        let notes = &mut self.outcome.notes;
        if notes.len() < MOST_NOTES && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// The processes at the end: those that ended, and those that go on.
    pub(crate) fn members(&mut self, mut members: Vec<Member>, seen: u64, left: u64) {
        for member in &members {
            self.peak_at_least(member.peak_rss);
        }
        members.sort_by_key(|member| std::cmp::Reverse(member.peak_rss.bytes()));
        members.truncate(MOST_MEMBERS);
        self.outcome.processes = members;
        self.outcome.processes_seen = seen;
        self.outcome.processes_left = left;
    }

    pub(crate) fn sampling(&mut self, cost: Duration) {
        self.outcome.sampling_seconds = cost.as_secs_f64();
    }

    /// The whole outcome.
    pub(crate) fn finish(mut self, ended: Ended, used: Used, lasted: Duration) -> Outcome {
        // Until it becomes another program, what we forked counts as what we are.
        if used.peak_rss > self.own_peak {
            self.peak_at_least(Metric::Estimated(used.peak_rss));
        }
        // Between two readings, and after the last, there may have been more.
        self.outcome.peak_rss = self.outcome.peak_rss.at_best(Grade::Estimated);
        self.conclude();
        let outcome = &mut self.outcome;
        outcome.ended = ended;
        outcome.minor_faults = used.minor_faults;
        outcome.major_faults = used.major_faults;
        outcome.user_seconds = used.user.as_secs_f64();
        outcome.system_seconds = used.system.as_secs_f64();
        outcome.wall_seconds = lasted.as_secs_f64();
        outcome.mean_rss = match self.area.1 > 0.0 {
            true => Metric::Estimated((self.area.0 / self.area.1) as u64),
            // It was met once.
            false => outcome.last_rss.at_best(Grade::Estimated),
        };
        if let Some((last, _)) = self.last {
            let last = last.saturating_duration_since(self.begun);
            outcome.last_seen_before_end_seconds = lasted.saturating_sub(last).as_secs_f64();
        }
        self.outcome
    }

    /// Whether the profile was in force, where that matters.
    fn conclude(&mut self) {
        let peak = self.outcome.peak_rss.bytes().unwrap_or(0);
        let found = InForce::of(std::mem::take(&mut self.tried), peak);
        self.outcome.allocator = found.allocator;
        self.outcome.settings = found.settings;
        let known = &mut self.outcome.not_in_force;
        for what in found.refused {
            if known.len() < MOST_NOTES && !known.contains(&what) {
                known.push(what);
            }
        }
        for note in found.notes {
            self.note(format!("not in force in {note}"));
        }
    }
}
