//! What follows from it, in sentences: the lints of `malloc-stats`, and those of a cache.

use std::cmp::Reverse;
use std::time::Duration;

use malloc_stats::heap::Totals;
use malloc_stats::inspect::{Growth, Inspection, Look, Severity, Status, Verdict, judge};
use malloc_stats::{Metric, Size};
use plimsoll_events::{EvictReason, RefuseReason};

use super::State;
use super::decisions::What;
use crate::decision::joined;

/// The names of findings about a cache, with their causes; documented in docs/diagnose.md.
pub const CACHE_LINTS: &[(&str, &str)] = &[
    (
        "unreturned",
        "unloads freed memory that the system did not get back",
    ),
    (
        "thrash",
        "models are loaded again soon after they were evicted for room",
    ),
    ("refused", "leases were refused lately"),
    ("waiting", "leases wait for room"),
    ("load-failed", "loads failed lately"),
    (
        "events-dropped",
        "the screen was too slow, or joined late: numbers may be short",
    ),
];

/// Lints that hang on nothing but limits and pressure, which are read far more often than a heap.
const QUICK: [&str; 9] = [
    "near-limit",
    "limit-in-sight",
    "oom-killed",
    "memory-stall",
    "vram-full",
    "cache-charged",
    "growing-live",
    "growing-free",
    "growing-elsewhere",
];

/// Lints about growth, which is of no concern where it ends by itself.
const GROWING: [&str; 4] = [
    "limit-in-sight",
    "growing-live",
    "growing-free",
    "growing-elsewhere",
];

/// So far back counts as lately, microseconds.
const LATELY: u64 = 60_000_000;
/// Growth is measured over about so long, microseconds.
const OVER: u64 = 60_000_000;
/// A limit that is met later than so many times the time that was watched is not foretold.
const FORESIGHT: f64 = 30.0;
/// Between two looks that are kept for it, microseconds.
const APART: u64 = 1_000_000;
/// Looks that are kept.
const MOST_LOOKS: usize = 128;
/// A shorter time says nothing of growth, microseconds: a model that is loaded is no trend.
const LEAST: u64 = 10_000_000;
/// Freed memory that is worth a sentence.
const MUCH: u64 = 64 << 20;
/// A model that comes back sooner was evicted in vain, microseconds.
const SOON: u64 = 30_000_000;

/// What growth is measured by, at a moment.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    look: Look,
    /// What the cache counted in RAM, where there is one.
    weights: Option<u64>,
}

impl State {
    /// How fast the process grows, over the last minute; `None` before there are ten seconds of it.
    #[must_use]
    pub fn growth(&self) -> Option<Growth> {
        let (first, last) = self.window()?;
        let growth = Growth::between(&first.look, &last.look);
        (growth.seconds >= Duration::from_micros(LEAST).as_secs_f64()).then_some(growth)
    }

    /// The looks that growth is measured between.
    fn window(&self) -> Option<(&Remembered, &Remembered)> {
        let last = self.growth.back()?;
        let from = last.look.at.saturating_sub(Duration::from_micros(OVER));
        let first = self.growth.iter().find(|one| one.look.at >= from)?;
        Some((first, last))
    }

    /// Whether growth is that of weights which the cache loads, within a budget that its limits
    /// have room for: then it ends by itself.
    fn is_filling_its_budget(&self) -> bool {
        let (Some((first, last)), Some(ram)) = (self.window(), self.tiers.first()) else {
            return false;
        };
        let rss = last.look.memory.rss.since(first.look.memory.rss);
        let weights = last.weights.zip(first.weights);
        let Some((rss, (after, before))) = rss.zip(weights) else {
            return false;
        };
        let explains = i128::from(after.saturating_sub(before)) * 10 >= i128::from(rss) * 8;
        let left = ram.budget_bytes.saturating_sub(ram.used_bytes);
        let headroom = last.look.limits.headroom().bytes();
        explains && headroom.is_none_or(|headroom| left < headroom)
    }

    /// Whether growth meets a limit soon enough to speak of it all the while: what a minute foretells
    /// for tomorrow changes with each minute.
    fn is_limit_near(&self) -> bool {
        self.growth().is_some_and(|growth| {
            let soonest = growth.time_to.first();
            soonest.is_some_and(|limit| limit.seconds <= growth.seconds * FORESIGHT)
        })
    }

