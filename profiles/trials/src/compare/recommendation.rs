//! Which profile to take: what it saves, what it costs, and what the next one would.

use serde::{Deserialize, Serialize};

use super::difference::{Difference, ratio};
use super::sentences;
use super::summary::Compared;
use crate::measure::Measure;

/// Less memory than this is not worth another profile, in bytes; and two profiles that are not
/// farther apart are equal in memory.
pub const LEAST_SAVING: f64 = 1_048_576.0;

/// Whether to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// Take another profile.
    Take,
    /// Keep the reference.
    Keep,
    /// The runs do not say.
    NoVerdict,
}

/// Which profile to take, by a stated rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Whether to change.
    pub advice: Advice,
    /// The place of the profile to take in [`Comparison::profiles`](super::Comparison::profiles).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<usize>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it comes to against the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trade: Option<Trade>,
    /// The other choice: one that saves more at a higher price, else one that saves less and costs
    /// less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<RunnerUp>,
    /// By what rule.
    pub rule: String,
    /// All of this in sentences.
    pub sentences: Vec<String>,
}

/// What one profile comes to against another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trade {
    /// By how many bytes the median of the memory is less; below zero where it is more.
    pub saved_bytes: f64,
    /// The memory as a multiple.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_ratio: Option<f64>,
    /// Whether the memory differs beyond noise.
    pub memory: Difference,
    /// By how many seconds the median of the time is more; below zero where it is less.
    pub cost_seconds: f64,
    /// The time as a multiple.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ratio: Option<f64>,
    /// Whether the time differs beyond noise.
    pub time: Difference,
    /// How many more page faults; below zero where there are fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_faults: Option<f64>,
    /// Whether the page faults differ beyond noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Difference>,
}

/// The other choice, against the profile that is recommended, or kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// Its place among the profiles.
    pub profile: usize,
    /// Its name.
    pub name: String,
    /// What it comes to.
    pub trade: Trade,
}

impl Trade {
    fn of(from: &Compared, to: &Compared, memory: Measure, time: Measure) -> Option<Trade> {
        let between = |measure| Difference::between(from.values(measure), to.values(measure)).0;
        let less = |measure| Some(finite(from.median(measure)? - to.median(measure)?));
        let ratio_of = |measure| ratio(from.median(measure)?, to.median(measure)?);
        let fewer_faults: Option<f64> = less(Measure::Faults);
        Some(Trade {
            saved_bytes: less(memory)?,
            memory_ratio: ratio_of(memory),
            memory: between(memory),
            cost_seconds: -less(time)?,
            time_ratio: ratio_of(time),
            time: between(time),
            cost_faults: fewer_faults.map(|fewer| -fewer),
            faults: fewer_faults.map(|_| between(Measure::Faults)),
        })
    }

    /// Whether it saves memory beyond noise, and so much that it matters.
    fn saves(&self) -> bool {
        self.memory == Difference::Better && self.saved_bytes >= LEAST_SAVING
    }

    /// Whether it costs no more than this part of the time.
    fn is_within(&self, price: f64) -> bool {
        let affordable = |ratio: f64| ratio <= 1.0 + price;
        self.time.is_no_worse()
            || (self.time == Difference::Worse && self.time_ratio.is_some_and(affordable))
    }
}

/// The nearest number there is.
fn finite(difference: f64) -> f64 {
    difference.clamp(f64::MIN, f64::MAX)
}

/// The profiles that take part, and what is traded.
struct Field<'a> {
    profiles: &'a [Compared],
    memory: Measure,
    time: Measure,
}

