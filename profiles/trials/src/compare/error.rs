//! What a comparison can be asked wrongly.

use crate::measure::Measure;

/// Why nothing can be compared, or searched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// No profile at all.
    #[error("there is nothing to compare: name a profile")]
    Nothing,
    /// The measure of memory is none.
    #[error("`{0}` is no amount of memory; take one of {known}", known = of_memory())]
    NotMemory(Measure),
    /// The measure of time is none.
    #[error("`{0}` is no time; take cpu or wall")]
    NotTime(Measure),
    /// The price makes no sense.
    #[error("a price of {0} makes no sense: 0.1 allows a tenth more time, 0 none")]
    Price(f64),
    /// A knob that has no grid.
    #[error("no grid for the knob `{knob}`: {hint}")]
    NoGrid {
        /// The knob that was asked for, escaped.
        knob: String,
        /// The nearest, and all.
        hint: String,
    },
    /// The runs of a search are not those of its grid.
    #[error(
        "a search of {values} values compares {} profiles, the one it starts from first, not \
         {profiles}", values.saturating_add(1)
    )]
    NotTheGrid {
        /// Values of the grid.
        values: usize,
        /// Profiles that were compared.
        profiles: usize,
    },
}

fn of_memory() -> String {
    let names = Measure::ALL
        .into_iter()
        .filter(|one| super::is_memory(*one));
    names.map(Measure::name).collect::<Vec<_>>().join(", ")
}