    /// Keeps what growth is measured by.
    pub(super) fn remember(&mut self) {
        let (Some(at_us), Some(limits)) = (self.vitals.at_us, &self.vitals.limits) else {
            return;
        };
        let look = Look {
            at: Duration::from_micros(at_us),
            memory: self.vitals.process,
            limits: limits.value.clone(),
            heap: self.vitals.allocator.as_ref().map(|heap| Totals {
                in_use: heap.value.in_use,
                heap_rss: heap.value.heap_rss,
                cached_resident: heap.value.cached_resident,
                ..Totals::default()
            }),
        };
        let apart = Duration::from_micros(APART);
        let mut earlier = self.growth.iter().rev();
        // The last but one is what the last must be apart from, to stay.
        let is_near = earlier.nth(1).is_some_and(|before| {
            let last = self.growth.back().map_or(look.at, |last| last.look.at);
            last.saturating_sub(before.look.at) < apart
        });
        if is_near {
            self.growth.pop_back();
        }
        if self.growth.len() == MOST_LOOKS {
            self.growth.pop_front();
        }
        self.growth.push_back(Remembered {
            look,
            weights: self.tiers.first().map(|ram| ram.used_bytes),
        });
    }

    /// Draws the conclusions from all that was folded.
    pub fn conclude(&mut self) {
        let mut findings = judge(&self.quick());
        if self.is_filling_its_budget() {
            findings.retain(|one| !GROWING.contains(&one.lint.as_str()));
        }
        if !self.is_limit_near() {
            findings.retain(|one| one.lint != "limit-in-sight");
        }
        if let Some(look) = &self.look {
            let slow = look.value.verdicts.iter();
            findings.extend(
                slow.filter(|one| !QUICK.contains(&one.lint.as_str()))
                    .cloned(),
            );
        }
        findings.extend(self.of_cache());
        findings.sort_by_key(|one| Reverse((one.severity, one.bytes.bytes())));
        self.findings = findings;
    }

    /// What is read often, as an inspection without a heap.
    fn quick(&self) -> Inspection {
        let vitals = &self.vitals;
        Inspection {
            process: Status {
                memory: vitals.process,
                ..Status::default()
            },
            limits: vitals
                .limits
                .as_ref()
                .map(|limits| limits.value.clone())
                .unwrap_or_default(),
            host: vitals.host.as_ref().map(|host| host.value),
            pressure: vitals.pressure.as_ref().map(|pressure| pressure.value),
            vram: vitals.vram.value.clone(),
            growth: self.growth(),
            ..Inspection::default()
        }
    }

    fn of_cache(&self) -> Vec<Verdict> {
        let found = [
            self.unreturned(),
            self.thrash(),
            self.refused(),
            self.is_waiting(),
            self.load_failed(),
            self.events_dropped(),
        ];
        found.into_iter().flatten().collect()
    }

    fn lately(&self) -> impl Iterator<Item = (u64, &What)> {
        let from = self.at_us.saturating_sub(LATELY);
        let kept = self.decisions.iter().rev();
        kept.take_while(move |one| one.at_us >= from)
            .map(|one| (one.at_us, &one.what))
    }

    fn unreturned(&self) -> Option<Verdict> {
        let (mut freed, mut returned, mut count) = (0_u64, 0_u64, 0_u64);
        for (_, what) in self.lately() {
            let What::Evict(evict, ..) = what else {
                continue;
            };
            // What is recycled or held was not to come back.
            let Some(back) = evict.returned.bytes().filter(|_| evict.tier == "ram") else {
                continue;
            };
            // Nor is what mapped files return part of what was due.
            if evict.page_cache.is_some() {
                continue;
            }
            freed = freed.saturating_add(evict.due_bytes());
            returned = returned.saturating_add(back);
            count += 1;
        }
        let missing = freed.saturating_sub(returned);
        (missing >= MUCH && missing > freed / 10).then(|| {
            verdict(
                "unreturned",
                Severity::Warn,
                Metric::Estimated(missing),
                format!(
                    "the system got {} of the {} back that {count} unloads freed in the last minute",
                    Size(returned),
                    Size(freed)
                ),
                "keep weights in storage of their own (anonymous), or pin the mmap threshold: \
                 profile glibc-mmap-128k; t asks free memory back now",
            )
        })
    }

