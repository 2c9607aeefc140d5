//! Pictures of arenas: zoomed, made coarser, taken apart and put together again.

use malloc_stats::heap::{Alike, Cell, Coverage, CoverageError, Shares, Stretch, walk};
use proptest::prelude::*;

use crate::hostile;
use crate::object::options;
use crate::weight::weighed;

const MOST: usize = 1 << 12;

fn shares(in_use: u64, free_resident: u64, free_released: u64) -> Shares {
    Shares {
        in_use,
        free_resident,
        free_released,
    }
}

fn run(count: u64, shares: Shares) -> Alike {
    Alike { count, shares }
}

fn sum(cells: &[Cell]) -> (u64, u64, u64) {
    cells.iter().fold((0, 0, 0), |sum, cell| {
        let Shares {
            in_use,
            free_resident,
            free_released,
        } = cell.shares;
        (sum.0 + in_use, sum.1 + free_resident, sum.2 + free_released)
    })
}

prop_compose! {
    /// The bytes of one granule, shared out.
    fn any_shares(granule: u64)(
        cuts in prop::array::uniform3(0..=granule)
    ) -> Shares {
        let mut cuts = cuts;
        cuts.sort_unstable();
        shares(cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1])
    }
}

prop_compose! {
    /// Any picture; stretches may meet.
    fn any_coverage()(power in 4_u32..22)(
        granule in Just(1_u64 << power),
        parts in prop::collection::vec(
            (0..40_u64, prop::collection::vec((1..20_u64, any_shares(1 << power)), 1..8)),
            1..8,
        )
    ) -> Coverage {
        let mut start = 0x7f00_0000_0000 / granule * granule;
        let mut stretches = Vec::new();
        for (gap, runs) in parts {
            start += gap * granule;
            let runs: Vec<Alike> = runs.into_iter().map(|(count, of)| run(count, of)).collect();
            let length: u64 = runs.iter().map(|run| run.count).sum();
            stretches.push(Stretch { start, runs });
            start += length * granule;
        }
        Coverage::from_stretches(granule, &stretches, MOST).unwrap()
    }
}

prop_compose! {
    /// Numbers that somebody made up, near to sense now and then.
    fn any_number()(kind in 0..6, any in any::<u64>(), small in 0..64_u64, power in 0..64_u32) -> u64 {
        match kind {
            0 => any,
            1 => small << 12,
            2 => 1 << power,
            3 => u64::MAX - small,
            _ => small,
        }
    }
}

proptest! {
    #[test]
    fn apart_and_together_again_it_is_the_same(coverage in any_coverage()) {
        let again = Coverage::from_stretches(coverage.granule(), &coverage.stretches(), MOST);
        prop_assert_eq!(again, Ok(coverage));
    }

    #[test]
    fn coarser_it_has_the_same_bytes_in_few_granules(
        coverage in any_coverage(),
        most in 1..600_usize,
    ) {
        let coarse = coverage.coarser(most);
        prop_assert!(coarse.granules() <= most);
        prop_assert_eq!(sum(&coarse.cells(1)), sum(&coverage.cells(1)));
        prop_assert_eq!(coarse.coarser(most), coarse.clone());
        if coverage.granules() <= most {
            prop_assert_eq!(&coarse, &coverage);
        }
        let (fine, wide) = (coverage.span().unwrap(), coarse.span().unwrap());
        prop_assert!(wide.start <= fine.start && fine.end <= wide.end);
        // Half the resolution would not have been enough.
        let finer = coverage.coarser(2 * coarse.granules().max(most));
        prop_assert!(finer.granules() > most || finer.granule() == coarse.granule());
        for window in coarse.stretches().windows(2) {
            let granules: u64 = window[0].runs.iter().map(|run| run.count).sum();
            prop_assert!(window[0].start + granules * coarse.granule() <= window[1].start);
        }
    }

    #[test]
    fn parts_of_a_map_make_up_the_whole(
        coverage in any_coverage(),
        at in any::<prop::sample::Index>(),
        cells in 1..100_usize,
    ) {
        let (span, granule) = (coverage.span().unwrap(), coverage.granule());
        let granules = (span.end - span.start) / granule;
        let middle = span.start + at.index(granules as usize) as u64 * granule;
        let (below, above) = (
            coverage.cells_in(span.start..middle, cells),
            coverage.cells_in(middle..span.end, cells),
        );
        let together: Vec<Cell> = below.iter().chain(&above).cloned().collect();
        prop_assert_eq!(sum(&together), sum(&coverage.cells(1)));
        prop_assert!(below.iter().all(|cell| cell.range.end <= middle));
        prop_assert!(above.iter().all(|cell| cell.range.start >= middle));
        prop_assert_eq!(coverage.cells_in(span, cells), coverage.cells(cells));
        // One byte is in one granule, or in a gap.
        let one = coverage.cells_in(middle + 1..middle + 2, cells);
        prop_assert!(one.len() <= 1);
        prop_assert!(one.iter().all(|cell| cell.range == (middle..middle + granule)));
    }

    #[test]
    fn nonsense_is_refused_or_drawn_within_bounds(
        granule in any_number(),
        stretches in prop::collection::vec(
            (any_number(), prop::collection::vec(prop::array::uniform4(any_number()), 0..4)),
            0..4,
        ),
        range in (any_number(), any_number()),
    ) {
        let stretches: Vec<Stretch> = stretches
            .into_iter()
            .map(|(start, runs)| Stretch {
                start,
                runs: runs
                    .into_iter()
                    .map(|[count, a, b, c]| run(count, shares(a, b, c)))
                    .collect(),
            })
            .collect();
        let (made, bytes) = weighed(|| Coverage::from_stretches(granule, &stretches, MOST));
        prop_assert!(bytes < 64 * MOST as u64, "{bytes} bytes");
        if let Ok(coverage) = made {
            prop_assert!(coverage.granules() <= MOST);
            prop_assert!(coverage.cells(100).len() <= 100);
            prop_assert!(coverage.cells_in(range.0..range.1, 100).len() <= 100);
            prop_assert!(coverage.coarser(2).granules() <= 2);
        }
    }
}

