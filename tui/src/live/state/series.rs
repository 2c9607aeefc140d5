//! Curves, in bounded memory: the older, the coarser.
//!
//! Every reading goes into each of a few rings, whose buckets are 10 ms wide in the first and four
//! times as wide in each that follows. A ring keeps the last thousand or so buckets that something
//! fell into, so at a reading a second the last quarter of an hour is there as it was read, and a day in
//! stretches of a minute and a half. A bucket keeps the least and the most of what fell into it, so
//! that no peak is lost.

use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

/// Memory at a moment, in bytes; absent where it was not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// All that is resident.
    pub rss: Option<u64>,
    /// What the allocator has handed out and not got back.
    pub in_use: Option<u64>,
    /// Weights that the cache holds in RAM.
    pub live: Option<u64>,
    /// What is charged to the cgroup.
    pub charged: Option<u64>,
    /// What the cache holds on devices, all of them together.
    pub device: Option<u64>,
}

/// Rings of buckets.
const LEVELS: u32 = 9;
/// The width of the first ring's buckets, microseconds.
const FINEST: u64 = 10_000;
/// Buckets of a block. One that is full is shared by all copies of the curves: there is one for each
/// mark, and for each place kept of a recording.
const BLOCK: usize = 64;
/// Blocks of a ring, at most; it lets go of one at a time.
const BLOCKS: usize = 16;

/// Curves over time.
#[derive(Debug, Clone, Default)]
pub struct Series {
    levels: [Level; LEVELS as usize],
    /// The first reading and the last, microseconds.
    span: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    /// In order of time, none of them empty, and only the last not full.
    blocks: Vec<Arc<Vec<Bucket>>>,
    /// Whether older buckets were let go.
    forgot: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Its beginning, in widths of its ring.
    index: u64,
    /// When the last of its readings was taken: where it counts.
    at_us: u64,
    least: Packed,
    most: Packed,
    last: Packed,
}

/// A [`Reading`] in half the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed([u64; 5]);

/// No number of bytes.
const ABSENT: u64 = u64::MAX;

/// A stretch of time: the least and the most that was read in it, and the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// Microseconds.
    pub at_us: Range<u64>,
    /// The least that was read of each.
    pub least: Reading,
    /// The most.
    pub most: Reading,
    /// The last; of an earlier column, where nothing was read in this one.
    pub last: Reading,
}

const fn width(level: usize) -> u64 {
    FINEST << (2 * level)
}

impl From<&Reading> for Packed {
    fn from(reading: &Reading) -> Packed {
        let fields = [
            reading.rss,
            reading.in_use,
            reading.live,
            reading.charged,
            reading.device,
        ];
        Packed(fields.map(|bytes| bytes.map_or(ABSENT, |bytes| bytes.min(ABSENT - 1))))
    }
}

impl From<Packed> for Reading {
    fn from(Packed(fields): Packed) -> Reading {
        let [rss, in_use, live, charged, device] =
            fields.map(|bytes| (bytes != ABSENT).then_some(bytes));
        Reading {
            rss,
            in_use,
            live,
            charged,
            device,
        }
    }
}

impl Packed {
    const NOTHING: Packed = Packed([ABSENT; 5]);

    /// What is in one of them, or what `with` makes of both.
    fn merged(mut self, other: &Packed, with: impl Fn(u64, u64) -> u64) -> Packed {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            *mine = match (*mine, other) {
                (ABSENT, other) => other,
                (mine, ABSENT) => mine,
                (mine, other) => with(mine, other),
            };
        }
        self
    }

    fn least(self, other: &Packed) -> Packed {
        self.merged(other, u64::min)
    }

    fn most(self, other: &Packed) -> Packed {
        self.merged(other, u64::max)
    }

    /// What was read later, and where that is nothing, what was read before.
    fn then(self, later: &Packed) -> Packed {
        self.merged(later, |_, later| later)
    }
}

