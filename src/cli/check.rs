//! `plimsoll check`: a gate for CI.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{ArgMatches, Args};
use plimsoll_profiles::{Profile, builtin};
use plimsoll_trials::Trial;
use plimsoll_trials::baseline::{Baseline, Subject as Kept, SubjectKind, Tuning};
use plimsoll_trials::check::{Checked, Overall, annotations, junit, markdown};
use plimsoll_trials::gate::{Choice, Gates};
use plimsoll_trials::machine::{Across, Machine};
use plimsoll_tui::trials::check as table;

use super::subject::SubjectOptions;
use super::{BAD_INPUT, Done, FAILED};
use crate::exec::kernel::Signals;
use crate::output::{Later, Output, complain};
use crate::trial::{Rounds, Runner, Subject, TrialError, rounds};

/// Fail where memory got worse than a baseline: a gate for CI.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll check --baseline memory.json --update -- python server.py --self-test
  plimsoll check --baseline memory.json -- python server.py --self-test
  plimsoll check --baseline memory.json --synthetic six --scale 0.1 --ram 120MiB --storage heap --cycles 8
  plimsoll check --baseline memory.json --gate cpu=15%,0.5s --gate retained=5%,2MiB --junit memory.xml -- ./test

A metric fails only past its relative floor and its absolute floor and the noise: p <= 0.01 in a
one-sided exact Mann-Whitney test against the runs of the baseline. What is past the floors and within
the noise, or had too few runs, is run again, as often as before; if that does not tell either, there
is no verdict.

Exit codes:
  0    pass
  1    a regression, or a run failed
  2    bad usage, or no verdict: another machine, too few runs, too much noise")]
