//! Looks in a recording: pictures of arenas come back as they were written, and what somebody made
//! up is refused in words and within bounds.

#![allow(clippy::unwrap_used)]

use malloc_stats::heap::{Address, Alike, Arena, Coverage, Heap, Shares, Stretch};
use malloc_stats::inspect::Inspection;
use plimsoll_events::{Event, Kind, Look, Recorder, Replay, Stream};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What a look is written with: so many arenas, and so many granules of each.
const ARENAS: usize = 64;
const GRANULES: usize = 2048;

fn alike(count: u64, in_use: u64, free_resident: u64, free_released: u64) -> Alike {
    Alike {
        count,
        shares: Shares {
            in_use,
            free_resident,
            free_released,
        },
    }
}

fn coverage(granule: u64, stretches: &[Stretch]) -> Coverage {
    Coverage::from_stretches(granule, stretches, 1 << 20).unwrap()
}

fn arena(index: usize, system_mem: u64, coverage: Coverage) -> Arena {
    Arena {
        index,
        address: Address(0x7f00_0000_0030 + index as u64),
        system_mem,
        coverage,
        ..Arena::default()
    }
}

fn look(arenas: Vec<Arena>) -> Look {
    Look {
        inspection: Inspection {
            pid: 4121,
            heap: Some(Heap {
                arenas,
                ..Heap::default()
            }),
            ..Inspection::default()
        },
    }
}

/// No two pages in a row alike.
fn striped(granules: u64) -> Coverage {
    let runs = (0..granules)
        .map(|at| alike(1, at % 7, at % 2, at % 3))
        .collect();
    coverage(
        4096,
        &[Stretch {
            start: 0x7f00_0000_0000,
            runs,
        }],
    )
}

fn arenas_of(look: &mut Look) -> &mut Vec<Arena> {
    &mut look.inspection.heap.as_mut().unwrap().arenas
}

fn there_and_back(look: &Look) -> Look {
    serde_json::from_str(&serde_json::to_string(look).unwrap()).unwrap()
}