#[test]
fn parts_of_no_picture_are_refused_with_the_reason() {
    let of = |granule, stretches: &[(u64, &[Alike])]| {
        let stretches: Vec<Stretch> = stretches
            .iter()
            .map(|(start, runs)| Stretch {
                start: *start,
                runs: runs.to_vec(),
            })
            .collect();
        Coverage::from_stretches(granule, &stretches, MOST).unwrap_err()
    };
    let one = run(1, shares(16, 0, 0));
    let many = run(10_u64.pow(18), shares(16, 0, 0));
    for granule in [0, 3, 4097] {
        assert_eq!(of(granule, &[]), CoverageError::Granule { granule });
    }
    assert_eq!(
        of(4096, &[(16, &[one])]),
        CoverageError::Start {
            start: 16,
            granule: 4096
        }
    );
    let order = CoverageError::Order {
        start: 4096,
        end: 12288,
    };
    assert_eq!(of(4096, &[(4096, &[one, one]), (4096, &[one])]), order);
    assert_eq!(of(4096, &[(8192, &[one]), (4096, &[one])]), order);
    let too_many = CoverageError::TooMany { most: MOST };
    assert_eq!(of(4096, &[(4096, &[many])]), too_many);
    assert_eq!(of(4096, &[(4096, &[one, many, many])]), too_many);
    let end = 0xffff_ffff_ffff_f000;
    assert_eq!(
        of(4096, &[(end, &[one])]),
        CoverageError::End { start: end }
    );
    for over in [
        shares(4097, 0, 0),
        shares(4000, 97, 0),
        shares(u64::MAX, u64::MAX, 1),
    ] {
        let error = CoverageError::Shares {
            start: 4096,
            granule: 4096,
        };
        assert_eq!(of(4096, &[(4096, &[run(1, over)])]), error);
    }
}

#[test]
fn shares_that_no_number_holds_read_as_four_gibibytes() {
    let granule = 1 << 31;
    let stretch = Stretch {
        start: 0,
        runs: vec![run(64, shares(granule, 0, 0))],
    };
    let coverage = Coverage::from_stretches(granule, &[stretch], 64).unwrap();
    let coarse = coverage.coarser(1);
    assert_eq!((coarse.granule(), coarse.granules()), (1 << 37, 1));
    assert_eq!(sum(&coarse.cells(1)), (u64::from(u32::MAX), 0, 0));
}

#[test]
fn nothing_has_no_span() {
    let nothing = Coverage::default();
    assert!(nothing.is_empty() && nothing.span().is_none());
    assert_eq!((nothing.granule(), nothing.bytes()), (0, 0));
    assert_eq!(nothing.coarser(10), nothing);
    assert!(nothing.cells_in(0..u64::MAX, 10).is_empty());
    let stretch = Stretch {
        start: 0,
        runs: vec![run(1, shares(0, 0, 0))],
    };
    let something = Coverage::from_stretches(16, &[stretch], 1).unwrap();
    assert_eq!(something.coarser(0), nothing);
}

#[test]
fn pictures_of_a_walk_lie_where_its_arenas_do() {
    let image = hostile::image();
    let heap = walk(&image.space, &options(Some((2, 36)), 2))
        .unwrap()
        .remove(0);
    for (arena, laid) in heap.arenas.iter().zip(&image.arenas) {
        let span = arena.coverage.span().unwrap();
        for segment in &laid.segments {
            let chunks = || segment.chunks.iter();
            assert!(chunks().all(|chunk| span.start <= chunk.at && chunk.at < span.end));
            // One granule tells as much as its page holds.
            let first = chunks().next().unwrap().at;
            let cell = arena.coverage.cells_in(first..first + 1, 1).remove(0);
            assert_eq!(cell.range.end - cell.range.start, arena.coverage.granule());
            assert!(cell.range.contains(&first) && cell.shares.in_use > 0);
        }
    }
}
