//! What the program is asked for.

use std::path::PathBuf;

use crate::Failure;
use crate::shapes::Set;

/// How it is used.
pub const USAGE: &str = "\
cargo bench --features cuda --bench cuda -- [OPTIONS]

  --models LIST   of sdxl, flux and llama, with commas; all of them unless this says otherwise
  --quick         models of a few layers, to try the program out
  --rounds N      how often each thing is measured, after a warm-up; 5 unless this says otherwise
  --device N      the device's number; 0
  --python PATH   a python with torch; python3
  --out FILE      what was measured, as JSON
  --trace FILE    the streamed passes, for a trace viewer
  --scratch DIR   where the models are made, and removed; the folder for temporary files";

/// The options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub sets: Vec<Set>,
    pub is_quick: bool,
    pub rounds: usize,
    pub device: u32,
    pub python: String,
    pub out: Option<PathBuf>,
    pub trace: Option<PathBuf>,
    pub scratch: PathBuf,
}

impl Options {
    /// # Errors
    /// What is wrong with them, and how they are given.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
        let mut options = Options {
            sets: Set::ALL.to_vec(),
            is_quick: false,
            rounds: 5,
            device: 0,
            python: "python3".to_owned(),
            out: None,
            trace: None,
            scratch: std::env::temp_dir(),
        };
        while let Some(name) = arguments.next() {
            let wrong = |reason: String| format!("{name}: {reason}\n\n{USAGE}");
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| wrong("a value is missing".to_owned()))
            };
            match &*name {
                // cargo's own.
                "--bench" => {}
                "--quick" => options.is_quick = true,
                "--models" => {
                    let sets = value()?
                        .split(',')
                        .map(str::parse)
                        .collect::<Result<_, _>>();
                    options.sets = sets.map_err(wrong)?;
                }
                "--rounds" => {
                    let rounds = value()?.parse().ok().filter(|rounds| *rounds > 0);
                    options.rounds =
                        rounds.ok_or_else(|| wrong("a number from 1 on".to_owned()))?;
                }
                "--device" => {
                    let number = value()?.parse();
                    options.device = number.map_err(|_| wrong("a number from 0 on".to_owned()))?;
                }
                "--python" => options.python = value()?,
                "--out" => options.out = Some(value()?.into()),
                "--trace" => options.trace = Some(value()?.into()),
                "--scratch" => options.scratch = value()?.into(),
                _ => return Err(wrong("there is no such option".to_owned()).into()),
            }
        }
        Ok(options)
    }
}