impl Level {
    fn push(&mut self, width: u64, at_us: u64, reading: &Packed) {
        let index = at_us / width;
        let (last, room) = match self.blocks.last() {
            Some(block) => (block.last(), block.len() < BLOCK),
            None => (None, false),
        };
        // Time does not go back; what says so counts where the last reading does.
        let is_of_last = last.is_some_and(|last| last.index >= index);
        if !is_of_last && !room {
            if self.blocks.len() == BLOCKS {
                self.blocks.remove(0);
                self.forgot = true;
            }
            self.blocks.push(Arc::new(Vec::with_capacity(BLOCK)));
        }
        let Some(block) = self.blocks.last_mut().map(Arc::make_mut) else {
            return;
        };
        match block.last_mut().filter(|_| is_of_last) {
            Some(last) => {
                last.least = last.least.least(reading);
                last.most = last.most.most(reading);
                last.last = last.last.then(reading);
                last.at_us = last.at_us.max(at_us);
            }
            None => block.push(Bucket {
                index,
                at_us,
                least: *reading,
                most: *reading,
                last: *reading,
            }),
        }
    }

    /// Whether everything since a moment is there.
    fn covers(&self, at_us: u64) -> bool {
        let front = self.blocks.first().and_then(|block| block.first());
        !self.forgot || front.is_some_and(|front| front.at_us <= at_us)
    }

    /// The block and the place in it of the first bucket that counts at a moment or later.
    fn place(&self, at_us: u64) -> (usize, usize) {
        let is_before = |bucket: &Bucket| bucket.at_us < at_us;
        let is_over = |block: &Arc<Vec<Bucket>>| block.last().is_some_and(is_before);
        let block = self.blocks.partition_point(is_over);
        let at = self.blocks.get(block);
        (
            block,
            at.map_or(0, |block| block.partition_point(is_before)),
        )
    }

    /// The buckets that count at a moment or later.
    fn since(&self, at_us: u64) -> impl Iterator<Item = &Bucket> {
        let (block, at) = self.place(at_us);
        let buckets = self.blocks[block..].iter().flat_map(|block| block.iter());
        buckets.skip(at)
    }

    /// The last bucket that counts before a moment.
    fn before(&self, at_us: u64) -> Option<&Bucket> {
        let (block, at) = self.place(at_us);
        match at.checked_sub(1) {
            Some(at) => self.blocks.get(block)?.get(at),
            None => self.blocks.get(block.checked_sub(1)?)?.last(),
        }
    }
}

impl Series {
    /// Adds a reading.
    pub fn push(&mut self, at_us: u64, reading: &Reading) {
        if *reading == Reading::default() {
            return;
        }
        let (first, last) = self.span.unwrap_or((at_us, at_us));
        self.span = Some((first, last.max(at_us)));
        let reading = Packed::from(reading);
        for (level, ring) in self.levels.iter_mut().enumerate() {
            ring.push(width(level), at_us, &reading);
        }
    }

    /// From the first reading to the last, microseconds; `None` before the first.
    #[must_use]
    pub fn span(&self) -> Option<Range<u64>> {
        self.span.map(|(first, last)| first..last)
    }

    /// A stretch of time in so many columns. Before the first reading, and after the last, columns
    /// are empty.
    #[must_use]
    pub fn columns(&self, range: Range<u64>, columns: usize) -> Vec<Column> {
        let length = range.end.saturating_sub(range.start);
        let edge = |column: usize| {
            let part = u128::from(length) * column as u128 / columns.max(1) as u128;
            range.start + part as u64
        };
        let mut made = Vec::with_capacity(columns);
        let mut carried = self.before(range.start);
        let end = self.span.map_or(0, |(_, last)| last);
        for column in 0..columns {
            let at_us = edge(column)..edge(column + 1);
            let (mut least, mut most) = (Packed::NOTHING, Packed::NOTHING);
            let mut last = Packed::NOTHING;
            if at_us.start <= end {
                for bucket in self.within(&at_us) {
                    least = least.least(&bucket.least);
                    most = most.most(&bucket.most);
                    carried = carried.then(&bucket.last);
                }
                last = carried;
            }
            made.push(Column {
                at_us,
                least: least.into(),
                most: most.into(),
                last: last.into(),
            });
        }
        made
    }

    /// The last reading before a moment.
    fn before(&self, at_us: u64) -> Packed {
        let rings = self.levels.iter().rev();
        let last = rings.filter_map(|ring| ring.before(at_us));
        last.fold(Packed::NOTHING, |found, bucket| found.then(&bucket.last))
    }

