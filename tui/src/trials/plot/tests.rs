//! Pictures are well-formed, whatever is drawn.

use malloc_stats::Grade;
use plimsoll_trials::compare::{Comparison, Options};
use plimsoll_trials::search::{GRIDS, Search};
use plimsoll_trials::trial::Trial;
use proptest::prelude::*;

use super::*;

#[path = "../../../../profiles/trials/tests/xml/mod.rs"]
mod xml;

/// Whether this is XML, with a number wherever there has to be one.
fn check(text: &str) -> Result<(), String> {
    let elements = xml::well_formed(text)?;
    let attributes = elements.iter().flat_map(|element| &element.attributes);
    for (name, value) in attributes {
        if value.contains("NaN") || value.contains("inf") {
            return Err(format!("{name}={value}"));
        }
    }
    Ok(())
}

fn trial(memory: f64, time: f64, refused: bool) -> Trial {
    let mut trial = Trial {
        refused,
        ..Trial::default()
    };
    trial.set(Measure::Peak, memory, Grade::Estimated);
    trial.set(Measure::Retained, memory, Grade::Exact);
    trial.set(Measure::Cpu, time, Grade::Exact);
    trial
}

fn compared(profiles: Vec<(String, Vec<Trial>)>, what: &str) -> Comparison {
    Comparison::new(what, 5, profiles, &Options::default()).unwrap()
}

fn numbers() -> impl Strategy<Value = f64> {
    let extremes = [0.0, 1e300, f64::MAX, f64::MIN, 5e-324, 1e9, -3e6];
    prop_oneof![
        prop::sample::select(extremes.to_vec()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        0.0..1e10,
    ]
}

fn names() -> impl Strategy<Value = String> {
    let hostile = [
        "</svg><script>alert(1)</script>",
        "a & b < c > \"d\" 'e' &amp;",
        "]]><!-- \u{0} \u{1b}[2J \u{202e} \u{fffe} \u{ffff}",
        "",
    ];
    prop_oneof![
        prop::sample::select(hostile.map(str::to_owned).to_vec()),
        ".*",
        "[a-z]{200}",
    ]
}

proptest! {
    #[test]
    fn pictures_of_anything_are_well_formed(
        profiles in prop::collection::vec(
            (names(), prop::collection::vec((numbers(), numbers()), 0..6), any::<bool>()),
            1..7,
        ),
        what in names(),
    ) {
        let runs = |values: Vec<(f64, f64)>, refused: bool| {
            let trials = values.into_iter().map(|(memory, time)| trial(memory, time, refused));
            trials.collect::<Vec<Trial>>()
        };
        let profiles: Vec<(String, Vec<Trial>)> = profiles
            .into_iter()
            .map(|(name, values, refused)| (name, runs(values, refused)))
            .collect();
        let count = profiles.len();
        let found = compared(profiles, &what);
        prop_assert_eq!(check(&svg(&found)), Ok(()));
        for grid in GRIDS.iter().filter(|grid| grid.values.len() + 1 == count) {
            let found = Search::new(grid, found.clone()).unwrap();
            prop_assert_eq!(check(&search(&found)), Ok(()));
        }
    }
}

/// Memory in MiB and seconds, each five times within 2 %.
fn five(memory: f64, time: f64) -> Vec<Trial> {
    [1.0, 0.99, 1.01, 0.995, 1.005]
        .map(|by| trial(memory * 1_048_576.0 * by, time * by, false))
        .to_vec()
}

#[test]
fn every_profile_is_named_and_only_the_recommended_one_ringed() {
    let found = compared(
        vec![
            ("glibc-default".to_owned(), five(982.0, 8.66)),
            ("glibc-trim".to_owned(), five(0.5, 4.95)),
            ("glibc-mmap-128k".to_owned(), five(7.2, 11.41)),
        ],
        "plimsoll run --storage heap --churn",
    );
    let picture = svg(&found);
    for one in &found.profiles {
        assert_eq!(picture.matches(&format!(">{}</text>", one.name)).count(), 1);
        assert!(picture.contains(&format!("<title>{}: retained ", one.name)));
    }
    // One in the picture, one in the legend.
    let ring = format!("fill=\"none\" stroke=\"{ORANGE}\"");
    assert_eq!(picture.matches(&ring).count(), 2);
    assert!(picture.contains(">retained, MiB</text>") && picture.contains(">cpu, s</text>"));
}
