//! The bounds of a process's memory, and which of them leaves least.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cgroup, Limit, Limits};
use crate::metric::{Grade, Metric};

/// One of the things that bound memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The hard limit of the cgroup with this path, `memory.max` or `memory.limit_in_bytes`:
    /// beyond it something is killed.
    CgroupMax(String),
    /// `memory.high` of the cgroup with this path: beyond it the process is throttled.
    CgroupHigh(String),
    /// `memory.memsw.limit_in_bytes` of the cgroup with this path, memory and swap together.
    CgroupMemorySwap(String),
    /// `MemAvailable` of the host.
    Host,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CgroupMax(path) => write!(f, "the hard limit of cgroup {path}"),
            Self::CgroupHigh(path) => write!(f, "memory.high of cgroup {path}"),
            Self::CgroupMemorySwap(path) => write!(f, "the memory and swap limit of cgroup {path}"),
            Self::Host => f.write_str("the host's available memory"),
        }
    }
}

/// The bound that leaves least, and what it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tightest {
    /// Which.
    pub bound: Bound,
    /// What it leaves, in bytes: 0 where its limit is reached.
    pub headroom: Metric,
}

/// What a process may still take under the bound that leaves least, with the page cache shown
/// apart that would have to be dropped for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Which.
    pub bound: Bound,
    /// What it leaves with nothing reclaimed: its limit less what is charged to it; of the host
    /// `MemFree`, or `MemAvailable` where that is less, as the kernel keeps some for itself.
    pub unused: Metric,
    /// Page cache under the same bound that could be dropped, on top of `unused`. Where its limit
    /// is exceeded, without what has to be dropped to come back to it. Of the host what
    /// `MemAvailable` has beyond `unused`, so with the kernel's reclaimable slabs.
    pub reclaimable: Metric,
    /// The limit itself: what all under it could take together; of the host `MemTotal`.
    pub total: Metric,
}

impl Room {
    /// `unused` and `reclaimable` together, ending at `u64::MAX`. Page cache that is not known is
    /// not counted on; `None` where `unused` is not known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let reclaimable = self.reclaimable.bytes().unwrap_or(0);
        Some(self.unused.bytes()?.saturating_add(reclaimable))
    }
}

/// A bound with how much is taken of it and left.
pub(crate) struct Approached {
    pub(crate) bound: Bound,
    /// What is charged to it; of the host all that is not available.
    pub(crate) taken: Metric,
    pub(crate) headroom: Metric,
}

/// A limit of a cgroup that is known, with what is charged to it.
struct Charged<'a> {
    bound: Bound,
    limit: u64,
    current: u64,
    cgroup: &'a Cgroup,
}

impl Charged<'_> {
    fn unused(&self) -> Metric {
        Metric::Exact(self.limit.saturating_sub(self.current))
    }

    fn reclaimable(&self) -> Metric {
        let exceeded = self.current.saturating_sub(self.limit);
        self.cgroup
            .reclaimable
            .minus_saturating(Metric::Exact(exceeded))
    }
}

impl Limits {
    /// What may still be allocated: the least of limit − current over the cgroup and its ancestors
    /// (hard limit, `memory.high`, and memory with swap of version 1), and the host's
    /// `MemAvailable`, in bytes.
    ///
    /// Page cache that could be reclaimed is *not* added, so this is cautious where files were
    /// read; [`room`](Self::room) shows it apart. Graded `Upper` or worse when some limit could
    /// not be read, since that one may be tighter.
    #[must_use]
    pub fn headroom(&self) -> Metric {
        self.tightest()
            .map_or(Metric::Unavailable, |tightest| tightest.headroom)
    }

    /// The bound that leaves least. `None` where nothing could be read.
    #[must_use]
    pub fn tightest(&self) -> Option<Tightest> {
        let (charged, mut unknown) = self.charged();
        unknown |= self.host_available.is_unavailable();
        charged
            .into_iter()
            .map(|charged| Tightest {
                headroom: charged.unused(),
                bound: charged.bound,
            })
            .chain([Tightest {
                bound: Bound::Host,
                headroom: self.host_available,
            }])
            .filter(|tightest| !tightest.headroom.is_unavailable())
            .min_by_key(|tightest| tightest.headroom.bytes())
            .map(|tightest| Tightest {
                headroom: bounded(tightest.headroom, unknown),
                ..tightest
            })
    }

    /// What this process may still take, with the page cache shown apart that could be dropped for
    /// it: under the bound that leaves least when both are counted, which need not be the
    /// [`tightest`](Self::tightest). The bounds are the same, and so are the grades when some limit
    /// could not be read. `None` where nothing could be read.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        let (charged, mut unknown) = self.charged();
        let host = self.room_of_host();
        unknown |= host.unused.is_unavailable();
        charged
            .into_iter()
            .map(|charged| Room {
                unused: charged.unused(),
                reclaimable: charged.reclaimable(),
                total: Metric::Exact(charged.limit),
                bound: charged.bound,
            })
            .chain([host])
            .filter(|room| room.bytes().is_some())
            .min_by_key(Room::bytes)
            .map(|room| Room {
                unused: bounded(room.unused, unknown),
                reclaimable: bounded(room.reclaimable, unknown),
                ..room
            })
    }

    /// Every bound that is known.
    pub(crate) fn all_bounds(&self) -> Vec<Approached> {
        let (charged, _) = self.charged();
        let of_cgroups = charged.into_iter().map(|charged| Approached {
            taken: Metric::Exact(charged.current),
            headroom: charged.unused(),
            bound: charged.bound,
        });
        let host = Approached {
            bound: Bound::Host,
            taken: self.host_total.minus_saturating(self.host_available),
            headroom: self.host_available,
        };
        of_cgroups.chain([host]).collect()
    }

    fn room_of_host(&self) -> Room {
        let (free, available) = (self.host_free, self.host_available);
        // The kernel's watermarks are in MemFree, but nobody may take them.
        let unused = match (free.bytes(), available.bytes()) {
            (Some(free), Some(takeable)) if takeable < free => available,
            _ => free,
        };
        Room {
            bound: Bound::Host,
            unused,
            reclaimable: available.minus_saturating(free),
            total: self.host_total,
        }
    }

    /// The limits of the cgroups that are known; and whether some other is not.
    fn charged(&self) -> (Vec<Charged<'_>>, bool) {
        let mut unknown = self.cgroup_version.is_none();
        let mut known = Vec::new();
        for cgroup in &self.cgroups {
            let memory = (
                cgroup.max,
                cgroup.current,
                Bound::CgroupMax as fn(String) -> Bound,
            );
            let high = (cgroup.high, cgroup.current, Bound::CgroupHigh as _);
            let both = (
                cgroup.memsw_max,
                cgroup.memsw_current,
                Bound::CgroupMemorySwap as _,
            );
            for (limit, current, bound) in [memory, high, both] {
                match (limit, current.bytes()) {
                    (Limit::Unlimited, _) => {}
                    (Limit::Bytes(limit), Some(current)) => known.push(Charged {
                        bound: bound(cgroup.path.clone()),
                        limit,
                        current,
                        cgroup,
                    }),
                    (Limit::Bytes(_) | Limit::Unknown, _) => unknown = true,
                }
            }
        }
        (known, unknown)
    }
}

/// What a bound leaves is at most that where another one is unknown.
fn bounded(left: Metric, unknown: bool) -> Metric {
    if unknown {
        left.at_best(Grade::Upper)
    } else {
        left
    }
}