    fn thrash(&self) -> Option<Verdict> {
        let mut back: Vec<&str> = Vec::new();
        let mut loads: Vec<(&str, &str, u64)> = Vec::new();
        let mut cost_us = 0_u64;
        for (at_us, what) in self.lately() {
            match what {
                What::Load(load, ..) if load.error.is_none() => {
                    loads.push((&load.model, &load.tier, at_us));
                }
                What::Evict(evict, ..) if matches!(evict.reason, EvictReason::Room { .. }) => {
                    let again = loads.iter().position(|(model, tier, later)| {
                        *model == evict.model
                            && *tier == evict.tier
                            && later.saturating_sub(at_us) < SOON
                    });
                    if let Some(at) = again {
                        let (model, tier, _) = loads.swap_remove(at);
                        back.push(model);
                        let row = self.models.get(model);
                        let took = row.and_then(|row| row.reload_us.get(tier));
                        cost_us = cost_us.saturating_add(took.copied().unwrap_or(0));
                    }
                }
                _ => {}
            }
        }
        let most = back.first()?;
        (back.len() >= 3).then(|| {
            verdict(
                "thrash",
                Severity::Warn,
                Metric::Unavailable,
                format!(
                    "{} models came back within {} s of their eviction in the last minute ({} last), \
                     which cost {}",
                    back.len(),
                    SOON / 1_000_000,
                    crate::paint::safe(most),
                    crate::decision::seconds(cost_us)
                ),
                "give the tier a larger budget (b), or lease fewer models at a time",
            )
        })
    }

    fn refused(&self) -> Option<Verdict> {
        let mut count = 0;
        let mut last = None;
        for (_, what) in self.lately() {
            if let What::Refuse(refuse) = what {
                count += 1;
                last = last.or(Some(refuse));
            }
        }
        let last = last?;
        let short = match last.reason {
            RefuseReason::ExceedsBudget => last.asked_bytes.saturating_sub(last.budget_bytes),
            _ => last
                .asked_bytes
                .saturating_sub(last.budget_bytes.saturating_sub(last.pinned_bytes)),
        };
        Some(verdict(
            "refused",
            Severity::Warn,
            Metric::Exact(short),
            format!(
                "{} refused in the last minute; {} is short of {} in {}: {} asked of a budget of \
                 {}, {} pinned",
                counted(count, "lease"),
                joined(&last.models),
                Size(short),
                crate::paint::safe(&last.tier),
                Size(last.asked_bytes),
                Size(last.budget_bytes),
                Size(last.pinned_bytes)
            ),
            "raise the budget (b) where the limits leave room, end leases sooner, or wait for room \
             (lease rather than try_lease)",
        ))
    }

    fn is_waiting(&self) -> Option<Verdict> {
        let waiting = self.waiting.as_ref().filter(|waiting| waiting.value > 0)?;
        Some(verdict(
            "waiting",
            Severity::Note,
            Metric::Unavailable,
            format!(
                "{} for room",
                match waiting.value {
                    1 => "a lease waits".to_owned(),
                    n => format!("{n} leases wait"),
                }
            ),
            "see in MODELS which leases hold what they wait for",
        ))
    }

    fn load_failed(&self) -> Option<Verdict> {
        let failed = self.lately().filter_map(|(_, what)| match what {
            What::Load(load, ..) => load.error.as_ref().map(|error| (&load.model, error)),
            _ => None,
        });
        let failed: Vec<_> = failed.collect();
        let (model, error) = failed.first()?;
        Some(verdict(
            "load-failed",
            Severity::Bad,
            Metric::Unavailable,
            format!(
                "{} failed in the last minute; {}: {}",
                counted(failed.len() as u64, "load"),
                crate::paint::safe(model),
                crate::paint::safe(error)
            ),
            "see the error in DECISIONS",
        ))
    }

    fn events_dropped(&self) -> Option<Verdict> {
        (self.sums.missing > 0).then(|| {
            verdict(
                "events-dropped",
                Severity::Note,
                Metric::Unavailable,
                format!(
                    "{} of the stream are missing: sums are short by what they would have added",
                    counted(self.sums.missing, "event")
                ),
                "the next picture of the cache puts residency right; a recording (--record) misses \
                 nothing",
            )
        })
    }
}

fn verdict(
    lint: &str,
    severity: Severity,
    bytes: Metric,
    finding: String,
    remedy: &str,
) -> Verdict {
    Verdict {
        lint: lint.to_owned(),
        severity,
        bytes,
        finding,
        remedy: remedy.to_owned(),
    }
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