impl Field<'_> {
    fn trade(&self, from: usize, to: usize) -> Option<Trade> {
        let (from, to) = (self.profiles.get(from)?, self.profiles.get(to)?);
        if from.left_out.is_some() || to.left_out.is_some() {
            return None;
        }
        Trade::of(from, to, self.memory, self.time)
    }

    /// What the profiles on the front come to against one of them.
    fn front_against(&self, from: usize) -> Vec<(usize, Trade)> {
        let on_front = |at: &usize| *at != from && self.profiles[*at].on_front;
        let places = (0..self.profiles.len()).filter(on_front);
        places
            .filter_map(|to| Some((to, self.trade(from, to)?)))
            .collect()
    }

    /// The one that saves most; of those that are equal to it, the one with the lowest peak.
    fn best(&self, candidates: &[(usize, Trade)]) -> Option<usize> {
        let most = candidates
            .iter()
            .max_by(|a, b| a.1.saved_bytes.total_cmp(&b.1.saved_bytes))?;
        let is_equal = |to: usize| {
            self.trade(most.0, to).is_none_or(|trade| {
                trade.memory == Difference::WithinNoise || trade.saved_bytes > -LEAST_SAVING
            })
        };
        let key = |at: usize, measure| self.profiles[at].median(measure).unwrap_or(f64::MAX);
        let equal = candidates.iter().map(|(at, _)| *at);
        equal.filter(|at| is_equal(*at)).min_by(|a, b| {
            let by = |measure| key(*a, measure).total_cmp(&key(*b, measure));
            by(Measure::Peak).then(by(self.time))
        })
    }

    /// Against one that saves: what saves more still, else what costs less.
    fn runner_up(&self, from: usize) -> Option<(usize, Trade)> {
        let others = self.front_against(from);
        let saving = others.iter().filter(|(_, trade)| trade.saves());
        let most = saving.max_by(|a, b| a.1.saved_bytes.total_cmp(&b.1.saved_bytes));
        most.or_else(|| {
            let faster = others
                .iter()
                .filter(|(_, trade)| trade.time == Difference::Better);
            faster.min_by(|a, b| a.1.cost_seconds.total_cmp(&b.1.cost_seconds))
        })
        .cloned()
    }

    /// Against the reference that is kept: the cheapest that saves, else what costs less.
    fn alternative(&self) -> Option<(usize, Trade)> {
        let others = self.front_against(0);
        let saving = others.iter().filter(|(_, trade)| trade.saves());
        let cheapest = saving.min_by(|a, b| a.1.cost_seconds.total_cmp(&b.1.cost_seconds));
        cheapest.cloned().or_else(|| self.runner_up(0))
    }
}

impl Recommendation {
    /// Of profiles of which the first is the reference, with the front marked.
    pub(super) fn of(
        profiles: &[Compared],
        memory: Measure,
        time: Measure,
        price: f64,
    ) -> Recommendation {
        let field = Field {
            profiles,
            memory,
            time,
        };
        let candidates: Vec<(usize, Trade)> = field
            .front_against(0)
            .into_iter()
            .filter(|(_, trade)| trade.saves() && trade.is_within(price))
            .collect();
        let profile = field.best(&candidates);
        let trade = candidates
            .into_iter()
            .find(|(at, _)| Some(*at) == profile)
            .map(|(_, trade)| trade);
        let runner_up = match profile {
            Some(from) => field.runner_up(from),
            None => field.alternative(),
        };
        let comparable = (1..profiles.len()).filter_map(|to| field.trade(0, to));
        let knows = |trade: &Trade| ![&trade.memory, &trade.time].contains(&&Difference::TooFew);
        let advice = match profile {
            Some(_) => Advice::Take,
            None if comparable.clone().next().is_some()
                && comparable.clone().all(|t| knows(&t)) =>
            {
                Advice::Keep
            }
            None => Advice::NoVerdict,
        };
        let mut recommendation = Recommendation {
            advice,
            name: profile.map(|at| profiles[at].name.clone()),
            profile,
            trade,
            runner_up: runner_up.map(|(at, trade)| RunnerUp {
                profile: at,
                name: profiles[at].name.clone(),
                trade,
            }),
            rule: sentences::rule(memory, time, price),
            sentences: Vec::new(),
        };
        recommendation.sentences = sentences::of(&recommendation, profiles, memory, time, price);
        recommendation
    }
}
