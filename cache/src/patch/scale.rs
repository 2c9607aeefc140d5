//! How strongly a change is made by the patch itself.

use super::error::{Broken, Fault, PatchError};
use super::factors::{bytes, number};
use super::{Alpha, Change, Patch};

/// Alpha over rank of a change, 1 for one that has none. Reads alpha from the file, where it is a
/// tensor.
///
/// # Errors
/// [`PatchError`] where the file is gone or another, or alpha is not finite.
pub(crate) fn scale_of(patch: &Patch, change: &Change) -> Result<f64, PatchError> {
    let Change::LowRank { down, scale, .. } = change else {
        return Ok(1.0);
    };
    let (alpha, at) = match scale.alpha {
        Alpha::Unsaid => return Ok(scale.factor(None)),
        Alpha::Said(alpha) => (alpha, *down),
        Alpha::Tensor(at) => (number(patch.info(at), &bytes(patch, at)?), at),
    };
    let factor = scale.factor(Some(alpha));
    if factor.is_finite() {
        return Ok(factor);
    }
    Err(PatchError::Broken {
        path: patch.model().path().into(),
        first: vec![Broken {
            key: patch.info(at).name.clone(),
            fault: Fault::Alpha { value: alpha },
        }],
        count: 1,
    })
}
