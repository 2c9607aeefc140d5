//! `plimsoll compare`: profiles side by side.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use plimsoll_profiles::{Malloc, Profile, builtin, knob};
use plimsoll_trials::compare::{Comparison, Options};
use plimsoll_trials::search::{Grid, Search, grid};
use plimsoll_trials::{Measure, Trial};
use plimsoll_tui::trials::{compare as table, plot};

use super::subject::SubjectOptions;
use super::{Done, FAILED};
use crate::exec::kernel::Signals;
use crate::output::{Later, Output, complain};
use crate::trial::{Named, Rounds, Runner, Subject, TrialError, rounds};

/// Run profiles side by side: what each saves, what it costs, and which to take.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll compare -- python server.py --once                 every built-in profile, five times each
  plimsoll compare --profile glibc-default --profile glibc-mmap-1m -n 10 -- ./load_test.sh
  plimsoll compare --for 60s --svg trade.svg -- redis-server
  plimsoll compare --synthetic six --ram 1200MiB --workload cyclic --steps 18 --storage heap --churn
  plimsoll compare --search mmap_threshold --write tuned.toml -- python server.py --once

The profiles take turns (A B A B), and the first is what the others are compared with. A difference is
called one only where the runs do not overlap: p <= 0.01 in a two-sided exact Mann-Whitney test, which
takes five runs of each. Nothing is said of a profile that was seen not to be in force.

--search varies one knob over a grid, starting from the best of the profiles that have it.")]
pub(crate) struct Compare {
    /// A profile: a built-in one, or a file; may be given more than once [default: every built-in
    /// one that can be applied]
    #[arg(long = "profile", value_name = "NAME|FILE")]
    profiles: Vec<String>,
    /// How often each is run
    #[arg(short, long = "runs", value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    n: u32,
    /// Vary this knob over a grid of values
    #[arg(long, value_name = "KNOB")]
    search: Option<String>,
    /// Write the profile that the search found to this new file
    #[arg(long, value_name = "FILE", requires = "search")]
    write: Option<PathBuf>,
    /// What is meant by memory: peak, mean, retained, waste or structural [default: retained where
    /// every profile has it]
    #[arg(long, value_name = "METRIC", value_parser = measure)]
    memory: Option<Measure>,
    /// What is meant by time: cpu or wall
    #[arg(long, value_name = "METRIC", default_value = "cpu", value_parser = measure)]
    time: Measure,
    /// The most that a recommendation may cost in time, in percent of the first profile's
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent)]
    price: f64,
    /// Draw memory against time in this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    subject: SubjectOptions,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn run(options: &Compare, given: &ArgMatches) -> Done {
    let output = Output::new(options.json);
    let subject = options.subject.subject(given)?;
    let searched = options.search.as_deref().map(grid).transpose()?;
    if let Some(path) = options.write.as_deref().filter(|path| path.exists()) {
        let path = path.display();
        return Err(format!("{path} is there already: name a new file").into());
    }
    let svg = options.svg.as_deref().map(Later::open).transpose()?;
    let mut profiles = profiles(options, &subject)?;
    if let Some(grid) = searched {
        let has = |profile: &Profile| knob::find(profile.allocator, grid.knob).is_some();
        profiles.retain(|(_, profile)| has(profile));
        if profiles.is_empty() {
            let knob = grid.knob;
            return Err(
                format!("none of the profiles has the knob `{knob}` to search over").into(),
            );
        }
    }
    let signals = Signals::hold()?;
    let runner = Runner {
        subject: &subject,
        signals: &signals,
        limit: options.subject.limit,
        any_code: options.subject.any_code,
    };
    let comparison = match compare(options, &runner, &profiles)? {
        Ok(comparison) => comparison,
        Err(code) => return Ok(code),
    };
    let Some(grid) = searched else {
        if let Some(file) = svg {
            file.replace(&plot::svg(&comparison))?;
        }
        if options.json {
            output.value(&comparison)?;
        } else {
            output.text(&table::text(&output.paint, &comparison))?;
        }
        return Ok(code(&comparison));
    };
    search(
        options,
        &output,
        &runner,
        (grid, &profiles, &comparison),
        svg,
    )
}

/// Varies a knob in the best of the profiles.
fn search(
    options: &Compare,
    output: &Output,
    runner: &Runner<'_>,
    (grid, profiles, first): (&Grid, &[Named], &Comparison),
    svg: Option<Later>,
) -> Done {
    let best = first.recommendation.profile.unwrap_or(0);
    let Some((name, from)) = profiles.get(best) else {
        return Err("no profile to search from".into());
    };
    let folder = tempfile::Builder::new().prefix("plimsoll-").tempdir()?;
    let mut tried = vec![(name.clone(), from.clone())];
    for value in grid.values {
        let profile = varied(from, grid, *value)?;
        // A run applies the profile itself, so it has to find it in a file.
        let path = folder.path().join(format!("{value}.toml"));
        std::fs::write(&path, profile.to_toml())?;
        tried.push((path.display().to_string(), profile));
    }
    let comparison = match compare(options, runner, &tried)? {
        Ok(comparison) => comparison,
        Err(code) => return Ok(code),
    };
    let code = code(&comparison);
    let search = Search::new(grid, comparison)?;
    if let Some(file) = svg {
        file.replace(&plot::search(&search))?;
    }
    if options.json {
        output.value(&search)?;
    } else {
        if profiles.len() > 1 {
            output.text(&format!("{}\n", table::text(&output.paint, first)))?;
        }
        output.text(&table::search(&output.paint, &search))?;
    }
    if let Some(path) = &options.write {
        write_winner(path, grid, from, &search)?;
    }
    Ok(code)
}

