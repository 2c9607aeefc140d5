//! A run, shown to live screens while it goes on.

use plimsoll_cache::Cache;
use plimsoll_events::{Publication, PublishError};

use super::Publishing;

/// Publishes a run's cache, where that is wanted. A place that was not asked for by name is no
/// reason not to run.
///
/// # Errors
/// The place that was asked for cannot be had.
pub(super) fn publish(
    cache: &Cache,
    publishing: &Publishing,
) -> Result<Option<Publication>, PublishError> {
    match publishing {
        Publishing::Not => Ok(None),
        Publishing::At(path) => cache.publish(Some(path.clone())).map(Some),
        Publishing::Usual => Ok(cache
            .publish(None)
            .inspect_err(|error| tracing::warn!(%error, "live screens will not find this run"))
            .ok()),
    }
}