    /// The buckets that count in a stretch of time, of the ring that suits its length.
    fn within(&self, at_us: &Range<u64>) -> impl Iterator<Item = &Bucket> {
        let length = at_us.end - at_us.start;
        let suits = (0..self.levels.len())
            .rev()
            .find(|level| width(*level) * 2 <= length)
            .unwrap_or(0);
        let covers = |level: &usize| self.levels[*level].covers(at_us.start);
        let level = (suits..self.levels.len())
            .find(covers)
            .unwrap_or(self.levels.len() - 1);
        let end = at_us.end;
        let since = self.levels[level].since(at_us.start);
        since.take_while(move |bucket| bucket.at_us < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rss(bytes: u64) -> Reading {
        Reading {
            rss: Some(bytes),
            ..Reading::default()
        }
    }

    #[test]
    fn a_day_is_kept_in_bounded_memory_and_no_peak_is_lost() {
        let mut series = Series::default();
        let day = 86_400_u64;
        for second in 0..day {
            let bytes = if second == 3_600 { 1_000 } else { 100 };
            series.push(second * 1_000_000, &rss(bytes));
        }
        let blocks = series.levels.iter().flat_map(|level| &level.blocks);
        let kept: usize = blocks.map(|block| block.len()).sum();
        assert!(kept <= BLOCKS * BLOCK * LEVELS as usize);
        let columns = series.columns(0..day * 1_000_000, 100);
        let most = |column: &Column| column.most.rss.unwrap();
        assert_eq!(columns.iter().map(most).max(), Some(1_000));
        assert!(columns.iter().all(|column| column.last.rss == Some(100)));
        // The last minutes are there second by second.
        let last = series.columns((day - 60) * 1_000_000..day * 1_000_000, 60);
        assert!(last.iter().all(|column| column.most.rss == Some(100)));
    }

    #[test]
    fn what_was_not_read_is_carried_until_the_last_reading_and_not_beyond() {
        let mut series = Series::default();
        series.push(0, &rss(7));
        series.push(
            3_000_000,
            &Reading {
                live: Some(1),
                ..Reading::default()
            },
        );
        let columns = series.columns(0..5_000_000, 5);
        let of: Vec<_> = columns
            .iter()
            .map(|c| (c.most.rss, c.last.rss, c.last.live))
            .collect();
        assert_eq!(
            of,
            [
                (Some(7), Some(7), None),
                (None, Some(7), None),
                (None, Some(7), None),
                (None, Some(7), Some(1)),
                (None, None, None),
            ]
        );
        let later = series.columns(1_000_000..2_000_000, 1);
        assert_eq!(later[0].last.rss, Some(7));
    }

    #[test]
    fn a_copy_stays_as_it_was_while_the_curves_go_on() {
        let mut series = Series::default();
        let second = |at: u64| at * 1_000_000;
        for at in 0..100 {
            series.push(second(at), &rss(at));
        }
        let copy = series.clone();
        let was = copy.columns(0..second(200), 200);
        for at in 100..200 {
            series.push(second(at), &rss(at));
        }
        assert_eq!(copy.columns(0..second(200), 200), was);
        let last = |columns: Vec<Column>| columns.last().and_then(|column| column.last.rss);
        assert_eq!(last(was), None);
        assert_eq!(last(series.columns(0..second(200), 200)), Some(199));
    }

    proptest! {
        #[test]
        fn any_times_are_drawn(
            readings in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..200),
            start in any::<u64>(), end in any::<u64>(), columns in 0_usize..300,
        ) {
            let mut series = Series::default();
            for (at, bytes) in &readings {
                series.push(*at, &rss(*bytes));
            }
            let drawn = series.columns(start..end, columns);
            prop_assert_eq!(drawn.len(), columns);
        }

        #[test]
        fn in_a_stretch_that_is_whole_every_peak_is_the_true_one(
            mut readings in proptest::collection::vec((0_u64..20_000_000, 0_u64..1000), 1..300),
        ) {
            readings.sort();
            let mut series = Series::default();
            for (at, bytes) in &readings {
                series.push(*at, &rss(*bytes));
            }
            let drawn = series.columns(0..20_000_000, 20);
            let highest = drawn.iter().filter_map(|column| column.most.rss).max();
            let lowest = drawn.iter().filter_map(|column| column.least.rss).min();
            prop_assert_eq!(highest, readings.iter().map(|reading| reading.1).max());
            prop_assert_eq!(lowest, readings.iter().map(|reading| reading.1).min());
        }
    }
}
