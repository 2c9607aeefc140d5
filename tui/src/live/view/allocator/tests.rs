use std::sync::Arc;

use malloc_stats::heap::{Address, Fault, Torn};
use malloc_stats::{AllocatorReading, JemallocStats, Metric, Setting, SettingGrade};

use super::*;
use crate::live::state::Dated;
use crate::live::view::made_up::{ASCII, Frame, MIB, arena, captioned, heap, state};

fn frame(width: u16, height: u16) -> Frame<'static> {
    Frame {
        size: (width, height),
        ..ASCII
    }
}

fn text(state: &State, frame: Frame<'_>) -> String {
    captioned(&mut Allocator::default(), state, frame).0
}

#[test]
fn a_panel_has_its_sums_and_the_worst_arenas() {
    let state = state(1_000_000, heap());
    insta::assert_snapshot!(text(&state, frame(60, 8)), @r"
    (glibc 2.36, 3 arenas + mmapped, walk 191.0 ms)
    in use             7.13G  #######################
    free, resident     2.11G                         ++++++
    given back         1.51G                               ~~~~~
    trimmable ~1.86G  stuck ~256.0M  sub-page ~56.0M
    WASTE               23 %  2.11G of 9.23G resident
       ARENA  SYSTEM  IN_USE    RESv  WASTE PIN
           1   4.05G  900.0M   2.00G   69 % 32B Python str     #
        main   6.51G   6.09G  100.0M  1.6 % -                  |
    ");
    insta::assert_snapshot!(text(&state, frame(50, 6)), @r"
    (glibc 2.36, 3 arenas + mmapped, walk 191.0 ms)
    in use             7.13G  ################
    free, resident     2.11G                  +++++
    trimmable ~1.86G  stuck ~256.0M  sub-page ~56.0M
    WASTE               23 %  2.11G of 9.23G resident
       ARENA  IN_USE    RESv  WASTE PIN
           1  900.0M   2.00G   69 % 32B Python str   #
    ");
    let unicode = Frame {
        unicode: true,
        ..frame(118, 10)
    };
    insta::assert_snapshot!(text(&state, unicode), @r"
    (glibc 2.36, 3 arenas + mmapped, walk 191.0 ms)
    mmap ≥32.0M risen from 128.0K  trim ≥64.0M  arenas by cores     ARENA  SYSTEM  IN_USE    RES▼  WASTE PIN
    in use             7.13G  ██████████████████████                    1   4.05G  900.0M   2.00G   69 % 32B Python str
    free, resident     2.11G                        ▒▒▒▒▒▒           main   6.51G   6.09G  100.0M  1.6 % -
    given back         1.51G                              ░░░░░        *2  120.0M   96.0M    8.0M  7.7 % locked  -
    trimmable ~1.86G  stuck ~256.0M  sub-page ~56.0M
    WASTE               23 %  2.11G of 9.23G resident
    ");
}

#[test]
fn the_whole_screen_has_settings_pins_sizes_and_notes() {
    let mut heap = heap();
    heap.layout.versions = "2.35–2.41".into();
    heap.layout.object = "/lib/libc\u{1b}.so.6".into();
    heap.notes.push("a note on the heap".into());
    let mut state = state(1_000_000, heap);
    let setting = |value: &str, grade| Setting {
        value: value.into(),
        grade,
    };
    let settings = [
        ("mmap_threshold", setting("131072", SettingGrade::Probed)),
        ("tcache_count", setting("0", SettingGrade::Refused)),
    ];
    let settings = settings.map(|(knob, setting)| (knob.to_owned(), setting));
    state.vitals.settings = settings.into_iter().collect();
    let whole = Frame {
        expanded: true,
        focused: true,
        unicode: true,
        ..frame(160, 40)
    };
    insta::assert_snapshot!(text(&state, whole), @r"
    (glibc 2.36, 3 arenas + mmapped, walk 191.0 ms)
    mmap ≥32.0M risen from 128.0K  trim ≥64.0M  arenas by cores
    in use             7.13G  ████████████████████████████████████████████████████████████████████████
    free, resident     2.11G                                                                          ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒                costs RAM
    given back         1.51G                                                                                               ░░░░░░░░░░░░░░░ free, costs none
    trimmable ~1.86G  stuck ~256.0M  sub-page ~56.0M, arena tops 200.0M, and in thread caches 12.0M
    WASTE               23 %  1 − in_use/heap_rss: 2.11G of 9.23G resident
       ARENA   SYSTEM   IN_USE     FREE     RES▼   WASTE   THR                    PIN
    ▶      1    4.05G   900.0M    3.17G    2.00G    69 %     1  ██▒▒▒▒▒░░░······  32B@7f2bc3400010 Python str
        main    6.51G    6.09G   428.0M   100.0M   1.6 %     0  ███████████████▒  -
          *2   120.0M    96.0M    24.0M     8.0M   7.7 %     2  █▒░·············  locked  -


    settings in force, read from the heap itself                                     notes
      mmap_threshold       32.0M  risen from 128.0K, still moves                       a note on the heap
      trim_threshold       64.0M  still moves
      top_pad                 0B
      mmap_max             65536  mmapped chunks at most
      arena_max              any  by the number of cores
      tcache                   7  blocks of each size, up to 1.0K
      huge pages            none

    pins: no automatic shrinking passes these blocks
      arena  address           block     keeps   resident  seems to be
          1  7f2bc3400010        32B     3.17G      2.00G  Python str

    chunks by size (█ in use, ▒ free)
         from    in use    chunks      free    chunks
          32B     39.1K      1000        0B         0  █
         1.0M     7.13G      5120     3.61G      1024  █████████████████▒▒▒

    mmapped chunks
      2 chunks by malloc's count, 64.0M; 64.0M resident

    settings asked for, and what came of it
      mmap_threshold                131072  behaves so
      tcache_count                       0  refused

    walk
      read as glibc 2.35–2.41, by its structures alone, of /lib/libc\u{1b}.so.6
      whole: 5 segments
    ");
    // Where there is less room the rest is a page away.
    let mut view = Allocator::default();
    let low = Frame {
        size: (80, 24),
        ..whole
    };
    let first = captioned(&mut view, &state, low).0;
    assert!(first.contains("more lines: page down"), "{first}");
    for _ in 0..9 {
        assert_eq!(view.act(Action::PageDown, &state), Wish::Redraw);
        captioned(&mut view, &state, low);
    }
    let last = captioned(&mut view, &state, low).0;
    assert!(last.contains("a note on the heap"), "{last}");
    assert!(!last.contains("more lines"), "{last}");
}

#[test]
fn changes_since_the_mark_have_signs() {
    let mut before = heap();
    before.arenas[1] = arena(1, 1000, 1000, 1300);
    before.arenas.pop();
    before.totals.in_use = Metric::Exact(7400 * MIB);
    before.totals.cached_resident = Metric::Upper(156 * MIB);
    before.totals.heap_rss = Metric::Exact(7600 * MIB);
    let before = state(1, before);
    let now = state(1_000_000, heap());
    let diff = Frame {
        since: Some(&before),
        ..frame(100, 16)
    };
    insta::assert_snapshot!(text(&now, diff), @r"
    (glibc 2.36, 3 arenas + mmapped, walk 191.0 ms)
    mmap >=32.0M risen from 128.0K  trim >=64.0M  arenas by cores
    in use             7.13G   -100.0M  #########################
    free, resident     2.11G   ~+1.95G                           ++++++++      costs RAM
    given back         1.51G         =                                   ~~~~~ free, costs none
    trimmable ~1.86G =  stuck ~256.0M =  sub-page ~56.0M, arena tops 200.0M, and in thread caches 12.0M
    WASTE               23 %  mark 2.6 % (+20.2 pt)  1 - in_use/heap_rss: 2.11G of 9.23G resident

       ARENA   SYSTEM   IN_USE     FREE     RESv   WASTE   THR                    PIN
           1    4.05G   900.0M    3.17G    2.00G    69 %     1  ##+++++~~~......  32B Python str
              +848.0M  -100.0M  +948.0M   +1.02G   +19.5     =
        main    6.51G    6.09G   428.0M   100.0M   1.6 %     0  ###############+  -
                    =        =        =        =       =     =
          *2   120.0M    96.0M    24.0M     8.0M   7.7 %     2  #+~.............  locked  -
                                                                                  new since then
    ");
}

#[test]
fn the_age_of_a_walk_and_what_it_missed_are_said() {
    let mut torn = heap();
    torn.torn = Torn {
        segments: 5,
        unresolved: 2,
        unresolved_bytes: MIB,
        faults: vec![Fault {
            arena: 1,
            address: Address(0x7000),
            reason: "its size is 0".into(),
            stable: false,
        }],
        ..Torn::default()
    };
    let mut state = state(1_000_000, torn);
    let page = text(&state, frame(80, 12));
    assert!(
        page.contains("TORN: 2 of 5 stretches not followed, 1.0M in no count"),
        "{page}"
    );
    assert!(
        page.starts_with("(glibc 2.36, 3 arenas + mmapped, walk 191.0 ms)"),
        "{page}"
    );
    state.at_us = 13_000_000;
    let page = text(&state, frame(80, 12));
    assert!(page.contains("walk 12 s ago, 191.0 ms"), "{page}");
    // A clock that jumps back makes nothing old.
    state.at_us = 0;
    assert!(text(&state, frame(80, 12)).contains("walk 191.0 ms"));
}

fn reading(at_us: u64) -> Dated<AllocatorReading> {
    let value = AllocatorReading {
        name: "glibc 2.36".into(),
        in_use: Metric::Exact(100 * MIB),
        cached_resident: Metric::Estimated(300 * MIB),
        returned_virtual: Metric::Estimated(50 * MIB),
        heap_rss: Metric::Upper(400 * MIB),
        ..AllocatorReading::default()
    };
    Dated { at_us, value }
}

#[test]
fn what_the_allocator_says_itself_counts_where_no_look_is_as_new() {
    let mut known = state(1_000_000, heap());
    known.vitals.allocator = Some(reading(999_999));
    assert!(text(&known, frame(60, 8)).contains("in use             7.13G"));
    known.vitals.allocator = Some(reading(1_000_001));
    let page = text(&known, frame(60, 8));
    assert!(page.contains("in use            100.0M"), "{page}");
    // The arenas stay those of the walk.
    assert!(page.contains("4.05G"), "{page}");
    known.look = None;
    insta::assert_snapshot!(text(&known, frame(60, 8)), @r"
    (glibc 2.36)
    in use            100.0M  ########
    free, resident   ~300.0M          ++++++++++++++++++++++
    given back        ~50.0M                                ~~~~
    WASTE               75 %  <=300.0M of <=400.0M resident

    its heap was not walked: arenas and pins are not known
    ");
}

#[test]
fn jemalloc_has_numbers_of_its_own() {
    let mut known = State::default();
    let mut value = reading(5).value;
    value.name = "jemalloc (linked into the program)".into();
    value.jemalloc = Some(JemallocStats {
        allocated: 700 * MIB,
        active: 800 * MIB,
        metadata: 20 * MIB,
        resident: 1000 * MIB,
        mapped: 1100 * MIB,
        retained: 300 * MIB,
        dirty: 150 * MIB,
        muzzy: 0,
    });
    known.vitals.allocator = Some(Dated { at_us: 5, value });
    insta::assert_snapshot!(text(&known, frame(100, 10)), @r"
    (jemalloc (linked into the program))
    allocated         700.0M  ##################################
    active            800.0M  ######################################           pages with any of it
    dirty            ~150.0M  +++++++                                          free, a purge returns it
    muzzy                ~0B                                                   the kernel's if it wants
    resident       <=1000.0M  ++++++++++++++++++++++++++++++++++++++++++++++++ at most
    metadata           20.0M  #                                                its own records
    retained          300.0M  ~~~~~~~~~~~~~~                                   addresses, no memory
    WASTE               75 %  1 - in_use/heap_rss: <=300.0M of <=400.0M resident
    ");
}

#[test]
fn why_there_is_no_heap_is_said_with_what_is_known() {
    insta::assert_snapshot!(text(&State::default(), frame(60, 3)), @r"
    ()
    its heap was not walked: arenas and pins are not known
    ");
    let mut known = state(1_000_000, heap());
    let look = known.look.as_mut().unwrap();
    let inspection = Arc::make_mut(&mut look.value);
    inspection.heap = None;
    inspection.allocator.name = "mimalloc".into();
    inspection.allocator.version = None;
    inspection.allocator.mappings_rss = Metric::Upper(3 * MIB);
    inspection.heap_absent =
        Some("the heap of mimalloc cannot be walked – only that of glibc can\u{1b}[2J".into());
    insta::assert_snapshot!(text(&known, frame(60, 5)), @r"
    (mimalloc)
    n/a: the heap of mimalloc cannot be walked - only that of
    glibc can\u{1b}[2J
    mappings it seems to own: <= 3.0 MiB resident
    ");
}

#[test]
fn rows_are_sorted_filtered_selected_and_opened() {
    let known = state(1_000_000, heap());
    let mut view = Allocator::default();
    let order = |view: &mut Allocator, filter| {
        let frame = Frame {
            focused: true,
            filter,
            ..frame(80, 12)
        };
        captioned(view, &known, frame);
        let known = heap_of(&known).unwrap();
        let arenas = Arenas::of(known, None, (view.by, view.reversed), filter).arenas;
        arenas.iter().map(|arena| arena.index).collect::<Vec<_>>()
    };
    assert_eq!(order(&mut view, ""), [1, 0, 2]);
    view.act(Action::Reverse, &known);
    assert_eq!(order(&mut view, ""), [2, 0, 1]);
    view.act(Action::Sort, &known);
    assert_eq!((view.by, order(&mut view, "")), (By::Waste, vec![1, 2, 0]));
    assert_eq!(order(&mut view, "python"), [1]);
    assert_eq!(order(&mut view, "locked"), [2]);
    assert_eq!(order(&mut view, "main"), [0]);
    assert_eq!(order(&mut view, "\u{1b}"), [] as [usize; 0]);
    assert_eq!(view.act(Action::Open, &known), Wish::Ignored);

    order(&mut view, "");
    view.act(Action::Down, &known);
    assert_eq!(view.act(Action::Open, &known), Wish::Redraw);
    assert_eq!(view.chosen, Some(2));
    // The selection is of an arena, wherever its row goes.
    view.act(Action::Sort, &known);
    order(&mut view, "");
    view.chosen = None;
    view.act(Action::Open, &known);
    assert_eq!(view.chosen, Some(2));
}

#[test]
fn clicks_sort_select_and_open() {
    let known = state(1_000_000, heap());
    let mut view = Allocator::default();
    let (_, hits) = captioned(&mut view, &known, frame(80, 12));
    let header = hits
        .iter()
        .find(|hit| hit.does == Click::SortBy(0))
        .unwrap();
    view.click(&header.does, &known);
    let (_, hits) = captioned(&mut view, &known, frame(80, 12));
    assert_eq!((view.by, view.reversed), (By::Arena, false));
    let row = hits
        .iter()
        .find(|hit| hit.does == Click::Select(1))
        .unwrap();
    assert_eq!((row.area.width, row.area.height), (80, 1));
    view.click(&row.does, &known);
    assert_eq!(view.chosen, None);
    view.click(&row.does, &known);
    assert_eq!(view.chosen, Some(1));
    assert_eq!(view.click(&Click::SortBy(99), &known), Wish::Ignored);
}

#[test]
fn more_arenas_than_rows_scroll_with_the_selection() {
    let mut many = heap();
    many.arenas = (0..40)
        .map(|index| arena(index, 1, index as u64, 1))
        .collect();
    let known = state(1_000_000, many);
    let mut view = Allocator::default();
    let focused = Frame {
        focused: true,
        ..frame(60, 10)
    };
    captioned(&mut view, &known, focused);
    view.act(Action::Last, &known);
    let page = captioned(&mut view, &known, focused).0;
    assert!(page.contains(">   main"), "{page}");
    view.act(Action::PageUp, &known);
    view.act(Action::First, &known);
    let page = captioned(&mut view, &known, focused).0;
    assert!(page.contains(">     39"), "{page}");
}
