//! A process looked into from outside, in a form that a recording can hold.

use malloc_stats::heap::{Address, Alike, Arena, Coverage, CoverageError, Shares, Stretch};
use malloc_stats::inspect::Inspection;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Arenas whose pictures are written, at most: those with most memory.
const MOST_MAPS: usize = 64;
/// Granules of one picture that is written, at most: more than a screen has cells.
const MOST_WRITTEN: usize = 2048;
/// Granules of all pictures of a look that is read, at most, whoever wrote it.
const MOST_READ: usize = 1 << 20;

/// What was found in the process. Unlike an [`Inspection`] alone its JSON holds pictures of the
/// arenas too, at a lower resolution than the walk had: of the 64 arenas with most memory, 2048
/// granules each ([`Coverage::coarser`]).
///
/// ```json
/// {"inspection": {…}, "maps": [{"arena": 0, "granule": 4096,
///     "stretches": [["0x55d0c0de0000", [[33, 4096, 0, 0], [12, 64, 4032, 0]]]]}]}
/// ```
///
/// A stretch has its first address, and runs of granules that are alike: how many, and the bytes of
/// each that are in use, free and resident, free and released.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Look {
    /// What was found.
    pub inspection: Inspection,
}

#[derive(Serialize)]
struct Written<'a> {
    inspection: &'a Inspection,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    maps: Vec<Map>,
}

#[derive(Deserialize)]
struct Read {
    inspection: Inspection,
    #[serde(default)]
    maps: Vec<Map>,
}

/// The picture of one arena. No larger than its text: runs are counted out only within bounds.
#[derive(Serialize, Deserialize)]
struct Map {
    arena: usize,
    granule: u64,
    stretches: Vec<(Address, Vec<[u64; 4]>)>,
}

impl Map {
    fn of(arena: &Arena) -> Self {
        let coverage = arena.coverage.coarser(MOST_WRITTEN);
        let run = |alike: &Alike| {
            let shares = alike.shares;
            let (resident, released) = (shares.free_resident, shares.free_released);
            [alike.count, shares.in_use, resident, released]
        };
        let stretches = coverage.stretches();
        Self {
            arena: arena.index,
            granule: coverage.granule(),
            stretches: stretches
                .iter()
                .map(|Stretch { start, runs }| (Address(*start), runs.iter().map(run).collect()))
                .collect(),
        }
    }

    /// `most` is what is left of [`MOST_READ`].
    fn coverage(&self, most: usize) -> Result<Coverage, String> {
        let run = |[count, in_use, free_resident, free_released]: &[u64; 4]| Alike {
            count: *count,
            shares: Shares {
                in_use: *in_use,
                free_resident: *free_resident,
                free_released: *free_released,
            },
        };
        let stretches: Vec<Stretch> = self
            .stretches
            .iter()
            .map(|(start, runs)| Stretch {
                start: start.0,
                runs: runs.iter().map(run).collect(),
            })
            .collect();
        Coverage::from_stretches(self.granule, &stretches, most).map_err(|error| match error {
            CoverageError::TooMany { .. } => {
                format!("the maps have more than {MOST_READ} granules in all")
            }
            error => format!("the map of arena {}: {error}", self.arena),
        })
    }
}

impl Serialize for Look {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let arenas = self.inspection.heap.iter().flat_map(|heap| &heap.arenas);
        let mut drawn: Vec<&Arena> = arenas.filter(|arena| !arena.coverage.is_empty()).collect();
        drawn.sort_by_key(|arena| (std::cmp::Reverse(arena.system_mem), arena.index));
        drawn.truncate(MOST_MAPS);
        let written = Written {
            inspection: &self.inspection,
            maps: drawn.into_iter().map(Map::of).collect(),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Look {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read {
            mut inspection,
            maps,
        } = Read::deserialize(deserializer)?;
        if maps.len() > MOST_MAPS {
            let maps = maps.len();
            return Err(D::Error::custom(format!(
                "{maps} maps of arenas, where {MOST_MAPS} are the most"
            )));
        }
        let mut room = MOST_READ;
        for map in maps {
            let arenas = inspection.heap.iter_mut().flat_map(|heap| &mut heap.arenas);
            let mut named = arenas.filter(|arena| arena.index == map.arena);
            let arena = named.next().filter(|arena| arena.coverage.is_empty());
            let arena = arena.ok_or_else(|| {
                let arena = map.arena;
                D::Error::custom(format!(
                    "a map of arena {arena}, which is not there or has one already"
                ))
            })?;
            arena.coverage = map.coverage(room).map_err(D::Error::custom)?;
            room -= arena.coverage.granules();
        }
        Ok(Self { inspection })
    }
}
