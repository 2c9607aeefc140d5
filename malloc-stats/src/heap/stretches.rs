//! A coverage in parts, as it is written down, and put together again out of what somebody sent.

use super::coverage::{Coverage, Extent, Piece, Shares};

/// Granules in a row that share out their bytes alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alike {
    /// How many.
    pub count: u64,
    /// What each of them holds.
    pub shares: Shares,
}

/// One stretch of memory of a [`Coverage`], in runs of granules that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stretch {
    /// Where it begins; a multiple of the granule.
    pub start: u64,
    /// What lies there, in order of address.
    pub runs: Vec<Alike>,
}

/// Why stretches are no [`Coverage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoverageError {
    /// The granule.
    #[error("a granule of {granule} bytes is not a power of two")]
    Granule {
        /// Its bytes.
        granule: u64,
    },
    /// Where a stretch begins.
    #[error(
        "a stretch begins at {start:#x}, which is no multiple of the granule of {granule} bytes"
    )]
    Start {
        /// Where.
        start: u64,
        /// The granule.
        granule: u64,
    },
    /// A stretch that begins before the one in front of it ends.
    #[error("a stretch begins at {start:#x}, and the one before it ends at {end:#x} only")]
    Order {
        /// Where it begins.
        start: u64,
        /// Where the other ends.
        end: u64,
    },
    /// A stretch that leads beyond the last address.
    #[error("the stretch at {start:#x} leads beyond the last address there is")]
    End {
        /// Where it begins.
        start: u64,
    },
    /// More than a picture may have.
    #[error("more than {most} granules in all")]
    TooMany {
        /// How many it may have.
        most: usize,
    },
    /// A granule with more in it than it is long.
    #[error("in the stretch at {start:#x} a granule of {granule} bytes holds more than that")]
    Shares {
        /// Where the stretch begins.
        start: u64,
        /// The granule.
        granule: u64,
    },
}

impl Coverage {
    /// A picture out of its parts, which come from anywhere: `granule` in bytes, the stretches in
    /// order of address, of `most` granules together at most.
    ///
    /// # Errors
    ///
    /// [`CoverageError`] where the parts are those of no picture. Memory is taken for granules
    /// that fit into `most`, whatever is claimed.
    pub fn from_stretches(
        granule: u64,
        stretches: &[Stretch],
        most: usize,
    ) -> Result<Self, CoverageError> {
        if !granule.is_power_of_two() {
            return Err(CoverageError::Granule { granule });
        }
        let mut extents: Vec<Extent> = Vec::new();
        let mut room = most;
        let mut end = 0;
        for Stretch { start, runs } in stretches {
            let start = *start;
            if !start.is_multiple_of(granule) {
                return Err(CoverageError::Start { start, granule });
            }
            if start < end {
                return Err(CoverageError::Order { start, end });
            }
            let mut extent = Extent::new(start, granule);
            for Alike { count, shares } in runs {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                room = room
                    .checked_sub(count)
                    .ok_or(CoverageError::TooMany { most })?;
                let piece = Piece::of(shares, granule);
                let piece = piece.ok_or(CoverageError::Shares { start, granule })?;
                extent.granules.resize(extent.granules.len() + count, piece);
            }
            let length = (extent.granules.len() as u64).checked_mul(granule);
            end = length
                .and_then(|length| start.checked_add(length))
                .ok_or(CoverageError::End { start })?;
            extents.push(extent);
        }
        Ok(Self::new(extents))
    }

    /// The parts that [`from_stretches`](Self::from_stretches) takes.
    #[must_use]
    pub fn stretches(&self) -> Vec<Stretch> {
        let runs = |extent: &Extent| {
            let alike = extent.granules.chunk_by(|one, next| one == next);
            alike
                .map(|alike| Alike {
                    count: alike.len() as u64,
                    shares: alike.first().map_or_else(Shares::default, Piece::shares),
                })
                .collect()
        };
        let extents = self.extents.iter();
        extents
            .map(|extent| Stretch {
                start: extent.start,
                runs: runs(extent),
            })
            .collect()
    }
}

impl Piece {
    /// `None` where they are more than the granule is long, or than is counted.
    fn of(shares: &Shares, granule: u64) -> Option<Self> {
        let Shares {
            in_use,
            free_resident,
            free_released,
        } = *shares;
        let all = in_use.checked_add(free_resident)?;
        all.checked_add(free_released)
            .filter(|all| *all <= granule)?;
        Some(Self {
            in_use: u32::try_from(in_use).ok()?,
            free_resident: u32::try_from(free_resident).ok()?,
            free_released: u32::try_from(free_released).ok()?,
        })
    }

    fn shares(&self) -> Shares {
        Shares {
            in_use: u64::from(self.in_use),
            free_resident: u64::from(self.free_resident),
            free_released: u64::from(self.free_released),
        }
    }
}
