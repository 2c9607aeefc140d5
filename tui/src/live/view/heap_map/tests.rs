use std::sync::Arc;

use malloc_stats::heap::{Chunk, ChunkState, ChunksSeen};

use super::*;
use crate::live::view::Hit;
use crate::live::view::made_up::{ASCII, Frame, MIB, arena, captioned, coverage, heap, state};

fn frame(width: u16, height: u16) -> Frame<'static> {
    Frame {
        size: (width, height),
        ..ASCII
    }
}

fn focused(width: u16, height: u16) -> Frame<'static> {
    Frame {
        focused: true,
        ..frame(width, height)
    }
}

#[test]
fn the_worst_arena_is_drawn_with_its_pin() {
    let state = state(1_000_000, heap());
    let text = |frame| captioned(&mut HeapMap::default(), &state, frame).0;
    insta::assert_snapshot!(text(frame(60, 8)), @r"
    (arena 1 (of 3), cell 11.1M)
    7f2b00000000 ########################################*......
    7f2b208b0000 ...............................................
    7f2b41160000 .......................................+*******
    7f2b61a10000 ********************************+
    7f2b822c0000
    7f2ba2b70000                                               P
    P 32B@7f2bc3400010 Python str  keeps 2.00G from shrinking
    # in use  *+: part  . free  blank back  P pin
    ");
    insta::assert_snapshot!(text(focused(50, 6)), @r"
    (arena 1 (of 3), cell 21.1M)
    7f2b00000000 #####################+...............
    7f2b30d10000 ................................:****
    7f2b61a10000 *****************:
    7f2b92710000                                     P
    arrows move a cursor, zoom goes closer, down..
    P 32B@7f2bc3400010 Python str  keeps 2.00G
    ");
    let unicode = Frame {
        unicode: true,
        ..frame(118, 10)
    };
    insta::assert_snapshot!(text(unicode), @r"
    (arena 1 (of 3), cell 3.8M)
    7f2b00000000 █████████████████████████████████████████████████████████████████████████████████████████████████████████
    7f2b18690000 ████████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░
    7f2b30d10000 ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░
    7f2b49390000 ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓
    7f2b61a10000 ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒
    7f2b7a090000
    7f2b92710000
    7f2baad90000                                                                                                         P
    P 32B@7f2bc3400010 Python str  keeps 2.00G from shrinking
    █ in use  ▓▒∶ partly  ░ free, resident  blank given back  P pin
    ");
}

#[test]
fn the_map_goes_closer_and_back() {
    let known = state(1_000_000, heap());
    let mut view = HeapMap::default();
    captioned(&mut view, &known, focused(60, 8));
    view.act(Action::Down, &known);
    assert_eq!(view.act(Action::ZoomIn, &known), Wish::Redraw);
    insta::assert_snapshot!(captioned(&mut view, &known, focused(60, 8)).0, @r"
    (arena 1 (of 3), 385.5M of 3.05 GiB, cell 2.1M)
    7f2b1b6c0000 #####+.........................................
    7f2b21720000 ...............................................
    7f2b27780000 ...............................................
    7f2b2d7e0000 ...............................................
    ########[+.......]...........+*******+                     :
    > 7f2b26f50000+2.1M  in use 0 %  free 100 %  back 0 %
    P 32B@7f2bc3400010 Python str  keeps 2.00G from shrinking
    # in use  *+: part  . free  blank back  P pin
    ");
    let closer = view.picture.bytes();
    assert!(
        closer < 4148 * MIB / 7 && closer > 4148 * MIB / 20,
        "{closer}"
    );
    // Down to where chunks are asked for, around the cursor, and no more than a MiB of them.
    let cursor = view.cursor.unwrap();
    let wish = (0..20)
        .map(|_| {
            captioned(&mut view, &known, focused(60, 8));
            view.act(Action::ZoomIn, &known)
        })
        .find(|wish| *wish != Wish::Redraw);
    let Some(Wish::Chunks { arena, from, to }) = wish else {
        panic!("{wish:?}")
    };
    assert_eq!(arena, 1);
    assert!(
        to - from <= MIB && (from..to).contains(&cursor),
        "{from:x}-{to:x}"
    );
    // And all the way back.
    let back = (0..20).take_while(|_| view.act(Action::ZoomOut, &known) == Wish::Redraw);
    assert!(back.count() > 2);
    let (page, _) = captioned(&mut view, &known, focused(60, 8));
    assert!(page.starts_with("(arena 1 (of 3), cell "), "{page}");
}

#[test]
fn arenas_follow_each_other_and_a_chosen_one_stays() {
    let known = state(1_000_000, heap());
    let mut view = HeapMap::default();
    let shown = |view: &mut HeapMap| {
        let (page, _) = captioned(view, &known, frame(60, 8));
        page.lines().next().map(str::to_owned).unwrap()
    };
    assert!(shown(&mut view).contains("(arena 1 (of 3)"));
    view.act(Action::Arena, &known);
    assert!(shown(&mut view).contains("(main arena (of 3)"));
    view.act(Action::Arena, &known);
    assert!(shown(&mut view).contains("(arena 2 (of 3)"));
    view.act(Action::Arena, &known);
    assert!(shown(&mut view).contains("(arena 1 (of 3)"));
    view.arena = Some(0);
    view.act(Action::ZoomIn, &known);
    assert!(shown(&mut view).contains("(main arena (of 3)"));
    assert!(view.zoom.is_empty(), "ranges of another arena");
    view.arena = Some(77);
    assert!(shown(&mut view).contains("(arena 1 (of 3)"));
}

#[test]
fn a_click_moves_the_cursor_and_a_second_goes_closer() {
    let known = state(1_000_000, heap());
    let mut view = HeapMap::default();
    let (_, hits) = captioned(&mut view, &known, focused(60, 8));
    let at = |hits: &[Hit], x, y| {
        let hit = hits.iter().find(|hit| (hit.area.x, hit.area.y) == (x, y));
        hit.unwrap().does.clone()
    };
    // The frame lies two columns and two rows from the corner, the address takes thirteen.
    let click = at(&hits, 2 + 13 + 5, 2 + 1);
    assert_eq!(click, Click::Select(47 + 5));
    view.click(&click, &known);
    assert_eq!(view.cursor, Some(view.picture.cells[52].range.start));
    assert!(view.zoom.is_empty());
    view.click(&click, &known);
    assert_eq!(view.zoom.len(), 1);
}

#[test]
fn what_changed_since_the_mark_stands_out() {
    let mut before = heap();
    let start = before.arenas[1].coverage.span().unwrap().start;
    before.arenas[1].coverage = coverage(start, &[(64, 65536, 0), (64, 0, 65536), (64, 0, 0)]);
    let mut now = before.clone();
    now.pins.clear();
    now.arenas[1].coverage = coverage(
        start,
        &[
            (32, 65536, 0),
            (32, 0, 65536),
            (32, 0, 65536),
            (32, 0, 0),
            (32, 0, 65536),
            (32, 65536, 0),
        ],
    );
    let (before, now) = (state(1, before), state(2, now));
    let diff = Frame {
        since: Some(&before),
        ..frame(60, 8)
    };
    insta::assert_snapshot!(captioned(&mut HeapMap::default(), &now, diff).0, @r"
    (arena 1 (of 3), cell 64.0K)
    7f2b00000000 ################################fffffffffffffff
    7f2b002f0000 fffffffffffffffff..............................
    7f2b005e0000 ..rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrttttttttttttt
    7f2b008d0000 tttttttttttttttttttnnnnnnnnnnnnnnnnnnnnnnnnnnnn
    7f2b00bc0000 nnnn

    no pin is known: its top shrinks by itself
    n new in use  f freed  r given back  t free, resident again
    ");
}

/// Chunks from the beginning of a range to the pin, and a top behind it.
fn seen(arena: usize, range: Range<u64>, pin: u64) -> ChunksSeen {
    let rest = (pin - 16).saturating_sub(range.start + 65_536 + 131_072 + 1_040);
    let sizes = [
        (65_536, ChunkState::InUse, 65_536),
        (131_072, ChunkState::Free, 40_960),
        (1_040, ChunkState::Cached, 1_040),
        (rest, ChunkState::Free, 0),
        (32, ChunkState::InUse, 32),
        (65_504, ChunkState::Top, 0),
    ];
    let mut next = range.start;
    let chunks = sizes.map(|(size, state, resident)| {
        let address = next;
        next += size;
        Chunk {
            address,
            size,
            state,
            resident,
        }
    });
    ChunksSeen {
        arena,
        range,
        chunks: chunks.to_vec(),
        beyond: 7,
        notes: vec!["a header made no sense".into()],
    }
}

#[test]
fn chunks_are_listed_with_the_pin_marked() {
    let mut known = state(1_000_000, heap());
    let mut view = HeapMap::default();
    captioned(&mut view, &known, focused(96, 12));
    view.act(Action::Last, &known);
    let mut wish = Wish::Redraw;
    while wish == Wish::Redraw {
        wish = view.act(Action::ZoomIn, &known);
        captioned(&mut view, &known, focused(96, 12));
    }
    let Wish::Chunks { arena, from, to } = wish else {
        panic!("{wish:?}")
    };
    let (page, _) = captioned(&mut view, &known, focused(96, 12));
    assert!(page.contains("reading the chunks from"), "{page}");

    known.chunks = Some(Err("a recording has no chunks: only a process has".into()));
    let (page, _) = captioned(&mut view, &known, focused(96, 12));
    assert!(
        page.contains("no chunks: a recording has no chunks"),
        "{page}"
    );

    let pin = known
        .look
        .as_ref()
        .unwrap()
        .value
        .heap
        .as_ref()
        .unwrap()
        .pins[0]
        .address
        .0;
    assert!(
        (from..to).contains(&pin),
        "what is gone closer to is the pin"
    );
    known.chunks = Some(Ok(Arc::new(seen(arena, from..to, pin))));
    let (page, hits) = captioned(&mut view, &known, focused(96, 12));
    insta::assert_snapshot!(page, @r"
    (arena 1 (of 3), chunks of 7f2bc3350000-7f2bc3410000)
    ########................................................................................P-------
            CHUNK      SIZE  STATE         RESIDENT
     7f2bc3350000     64.0K  in use             all  #
     7f2bc3360000    128.0K  free             40.0K  .-
     7f2bc3380000      1.0K  thread cache       all  *
     7f2bc3380410    511.0K  free                0B  --------
    P7f2bc3400000       32B  in use             all  #         32B@7f2bc3400010 Python str
     7f2bc3400020     64.0K  top                 0B  -



    6 chunks  and 7 more that were not read  a header made no sense
    ");
    assert_eq!(view.list.as_ref().unwrap().selected, 4, "that of the pin");
    let row = hits
        .iter()
        .find(|hit| hit.does == Click::Select(1))
        .unwrap();
    view.click(&row.does, &known);
    assert_eq!(view.list.as_ref().unwrap().selected, 1);
    view.act(Action::Up, &known);
    view.act(Action::PageDown, &known);
    view.act(Action::Last, &known);
    captioned(&mut view, &known, focused(96, 12));
    assert_eq!(view.list.as_ref().unwrap().selected, 5);
    let filtered = Frame {
        filter: "free",
        ..focused(96, 12)
    };
    let (page, _) = captioned(&mut view, &known, filtered);
    assert!(
        page.contains("2 chunks") && !page.contains("thread cache"),
        "{page}"
    );
    // Chunks of another arena are not those that were asked for.
    known.chunks = Some(Ok(Arc::new(seen(arena + 1, from..to, pin))));
    let (page, _) = captioned(&mut view, &known, focused(96, 12));
    assert!(page.contains("reading the chunks"), "{page}");
    assert_eq!(view.act(Action::Back, &known), Wish::Redraw);
    let (page, _) = captioned(&mut view, &known, focused(96, 12));
    assert!(page.contains("cell "), "{page}");
}

#[test]
fn a_look_or_a_size_that_is_another_makes_other_cells() {
    let mut view = HeapMap::default();
    captioned(&mut view, &state(1, heap()), frame(60, 8));
    let first = view.picture.cells.clone();
    let mut other = heap();
    other.arenas[1] = arena(1, 2048, 900, 1200);
    captioned(&mut view, &state(1, other), frame(60, 8));
    assert_ne!(view.picture.cells, first);
    captioned(&mut view, &state(1, heap()), frame(70, 8));
    assert_ne!(view.picture.cells.len(), first.len());
}

#[test]
fn a_range_that_is_gone_is_left() {
    let known = state(1, heap());
    let mut view = HeapMap::default();
    captioned(&mut view, &known, focused(60, 8));
    view.act(Action::Last, &known);
    view.act(Action::ZoomIn, &known);
    captioned(&mut view, &known, focused(60, 8));
    let mut shrunk = heap();
    shrunk.arenas[1] = arena(1, 4, 4096, 0);
    shrunk.arenas[1].coverage = arena(1, 4, 40, 0).coverage;
    let (page, _) = captioned(&mut view, &state(2, shrunk), focused(60, 8));
    assert!(page.contains('#'), "{page}");
    assert!(view.zoom.is_empty());
}

#[test]
fn where_there_is_nothing_to_draw_the_reason_is_said() {
    let page = |known: &State| captioned(&mut HeapMap::default(), known, frame(60, 3)).0;
    insta::assert_snapshot!(page(&State::default()), @r"
    ()
    the heap was not walked: there is no map of it
    ");
    let mut known = state(1, heap());
    Arc::make_mut(&mut known.look.as_mut().unwrap().value).heap = None;
    insta::assert_snapshot!(page(&known), @r"
    ()
    no heap to draw: its heap was not looked into; what is known
    of it is in ALLOCATOR
    ");
    let mut bare = heap();
    for arena in &mut bare.arenas {
        arena.coverage = malloc_stats::heap::Coverage::default();
    }
    insta::assert_snapshot!(page(&state(1, bare)), @r"
    (arena 1 (of 3))
    there is no picture of this arena: the look that was
    recorded has none, or nothing of it could be walked
    ");
}

#[test]
fn this_process_is_drawn_from_a_walk_of_it() {
    use malloc_stats::inspect::{Ask, Target, inspect};
    let ask = Ask {
        surroundings: false,
        ..Ask::default()
    };
    let target = Target::open(std::process::id()).unwrap();
    let look = inspect(&target, &ask).unwrap();
    if look.heap.is_none() {
        println!("skipped: {:?}", look.heap_absent);
        return;
    }
    let mut known = State::default();
    known.look = Some(crate::live::state::Dated {
        at_us: 0,
        value: Arc::new(look),
    });
    let mut view = HeapMap::default();
    let (page, hits) = captioned(&mut view, &known, focused(200, 40));
    assert!(page.contains("cell "), "{page}");
    assert_eq!(hits.len(), view.picture.cells.len());
    // The process goes on meanwhile: how much there is of it is not to be foretold.
    assert!(view.picture.bytes() > 0 && page.contains('#'), "{page}");
}
