//! A recommendation in sentences.

use super::difference::{Difference, LEAST_RUNS};
use super::recommendation::{Advice, LEAST_SAVING, Recommendation, Trade};
use super::summary::Compared;
use crate::measure::Measure;
use crate::number::{amount, percent, ratio, share};

/// The rule of recommendations.
pub(super) fn rule(memory: Measure, time: Measure, price: f64) -> String {
    format!(
        "of the front, the one that saves most {memory} against the first, beyond noise and at \
         least {}, at no more than {} more {time}, where a difference within noise costs nothing; \
         of equals the one with the lowest peak",
        amount(memory, LEAST_SAVING),
        percent(price)
    )
}

/// Everything, the verdict first.
pub(super) fn of(
    what: &Recommendation,
    profiles: &[Compared],
    memory: Measure,
    time: Measure,
    price: f64,
) -> Vec<String> {
    let Some(reference) = profiles.first() else {
        return Vec::new();
    };
    let speaker = Speaker { memory, time };
    let taken = what.profile.and_then(|at| profiles.get(at));
    let mut sentences = match (taken, &what.trade) {
        (Some(taken), Some(trade)) => speaker.take(reference, taken, trade),
        _ => vec![speaker.keep(what, reference, profiles)],
    };
    if let Some(other) = &what.runner_up
        && let Some(named) = profiles.get(other.profile)
    {
        let beyond = what.profile.is_none() && other.trade.memory == Difference::Better;
        let beyond = match beyond && other.trade.time == Difference::Worse {
            true => format!(", beyond the price of {}", percent(price)),
            false => String::new(),
        };
        sentences.push(format!(
            "the other choice: {}{beyond}",
            speaker.against(&named.name, &other.trade)
        ));
    }
    sentences
}

/// What is traded for what.
struct Speaker {
    memory: Measure,
    time: Measure,
}

impl Speaker {
    fn take(&self, reference: &Compared, taken: &Compared, trade: &Trade) -> Vec<String> {
        let of = |one: &Compared, measure| {
            one.median(measure)
                .map_or_else(|| "n/a".to_owned(), |median| amount(measure, median))
        };
        let times = trade.memory_ratio.map(ratio);
        let times = times.map_or(String::new(), |times| format!(" ({times})"));
        let saves = format!(
            "take `{}`: it saves {} of {}: {} instead of {} under `{}`{times}",
            taken.name,
            amount(self.memory, trade.saved_bytes),
            self.memory,
            of(taken, self.memory),
            of(reference, self.memory),
            reference.name,
        );
        let faults = match (trade.cost_faults, &trade.faults) {
            (Some(more), Some(Difference::Worse)) => {
                format!(", and {} more page faults", amount(Measure::Faults, more))
            }
            (Some(more), Some(Difference::Better)) => {
                format!(
                    ", with {} fewer page faults",
                    amount(Measure::Faults, -more)
                )
            }
            _ => String::new(),
        };
        let medians = format!(
            "{} instead of {}",
            of(taken, self.time),
            of(reference, self.time)
        );
        let costs = match trade.time {
            Difference::Worse => format!(
                "it costs {} more {} ({medians}{}){faults}",
                amount(self.time, trade.cost_seconds),
                self.time,
                trade
                    .time_ratio
                    .map_or(String::new(), |times| format!(", {}", ratio(times))),
            ),
            Difference::Better => format!(
                "it takes {} less {} besides ({medians}){faults}",
                amount(self.time, -trade.cost_seconds),
                self.time
            ),
            _ => format!("it costs no {} beyond noise ({medians}){faults}", self.time),
        };
        vec![saves, costs]
    }

    fn keep(&self, what: &Recommendation, reference: &Compared, profiles: &[Compared]) -> String {
        let (name, memory) = (&reference.name, self.memory);
        if let Some(why) = &reference.left_out {
            return format!("no verdict: there is nothing to compare with, as of `{name}` {why}");
        }
        let others = profiles.iter().skip(1);
        if others.filter(|one| one.left_out.is_none()).count() == 0 {
            return format!("no verdict: there is nothing to compare `{name}` with");
        }
        if what.advice == Advice::NoVerdict {
            return format!(
                "no verdict: with fewer than {LEAST_RUNS} runs of each profile a difference cannot \
                 be told from noise; ask for `-n {LEAST_RUNS}`"
            );
        }
        let other = what.runner_up.as_ref();
        match other.filter(|other| other.trade.memory == Difference::Better) {
            Some(_) => format!(
                "keep `{name}`: what saves {memory} costs more {} than it may",
                self.time
            ),
            None => format!(
                "keep `{name}`: no other profile saves {} of {memory} or more, beyond noise",
                amount(memory, LEAST_SAVING)
            ),
        }
    }

    /// `X` saves 44.0 MiB more retained and costs 31 % more cpu.
    fn against(&self, name: &str, trade: &Trade) -> String {
        let (memory, time) = (self.memory, self.time);
        let bytes = amount(memory, trade.saved_bytes.abs());
        let saves = match trade.memory {
            Difference::Better => format!("saves {bytes} more of {memory}"),
            Difference::Worse => format!("leaves {bytes} more of {memory}"),
            _ => format!("saves no {memory} beyond noise"),
        };
        let seconds = amount(time, trade.cost_seconds.abs());
        let much = trade.time_ratio.map_or(seconds, share);
        let costs = match trade.time {
            Difference::Worse => format!("costs {much} more {time}"),
            Difference::Better => format!("costs {much} less {time}"),
            _ => format!("costs no {time} beyond noise"),
        };
        let but = match (&trade.memory, &trade.time) {
            (Difference::Better, Difference::Worse) | (Difference::Worse, Difference::Better) => {
                "but"
            }
            _ => "and",
        };
        format!("`{name}` {saves} {but} {costs}")
    }
}