pub(crate) struct Check {
    /// The baseline: a JSON file that is kept with the code
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    /// Take a new baseline, and check nothing
    #[arg(long)]
    update: bool,
    /// The allocator profile: a built-in one, or a file [default: glibc-default, where a program may
    /// set something else itself, which is checked with it]
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// How often it is run
    #[arg(short, long = "runs", value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    n: u32,
    /// How much worse a metric may get, such as retained=10%,4MiB; METRIC=off turns one off; may be
    /// given more than once [default: those of the baseline, and the usual ones]
    #[arg(long = "gate", value_name = "METRIC=REL,ABS")]
    gates: Vec<Choice>,
    /// No gates but those that are given
    #[arg(long, requires = "gates")]
    only: bool,
    /// Compare all the same where these differ: subject, profile, allocator, libc, arch, kernel,
    /// cores, page_size, thp, or any
    #[arg(long, value_name = "WHAT,...", default_value = "")]
    across: String,
    /// Write the verdict as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Append the verdict as Markdown, as for $GITHUB_STEP_SUMMARY
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    subject: SubjectOptions,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is checked, and where.
struct Asked {
    kept: Kept,
    tuning: Tuning,
    name: String,
    profile: Profile,
    /// Whether the profile was asked for. If not, nothing of it can be refused: a threshold that
    /// the program sets is a part of what is checked.
    by_name: bool,
}

pub(super) fn run(options: &Check, given: &ArgMatches) -> Done {
    let output = Output::new(options.json);
    let across: Across = match options.across.as_str() {
        "" => Across::default(),
        names => names.parse()?,
    };
    let subject = options.subject.subject(given)?;
    let name = options.profile.as_deref().unwrap_or(builtin::DEFAULT);
    let profile = Profile::find(name)?;
    for note in subject.environment(&profile)?.notes {
        complain(&format!("note: {note}"));
    }
    let asked = Asked {
        kept: kept(&subject),
        tuning: tuning(&profile),
        name: name.to_owned(),
        profile,
        by_name: options.profile.is_some(),
    };
    let signals = Signals::hold()?;
    let runner = Runner {
        subject: &subject,
        signals: &signals,
        limit: options.subject.limit,
        any_code: options.subject.any_code,
    };
    if options.update {
        // Before an hour is spent on runs.
        let chosen = chosen(options)?;
        Baseline::may_be_at(&options.baseline)?;
        return update(options, &output, &runner, asked, chosen);
    }
    let files = Files {
        junit: options.junit.as_deref().map(Later::open).transpose()?,
        markdown: options.markdown.as_deref().map(Later::open).transpose()?,
    };
    let baseline = Baseline::read(&options.baseline)?;
    let gates = gates(options, &baseline)?;
    let checked = match admit(&baseline, &asked, &across) {
        Ok(notes) => match measure(options, &runner, &asked, (&baseline, &gates), &across) {
            Ok(mut checked) => {
                checked.notes.extend(notes);
                checked
            }
            Err(error) => return failed(&error),
        },
        Err(reasons) => Checked::without_verdict(&baseline, reasons),
    };
    report(options, &output, &checked, files)?;
    Ok(ExitCode::from(match checked.verdict {
        Overall::Pass => 0,
        Overall::Regression => FAILED,
        Overall::NoVerdict => BAD_INPUT,
    }))
}

/// Where the verdict goes besides.
#[derive(Debug)]
struct Files {
    junit: Option<Later>,
    markdown: Option<Later>,
}

/// The choices that a baseline keeps, so that a check without any is as one with these.
fn chosen(options: &Check) -> Result<Vec<Choice>, Failure> {
    let given = Gates::only(&options.gates)?;
    let mut choices = options.gates.clone();
    if options.only {
        let usual = Gates::default();
        let others = usual.iter().map(|(measure, _)| measure);
        let others = others.filter(|measure| given.get(*measure).is_none());
        let off = others.map(|measure| Choice {
            measure,
            gate: None,
        });
        let off: Vec<Choice> = off.filter(|choice| !choices.contains(choice)).collect();
        choices.extend(off);
    }
    Ok(choices)
}

/// Those of the baseline, and in place of them those that are given.
fn gates(options: &Check, baseline: &Baseline) -> Result<Gates, Failure> {
    Ok(if options.only {
        Gates::only(&options.gates)?
    } else {
        Gates::default()
            .with(&baseline.gates)?
            .with(&options.gates)?
    })
}

/// What is known before anything is run: whether this is what the baseline was taken of. The
/// allocator is only known afterwards.
fn admit(baseline: &Baseline, asked: &Asked, across: &Across) -> Result<Vec<String>, Vec<String>> {
    let here = Machine::here(baseline.machine.allocator.clone());
    admitted(baseline, asked, &here, across)
}

fn admitted(
    baseline: &Baseline,
    asked: &Asked,
    here: &Machine,
    across: &Across,
) -> Result<Vec<String>, Vec<String>> {
    let differences = baseline.differences(&asked.kept, &asked.tuning, here);
    match across.admit(differences) {
        Ok(allowed) => Ok(allowed
            .iter()
            .map(|difference| format!("compared across {difference}"))
            .collect()),
        Err(differs) => Err(vec![differs.to_string()]),
    }
}

/// Runs and judges; where that does not tell, once more.
fn measure(
    options: &Check,
    runner: &Runner<'_>,
    asked: &Asked,
    (baseline, gates): (&Baseline, &Gates),
    across: &Across,
) -> Result<Checked, TrialError> {
    let mut trials = run_rounds(runner, asked, options.n, options.subject.warm_up)?;
    let mut checked = Checked::judge(baseline, &trials, gates);
    if checked.unclear() {
        complain("note: too noisy, or too few runs, to tell: running as often again");
        trials.extend(run_rounds(runner, asked, options.n, 0)?);
        checked = Checked::judge(baseline, &trials, gates);
    }
    let here = Machine::here(served(&trials));
    if let Err(reasons) = admitted(baseline, asked, &here, across) {
        return Ok(Checked::without_verdict(baseline, reasons));
    }
    Ok(checked)
}

fn run_rounds(
    runner: &Runner<'_>,
    asked: &Asked,
    count: u32,
    warm_up: u32,
) -> Result<Vec<Trial>, TrialError> {
    let profiles = [(asked.name.clone(), asked.profile.clone())];
    let trials = rounds(runner, &profiles, Rounds { count, warm_up })?;
    let mut trials: Vec<Trial> = trials.into_iter().flatten().collect();
    if !asked.by_name {
        for trial in &mut trials {
            trial.refused = false;
        }
    }
    Ok(trials)
}

/// Who served the runs, as far as any of them could tell.
fn served(trials: &[Trial]) -> &str {
    Machine::serving(trials)
        .first()
        .copied()
        .unwrap_or_default()
}

fn failed(error: &TrialError) -> Done {
    complain(&error.to_string());
    Ok(ExitCode::from(match error {
        TrialError::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(FAILED),
        TrialError::Unfit(_) => BAD_INPUT,
        _ => FAILED,
    }))
}

/// Takes a new baseline.
fn update(
    options: &Check,
    output: &Output,
    runner: &Runner<'_>,
    asked: Asked,
    chosen: Vec<Choice>,
) -> Done {
    let trials = match run_rounds(runner, &asked, options.n, options.subject.warm_up) {
        Ok(trials) => trials,
        Err(error) => return failed(&error),
    };
    let baseline = Baseline::of(
        asked.kept,
        asked.tuning,
        Machine::here(served(&trials)),
        chosen,
        &trials,
        now_unix_ms(),
    )?;
    for left_out in Baseline::left_out(&trials) {
        complain(&format!("note: {left_out}"));
    }
    baseline.write(&options.baseline)?;
    if output.json {
        output.value(&baseline)?;
    } else {
        output.text(&table::baseline(&output.paint, &baseline))?;
        output.text(&format!("written to {}\n", options.baseline.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the verdict to everybody who wants it; to people first, as a file may fail.
fn report(
    options: &Check,
    output: &Output,
    checked: &Checked,
    files: Files,
) -> Result<(), Failure> {
    if output.json {
        output.value(checked)?;
    } else {
        output.text(&table::text(&output.paint, checked, &options.baseline))?;
        if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
            output.text(&annotations(checked))?;
        }
    }
    if let Some(file) = files.junit {
        file.replace(&junit(checked))?;
    }
    if let Some(file) = files.markdown {
        // A job's summary holds that of every step.
        file.append(&markdown(checked, &options.baseline))?;
    }
    Ok(())
}

fn kept(subject: &Subject) -> Kept {
    Kept {
        kind: match subject {
            Subject::Command { .. } => SubjectKind::Command,
            Subject::Run { .. } => SubjectKind::Run,
        },
        arguments: subject.words(),
    }
}

fn tuning(profile: &Profile) -> Tuning {
    let knobs = profile.knobs();
    let knobs: BTreeMap<String, String> = knobs
        .map(|(knob, value)| (knob.name.to_owned(), value.to_owned()))
        .collect();
    Tuning {
        name: profile.name.clone(),
        knobs,
    }
}

fn now_unix_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
