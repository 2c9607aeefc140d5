//! Running it in turns: A B A B, so that what drifts meanwhile meets all alike.

use indicatif::{ProgressBar, ProgressStyle};
use plimsoll_profiles::Profile;
use plimsoll_trials::Trial;

use super::{Runner, TrialError};

/// A profile, and what it was called on the command line.
pub(crate) type Named = (String, Profile);

/// How often, and after how many that do not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) count: u32,
    /// The page cache fills, and models are made.
    pub(crate) warm_up: u32,
}

/// Runs the profiles in turns; the trials of each, in their order.
pub(crate) fn rounds(
    runner: &Runner<'_>,
    profiles: &[Named],
    rounds: Rounds,
) -> Result<Vec<Vec<Trial>>, TrialError> {
    let total = u64::from(rounds.count) * profiles.len() as u64 + u64::from(rounds.warm_up);
    let bar = bar(total);
    let mut trials = vec![Vec::new(); profiles.len()];
    let run = |name: &str, profile: &Profile, round: &str| {
        bar.set_message(format!("{round}, {name}"));
        let trial = runner
            .run(profile, name)
            .inspect_err(|_| bar.finish_and_clear());
        bar.inc(1);
        trial
    };
    if let Some((name, profile)) = profiles.first() {
        for _ in 0..rounds.warm_up {
            run(name, profile, "warming up")?;
        }
    }
    for round in 1..=rounds.count {
        let round = format!("round {round} of {}", rounds.count);
        for ((name, profile), trials) in profiles.iter().zip(&mut trials) {
            trials.push(run(name, profile, &round)?);
        }
    }
    bar.finish_and_clear();
    Ok(trials)
}

fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{bar:30} {pos}/{len} {msg}, {elapsed} of about {duration}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(250));
    bar
}
