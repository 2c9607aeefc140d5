//! `plimsoll profiles`: list them, show one, print what to export.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use plimsoll_profiles::{Profile, builtin, exported_environment, knob};
use plimsoll_tui::paint::{Tone, safe_lines};
use plimsoll_tui::table::{Align, Table};
use serde::Serialize;

use super::Done;
use crate::output::{Output, StdoutError, complain};

/// List the allocator profiles, show one, or print what to export for a foreign program.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll profiles                                  the built-in profiles
  plimsoll profiles show jemalloc-purge              one as a file, to be copied and changed
  plimsoll profiles show glibc-default --knobs       and all knobs its allocator has
  env $(plimsoll profiles env glibc-mmap-1m) python server.py")]
pub(crate) struct Profiles {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the built-in profiles
    List,
    /// Show a profile as a file
    Show {
        /// A built-in profile, or a file
        profile: String,
        /// List the knobs of its allocator too
        #[arg(long)]
        knobs: bool,
    },
    /// Print what to export for a foreign program, as arguments of `env`
    Env {
        /// A built-in profile, or a file
        profile: String,
    },
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    why: &'a str,
    allocator: &'static str,
    /// Whether its allocator can only be preloaded into other programs.
    foreign_only: bool,
    reclaim: String,
    knobs: std::collections::BTreeMap<&'static str, &'a str>,
}

impl<'a> Row<'a> {
    fn new(profile: &'a Profile) -> Row<'a> {
        Row {
            name: &profile.name,
            why: &profile.why,
            allocator: profile.allocator.name(),
            foreign_only: profile.allocator.serves_here().is_none(),
            reclaim: profile.reclaim.to_string(),
            knobs: profile
                .knobs()
                .map(|(knob, value)| (knob.name, value))
                .collect(),
        }
    }
}

pub(crate) fn run(options: &Profiles) -> Done {
    let output = Output::new(options.json);
    match &options.action {
        None | Some(Action::List) => list(&output)?,
        Some(Action::Show { profile, knobs }) => show(&output, &Profile::find(profile)?, *knobs)?,
        Some(Action::Env { profile }) => environment(&output, &Profile::find(profile)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(output: &Output) -> Result<(), StdoutError> {
    if output.json {
        let rows: Vec<Row<'_>> = builtin::all().iter().map(Row::new).collect();
        return output.value(&rows);
    }
    let mut text = String::new();
    for profile in builtin::all() {
        let knobs: Vec<String> = profile
            .knobs()
            .map(|(knob, value)| format!("{}={value}", knob.name))
            .collect();
        let knobs = if knobs.is_empty() {
            "no knobs".to_owned()
        } else {
            knobs.join(" ")
        };
        text.push_str(&format!(
            "{}  {}, {knobs}, {}\n",
            output.paint.tone(Tone::Strong, &profile.name),
            profile.allocator,
            match profile.allocator.serves_here() {
                Some(_) => format!("reclaim {}", profile.reclaim),
                None => "for other programs only".to_owned(),
            },
        ));
        text.push_str(&wrapped(&profile.why, output.paint.width - 4));
    }
    output.text(&text)
}

fn show(output: &Output, profile: &Profile, knobs: bool) -> Result<(), StdoutError> {
    if output.json {
        return output.value(&Row::new(profile));
    }
    let mut text = safe_lines(&profile.to_toml());
    if knobs {
        let mut table = Table::new([("knob", Align::Left), ("what it does", Align::Left)]);
        for knob in knob::KNOBS
            .iter()
            .filter(|knob| knob.allocator == profile.allocator)
        {
            table.row([knob.name.to_owned(), knob.about.to_owned()]);
        }
        text.push_str(&format!("\n{table}"));
    }
    output.text(&text)
}

fn environment(output: &Output, profile: &Profile) -> Result<(), StdoutError> {
    let environment = exported_environment(profile);
    for note in &environment.notes {
        complain(&format!("note: {note}"));
    }
    // What has to go matters only where it is there.
    let present = |name: &str| std::env::var_os(name).is_some();
    let variables: Vec<(&str, Option<String>)> = environment
        .variables
        .iter()
        .filter(|(name, value)| value.is_some() || present(name))
        .map(|(name, value)| {
            let value = value.as_ref().map(|value| value.to_string_lossy());
            (*name, value.map(Into::into))
        })
        .collect();
    if output.json {
        let variables: std::collections::BTreeMap<_, _> = variables.into_iter().collect();
        return output.value(&variables);
    }
    if variables.is_empty() {
        complain(&format!("note: `{}` needs no variables", profile.name));
    }
    // `env` takes its options first.
    let removed = variables.iter().filter(|(_, value)| value.is_none());
    let removed = removed.map(|(name, _)| format!("-u {name}\n"));
    let set = variables
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}\n", value.as_ref()?)));
    output.text(&removed.chain(set).collect::<String>())
}

/// A paragraph, indented and wrapped.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > width {
            out.push('\n');
            column = 0;
        }
        out.push_str(if column == 0 { "    " } else { " " });
        out.push_str(word);
        column += len + 1;
    }
    out.push('\n');
    out
}
