//! What is printed, and the same as JSON.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::Failure;
use crate::samples::Threshold;

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    out: Option<PathBuf>,
    found: Map<String, Value>,
    /// What was to be reached.
    pub thresholds: Vec<Threshold>,
}

impl Report {
    pub fn new(out: Option<PathBuf>) -> Report {
        Report {
            out,
            ..Report::default()
        }
    }

    /// Prints a line.
    pub fn say(&self, line: impl std::fmt::Display) {
        println!("{line}");
    }

    /// Notes a value under names, outermost first.
    pub fn put(&mut self, names: &[&str], value: Value) {
        let Some((last, outer)) = names.split_last() else {
            return;
        };
        let mut map = &mut self.found;
        for name in outer {
            let inner = map.entry(*name).or_insert_with(|| Map::new().into());
            let Value::Object(inner) = inner else { return };
            map = inner;
        }
        map.insert((*last).to_owned(), value);
    }

    pub fn threshold(&mut self, threshold: Threshold) {
        self.thresholds.push(threshold);
    }

    /// Writes what there is: what is found later replaces it, and what ends the program does not
    /// take it along.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self) -> Result<(), Failure> {
        let Some(path) = self.out.clone() else {
            return Ok(());
        };
        let thresholds = serde_json::to_value(&self.thresholds)?;
        self.put(&["thresholds"], thresholds);
        let json = serde_json::to_string_pretty(&self.found)?;
        fs::write(&path, json).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(())
    }

    /// Prints what was to be reached, and was or not.
    pub fn conclude(&self) {
        println!("\nthresholds");
        for threshold in &self.thresholds {
            println!("{threshold}");
        }
        let count = |is_met| {
            let all = self.thresholds.iter();
            all.filter(|threshold| threshold.is_met == is_met).count()
        };
        println!(
            "{} met, {} missed, {} not measured",
            count(Some(true)),
            count(Some(false)),
            count(None)
        );
    }
}