/// A profile with another value of a knob.
fn varied(from: &Profile, grid: &Grid, value: u64) -> Result<Profile, Failure> {
    let mut profile = from.clone();
    let knob = knob::find(from.allocator, grid.knob)
        .ok_or_else(|| format!("`{}` has no knob `{}`", from.name, grid.knob))?;
    profile.knobs.insert(knob.name, value.to_string());
    let value = grid.counts.text(value).replace(' ', "");
    profile.name = format!("{}={value}", grid.knob);
    Ok(profile)
}

fn write_winner(path: &Path, grid: &Grid, from: &Profile, search: &Search) -> Result<(), Failure> {
    let Some(value) = search.winner else {
        complain("note: no value is better than what was, so no profile is written");
        return Ok(());
    };
    let mut profile = varied(from, grid, value)?;
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    profile.name = stem.unwrap_or(profile.name).escape_debug().to_string();
    profile.why.clone_from(&search.why);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    std::io::Write::write_all(&mut file, profile.to_toml().as_bytes())?;
    complain(&format!(
        "note: wrote {}: use it with --profile",
        path.display()
    ));
    Ok(())
}

/// The profiles that are compared: those that were named, or all that can be applied here.
fn profiles(options: &Compare, subject: &Subject) -> Result<Vec<Named>, Failure> {
    let mut found: Vec<Named> = Vec::new();
    if options.profiles.is_empty() {
        for profile in builtin::all() {
            if !subject.tells_apart(profile) {
                continue;
            }
            match subject.environment(profile) {
                Ok(_) => found.push((profile.name.clone(), profile.clone())),
                Err(_) if matches!(subject, Subject::Run { .. }) => {}
                Err(error) if profile.allocator == Malloc::Glibc => return Err(error.into()),
                Err(error) => complain(&format!("note: left out: {error}")),
            }
        }
        return Ok(found);
    }
    for name in &options.profiles {
        let profile = Profile::find(name)?;
        if found.iter().any(|(_, known)| known.name == profile.name) {
            return Err(format!("profile `{}` is given twice", profile.name).into());
        }
        for note in subject.environment(&profile)?.notes {
            complain(&format!("note: {note}"));
        }
        found.push((name.clone(), profile));
    }
    Ok(found)
}

/// Runs and compares; or, where that was interrupted or failed, the exit code.
fn compare(
    options: &Compare,
    runner: &Runner<'_>,
    profiles: &[Named],
) -> Result<Result<Comparison, ExitCode>, Failure> {
    let times = Rounds {
        count: options.n,
        warm_up: options.subject.warm_up,
    };
    let trials = match rounds(runner, profiles, times) {
        Ok(trials) => trials,
        Err(TrialError::Interrupted(signal)) => {
            complain("interrupted: nothing to compare");
            let code = u8::try_from(128 + signal).unwrap_or(FAILED);
            return Ok(Err(ExitCode::from(code)));
        }
        Err(TrialError::Unfit(error)) => return Err(error.into()),
        Err(error) => {
            complain(&error.to_string());
            return Ok(Err(ExitCode::from(FAILED)));
        }
    };
    let names = profiles.iter().map(|(_, profile)| profile.name.clone());
    let trials: Vec<(String, Vec<Trial>)> = names.zip(trials).collect();
    let wanted = Options {
        memory: options.memory,
        time: options.time,
        price: options.price,
    };
    let what = runner.subject.line();
    Ok(Ok(Comparison::new(
        what,
        options.n.into(),
        trials,
        &wanted,
    )?))
}

/// A profile that did not take makes a comparison that is not what was asked for.
fn code(comparison: &Comparison) -> ExitCode {
    let mut profiles = comparison.profiles.iter();
    let left_out = profiles.any(|profile| profile.left_out.is_some());
    ExitCode::from(if left_out { FAILED } else { 0 })
}

fn measure(text: &str) -> Result<Measure, String> {
    Measure::named(text).ok_or_else(|| {
        let names: Vec<&str> = Measure::ALL.iter().map(|measure| measure.name()).collect();
        format!("no metric `{}`: {}", text.escape_debug(), names.join(", "))
    })
}

/// A part of one, from percent.
fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim().trim_end_matches('%').trim().parse().ok();
    number
        .filter(|percent| (0.0..=1000.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("`{}` is no percentage: 0 to 1000", text.escape_debug()))
}
