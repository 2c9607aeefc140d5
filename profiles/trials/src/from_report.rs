//! The trial of a run of the cache, from its report.

use std::time::Duration;

use malloc_stats::{Grade, Metric, Setting, SettingGrade};
use plimsoll_events::Report;

use crate::measure::Measure;
use crate::statistics::slope;
use crate::trial::Trial;

const NO_CYCLES: &str = "needs at least 4 cycles (--cycles N)";
const NOT_COUNTED: &str = "the allocator could not be read after each cycle";

impl Trial {
    /// The trial of a run: its report, and the processor time that its process took.
    #[must_use]
    pub fn of_run(report: &Report, cpu: Duration) -> Trial {
        let settings = report.settings.as_ref();
        let settings = settings.map(|allocator| allocator.settings.clone());
        let settings = settings.unwrap_or_default();
        let is_refused = |setting: &Setting| setting.grade == SettingGrade::Refused;
        let refused = settings.iter().any(|(_, setting)| is_refused(setting));
        let mut trial = Trial {
            profile: report.profile.clone(),
            allocator: report.allocator.clone(),
            refused,
            settings,
            notes: report.notes.clone(),
            ..Trial::default()
        };
        let above = |bytes: Option<u64>| {
            let baseline = report.baseline_rss_bytes?;
            Some(bytes? as f64 - baseline as f64)
        };
        let signed = |bytes: Option<i64>| bytes.map(|bytes| bytes as f64);
        let bytes = |metric: Metric| metric.bytes().map(|bytes| bytes as f64);
        let gap = report.waste.minus_saturating(report.structural);
        let resident = "the memory of the process could not be read";
        let counted = "the allocator could not be read with everything dropped";
        for (measure, value, grade, why) in [
            (
                Measure::Peak,
                above(report.rss_peak_bytes),
                Grade::Estimated,
                resident,
            ),
            (
                Measure::Retained,
                signed(report.retained_bytes),
                Grade::Exact,
                resident,
            ),
            (
                Measure::Excess,
                signed(report.excess_bytes),
                Grade::Exact,
                resident,
            ),
            (
                Measure::Waste,
                bytes(report.waste),
                report.waste.grade(),
                counted,
            ),
            (Measure::TrimGap, bytes(gap), gap.grade(), counted),
            (
                Measure::Structural,
                bytes(report.structural),
                report.structural.grade(),
                counted,
            ),
        ] {
            match value {
                Some(value) => trial.set(measure, value, grade),
                None => trial.miss(measure, why),
            }
        }
        trial.miss(
            Measure::Mean,
            "a run is looked at step by step, not on a clock",
        );
        trial.slopes(report);
        trial.set(Measure::Faults, report.minor_faults as f64, Grade::Exact);
        trial.set(Measure::Cpu, cpu.as_secs_f64(), Grade::Exact);
        trial.set(Measure::Wall, report.wall_seconds, Grade::Exact);
        trial
    }

    fn slopes(&mut self, report: &Report) {
        let resident: Vec<f64> = report
            .cycles
            .iter()
            .map(|cycle| cycle.rss_bytes as f64)
            .collect();
        match slope(&resident) {
            Some(slope) => self.set(Measure::Growth, slope, Grade::Exact),
            None => self.miss(Measure::Growth, NO_CYCLES),
        }
        // What the program knows of is no leak.
        let unaccounted = report.cycles.iter().map(|cycle| {
            let in_use = cycle.in_use.bytes()?;
            Some(in_use as f64 - cycle.live_bytes as f64)
        });
        let unaccounted: Option<Vec<f64>> = unaccounted.collect();
        let grades = report.cycles.iter().map(|cycle| cycle.in_use.grade());
        let grade = match grades.max().unwrap_or(Grade::Exact) {
            // A slope between upper bounds is no bound.
            Grade::Upper => Grade::Estimated,
            grade => grade,
        };
        match unaccounted.as_deref().map(slope) {
            Some(Some(slope)) => self.set(Measure::Leak, slope, grade),
            Some(None) => self.miss(Measure::Leak, NO_CYCLES),
            None => self.miss(Measure::Leak, NOT_COUNTED),
        }
    }
}
