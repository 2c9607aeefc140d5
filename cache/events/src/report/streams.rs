//! Models that were leased in part.

use serde::{Deserialize, Serialize};

use super::Report;
use super::fold::add;
use crate::decision::Streamed;

/// A model that was leased in part on a tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// The model.
    pub model: String,
    /// The tier.
    pub tier: String,
    /// How many leases of it ended.
    pub leases: u64,
    /// Bytes of the model.
    pub bytes: u64,
    /// The least of its bytes that were there when a lease ended.
    pub resident_low_bytes: u64,
    /// The most.
    pub resident_high_bytes: u64,
    /// The largest pool, bytes.
    pub pool_bytes: u64,
    /// Bytes that came through pools.
    pub streamed_bytes: u64,
    /// Times that something came.
    pub transfers: u64,
    /// Seconds that those who asked waited: what fetching ahead has not hidden.
    pub waited_seconds: f64,
    /// Times that something was asked for which was not next.
    pub out_of_order: u64,
}

impl Report {
    pub(super) fn streamed(&mut self, streamed: &Streamed) {
        let is_it =
            |one: &&mut StreamReport| one.model == streamed.model && one.tier == streamed.tier;
        let known = self.streams.iter_mut().find(is_it);
        let one = match known {
            Some(one) => one,
            None => {
                self.streams.push(StreamReport {
                    model: streamed.model.clone(),
                    tier: streamed.tier.clone(),
                    resident_low_bytes: u64::MAX,
                    ..StreamReport::default()
                });
                match self.streams.last_mut() {
                    Some(one) => one,
                    None => return,
                }
            }
        };
        add(&mut one.leases, 1);
        one.bytes = streamed.bytes;
        one.resident_low_bytes = one.resident_low_bytes.min(streamed.resident_bytes);
        one.resident_high_bytes = one.resident_high_bytes.max(streamed.resident_bytes);
        one.pool_bytes = one.pool_bytes.max(streamed.pool_bytes);
        add(&mut one.streamed_bytes, streamed.streamed_bytes);
        add(&mut one.transfers, streamed.transfers);
        one.waited_seconds += streamed.waited_us as f64 / 1e6;
        add(&mut one.out_of_order, streamed.out_of_order);
    }
}