prop_compose! {
    fn any_arena()(power in 4_u32..31, system_mem in 0..1000_u64)(
        system_mem in Just(system_mem),
        granule in Just(1_u64 << power),
        parts in prop::collection::vec(
            (0..3_u64, prop::collection::vec((1..600_u64, prop::array::uniform3(0..=1_u64 << power)), 1..6)),
            0..6,
        ),
    ) -> Arena {
        let mut start = 0x7f00_0000_0000 / granule * granule;
        let mut stretches = Vec::new();
        for (gap, runs) in parts {
            start += gap * granule;
            let runs: Vec<Alike> = runs
                .into_iter()
                .map(|(count, mut cuts)| {
                    cuts.sort_unstable();
                    alike(count, cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1])
                })
                .collect();
            let length: u64 = runs.iter().map(|run| run.count).sum();
            stretches.push(Stretch { start, runs });
            start += length * granule;
        }
        arena(0, system_mem, coverage(granule, &stretches))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_back_is_the_picture_made_coarser(
        drawn in prop::collection::vec(any_arena(), 0..6),
    ) {
        let drawn = drawn.into_iter().enumerate();
        let arenas: Vec<Arena> = drawn.map(|(index, arena)| Arena { index, ..arena }).collect();
        let written = look(arenas);
        let mut expected = written.clone();
        for arena in arenas_of(&mut expected) {
            arena.coverage = arena.coverage.coarser(GRANULES);
        }
        let read = there_and_back(&written);
        prop_assert_eq!(&read, &expected);
        prop_assert_eq!(there_and_back(&read), expected);
    }

    #[test]
    fn maps_that_somebody_made_up_are_refused_or_bounded(
        maps in prop::collection::vec(any_map(), 0..5),
    ) {
        let mut form = serde_json::to_value(look(vec![
            arena(0, 1, Coverage::default()),
            arena(1, 1, Coverage::default()),
        ])).unwrap();
        form["maps"] = Value::Array(maps);
        match serde_json::from_value::<Look>(form) {
            Ok(mut look) => {
                let granules = arenas_of(&mut look).iter().map(|arena| arena.coverage.granules());
                prop_assert!(granules.sum::<usize>() <= 1 << 20);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

fn any_map() -> impl Strategy<Value = Value> {
    let number = || {
        prop_oneof![
            any::<u64>(),
            0..8_u64,
            Just(4096_u64),
            (0..64_u32).prop_map(|power| 1 << power),
        ]
    };
    let runs = prop::collection::vec(prop::array::uniform4(number()), 0..4);
    let stretches = prop::collection::vec((number(), runs), 0..4);
    (0..3_u64, number(), stretches).prop_map(|(arena, granule, stretches)| {
        let stretches: Vec<Value> = stretches
            .into_iter()
            .map(|(start, runs)| json!([format!("{start:#x}"), runs]))
            .collect();
        json!({"arena": arena, "granule": granule, "stretches": stretches})
    })
}

#[test]
fn an_inspection_alone_has_no_pictures() {
    let look = look(vec![arena(0, 1, striped(10))]);
    let inspection = serde_json::to_value(&look.inspection).unwrap();
    let mut form = serde_json::to_value(&look).unwrap();
    assert_eq!(form["inspection"], inspection);
    assert_eq!(form["maps"].as_array().unwrap().len(), 1);
    // Without any it is the form of an inspection, and the other way round.
    form.as_object_mut().unwrap().remove("maps");
    let mut read: Look = serde_json::from_value(form.clone()).unwrap();
    assert!(arenas_of(&mut read)[0].coverage.is_empty());
    assert_eq!(serde_json::to_value(&read).unwrap(), form);
}

#[test]
fn the_arenas_with_most_memory_are_drawn() {
    let arenas: Vec<Arena> = (0..100_usize)
        .map(|index| arena(index, (index as u64 * 37) % 100, striped(3)))
        .collect();
    let mut written = look(arenas);
    let form = serde_json::to_value(&written).unwrap();
    assert_eq!(form["maps"].as_array().unwrap().len(), ARENAS);
    let mut read = there_and_back(&written);
    for (read, written) in arenas_of(&mut read).iter().zip(arenas_of(&mut written)) {
        let drawn = written.system_mem >= 100 - ARENAS as u64;
        assert_eq!(!read.coverage.is_empty(), drawn, "{}", written.system_mem);
        assert!(!drawn || read.coverage == written.coverage);
    }
}

/// The form is part of what recordings are: it stays readable.
#[test]
fn the_form_is_what_the_documentation_says() {
    let runs = vec![alike(33, 4096, 0, 0), alike(12, 64, 4032, 0)];
    let start = 0x55d0_c0de_0000;
    let written = look(vec![arena(
        3,
        9,
        coverage(4096, &[Stretch { start, runs }]),
    )]);
    assert_eq!(
        serde_json::to_value(&written).unwrap()["maps"],
        json!([{"arena": 3, "granule": 4096,
            "stretches": [["0x55d0c0de0000", [[33, 4096, 0, 0], [12, 64, 4032, 0]]]]}])
    );
}

/// Sixty-four arenas of which no two pages are alike are the most there is to write.
#[test]
fn the_longest_line_can_be_read_again() {
    let busy = |index: usize| {
        let at = |at: u64| alike(1, (2 << 20) + at % 97, (1 << 20) + at, (1 << 20) + at % 31);
        let runs = (0..1 << 13).map(at).collect();
        let start = 0x7f00_0000_0000 + ((index as u64) << 40);
        arena(index, 1, coverage(1 << 23, &[Stretch { start, runs }]))
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("looks.jsonl");
    let written = look((0..ARENAS).map(busy).collect());
    let stream = Stream::new(Recorder::create(&file).unwrap());
    stream.emit(Kind::Look(Box::new(written.clone())));
    drop(stream);
    let event = Replay::open(&file).unwrap().next_event().unwrap();
    let Some(Event {
        kind: Kind::Look(read),
        ..
    }) = event
    else {
        panic!("{event:?}");
    };
    let mut expected = written;
    for arena in arenas_of(&mut expected) {
        arena.coverage = arena.coverage.coarser(GRANULES);
    }
    assert!(*read == expected);
}

#[test]
fn what_is_no_map_is_refused_in_words() {
    let form = |maps: Value| {
        let arenas = (0..70).map(|at| arena(at, 1, Coverage::default()));
        let mut form = serde_json::to_value(look(arenas.collect())).unwrap();
        form["maps"] = maps;
        form
    };
    let refused = |maps: Value| {
        let form = form(maps);
        let error = serde_json::from_value::<Look>(form.clone()).unwrap_err();
        // As part of a stream it is refused too, and not taken for something else.
        let mut event = form;
        for (key, value) in [("v", json!(2)), ("seq", json!(0)), ("at_us", json!(0))] {
            event[key] = value;
        }
        event["event"] = json!("look");
        assert!(serde_json::from_value::<Event>(event).is_err());
        error.to_string()
    };
    let map = |arena: u64, granule: u64, stretches: Value| json!({"arena": arena, "granule": granule, "stretches": stretches});
    let run = json!([[1, 16, 0, 0]]);
    let good = json!([["0x1000", run]]);
    let cases = [
        (json!([map(0, 0, good.clone())]), "granule of 0 bytes"),
        (json!([map(0, 4097, good.clone())]), "not a power of two"),
        (
            json!([map(0, 4096, json!([["0x1008", run]]))]),
            "no multiple",
        ),
        (
            json!([map(0, 4096, json!([["0x1000", run], ["0x1000", run]]))]),
            "the one before it ends at 0x2000",
        ),
        (
            json!([map(0, 4096, json!([["0x3000", run], ["0x1000", run]]))]),
            "the one before it ends at 0x4000",
        ),
        (
            json!([map(
                0,
                4096,
                json!([["0x1000", [[10_u64.pow(18), 0, 0, 0]]]])
            )]),
            "granules in all",
        ),
        (
            json!([map(0, 16, json!([["0xfffffffffffffff0", run]]))]),
            "beyond the last address",
        ),
        (
            json!([map(0, 4096, json!([["0x1000", [[1, 4096, 1, 0]]]]))]),
            "holds more than that",
        ),
        (json!([map(0, 4096, json!([["1000", run]]))]), "an address"),
        (json!([map(70, 4096, good.clone())]), "a map of arena 70"),
        (
            json!([map(1, 4096, good.clone()), map(1, 4096, good.clone())]),
            "a map of arena 1",
        ),
        (
            Value::Array((0..65).map(|at| map(at, 4096, good.clone())).collect()),
            "65 maps of arenas, where 64 are the most",
        ),
        // Each of them alone would do.
        (
            Value::Array(
                (0..3)
                    .map(|at| map(at, 16, json!([["0x1000", [[1 << 19, 0, 0, 0]]]])))
                    .collect(),
            ),
            "the maps have more than 1048576 granules in all",
        ),
    ];
    for (maps, words) in cases {
        let said = refused(maps);
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
    assert!(serde_json::from_value::<Look>(form(json!([map(0, 4096, good)]))).is_ok());
}
