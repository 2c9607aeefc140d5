//! What stays resident: the six-model trace under every profile, with and without churn, each run a
//! fresh process. Memory, not time, so it may share the machine.
//!
//! `cargo bench --bench fragmentation` (medians of 5), `cargo bench --bench fragmentation -- 1`.

use std::process::Command;

use plimsoll_events::Report;
use plimsoll_profiles::{Profile, builtin};
use plimsoll_tui::table::{Align, Table};

type Failure = Box<dyn std::error::Error>;

const TRACE: &[&str] = &[
    "run",
    "--synthetic",
    "six",
    "--ram",
    "1200MiB",
    "--workload",
    "cyclic",
    "--steps",
    "18",
    "--json",
];

/// Profiles whose unused pages go back after a while, and how long that takes at most, in seconds.
const DECAYING: [&str; 2] = ["jemalloc-default", "jemalloc-background-1s"];
const SETTLE: &str = "12";

/// Runs the trace with more options and reads its report.
fn report(profile: &str, options: &[&str]) -> Result<Report, Failure> {
    let settle = if DECAYING.contains(&profile) {
        SETTLE
    } else {
        "0"
    };
    let output = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(TRACE)
        .args(["--profile", profile, "--settle", settle])
        .args(options)
        .output()?;
    if !output.status.success() {
        return Err(format!("{profile}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The median of a number over several runs.
fn median(reports: &[Report], number: impl Fn(&Report) -> i64) -> i64 {
    let mut values: Vec<i64> = reports.iter().map(number).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn mib(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn table(title: &str, rounds: usize, options: &[&str]) -> Result<Vec<(String, i64)>, Failure> {
    println!(
        "\n{title}, medians of {rounds}: plimsoll {} {}",
        TRACE.join(" "),
        options.join(" ")
    );
    let mut table = Table::new([
        ("profile", Align::Left),
        ("retained", Align::Right),
        ("excess", Align::Right),
        ("peak - base", Align::Right),
        ("minor faults", Align::Right),
        ("load s", Align::Right),
    ]);
    let mut retained = Vec::new();
    let here = |profile: &&Profile| profile.allocator.serves_here().is_some();
    for profile in builtin::all().iter().filter(here) {
        let reports = (0..rounds)
            .map(|_| report(&profile.name, options))
            .collect::<Result<Vec<_>, _>>()?;
        let kept = median(&reports, |r| r.retained_bytes.unwrap_or(i64::MAX));
        let peak = |r: &Report| {
            r.rss_peak_bytes.unwrap_or(0) as i64 - r.baseline_rss_bytes.unwrap_or(0) as i64
        };
        let milliseconds = median(&reports, |r| (r.load_seconds * 1e3) as i64);
        table.row([
            profile.name.clone(),
            mib(kept),
            mib(median(&reports, |r| r.excess_bytes.unwrap_or(i64::MAX))),
            mib(median(&reports, peak)),
            median(&reports, |r| r.minor_faults as i64).to_string(),
            format!("{:.2}", milliseconds as f64 / 1e3),
        ]);
        retained.push((profile.name.clone(), kept));
    }
    print!("{table}");
    Ok(retained)
}

fn main() -> Result<(), Failure> {
    let rounds = std::env::args().skip(1).find(|a| a != "--bench");
    let rounds = rounds.map_or(Ok(5), |text| text.parse::<usize>())?.max(1);
    table(
        "Anonymous regions, no churn",
        rounds,
        &["--storage", "anonymous"],
    )?;
    table(
        "One allocation a tensor, churned",
        1,
        &["--storage", "heap", "--churn"],
    )?;
    let beside = table(
        "Anonymous regions, churned",
        rounds,
        &["--storage", "anonymous", "--churn"],
    )?;
    let alone = table("Churn alone", rounds, &["--churn-only"])?;
    let mut table = Table::new([
        ("profile", Align::Left),
        ("retained beyond churn alone", Align::Right),
    ]);
    for ((profile, beside), (_, alone)) in beside.into_iter().zip(alone) {
        table.row([profile, mib(beside - alone)]);
    }
    println!("\nAnonymous regions, churned, less churn alone\n{table}");
    Ok(())
}
